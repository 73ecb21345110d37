"""Runs a model in a GGUF file with llama.cpp: explains incidents with it, and serves it.

Everything is loaded on first use: reasoner and deployer need nothing of each other, and the
process that runs a model needs neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from linnix_plugin_llama_cpp.__about__ import __version__

if TYPE_CHECKING:
    from linnix_plugin_llama_cpp.deployer import LlamaCppDeployer, LlamaCppDeployerConfig
    from linnix_plugin_llama_cpp.reasoner import LlamaCppReasoner, LlamaCppReasonerConfig

__all__ = [
    "LlamaCppDeployer",
    "LlamaCppDeployerConfig",
    "LlamaCppReasoner",
    "LlamaCppReasonerConfig",
    "__version__",
]

_HOME = {
    "LlamaCppDeployer": "deployer",
    "LlamaCppDeployerConfig": "deployer",
    "LlamaCppReasoner": "reasoner",
    "LlamaCppReasonerConfig": "reasoner",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
