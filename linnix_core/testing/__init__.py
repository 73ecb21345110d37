"""Conformance kit for plugin authors: contracts to inherit, and fixtures for other tests.

    from linnix_core.testing import HandlerContract

    class TestJsonl(HandlerContract):
        @pytest.fixture
        def plugin_class(self):
            return JsonlHandler

        @pytest.fixture
        def options(self, tmp_path):
            return {"path": str(tmp_path / "out.jsonl")}

One such class is the whole of a plugin's ``tests/test_contract.py``; see
`linnix_core.testing.contracts`. The fixtures ``linnix_context``, ``linnix_records``,
``linnix_distribution`` and ``linnix_runtime`` are there in every test, without an import
(`linnix_core.testing.fixtures`). Needs pytest: ``pip install "linnix-core[testing]"``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from linnix_core.testing.contracts import CollectorContract as CollectorContract
    from linnix_core.testing.contracts import DeployerContract as DeployerContract
    from linnix_core.testing.contracts import HandlerContract as HandlerContract
    from linnix_core.testing.contracts import ReasonerContract as ReasonerContract

__all__ = ["CollectorContract", "DeployerContract", "HandlerContract", "ReasonerContract"]

# Before the first import of the contracts: so that a failed assert shows its values.
pytest.register_assert_rewrite("linnix_core.testing.contracts", "linnix_core.testing.trial")


def __getattr__(name: str) -> Any:
    # Pytest imports this package in every run, for the fixtures: the rest has to wait.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.contracts"), name)
