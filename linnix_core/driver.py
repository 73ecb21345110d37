"""stevedore's driver manager, given the one entry point that the catalog has found."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from stevedore.driver import DriverManager

from linnix_core.catalog import PluginRecord

__all__ = ["CatalogDriver"]


class CatalogDriver(DriverManager[Any]):
    """A driver manager that is given its entry point instead of looking for it.

    So nothing else is imported, and stevedore's cache on disk, which serves a stale list
    for minutes after a reinstall, is never asked.
    """

    def __init__(self, record: PluginRecord) -> None:
        namespace = f"linnix.{record.kind}"
        self._given = EntryPoint(record.name, record.value, namespace)
        super().__init__(
            namespace=namespace, name=record.name, on_missing_entrypoints_callback=None
        )

    def list_entry_points(self) -> list[EntryPoint]:
        """The one."""
        return [self._given]
