"""The files of a model on this machine that may be removed with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from linnix_core import LinnixError
from linnix_plugin_models.registry import Model
from linnix_plugin_models.syncfile import SyncFile, this_location

__all__ = ["local_files", "remove_files"]


def local_files(model: Model, sync: SyncFile) -> list[Path]:
    """What was pulled or made for it: everything of it inside of the folder of models.

    Raises `LinnixError` for what is elsewhere: that was there before Linnix knew of it.
    """
    here = this_location()
    root = sync.models_dir().absolute()
    found = {Path(a.path) for a in model.artifacts if a.location == here}
    if here in model.locations:
        found.add(Path(model.locations[here]))
    for path in found:
        if root not in path.parents or ".." in path.parts:
            raise LinnixError(
                f"{path} is not in {root}, where models are pulled to, and stays",
                hint="remove it by hand, and say linnix models delete without --files",
            )
    return sorted(path for path in found if path.exists())


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files and folders, and the folder of the model if nothing is left in it."""
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
                if not any(path.parent.iterdir()):
                    path.parent.rmdir()
        except OSError as error:
            raise LinnixError(f"{error.filename or path}: {error.strerror or error}") from error
