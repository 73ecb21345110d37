"""Pytest fixtures for plugin authors; pytest loads them wherever ``linnix-core`` is installed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from linnix_core.context import Context


@pytest.fixture
def linnix_context(tmp_path: Path) -> Callable[..., Context]:
    """Make a `Context` as a run would: ``linnix_context("handlers.jsonl", clock=…)``."""
    from linnix_core.context import Context
    from linnix_core.incidents import IncidentView
    from linnix_core.processes import ProcessView

    def make(component: str = "handlers.test", **parts: Any) -> Context:
        parts.setdefault("processes", ProcessView())
        parts.setdefault("incidents", IncidentView())
        return Context(
            component=component,
            logger=logging.getLogger(f"linnix.{component}"),
            host="testhost",
            run_id="testrun",
            data_dir=tmp_path / "data" / component,
            **parts,
        )

    return make
