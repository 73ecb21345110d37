"""The file of a model: where it is, and whether it looks like one."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path

from linnix_core import LinnixError, PluginUnavailable, printable

__all__ = ["GROUP", "check", "find"]

#: The group of entry points whose functions return the path of a model's file.
GROUP = "linnix_plugin_llama_cpp.models"

#: The one that is used where no path is given.
DEFAULT = "demo"

_MAGIC = b"GGUF"


def find(model: Path | None) -> Path:
    """The absolute path of the model's file; without one, that of the demo model.

    Raises `PluginUnavailable` where no model is given or installed.
    """
    if model is not None:
        return Path(os.path.abspath(model.expanduser()))  # noqa: PTH100 - keeps symbolic links
    for entry_point in entry_points(group=GROUP, name=DEFAULT):
        try:
            return Path(entry_point.load()())
        except Exception as error:
            raise PluginUnavailable(
                f"the demo model cannot be found: {error}", hint="set model to a GGUF file"
            ) from error
    raise PluginUnavailable(
        "no model is given",
        hint="set model to a GGUF file, or pip install linnix-plugin-demo-model",
    )


def check(path: Path) -> None:
    """See that the file can be read by this process and begins like a model."""
    shown = printable(str(path), 200)
    try:
        with path.open("rb") as file:
            begin = file.read(len(_MAGIC))
    except PermissionError as error:
        raise LinnixError(
            f"the model {shown} cannot be read by uid {os.geteuid()}: {error.strerror}",
            hint="let that account read the file and enter the folders around it",
        ) from error
    except OSError as error:
        raise LinnixError(
            f"the model {shown} cannot be read: {error.strerror}", hint="correct model"
        ) from error
    if begin != _MAGIC:
        raise LinnixError(
            f"the model {shown} is no GGUF file",
            hint="convert it, or choose a file that ends in .gguf",
        )
