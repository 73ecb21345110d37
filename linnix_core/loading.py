"""From a catalog record to the class behind it, through stevedore."""

from __future__ import annotations

import functools
import importlib
import threading
from typing import Any

from linnix_core.catalog import PluginRecord
from linnix_core.errors import PluginError

__all__ = ["load"]


def load(record: PluginRecord) -> Any:
    """Import what the record names and return it.

    Raises `PluginError` with the code ``import`` for whatever goes wrong while importing,
    ``SystemExit`` included: the module of a plugin cannot end the run.
    """
    if record.given is not None:
        return record.given
    if not record.value:
        raise PluginError("metadata", f"{record.source} has no entry point to load")
    try:
        return _command(record) if record.kind == "commands" else _plugin(record)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _is_main_thread():
            raise
        raise PluginError(
            "import",
            f"{record.value} of {record.source} cannot be imported: {describe(error)}",
        ) from error


def _plugin(record: PluginRecord) -> Any:
    from linnix_core.driver import CatalogDriver

    # Not ``.driver``: that returns something else for a falsy object.
    return CatalogDriver(record).extensions[0].plugin


def _command(record: PluginRecord) -> Any:
    """One command, for which somebody waits: importing stevedore takes longer than most do."""
    module, _, attributes = record.value.partition("[")[0].partition(":")
    found = importlib.import_module(module.strip())
    return functools.reduce(getattr, filter(None, attributes.strip().split(".")), found)


def describe(error: BaseException) -> str:
    """An exception as a clause: its type, and its words if it has any."""
    try:
        words = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - its own __str__ is a plugin's too
        words = "it cannot even be shown"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
