"""The tables, and how a database of an earlier version becomes one of this."""

from __future__ import annotations

import sqlite3

from linnix_core import PluginUnavailable

__all__ = ["APPLICATION_ID", "MIGRATIONS", "migrate", "require_ours"]

#: "LNXh" in the header of the file (PRAGMA application_id): what kind of database it is.
APPLICATION_ID = 0x4C4E5868

#: The statements that lead from version n to n + 1 (PRAGMA user_version). Never changed
#: once released: what a released version made is led on by the next entry.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # One run of the agent. `stored` and `lost` count its records; `lost` is what is
        # missing although the handler had taken it. `ended_ns` is null while it runs.
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, host TEXT NOT NULL,
            began_ns INTEGER NOT NULL, ended_ns INTEGER, killed INTEGER NOT NULL DEFAULT 0,
            last_seq INTEGER NOT NULL DEFAULT 0,
            last_ns INTEGER NOT NULL DEFAULT 0,
            stored INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0)""",
        # Records of one type, compressed (chunks.py). Those of events are numbered in each
        # run without gaps, from 1 on (`part`); type `tree` is a snapshot of the living after
        # all of its part and before the next.
        """CREATE TABLE chunks (
            id INTEGER PRIMARY KEY, run INTEGER NOT NULL, type TEXT NOT NULL,
            part INTEGER NOT NULL, since_ns INTEGER NOT NULL, until_ns INTEGER NOT NULL,
            first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
            count INTEGER NOT NULL, raw_bytes INTEGER NOT NULL, data BLOB NOT NULL)""",
        "CREATE INDEX chunks_by_time ON chunks (type, until_ns, since_ns)",
        # Alerts, incidents, insights and feedback; `line` is the record as it is everywhere.
        """CREATE TABLE findings (
            id INTEGER PRIMARY KEY, run INTEGER NOT NULL, type TEXT NOT NULL,
            ts_ns INTEGER NOT NULL, incident TEXT, line TEXT NOT NULL)""",
        "CREATE INDEX findings_by_time ON findings (type, ts_ns)",
        "CREATE INDEX findings_by_incident ON findings (incident) WHERE incident IS NOT NULL",
        # What jobs of less than a second cost, by minute.
        """CREATE TABLE ledger (
            minute INTEGER NOT NULL, parent_exe TEXT NOT NULL, cgroup TEXT NOT NULL,
            jobs INTEGER NOT NULL, cpu_ns INTEGER NOT NULL, unmeasured INTEGER NOT NULL,
            PRIMARY KEY (minute, parent_exe, cgroup)) WITHOUT ROWID""",
    ),
)


def require_ours(connection: sqlite3.Connection, name: str) -> int:
    """The version of the schema; 0 for an empty database.

    Raises `PluginUnavailable` for a database of something else, or of a later Linnix.
    """
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if application != APPLICATION_ID and (application or version or tables):
        raise PluginUnavailable(
            f"{name} is a database of something else than Linnix",
            hint="choose another path; nothing was changed in it",
        )
    if version > len(MIGRATIONS):
        raise PluginUnavailable(
            f"{name} was written by a newer linnix-plugin-sqlite "
            f"(schema {version}, this one knows {len(MIGRATIONS)})",
            hint="upgrade linnix-plugin-sqlite, or choose another path",
        )
    return int(version)


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Bring the schema up to date, each step whole or not at all."""
    version = require_ours(connection, name)
    if not version:
        # Only an empty database takes these.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    for number in range(version, len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in MIGRATIONS[number]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
