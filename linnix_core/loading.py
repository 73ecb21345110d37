"""From a catalog record to the class behind it, through stevedore."""

from __future__ import annotations

import threading
from importlib.metadata import EntryPoint
from typing import Any

from stevedore.driver import DriverManager

from linnix_core.catalog import PluginRecord
from linnix_core.errors import PluginError

__all__ = ["load"]


class _CatalogDriver(DriverManager[Any]):
    """A driver manager that is given its entry point instead of looking for it.

    So nothing else is imported, and stevedore's cache on disk, which serves a stale list
    for minutes after a reinstall, is never asked.
    """

    def __init__(self, record: PluginRecord, entry_point: EntryPoint) -> None:
        self._given = entry_point
        super().__init__(
            namespace=f"linnix.{record.kind}",
            name=record.name,
            on_missing_entrypoints_callback=None,
        )

    def list_entry_points(self) -> list[EntryPoint]:
        return [self._given]


def load(record: PluginRecord) -> Any:
    """Import what the record names and return it.

    Raises `PluginError` with the code ``import`` for whatever goes wrong while importing,
    ``SystemExit`` included: the module of a plugin cannot end the run.
    """
    if record.entry_point is None:
        raise PluginError("metadata", f"{record.source} has no entry point to load")
    try:
        # Not ``.driver``: that returns something else for a falsy object.
        return _CatalogDriver(record, record.entry_point).extensions[0].plugin
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _is_main_thread():
            raise
        raise PluginError(
            "import",
            f"{record.value} of {record.source} cannot be imported: {describe(error)}",
        ) from error


def describe(error: BaseException) -> str:
    """An exception as a clause: its type, and its words if it has any."""
    try:
        words = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - its own __str__ is a plugin's too
        words = "it cannot even be shown"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
