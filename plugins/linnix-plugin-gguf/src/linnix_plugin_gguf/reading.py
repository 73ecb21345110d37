"""A model on disk, understood: a checkpoint, or an adapter over its base."""

from __future__ import annotations

from pathlib import Path

from linnix_core import LinnixError, printable
from linnix_plugin_gguf.adapter import BY_PEFT, Merged, is_adapter
from linnix_plugin_gguf.architecture import Architecture
from linnix_plugin_gguf.checkpoint import Checkpoint, Weights, read_json
from linnix_plugin_gguf.vocabulary import read_vocabulary, tokenizer_folder
from linnix_plugin_gguf.writing import Model

__all__ = ["read_model"]


def read_model(source: Path, base: Path | None = None) -> Model:
    """Read what is at ``source``; ``base`` is where the base of an adapter is.

    Raises `LinnixError`, and `NotSupported` for models that are not converted here.
    """
    folder = source if source.is_dir() else source.parent
    if not is_adapter(folder):
        checkpoint = Checkpoint(source)
        return _model(checkpoint, checkpoint, tokenizer_folder(folder))
    below = base or _said(folder)
    if is_adapter(below):
        raise LinnixError(
            f"the base in {below} is an adapter itself",
            hint=BY_PEFT,
        )
    checkpoint = Checkpoint(below)
    return _model(checkpoint, Merged(checkpoint, folder), tokenizer_folder(folder, below))


def _model(checkpoint: Checkpoint, weights: Weights, tokenizer: Path) -> Model:
    architecture = Architecture.of(checkpoint.config)
    parts = architecture.parts(weights)
    vocabulary = read_vocabulary(tokenizer)
    vocabulary.pad(parts[0].shape[0])
    return Model(
        weights=weights,
        architecture=architecture,
        parts=parts,
        folder=checkpoint.folder,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
    )


def _said(folder: Path) -> Path:
    """The base that an adapter names, if that is a folder here."""
    name = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    path = Path(str(name)).expanduser()
    if name and (path / "config.json").is_file():
        return path
    shown = printable(str(name or "unknown"), 120)
    raise LinnixError(
        f"the base of the adapter, {shown}, is not on this machine",
        hint=f"linnix models pull hf:{shown}, then register the adapter with "
        "--adapter-of and the name of that model",
    )
