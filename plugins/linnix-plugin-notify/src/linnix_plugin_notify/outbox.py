"""The pages on disk, so that neither a crash nor a restart loses or repeats one.

A small SQLite database in the component's data folder, one row for each page. A transaction
that has returned is on the disk (``synchronous=FULL``), and the file is locked as long as it is
open: two agents would tell everything twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from linnix_core import LinnixError, PluginUnavailable
from linnix_plugin_notify.pages import Page, as_dict, from_dict

__all__ = ["NotSaved", "Outbox"]

_VERSION = 1


class NotSaved(LinnixError):
    """The disk does not take it now."""


class Outbox:
    """The file. Safe to use from several threads, one at a time."""

    def __init__(self, path: Path, logger: logging.Logger) -> None:
        self.path = path
        self._logger = logger
        # Made here, so that it is private before anything is in it.
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)
            self._connection = self._open()
        except OSError as error:
            raise PluginUnavailable(
                f"cannot open the outbox {path} ({error.strerror})",
                hint="let this user write there, or choose another data_dir",
            ) from None

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise self._unavailable(error) from None
        # What cannot be read cannot be told: better to go on without it than never again.
        aside = self.path.with_name(f"{self.path.name}.damaged")
        self._logger.error("%s is damaged and was moved to %s", self.path, aside.name)
        self.path.replace(aside)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            raise self._unavailable(error) from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=1.0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=TRUNCATE")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN EXCLUSIVE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise PluginUnavailable(  # noqa: TRY301
                    f"{self.path} is of a newer version of Linnix",
                    hint="update linnix-plugin-notify, or move the file away",
                )
            connection.execute(
                "CREATE TABLE IF NOT EXISTS pages (key TEXT PRIMARY KEY, page TEXT NOT NULL)"
            )
            connection.execute(f"PRAGMA user_version={_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _unavailable(self, error: sqlite3.Error) -> PluginUnavailable:
        if "locked" in str(error):
            return PluginUnavailable(
                f"another agent uses the outbox {self.path}",
                hint="stop it, or give this one a data_dir of its own",
            )
        return PluginUnavailable(
            f"cannot open the outbox {self.path} ({error})",
            hint="make room on the disk and let this user write there",
        )

    def load(self) -> list[Page]:
        """Every page that was saved; those that cannot be read are told of and left out."""
        pages = []
        for key, text in self._connection.execute("SELECT key, page FROM pages"):
            try:
                pages.append(from_dict(json.loads(text)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._logger.warning("the page %s in %s cannot be read: %s", key, self.path, error)
        return pages

    def save(self, pages: Mapping[str, Page | None]) -> None:
        """Save these pages, None for one that is gone. Raises `NotSaved`, then nothing is."""
        gone = [(key,) for key, page in pages.items() if page is None]
        there = [
            (key, json.dumps(as_dict(page), separators=(",", ":")))
            for key, page in pages.items()
            if page is not None
        ]
        try:
            self._save(gone, there)
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise NotSaved(f"cannot write to {self.path}: {error}") from error

    def _save(self, gone: Iterable[tuple[str]], there: Iterable[tuple[str, str]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("DELETE FROM pages WHERE key = ?", gone)
        self._connection.executemany("INSERT OR REPLACE INTO pages VALUES (?, ?)", there)
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file, and let others have it."""
        self._connection.close()
