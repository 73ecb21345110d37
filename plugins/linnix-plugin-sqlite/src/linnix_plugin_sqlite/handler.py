"""The handler: what is remembered of a batch, and when it is written."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from linnix_core import (
    Alert,
    Batch,
    Context,
    Feedback,
    Health,
    Incident,
    Insight,
    Metric,
    PluginUnavailable,
    ProcessEvent,
    Query,
    RecordsLost,
    Result,
    encode,
    hookimpl,
)
from linnix_plugin_sqlite.chunks import Chunk, packed
from linnix_plugin_sqlite.config import SqliteConfig
from linnix_plugin_sqlite.ledger import ShortJobs
from linnix_plugin_sqlite.living import Living
from linnix_plugin_sqlite.reader import Reader
from linnix_plugin_sqlite.store import Finding, Former, NotWritten, Row, Store

__all__ = ["FILE_NAME", "MAX_WAITING", "SqliteHandler"]

#: The database in the component's data folder.
FILE_NAME = "history.db"

#: Findings kept while they cannot be written; then the oldest go.
MAX_WAITING = 1024

#: Events after which the living are written down in any case: what a look at a moment of a
#: storm has to read at most.
SNAPSHOT_EVENTS = 50_000

#: Seconds after which they are written down where next to nothing happens, so that few
#: moments are lost with the oldest chunks.
SNAPSHOT_LATEST_S = 900.0

#: Nanoseconds between two looks at what has got too old.
_FORGET_EVERY_NS = 10 * 10**9

#: A clock that was set forward by more than so many seconds makes nothing old for so many more:
#: it may have been a mistake, and what is deleted does not come back.
_SET_FORWARD_S, _BELIEVED_AFTER_S = 60.0, 600.0


class SqliteHandler:
    """Keep a bounded history in SQLite: findings, events, and who lived at any moment."""

    Config = SqliteConfig

    def __init__(self, config: SqliteConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._logger = context.logger
        self._types = frozenset(config.types)
        self._store: Store | None = None
        self._reader: Reader | None = None
        self._open: dict[str, Chunk] = {}
        self._findings: deque[Finding] = deque()
        self._living = Living()
        self._jobs = ShortJobs()
        self._formers: list[Former] = []
        # Every record that was taken is in the open chunks, waits, is stored or is lost.
        self._taken = self._stored = self._lost = 0
        self._lost_untold = self._lost_unwritten = 0
        self._failing: NotWritten | None = None
        self._last_failure: NotWritten | None = None
        self._latest_ns = 0
        self._parts = 0
        self._events_since_snapshot = 0
        self._snapshot_ns = 0
        self._snapshot_wanted = False
        self._forgot_ns = 0
        self._ahead_s = self._ahead()
        self._believed_s = 0.0
        self._stopped = False
        # Start, stop and questions come from other threads than the rest.
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """Where the database is."""
        return (self._config.path or self._context.data_dir / FILE_NAME).expanduser()

    @hookimpl
    def linnix_start(self) -> None:
        """Open the database. A full disk is no reason not to start: every flush tries again."""
        with self._lock:
            self._try(self._begin)

    @hookimpl
    def linnix_handle(self, batch: Batch) -> None:
        """Take in the batch; what turns out not to be storable is told by `linnix_flush`."""
        types = self._types
        count = sum(record.type in types for record in batch)
        if not count:
            self._warn()
            return  # and nothing was encoded for it
        lines = batch.lines()
        with self._lock:
            if self._stopped:
                raise RecordsLost(count, "stopped", "the history is closed")
            for record, line in zip(batch, lines, strict=True):
                type_ = record.type
                if type_ not in types:
                    continue
                chunk = self._open.get(type_)
                if chunk is None or not chunk.takes(record.ts_ns):
                    chunk = self._next_chunk(type_)
                chunk.add(record, line)
                if type(record) is ProcessEvent:
                    self._follow(record)
            self._latest_ns = max(self._latest_ns, batch[-1].ts_ns)
            self._took(count)
        self._warn()

    @hookimpl
    def linnix_alert(self, alert: Alert) -> None:
        """Store an alert, now or once it is possible again."""
        self._find(alert, None)

    @hookimpl
    def linnix_incident(self, incident: Incident) -> None:
        """Store an incident, now or once it is possible again."""
        self._find(incident, incident.id)

    @hookimpl
    def linnix_insight(self, insight: Insight) -> None:
        """Store an insight, now or once it is possible again."""
        self._find(insight, insight.incident)

    @hookimpl
    def linnix_feedback(self, feedback: Feedback) -> None:
        """Store what a person said, now or once it is possible again."""
        self._find(feedback, feedback.incident)

    @hookimpl
    def linnix_flush(self) -> None:
        """Write what waits, and delete what is too old; `RecordsLost` for what did not fit."""
        with self._lock:
            if self._stopped:
                return
            self._try(self._write)
            self._try(self._forget)
            lost, self._lost_untold = self._lost_untold, 0
            if lost and self._last_failure is not None:
                raise RecordsLost(lost, self._last_failure.why, str(self._last_failure))

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """Write what waits, end the run, close; a write that still hangs is left alone."""
        if not self._lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            return
        try:
            if self._stopped:
                return
            self._stopped = True
            with contextlib.suppress(PluginUnavailable):
                # Where nothing was taken, it may never have been started.
                if self._taken or self._store is not None:
                    self._try(self._write)
                if self._failing is None and self._store is not None:
                    self._try(self._end)
            if self._reader is not None:
                self._reader.close()
            if self._store is not None:
                self._store.close()
            if waiting := self._taken - self._stored - self._lost:
                self._lost += waiting
                self._logger.warning("%d records were not written", waiting)
        finally:
            self._lock.release()

    @hookimpl
    def linnix_query(self, query: Query) -> Result | None:
        """Answer from the database, after writing what waits."""
        with self._lock:
            if self._stopped or self._store is None or self._reader is None:
                return None
            self._try(self._write)
            reader = self._reader
        return reader.query(query)

    @hookimpl
    def linnix_health(self) -> Health:
        """Degraded while nothing can be written; says what a killed run before is missing."""
        failing, limits = self._failing, list(map(_said, self._formers))
        if self._lost:
            limits.append(f"{self._lost} records of this run were lost")
        if failing is None:
            return Health(limits=tuple(limits))
        return Health("degraded", str(failing), tuple(limits))

    @hookimpl
    def linnix_metrics(self) -> Iterable[Metric]:
        """Records stored, lost and waiting."""
        stored, lost = self._stored, self._lost
        unit, waiting = "{record}", max(self._taken - stored - lost, 0)
        return (
            Metric("sqlite_stored_records", stored, unit, "counter", help="Records stored"),
            Metric("sqlite_lost_records", lost, unit, "counter", help="Records not stored"),
            Metric("sqlite_waiting_records", waiting, unit, help="Records in memory only"),
        )

    # --- taking in --------------------------------------------------------------------

    def _follow(self, event: ProcessEvent) -> None:
        if event.kind == "exit":
            self._jobs.add(event, self._living)
        before_ns = self._living.latest_ns
        self._living.apply(event)
        if self._living.latest_ns < before_ns:
            # Snapshots from before are ahead of all that comes now.
            self._snapshot_wanted = True
        self._events_since_snapshot += 1

    def _took(self, count: int) -> None:
        self._taken += count
        if self._store is not None:
            self._store.took(self._taken)

    def _next_chunk(self, type_: str) -> Chunk:
        """Begin a chunk after writing the one before it; what cannot be written is lost."""
        former = self._open.get(type_)
        if former is not None:
            self._try(self._write)
            if former.unstored:
                self._lose(former)
        number = 0 if self._store is None else self._store.chunk_number()
        chunk = self._open[type_] = Chunk(number, type_, 0)
        if type_ == "event":
            # Of what was lost as a whole the number is used again: see schema.py.
            self._parts += former is None or former.stored > 0
            chunk.part = self._parts
        return chunk

    def _find(self, notice: Alert | Incident | Insight | Feedback, incident: str | None) -> None:
        line = encode(notice).decode()
        with self._lock:
            if self._stopped:
                return
            self._findings.append(Finding(notice.type, notice.ts_ns, incident, line))
            self._latest_ns = max(self._latest_ns, notice.ts_ns)
            self._took(1)
            self._try(self._write_findings)
            if len(self._findings) > MAX_WAITING:
                self._findings.popleft()
                # Not told to the core, whose queue counts records of batches only.
                self._lost += 1
                self._lost_unwritten += 1
        self._warn()

    def _warn(self) -> None:
        """Nothing of this call is lost yet; but nobody should think that all is well."""
        if (failing := self._failing) is not None:
            raise RecordsLost(0, failing.why, str(failing))

    def _lose(self, chunk: Chunk) -> None:
        self._lost += chunk.unstored
        self._lost_untold += chunk.unstored
        self._lost_unwritten += chunk.unstored
        if chunk.type == "event":
            # The living are known all the same: a snapshot at once hides the gap.
            self._snapshot_wanted = True

    # --- writing ----------------------------------------------------------------------

    def _begin(self) -> None:
        # What is in the data folder the core may have given to the account of a run before.
        store = Store(self.path, self._config.max_bytes, in_data_dir=self._config.path is None)
        try:
            self._formers = store.begin(
                self._context.run_id,
                self._context.host,
                self._context.component,
                self._context.clock.time_ns(),
            )
            # Opened now: later this process may be another user.
            self._reader = Reader(self.path)
        except BaseException:
            store.close()
            raise
        for former in self._formers:
            self._logger.warning("%s", _said(former))
        for chunk in self._open.values():
            chunk.number = store.chunk_number()
        self._store = store
        store.took(self._taken)

    def _write(self) -> None:
        store = self._opened()
        chunks = [chunk for chunk in self._open.values() if chunk.unstored]
        if not (chunks or self._findings or self._jobs.costs or self._lost_unwritten):
            return
        rows = [_row(chunk) for chunk in chunks]
        # A snapshot is dear: while nothing can be written it would be made in vain.
        if self._failing is None and self._snapshot_due():
            rows.append(self._snapshot(store))
        findings = list(self._findings)
        stored = sum(chunk.unstored for chunk in chunks) + len(findings)
        self._jobs.trim()
        store.write(
            rows,
            findings,
            self._jobs.costs,
            stored=stored,
            lost=self._lost_unwritten,
        )
        self._works()
        self._stored += stored
        self._lost_unwritten = 0
        self._findings.clear()
        self._jobs.clear()
        for chunk in chunks:
            chunk.stored = chunk.count
        if rows and rows[-1].type == "tree":
            # What comes after the snapshot is in other chunks than what came before.
            del self._open["event"]
            self._events_since_snapshot = 0
            self._snapshot_wanted = False
            self._snapshot_ns = self._living.latest_ns

    def _write_findings(self) -> None:
        """Alone: an alert should not wait for the flush, nor rewrite chunks for each of many."""
        findings = list(self._findings)
        self._opened().write((), findings, {}, stored=len(findings))
        self._works()
        self._stored += len(findings)
        self._findings.clear()

    def _opened(self) -> Store:
        if self._store is None:
            self._begin()
        assert self._store is not None
        return self._store

    def _snapshot_due(self) -> bool:
        events = self._events_since_snapshot
        if not events:
            return False
        passed_s = (self._living.latest_ns - self._snapshot_ns) / 1e9
        return (
            self._snapshot_wanted
            # In a storm; the more live, the dearer a snapshot is.
            or events >= max(SNAPSHOT_EVENTS, 4 * len(self._living))
            # Reading fewer events than processes live costs less than the snapshot would.
            or (passed_s >= self._config.checkpoint and events >= len(self._living))
            or passed_s >= max(self._config.checkpoint, SNAPSHOT_LATEST_S)
        )

    def _snapshot(self, store: Store) -> Row:
        lines = self._living.snapshot()
        ts_ns, seq = self._living.latest_ns, self._open["event"].last_seq
        return Row(
            id=store.chunk_number(),
            type="tree",
            part=self._parts,
            since_ns=ts_ns,
            until_ns=ts_ns,
            first_seq=seq,
            last_seq=seq,
            records=len(self._living),
            raw_bytes=sum(map(len, lines)) + len(lines),
            data=packed(lines),
        )

    def _forget(self) -> None:
        """Old is what is old by the records' time, and by the clock, should they be ahead."""
        clock = self._context.clock
        now_ns = min(self._latest_ns, clock.time_ns())
        if self._store is None or abs(now_ns - self._forgot_ns) < _FORGET_EVERY_NS:
            return
        self._forgot_ns = now_ns
        before_s, self._ahead_s = self._ahead_s, self._ahead()
        if self._ahead_s > before_s + _SET_FORWARD_S:
            self._believed_s = clock.monotonic() + _BELIEVED_AFTER_S
        if clock.monotonic() < self._believed_s:
            return
        self._store.forget(
            now_ns - int(self._config.max_age * 1e9),
            now_ns - int(self._config.findings_max_age * 1e9),
        )

    def _ahead(self) -> float:
        """Seconds by which the clock of the day is ahead of the one that nobody sets."""
        clock = self._context.clock
        return clock.time_ns() / 1e9 - clock.monotonic()

    def _end(self) -> None:
        if self._store is not None:
            self._store.end(self._context.clock.time_ns())

    def _try(self, action: Callable[[], None]) -> None:
        """Do it; what cannot be written now is tried again, and shown meanwhile."""
        try:
            action()
        except NotWritten as failure:
            if self._failing is None:
                self._logger.warning("%s", failure)
            self._failing = self._last_failure = failure

    def _works(self) -> None:
        if self._failing is not None:
            self._failing = None
            self._logger.info("writing to %s again", self.path)


def _row(chunk: Chunk) -> Row:
    return Row(
        id=chunk.number,
        type=chunk.type,
        part=chunk.part,
        since_ns=chunk.since_ns,
        until_ns=chunk.until_ns,
        first_seq=chunk.first_seq,
        last_seq=chunk.last_seq,
        records=chunk.count,
        raw_bytes=chunk.raw_bytes,
        data=chunk.pack(),
    )


def _said(former: Former) -> str:
    missing = "what it lost is not known"
    if former.missing is not None:
        missing = f"{former.missing} records of its last second are missing"
    return f"the run {former.run_id} was killed: {missing}"
