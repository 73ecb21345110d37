"""A bounded, crash-safe history in SQLite: findings, events, and the tree at any moment."""

from linnix_plugin_sqlite.__about__ import __version__
from linnix_plugin_sqlite.config import SqliteConfig
from linnix_plugin_sqlite.handler import SqliteHandler
from linnix_plugin_sqlite.reader import Cost, Moment, Reader, Report, tree_at

__all__ = [
    "Cost",
    "Moment",
    "Reader",
    "Report",
    "SqliteConfig",
    "SqliteHandler",
    "__version__",
    "tree_at",
]
