"""The demo model: a GGUF of some megabytes, which the reasoner ``llama-cpp`` finds by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from linnix_plugin_demo_model.__about__ import __version__

__all__ = ["__version__", "card", "path"]

_FOLDER = Path(__file__).parent


def path() -> Path:
    """The model's file."""
    return _FOLDER / "linnix-demo.gguf"


def card() -> dict[str, Any]:
    """What is known of the model: how it was made, and how it does on held-out incidents."""
    read: dict[str, Any] = json.loads((_FOLDER / "card.json").read_text(encoding="utf-8"))
    return read
