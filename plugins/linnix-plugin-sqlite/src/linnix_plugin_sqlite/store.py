"""Writing: everything of one moment in one transaction, within hard bounds on size and age."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from linnix_core import Loss, PluginUnavailable, encode
from linnix_plugin_sqlite.chunks import packed
from linnix_plugin_sqlite.opening import (
    DAMAGED,
    Tally,
    because,
    code_of,
    damaged,
    make_private,
    open_writing,
)
from linnix_plugin_sqlite.schema import migrate

__all__ = ["MINUTE_NS", "Finding", "Former", "Job", "JobCost", "NotWritten", "Row", "Store"]

MINUTE_NS = 60 * 10**9

#: What a transaction writes besides the data: pages of tables and indexes, generously.
_OVERHEAD_BYTES = 64 * 4096

#: Chunks, or findings, that go at once to make room.
_CHUNKS_AT_ONCE = 4
_FINDINGS_AT_ONCE = 32

#: Steps at once in which a file shrinks that was larger than it may be now.
_VACUUM_STEPS = 16

#: The time in which a handler is flushed: what a killed run was missing is of that length.
_FLUSH_NS = 10**9


class NotWritten(Exception):
    """Nothing of this transaction is in the database; ``why`` is a word for the counters."""

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


class Row(NamedTuple):
    """A chunk as it is stored. One with an ``id`` that is there already replaces it."""

    id: int
    type: str
    part: int
    since_ns: int
    until_ns: int
    first_seq: int
    last_seq: int
    records: int
    raw_bytes: int
    data: bytes


class Finding(NamedTuple):
    """An alert, an incident or an insight as it is stored."""

    type: str
    ts_ns: int
    incident: str | None
    line: str


class Job(NamedTuple):
    """What short jobs are summed by: when, who started them, and where."""

    minute: int
    parent_exe: str
    cgroup: str


class JobCost(NamedTuple):
    """What they cost; ``unmeasured`` of the ``jobs`` ended without a known CPU time."""

    jobs: int
    cpu_ns: int
    unmeasured: int


class Former(NamedTuple):
    """A run that was killed; ``missing`` records had been taken and were not stored."""

    run_id: str
    missing: int | None


class Store:
    """The database of one run, and its only writer.

    ``max_bytes`` bounds the database, the log of writes beside it and their index
    together; three quarters are the database's. Raises `PluginUnavailable` where there
    is something else, and `NotWritten` where nothing but room or a lock is missing.
    """

    def __init__(self, path: Path, max_bytes: int, *, in_data_dir: bool = False) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._limit = max_bytes * 3 // 4
        # What is left of the last quarter holds the index of the log and the tally.
        self._log_limit = max_bytes // 4 - max_bytes // 64
        self._run = 0
        with contextlib.ExitStack() as undo:
            with self._refusals():
                make_private(path, in_data_dir=in_data_dir)
                self._tally = Tally(path, in_data_dir=in_data_dir)
                undo.callback(self._tally.close)
                self._connection = open_writing(path)
                undo.callback(self._connection.close)
                migrate(self._connection, str(path))
                self._page = self._number("PRAGMA page_size")
                self._next_chunk = 1 + self._number("SELECT coalesce(max(id), 0) FROM chunks")
                self._findings_bytes = self._number(
                    "SELECT coalesce(sum(length(line)), 0) FROM findings"
                )
                self._bound()
            undo.pop_all()

    # --- the run ----------------------------------------------------------------------

    def begin(self, run_id: str, host: str, component: str, now_ns: int) -> list[Former]:
        """Begin a run, and settle the accounts of those that did not end.

        What they had taken and not stored is in a `Loss` record of theirs from now on.
        """
        last_run, taken = self._tally.read()
        killed = self._all(
            "SELECT id, run_id, host, stored, lost, last_seq,"
            " coalesce(nullif(last_ns, 0), began_ns) FROM runs WHERE ended_ns IS NULL"
        )
        formers = []
        with self._transaction():
            for run, its_id, its_host, stored, lost, seq, last_ns in killed:
                missing = max(taken - stored - lost, 0) if run == last_run else None
                formers.append(Former(its_id, missing))
                self._connection.execute(
                    "UPDATE runs SET ended_ns = ?, killed = 1, lost = lost + ? WHERE id = ?",
                    (last_ns, missing or 0, run),
                )
                if missing:
                    loss = Loss(
                        component,
                        "killed",
                        missing,
                        lost + missing,
                        _FLUSH_NS,
                        ts_ns=last_ns + _FLUSH_NS,
                        # One of the numbers that are missing.
                        seq=seq + 1,
                        host=its_host,
                        run_id=its_id,
                    )
                    self._put(run, self._row_of(loss))
            self._run = self._number(
                "INSERT INTO runs (run_id, host, began_ns) VALUES (?, ?, ?) RETURNING id",
                run_id,
                host,
                now_ns,
            )
        with self._refusals():
            self._tally.write(self._run, 0)
        return formers

    def took(self, count: int) -> None:
        """Remember across a kill that ``count`` records of this run have been taken so far."""
        # Written over in place. Where that fails, only the account of a kill is off.
        with contextlib.suppress(OSError):
            self._tally.write(self._run, count)

    def chunk_number(self) -> int:
        """A number for a new chunk, larger than any before it."""
        number = self._next_chunk
        self._next_chunk += 1
        return number

    def end(self, now_ns: int) -> None:
        """The run ends as it should."""
        with self._transaction():
            self._connection.execute(
                "UPDATE runs SET ended_ns = ? WHERE id = ?", (now_ns, self._run)
            )

    def close(self) -> None:
        """Empty the log and let go."""
        with contextlib.suppress(NotWritten, PluginUnavailable):
            self._empty_log()
        self._connection.close()
        self._tally.close()

    # --- records ----------------------------------------------------------------------

    def write(
        self,
        rows: Sequence[Row],
        findings: Sequence[Finding],
        ledger: Mapping[Job, JobCost],
        *,
        stored: int,
        lost: int = 0,
    ) -> None:
        """Store all of it or nothing; ``stored`` and ``lost`` are added to the run's accounts."""
        lines = sum(len(finding.line) for finding in findings)
        need = lines + sum(len(row.data) for row in rows) + 256 * len(ledger) + _OVERHEAD_BYTES
        self._make_room(need)
        self._make_room_in_log(need)
        with self._transaction():
            for row in rows:
                self._put(self._run, row)
            self._connection.executemany(
                "INSERT INTO findings (run, type, ts_ns, incident, line) VALUES (?, ?, ?, ?, ?)",
                [(self._run, *finding) for finding in findings],
            )
            self._connection.executemany(
                "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " jobs = jobs + excluded.jobs, cpu_ns = cpu_ns + excluded.cpu_ns,"
                " unmeasured = unmeasured + excluded.unmeasured",
                [(*job, *cost) for job, cost in ledger.items()],
            )
            of_records = [row for row in rows if row.type != "tree"]
            self._connection.execute(
                "UPDATE runs SET stored = stored + ?, lost = lost + ?,"
                " last_seq = max(last_seq, ?), last_ns = max(last_ns, ?) WHERE id = ?",
                (
                    stored,
                    lost,
                    max((row.last_seq for row in of_records), default=0),
                    max(
                        [row.until_ns for row in of_records] + [f.ts_ns for f in findings],
                        default=0,
                    ),
                    self._run,
                ),
            )
        self._findings_bytes += lines

    def _row_of(self, loss: Loss) -> Row:
        line = encode(loss)
        return Row(
            id=self.chunk_number(),
            type="loss",
            part=0,
            since_ns=loss.ts_ns,
            until_ns=loss.ts_ns,
            first_seq=loss.seq,
            last_seq=loss.seq,
            records=1,
            raw_bytes=len(line) + 1,
            data=packed([line]),
        )

    def _put(self, run: int, row: Row) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO chunks"
            " (run, id, type, part, since_ns, until_ns, first_seq, last_seq, count, raw_bytes,"
            " data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (run, *row),
        )

    # --- bounds -----------------------------------------------------------------------

    def forget(self, before_ns: int, findings_before_ns: int) -> None:
        """Delete what is older, give pages back, and empty the log where it has grown."""
        while self._delete(
            "chunks", "id IN (SELECT id FROM chunks WHERE since_ns < ? LIMIT 64)", before_ns
        ):
            pass
        while self._delete(
            "findings",
            "id IN (SELECT id FROM findings WHERE ts_ns < ? LIMIT 1024)",
            findings_before_ns,
        ):
            pass
        self._delete("ledger", "minute < ?", before_ns // MINUTE_NS)
        self._delete("runs", "ended_ns < ?", min(before_ns, findings_before_ns))
        self._bound()
        if self._log_bytes() > min(self._log_limit // 2, 4 * 2**20):
            self._empty_log()

    def _bound(self) -> None:
        """Have SQLite itself refuse to grow the file; one that is larger shrinks by and by."""
        pages = self._limit // self._page
        step = self._log_limit // 2 // self._page
        for _ in range(_VACUUM_STEPS):
            too_many = self._number("PRAGMA page_count") > pages
            if not too_many or not self._number("PRAGMA freelist_count"):
                break
            self._make_room_in_log(self._log_limit * 3 // 4)
            with self._refusals():
                # As a script: `execute` would free one page and leave it at that.
                self._connection.executescript(f"PRAGMA incremental_vacuum({step})")
            # Only this cuts the file.
            self._empty_log()
        self._number(f"PRAGMA max_page_count = {pages}")

    def _make_room(self, need: int) -> None:
        """Delete the oldest until so many bytes more are allowed."""
        while self._used() + need > self._limit:
            crowded = self._findings_bytes > self._limit // 2
            if not (crowded and self._drop_findings()) and not self._drop_oldest():
                raise NotWritten("size_limit", f"{self._path} may not grow: max_bytes are in use")

    def _used(self) -> int:
        pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
        return pages * self._page

    def _drop_oldest(self) -> bool:
        oldest = "id IN (SELECT id FROM chunks ORDER BY id LIMIT ?)"
        if not self._delete("chunks", oldest, _CHUNKS_AT_ONCE):
            return self._drop_findings() or self._delete("ledger", "true")
        since = self._all("SELECT since_ns FROM chunks ORDER BY id LIMIT 1")
        if since:
            # What short jobs cost is kept as long as the records of them.
            self._delete("ledger", "minute < ?", since[0][0] // MINUTE_NS)
        return True

    def _drop_findings(self) -> bool:
        oldest = "id IN (SELECT id FROM findings ORDER BY id LIMIT ?)"
        return self._delete("findings", oldest, _FINDINGS_AT_ONCE)

    def _delete(self, table: str, where: str, *values: int) -> bool:
        """Whether there was anything; the names are this module's own."""
        if not self._all(f"SELECT 1 FROM {table} WHERE {where} LIMIT 1", *values):  # noqa: S608
            return False
        self._make_room_in_log(_OVERHEAD_BYTES)
        size = "length(line)" if table == "findings" else "0"
        with self._transaction():
            gone = self._all(
                f"DELETE FROM {table} WHERE {where} RETURNING {size}",  # noqa: S608
                *values,
            )
        self._findings_bytes -= sum(size for (size,) in gone)
        return True

    def _make_room_in_log(self, need: int) -> None:
        if self._log_bytes() + need > self._log_limit:
            self._empty_log()
            if self._log_bytes() + need > self._log_limit:
                raise NotWritten(
                    "size_limit",
                    f"{self._log} cannot be emptied while another program reads the database",
                )

    def _log_bytes(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def _empty_log(self) -> None:
        """Move the log into the database, as far as readers allow without waiting for them."""
        with self._refusals():
            self._connection.execute("PRAGMA busy_timeout = 100")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._connection.execute("PRAGMA busy_timeout = 5000")

    # --- SQLite -----------------------------------------------------------------------

    def _all(self, statement: str, *values: Any) -> list[Any]:
        with self._refusals():
            return self._connection.execute(statement, values).fetchall()

    def _number(self, statement: str, *values: Any) -> int:
        return int(self._all(statement, *values)[0][0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._refusals():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk has ended it already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say of SQLite's errors which ones may pass."""
        try:
            yield
        except sqlite3.Error as error:
            if code_of(error) in DAMAGED:
                raise damaged(self._path, error) from error
            if code_of(error) == sqlite3.SQLITE_CANTOPEN:
                raise PluginUnavailable(
                    f"{self._path} cannot be opened: {error}",
                    hint="choose another path, or let this user read and write there",
                ) from error
            raise NotWritten(because(error), f"cannot write to {self._path}: {error}") from error
        except OSError as error:
            raise NotWritten(
                because(error), f"cannot write to {self._path}: {error.strerror}"
            ) from error
