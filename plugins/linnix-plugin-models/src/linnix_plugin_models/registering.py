"""What ``models register`` and ``training register-model`` have in common."""

from __future__ import annotations

from typing import Any

import click

from linnix_core import printable
from linnix_plugin_models.display import print_json, progress_bar
from linnix_plugin_models.files import Files
from linnix_plugin_models.registry import Model

__all__ = ["register_path", "say_registered"]


def register_path(
    files: Files, path: str, location: str | None, *, hashes: bool | None, **known: Any
) -> Model:
    """Register what is at a path, with a bar while its files are read."""
    from linnix_plugin_models.training import register_training_run

    with progress_bar("hashing") as progress:
        return register_training_run(
            path,
            location=location,
            registry=files.registry,
            sync=files.sync,
            hashes=hashes,
            progress=progress,
            **known,
        )


def say_registered(model: Model, as_json: bool) -> None:
    """What is known now."""
    if as_json:
        print_json(model.as_dict())
        return
    places = ", ".join(f"{place}: {path}" for place, path in model.locations.items())
    click.echo(f"{printable(model.model_id)} is registered ({printable(places)})")
