"""Explains incidents with models that Ollama serves, and puts models there.

Everything is loaded on first use: reasoner and deployer need nothing of each other. `Server` and
`pull` are for whoever else has to do with an Ollama server; `Store`, `publish`, `check` and
`withdraw` for deployers whose models end up on one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from linnix_plugin_ollama.__about__ import __version__

if TYPE_CHECKING:
    from linnix_plugin_ollama.chat import OllamaChat as OllamaChat
    from linnix_plugin_ollama.deployer import OllamaDeployer as OllamaDeployer
    from linnix_plugin_ollama.deployer import OllamaDeployerConfig as OllamaDeployerConfig
    from linnix_plugin_ollama.host import parse_host as parse_host
    from linnix_plugin_ollama.names import full_name as full_name
    from linnix_plugin_ollama.names import is_same_model as is_same_model
    from linnix_plugin_ollama.names import short_name as short_name
    from linnix_plugin_ollama.publishing import check as check
    from linnix_plugin_ollama.publishing import publish as publish
    from linnix_plugin_ollama.publishing import withdraw as withdraw
    from linnix_plugin_ollama.question import Question as Question
    from linnix_plugin_ollama.question import ask_once as ask_once
    from linnix_plugin_ollama.reasoner import OllamaConfig as OllamaConfig
    from linnix_plugin_ollama.reasoner import OllamaReasoner as OllamaReasoner
    from linnix_plugin_ollama.server import ModelMissing as ModelMissing
    from linnix_plugin_ollama.server import Progress as Progress
    from linnix_plugin_ollama.server import Server as Server
    from linnix_plugin_ollama.server import pull as pull
    from linnix_plugin_ollama.store import Store as Store
    from linnix_plugin_ollama.store import StoreConfig as StoreConfig

_MODULES = {
    "chat": "OllamaChat",
    "deployer": "OllamaDeployer OllamaDeployerConfig",
    "host": "parse_host",
    "names": "full_name is_same_model short_name",
    "publishing": "check publish withdraw",
    "question": "Question ask_once",
    "reasoner": "OllamaConfig OllamaReasoner",
    "server": "ModelMissing Progress Server pull",
    "store": "Store StoreConfig",
}

_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [
    "ModelMissing",
    "OllamaChat",
    "OllamaConfig",
    "OllamaDeployer",
    "OllamaDeployerConfig",
    "OllamaReasoner",
    "Progress",
    "Question",
    "Server",
    "Store",
    "StoreConfig",
    "__version__",
    "ask_once",
    "check",
    "full_name",
    "is_same_model",
    "parse_host",
    "publish",
    "pull",
    "short_name",
    "withdraw",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
