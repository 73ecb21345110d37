"""What people say of incidents: a library for whoever takes it in."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from linnix_core import LinnixError
from linnix_plugin_sqlite.opening import open_writing
from linnix_plugin_sqlite.reader import Reader

__all__ = ["MAX_NOTE_CHARS", "add_feedback"]

MAX_NOTE_CHARS = 1000


def add_feedback(
    path: Path, incident: str, *, useful: bool, note: str = "", ts_ns: int | None = None
) -> None:
    """Remember what somebody thought of an incident, also while the agent writes.

    Raises `LinnixError` where the incident is not in the history, or it cannot be written.
    """
    if len(note) > MAX_NOTE_CHARS:
        raise LinnixError(f"a note has at most {MAX_NOTE_CHARS} characters, this one {len(note)}")
    Reader(path).close()  # refuses what is no history
    moment = time.time_ns() if ts_ns is None else ts_ns
    try:
        with contextlib.closing(open_writing(path)) as connection:
            known = connection.execute(
                "SELECT 1 FROM findings WHERE incident = ? AND type = 'incident' LIMIT 1",
                (incident,),
            ).fetchone()
            if known is None:
                raise LinnixError(f"there is no incident {incident!r} in {path}")
            connection.execute(
                "INSERT INTO feedback (incident, useful, note, ts_ns) VALUES (?, ?, ?, ?)",
                (incident, useful, note, moment),
            )
    except sqlite3.Error as error:
        raise LinnixError(f"cannot write to {path}: {error}") from error
