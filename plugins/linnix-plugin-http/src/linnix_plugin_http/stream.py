"""The records of the run as a stream: a bounded history, and those who read along.

The handler's thread only appends to the history and wakes the server once for what came
since; frames are made in the server's thread, once each, and only if somebody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import attrs

from linnix_core import (
    Alert,
    Feedback,
    Incident,
    Insight,
    ProcessEvent,
    Record,
    encode,
)

__all__ = ["KINDS", "TYPES", "Beginning", "Filter", "Stream", "Subscriber", "frame"]

Streamed: TypeAlias = Record | Alert | Incident | Insight | Feedback

#: What ``type`` may name: kinds of events, and types of records.
KINDS = ("seen", "fork", "exec", "exit", "oom")
TYPES = (
    "event",
    "sample",
    "cgroup",
    "system",
    "loss",
    "alert",
    "incident",
    "insight",
    "feedback",
)

#: Kept only while somebody reads them: they come by the thousand, and the next ones replace them.
_FLEETING = frozenset({"sample", "cgroup"})

#: Seconds in which what comes is collected before readers are woken.
LINGER_S = 0.02

#: Bytes after which a write is long enough.
WRITE_BYTES = 256 * 1024

#: Writes that are kept for others who are at the same place, until the next record comes.
MAX_SHARED = 32

_NUMBERS = {"exec": 0, "fork": 1, "exit": 2}

#: What the reference's events have and ours do not: not known, or nothing.
_CONSTANTS = (
    b',"cpu_pct_milli":65535,"mem_pct_milli":65535,"data":0,"data2":0,"aux":0,"aux2":0}\n\n'
)
_TAILS = {
    kind: (
        f',"event_type":{_NUMBERS.get(kind, "null")},"event_type_name":"{kind}","exit_time_ns":'
    ).encode()
    for kind in KINDS
}


def frame(record: Streamed) -> bytes:
    """A record as one server-sent event: its name, its number, its JSON on one line."""
    line = encode(record)
    if isinstance(record, ProcessEvent):
        kind = record.kind
        ended = b"%d" % record.ts_ns if kind == "exit" else b"0"
        parts = (b"id: %d\nevent: " % record.seq, kind.encode(), b"\ndata: ", line[:-1])
        return b"".join((*parts, _TAILS[kind], ended, _CONSTANTS))
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (record.seq, record.type.encode(), line)


@attrs.frozen
class Filter:
    """Which records somebody wants to read; what is None filters nothing.

    ``comm`` and ``cgroup`` may have the wildcards ``*`` and ``?``; a cgroup without any also
    stands for those below it.
    """

    types: frozenset[str] = frozenset({"event"})
    pids: frozenset[int] | None = None
    comm: str | None = None
    cgroup: str | None = None
    _comm: re.Pattern[str] | None = attrs.field(init=False, eq=False)
    _cgroup: re.Pattern[str] | None = attrs.field(init=False, eq=False)

    @_comm.default
    def _compiled_comm(self) -> re.Pattern[str] | None:
        return None if self.comm is None else re.compile(fnmatch.translate(self.comm))

    @_cgroup.default
    def _compiled_cgroup(self) -> re.Pattern[str] | None:
        if self.cgroup is None:
            return None
        if any(wild in self.cgroup for wild in "*?["):
            return re.compile(fnmatch.translate(self.cgroup))
        return re.compile(re.escape(self.cgroup.rstrip("/")) + r"(/.*)?\Z", re.DOTALL)

    @property
    def narrow(self) -> bool:
        """Whether it asks for more than the type."""
        return not (self.pids is None and self.comm is None and self.cgroup is None)

    def __call__(self, record: Any) -> bool:
        """Whether the record is wanted."""
        kind = record.type
        if kind not in self.types and (kind != "event" or record.kind not in self.types):
            return False
        if not self.narrow:
            return True
        subject = getattr(record, "subject", None)
        of = record if subject is None else subject
        if self.pids is not None:
            key = getattr(subject, "key", None)
            pid = getattr(record, "pid", None) if subject is None else key and key.pid
            if pid not in self.pids:
                return False
        if self._comm is not None and not self._comm.match(getattr(of, "comm", "")):
            return False
        return self._cgroup is None or bool(self._cgroup.match(getattr(of, "cgroup", None) or ""))


class _Page:
    """Records that came together, with the frames that were made of them.

    ``start`` counts the records of all pages before it.
    """

    __slots__ = ("_frames", "records", "start")

    def __init__(self, start: int, records: Sequence[Streamed]) -> None:
        self.start = start
        self.records = records
        self._frames: list[bytes | None] | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.records)

    def frames(self, wanted: Filter, position: int) -> list[bytes]:
        """The frames of what is wanted from there on, each made once for all readers."""
        made = self._frames
        if made is None:
            made = self._frames = [None] * len(self.records)
        found = []
        for index in range(max(position - self.start, 0), len(self.records)):
            record = self.records[index]
            if wanted(record):
                one = made[index]
                if one is None:
                    one = made[index] = frame(record)
                found.append(one)
        return found


@attrs.define(eq=False)
class Subscriber:
    """Somebody who reads: where they are, and what wakes them."""

    wanted: Filter
    #: How many records of the stream are behind them.
    position: int
    wake: asyncio.Event = attrs.field(factory=asyncio.Event)
    #: Set when they were too slow.
    dropped: bool = False
    #: Ends their connection, whatever still waits to be sent.
    abort: Callable[[], None] = attrs.field(default=lambda: None)


@attrs.frozen
class Beginning:
    """Where somebody begins to read, and what they cannot have any more."""

    subscriber: Subscriber
    newest: int
    oldest: int | None
    #: How many records after the one that was read last are gone; None if nobody knows.
    lost: int | None
    why: str


class Stream:
    """The history of at most ``limit`` records, and its readers.

    `publish` is for the handler's thread, everything else for that of the server's loop.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pages: deque[_Page] = deque()
        #: How many records have come, and how many of them have left.
        self._end = 0
        self._start = 0
        self._newest = 0
        self._evicted = 0
        self._wanted: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = False
        self._subscribers: set[Subscriber] = set()
        self._shared: dict[tuple[Filter, int], tuple[int, bytes]] = {}
        self.closed = False
        #: Readers that were too slow, and the records that they missed by that.
        self.dropped_subscribers = 0
        self.lost_records = 0

    # --- the handler's side -----------------------------------------------------------

    def publish(self, records: Iterable[Streamed]) -> None:
        """Append records; the readers are woken soon, once for everything until then."""
        wanted = self._wanted
        kept = [
            record for record in records if record.type not in _FLEETING or record.type in wanted
        ]
        if not kept:
            return
        with self._lock:
            self._pages.append(_Page(self._end, kept))
            self._end += len(kept)
            self._newest = max(self._newest, kept[-1].seq)
            while self._end - self._start > self._limit and len(self._pages) > 1:
                gone = self._pages.popleft()
                self._start = gone.end
                self._evicted = max(self._evicted, gone.records[-1].seq)
            # While nobody reads, the server sleeps.
            loop = self._loop if self._subscribers else None
            awake = self._awake
            self._awake = awake or loop is not None
        if loop is not None and not awake:
            # A loop that has been closed has no readers.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.call_later, LINGER_S, self._wake)

    # --- the server's side ------------------------------------------------------------

    def open(self) -> None:
        """Wake readers in the loop that runs now."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Have every reader come to an end after what is still to be read."""
        self.closed = True
        self._wake()

    def __len__(self) -> int:
        """How many read."""
        return len(self._subscribers)

    def history(self) -> tuple[bool, list[Streamed]]:
        """Whether it is all that has come so far, and the records."""
        with self._lock:
            pages, whole = list(self._pages), not self._start
        return whole, [record for page in pages for record in page.records]

    def subscribe(self, wanted: Filter, last_id: int | None, same_run: bool = True) -> Beginning:
        """Read from here on, or from after the record with the number ``last_id``."""
        subscriber = Subscriber(wanted, 0)
        with self._lock:
            pages, newest, evicted = list(self._pages), self._newest, self._evicted
            position = end = self._end
            # From here on it is woken by what comes.
            self._subscribers.add(subscriber)
        lost: int | None = 0
        why = ""
        if last_id is not None and (not same_run or last_id > newest):
            lost, why = None, "another run"
            position = pages[0].start if pages else end
        elif last_id is not None:
            position = _after(pages, last_id, end)
            if last_id < evicted:
                lost, why = evicted - last_id, "no longer in the history"
        subscriber.position = position
        # What was joined before may end earlier than the history does now.
        self._shared.clear()
        self._want()
        oldest = pages[0].records[0].seq if pages else None
        return Beginning(subscriber, newest, oldest, lost, why)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a reader."""
        self._subscribers.discard(subscriber)
        self._want()

    def take(self, subscriber: Subscriber) -> bytes:
        """What a reader has not had yet, at most about `WRITE_BYTES` of it; empty: nothing."""
        while True:
            key = (subscriber.wanted, subscriber.position)
            shared = self._shared.get(key)
            if shared is None:
                if len(self._shared) >= MAX_SHARED:
                    self._shared.clear()
                shared = self._shared[key] = self._joined(*key)
            moved = shared[0] > subscriber.position
            subscriber.position = shared[0]
            if shared[1] or not moved:
                return shared[1]

    def seen(self, subscriber: Subscriber) -> int | None:
        """The number of the last record that a reader has behind them, if it is still kept."""
        with self._lock:
            for page in reversed(self._pages):
                if page.start < subscriber.position:
                    return page.records[subscriber.position - page.start - 1].seq
        return None

    def _joined(self, wanted: Filter, position: int) -> tuple[int, bytes]:
        """The frames from a position on, and the position after them."""
        pages: list[_Page] = []
        with self._lock:
            for page in reversed(self._pages):
                if page.end <= position:
                    break
                pages.append(page)
        chunks: list[bytes] = []
        size = 0
        for page in reversed(pages):
            frames = page.frames(wanted, position)
            chunks += frames
            size += sum(map(len, frames))
            position = page.end
            if size >= WRITE_BYTES:
                break
        return position, b"".join(chunks)

    def _wake(self) -> None:
        self._shared.clear()
        with self._lock:
            self._awake = False
            start = self._start
        for subscriber in list(self._subscribers):
            if subscriber.position < start and not subscriber.dropped:
                subscriber.dropped = True
                self.dropped_subscribers += 1
                self.lost_records += start - subscriber.position
                subscriber.abort()
            subscriber.wake.set()

    def _want(self) -> None:
        self._wanted = frozenset(
            kind for each in self._subscribers for kind in each.wanted.types if kind in _FLEETING
        )


def _after(pages: Iterable[_Page], seq: int, end: int) -> int:
    """The position after a record, else of the first one with a higher number."""
    first = end
    for page in pages:
        for index, record in enumerate(page.records):
            if record.seq == seq:
                return page.start + index + 1
            if first == end and record.seq > seq:
                first = page.start + index
    return first
