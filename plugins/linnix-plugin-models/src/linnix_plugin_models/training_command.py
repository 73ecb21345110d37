"""``linnix training``: what a training run leaves becomes a model of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from linnix_plugin_models.display import json_option
from linnix_plugin_models.files import Files, file_group, pass_files
from linnix_plugin_models.registering import register_path, say_registered

__all__ = ["command"]


command = file_group("training", "Take in what training runs have made.")


@command.command("register-model")
@click.argument("path")
@click.option("--id", "model_id", help="The id; the name of the path unless told.")
@click.option("-l", "--location", help="Where PATH is, if it is not plain.")
@click.option("-n", "--name", "--display-name", "display_name", help="What people call it.")
@click.option("-b", "--base", "base_model", help="The base model, where no file tells.")
@click.option("-r", "--role", help="What it is for.")
@click.option("--version", help="v1, v2…")
@click.option("--dataset", "dataset_name", help="The name of the dataset.")
@click.option("--loss", "final_loss", type=float, help="The final loss, where no file tells.")
@click.option("--alias", "aliases", multiple=True, help="Another name; taken from who has it.")
@click.option("-t", "--tag", "tags", multiple=True, help="A word to find it by.")
@click.option("--hash/--no-hash", "hashes", default=None, help="Note the SHA-256 of every file.")
@json_option
@pass_files
def register_model(
    files: Files,
    /,
    path: str,
    location: str | None,
    aliases: Sequence[str],
    tags: Sequence[str],
    hashes: bool | None,
    as_json: bool,
    **known: Any,
) -> None:
    """Register the run at PATH with the metrics that its own files hold."""
    model = register_path(
        files, path, location, hashes=hashes, aliases=list(aliases), tags=list(tags), **known
    )
    say_registered(model, as_json)
