"""A real agent with a real server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from linnix_plugin_http import HttpHandler

sys.path.insert(0, str(Path(__file__).parent))

from http_client import PATIENCE_S, Alarm, Client, Guess, family, handler_of


@pytest.fixture
def serve(linnix_runtime: Any) -> Any:
    """Start an agent with the handler, and return it with a client of its server."""

    def start(records: Any = (), **parts: Any) -> tuple[Any, Client]:
        options = {"listen": "127.0.0.1:0", **parts.pop("http", {})}
        handlers = {"http": HttpHandler, **parts.pop("handlers", {})}
        others = parts.pop("options", {})
        agent = linnix_runtime(
            handlers=handlers,
            records=records,
            options={"handlers.http": options, **others},
            **parts,
        )
        assert agent.wait_idle(PATIENCE_S)
        return agent, Client(handler_of(agent).urls[0])

    return start


@pytest.fixture
def busy(serve: Any) -> Any:
    """An agent with a family, one of which spins: an alert, an incident and an insight."""
    return serve(family(), handlers={"alarm": Alarm}, reasoners={"guess": Guess})
