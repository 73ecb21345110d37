"""Reading: records between two times, the tree at a moment, what short jobs cost."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from linnix_core import (
    Bundle,
    LinnixError,
    PluginUnavailable,
    Process,
    ProcessEvent,
    Query,
    Result,
    bundle_of,
    decode,
    printable,
)
from linnix_plugin_sqlite.chunks import MAX_SPAN_NS, lines_of
from linnix_plugin_sqlite.living import Living, as_seen
from linnix_plugin_sqlite.opening import DAMAGED, code_of, damaged, open_reading
from linnix_plugin_sqlite.schema import MIGRATIONS, require_ours
from linnix_plugin_sqlite.store import MINUTE_NS

__all__ = ["FINDINGS", "MAX_LIMIT", "Cost", "Moment", "Reader", "Report", "tree_at"]

#: Types that are stored one by one.
FINDINGS = ("alert", "incident", "insight", "feedback")

#: Records that one answer holds at most, whatever is asked for.
MAX_LIMIT = 100_000

#: How long before an incident opened or got worse is looked at to explain it, in nanoseconds.
BUNDLE_NS = 120 * 10**9

#: By how many nanoseconds a chunk begins before the end of the former one only where the clock
#: was set back: one spans half of it, and records overtake each other by less.
SET_BACK_NS = 2 * MAX_SPAN_NS

_FOREVER = 2**63 - 1


@attrs.frozen
class Moment:
    """Who was alive at ``ts_ns``, as far as was recorded.

    ``as_of_ns`` is the time of the last event that the answer rests on. ``recording`` is
    false where no agent ran at that moment: then this is how the run before it ended.
    ``lost`` counts the records that this run lost at any time: unless it is 0, somebody may
    be here who had ended, or be missing.
    """

    ts_ns: int
    as_of_ns: int
    run_id: str
    host: str
    recording: bool
    lost: int
    processes: tuple[Process, ...]


@attrs.frozen
class Cost:
    """Short jobs of one parent executable in one cgroup; empty texts are not known.

    ``cpu_s`` sums user and system time; ``unmeasured`` of the ``jobs`` had none.
    """

    parent_exe: str
    cgroup: str
    jobs: int
    cpu_s: float
    unmeasured: int


@attrs.frozen
class Report:
    """The state of a database: ``problems`` is empty where all is well."""

    problems: tuple[str, ...]
    bytes: int
    chunks: dict[str, dict[str, int]]
    findings: dict[str, int]
    runs: tuple[dict[str, Any], ...]


def tree_at(path: Path, ts_ns: int) -> Moment:
    """The processes that were alive at a moment. Raises `LinnixError` where it is not known."""
    with contextlib.closing(Reader(path)) as reader:
        return reader.tree_at(ts_ns)


class Reader:
    """Reads a database while it is being written, or when nobody does.

    Each call is a few short reads, so that the writer's log can be emptied in between;
    safe to use from several threads. Raises `LinnixError` for what cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection = open_reading(path)
        try:
            with self._explained():
                self._require_current()
        except BaseException:
            self._connection.close()
            raise

    def _require_current(self) -> None:
        if require_ours(self._connection, str(self._path)) < len(MIGRATIONS):
            raise LinnixError(
                f"{self._path} is of an earlier version",
                hint=f"let the agent bring it up to date: linnix run --handler sqlite:{self._path}",
            )

    def close(self) -> None:
        """Let go."""
        with self._lock:
            self._connection.close()

    # --- records ----------------------------------------------------------------------

    def query(self, query: Query) -> Result:
        """Records of the types asked for, all if none is named, in the order of their time.

        Where the limit cuts, the first ones after ``since_ns`` remain; without it, the
        last ones. ``incident`` asks for what was published about one incident.
        """
        limit = max(min(query.limit, MAX_LIMIT), 0)
        latest = query.since_ns is None
        found: list[Any] = []
        whole = True
        for type_ in query.types or (*self._types(), *FINDINGS):
            if type_ in FINDINGS:
                records: Iterable[Any] = self._findings(type_, query, limit, latest)
            elif query.incident is None and type_ != "tree":
                records = self._records(type_, query, latest)
            else:
                continue
            for number, record in enumerate(records):
                if number >= limit:
                    whole = False
                    break
                if record is None:
                    whole = False
                    continue
                found.append(record)
        found.sort(key=lambda record: (record.ts_ns, record.seq))
        if len(found) > limit:
            whole = False
            found = found[len(found) - limit :] if latest else found[:limit]
        return Result(tuple(found), complete=whole)

    def _types(self) -> list[str]:
        rows = self._all("SELECT DISTINCT type FROM chunks WHERE type != 'tree'")
        return [type_ for (type_,) in rows]

    def ended_runs(self) -> frozenset[str]:
        """The ids of runs of which no more will come: they ended, or their end was noticed."""
        return frozenset(
            run_id for (run_id,) in self._all("SELECT run_id FROM runs WHERE ended_ns IS NOT NULL")
        )

    def _findings(self, type_: str, query: Query, limit: int, latest: bool) -> Iterator[Any]:
        order = "DESC" if latest else "ASC"
        rows = self._all(
            "SELECT line FROM findings WHERE type = ? AND ts_ns BETWEEN ? AND ?"  # noqa: S608
            " AND (? IS NULL OR incident = ?)"
            f" ORDER BY ts_ns {order}, id {order} LIMIT ?",
            type_,
            *_between(query),
            query.incident,
            query.incident,
            limit + 1,
        )
        for (line,) in rows:
            yield _decoded(line)

    def _records(self, type_: str, query: Query, latest: bool) -> Iterator[Any]:
        """One by one, so that whoever asks can stop; None for what cannot be read."""
        since_ns, until_ns = _between(query)
        rows = self._all(
            "SELECT id, last_seq FROM chunks WHERE type = ? AND until_ns >= ?"  # noqa: S608
            f" AND since_ns <= ? ORDER BY id {'DESC' if latest else 'ASC'}",
            type_,
            since_ns,
            until_ns,
        )
        for id_, _ in rows:
            lines = self._lines(id_)
            if lines is None:
                yield None
                continue
            for line in reversed(lines) if latest else lines:
                record = _decoded(line)
                if record is None or since_ns <= record.ts_ns <= until_ns:
                    yield record

    def _lines(self, chunk: int) -> list[bytes] | None:
        """The lines of a chunk; none where it has been deleted meanwhile, None if damaged."""
        rows = self._all("SELECT data FROM chunks WHERE id = ?", chunk)
        if not rows:
            return []
        try:
            return lines_of(rows[0][0])
        except ValueError:
            return None

    # --- a moment ---------------------------------------------------------------------

    def tree_at(self, ts_ns: int) -> Moment:
        """The processes that were alive at a moment.

        Made of the last snapshot before it and of the events since. Raises `LinnixError`
        where the history does not reach back so far.
        """
        run, run_id, host, ended_ns, last_ns, lost = self._run_at(ts_ns)
        chunks = self._all(
            "SELECT id, part, since_ns, until_ns FROM chunks WHERE type = 'event' AND run = ?"
            " ORDER BY part",
            run,
        )
        first, last = _parts_at(chunks, ts_ns)
        snapshots = self._all(
            "SELECT id, part FROM chunks WHERE type = 'tree' AND run = ?"
            " AND (part < ? OR (part <= ? AND until_ns <= ?)) ORDER BY id DESC LIMIT 1",
            run,
            first,
            last,
            ts_ns,
        )
        living, part = Living(), 0
        if snapshots:
            id_, part = snapshots[0]
            living = Living.restored(self._required(id_))
        for id_, its_part, since_ns, _ in chunks:
            if not part < its_part <= last:
                continue
            part += 1
            if its_part != part:
                raise self._too_early(ts_ns)
            before = its_part < first
            for line in self._required(id_) if before or since_ns <= ts_ns else ():
                event = decode(line)
                if isinstance(event, ProcessEvent) and (before or event.ts_ns <= ts_ns):
                    living.apply(event)
        return Moment(
            ts_ns,
            living.latest_ns,
            run_id,
            host,
            ts_ns <= max(last_ns, ended_ns or 0),
            lost,
            tuple(living),
        )

    def _run_at(self, ts_ns: int) -> tuple[int, str, str, int | None, int, int]:
        runs = self._all(
            "SELECT runs.id, run_id, host, ended_ns, last_ns, lost"
            " FROM runs JOIN chunks ON chunks.run = runs.id"
            " WHERE chunks.type IN ('event', 'tree') AND chunks.since_ns <= ?"
            " ORDER BY chunks.since_ns DESC, chunks.id DESC LIMIT 1",
            ts_ns,
        )
        if not runs:
            raise self._too_early(ts_ns)
        run: tuple[int, str, str, int | None, int, int] = runs[0]
        return run

    def _too_early(self, ts_ns: int) -> LinnixError:
        ((first,),) = self._all("SELECT min(since_ns) FROM chunks WHERE type = 'tree'")
        if first is None:
            ((first,),) = self._all("SELECT min(since_ns) FROM chunks WHERE type = 'event'")
        if first is None:
            return LinnixError(f"{self._path} holds no events of processes")
        return LinnixError(
            "the history of processes does not reach back so far",
            hint=f"ask for a moment {(first - ts_ns) / 1e9:.0f} s later, or after that",
        )

    def _required(self, chunk: int) -> list[bytes]:
        lines = self._lines(chunk)
        if not lines:
            said = "damaged" if lines is None else "deleted meanwhile: it was the oldest"
            raise LinnixError(
                f"part {chunk} of the history is {said}",
                hint="linnix history check says more",
            )
        return lines

    # --- an incident ------------------------------------------------------------------

    def bundle(self, incident: str) -> Bundle:
        """An incident by its id, as reasoners were asked: when it opened or last got worse.

        Raises `LinnixError` where it is not known.
        """
        published = self.query(Query(("incident",), incident=incident, limit=MAX_LIMIT)).records
        if not published:
            raise LinnixError(
                f"{self._path} holds no incident {printable(incident, 80)}",
                hint="those that it holds: linnix history list incidents",
            )
        asked = [each for each in published if each.change in ("opened", "worse")]
        told = (asked or published)[-1]
        since_ns, until_ns = told.updated_ns - BUNDLE_NS, told.updated_ns
        around = Query((), since_ns, until_ns)
        alerts = Query(("alert",), told.opened_ns, until_ns, limit=MAX_LIMIT)
        return bundle_of(
            told,
            itertools.chain(
                self._living_at(since_ns, told.run_id),
                # One by one: a storm has more than memory should hold.
                heapq.merge(
                    *(self._readable(type_, around) for type_ in self._types()),
                    key=lambda record: record.ts_ns,
                ),
                self.query(alerts).records,
                self.query(Query(("insight",), incident=incident)).records,
            ),
        )

    def _living_at(self, ts_ns: int, run_id: str) -> Iterable[ProcessEvent]:
        try:
            moment = self.tree_at(ts_ns)
        except LinnixError:
            return ()  # The run began later: the records have all that is known.
        return map(as_seen, moment.processes) if moment.run_id == run_id else ()

    def _readable(self, type_: str, query: Query) -> Iterator[Any]:
        for record in self._records(type_, query, latest=False):
            if record is not None:
                yield record

    # --- short jobs -------------------------------------------------------------------

    def ledger(self, since_ns: int | None = None, until_ns: int | None = None) -> list[Cost]:
        """What jobs of less than a second cost, the dearest first, in the minutes that touch."""
        rows = self._all(
            "SELECT parent_exe, cgroup, sum(jobs), sum(cpu_ns), sum(unmeasured) FROM ledger"
            " WHERE minute BETWEEN ? AND ? GROUP BY parent_exe, cgroup"
            " ORDER BY sum(cpu_ns) DESC, sum(jobs) DESC",
            (since_ns or 0) // MINUTE_NS,
            (_FOREVER if until_ns is None else until_ns) // MINUTE_NS,
        )
        return [
            Cost(exe, cgroup, jobs, cpu_ns / 1e9, unmeasured)
            for exe, cgroup, jobs, cpu_ns, unmeasured in rows
        ]

    # --- the database itself ----------------------------------------------------------

    def check(self) -> Report:
        """Look through everything: pages, chunks, findings, and what the runs are missing."""
        problems = [said for (said,) in self._all("PRAGMA integrity_check(20)") if said != "ok"]
        chunks: dict[str, dict[str, int]] = {}
        for id_, type_, count in self._all("SELECT id, type, count FROM chunks ORDER BY id"):
            summed = chunks.setdefault(type_, {"chunks": 0, "records": 0, "bytes": 0})
            row = self._all("SELECT length(data) FROM chunks WHERE id = ?", id_)
            lines = self._lines(id_)
            if not row or lines == []:
                continue  # deleted meanwhile
            summed["chunks"] += 1
            summed["bytes"] += row[0][0]
            if type_ != "tree":
                summed["records"] += count
            # One that is being written may have grown since.
            if lines is None or (type_ != "tree" and len(lines) < count):
                problems.append(f"part {id_} ({type_}) cannot be read")
        findings = dict(self._all("SELECT type, count(*) FROM findings GROUP BY type"))
        names = ("run_id", "host", "began_ns", "ended_ns", "killed", "stored", "lost")
        runs = self._all(f"SELECT {', '.join(names)} FROM runs ORDER BY id")  # noqa: S608
        return Report(
            tuple(problems),
            sum(file.stat().st_size for file in _files(self._path)),
            chunks,
            findings,
            tuple(dict(zip(names, run, strict=True)) for run in runs),
        )

    def _all(self, statement: str, *values: Any) -> list[Any]:
        with self._lock, self._explained():
            return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if code_of(error) in DAMAGED:
                raise damaged(self._path, error) from error
            raise LinnixError(f"{self._path} cannot be read: {error}") from error
        except PluginUnavailable as error:
            raise LinnixError(str(error), hint=error.hint) from error


def _parts_at(chunks: Sequence[tuple[int, int, int, int]], ts_ns: int) -> tuple[int, int]:
    """The parts to read for a moment: those since the clock was set back, up to the last of it.

    Where it was that time twice, the first time is meant.
    """
    first = last = begin = until_before_ns = 0
    reached = False
    for _, part, since_ns, until_ns in chunks:
        if until_before_ns - since_ns > SET_BACK_NS:
            if reached:
                break
            begin = part
        if since_ns <= ts_ns:
            first, last = begin, part
            reached |= ts_ns <= until_ns
        until_before_ns = until_ns
    return first, last


def _between(query: Query) -> tuple[int, int]:
    since_ns = 0 if query.since_ns is None else query.since_ns
    return since_ns, _FOREVER if query.until_ns is None else query.until_ns


def _decoded(line: bytes | str) -> Any:
    try:
        return decode(line)
    except ValueError:
        return None


def _files(path: Path) -> list[Path]:
    names = (path.name + suffix for suffix in ("", "-wal", "-shm", ".lock"))
    return [file for file in map(path.with_name, names) if file.exists()]
