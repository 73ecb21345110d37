"""From collectors to handlers: bounded queues of batches, and the thread between them.

    collector threads -> BoundedQueue each -> Pipeline -> BoundedQueue each -> handler threads

Every queue counts what it takes, gives and drops under its own lock, so that at any
moment ``received = handled + dropped + queued`` holds exactly.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from linnix_core.batch import Batch
from linnix_core.config import Overflow
from linnix_core.records import Loss, Record
from linnix_core.redact import clean_records

if TYPE_CHECKING:
    from linnix_core.context import Clock
    from linnix_core.processes import ProcessTable

__all__ = ["MAX_NOTICES", "Balance", "BoundedQueue", "Counts", "Item", "Pipeline", "Stamp"]

#: Notices (alerts, incidents, insights) that may wait for one handler. They are never
#: dropped to make room; a handler that leaves this many lying is not working.
MAX_NOTICES = 4096

#: Records that are a batch already: what a collector hands over together has waited once.
ENOUGH = 16

#: Seconds that one ``Loss`` record covers.
LOSS_WINDOW_S = 10.0


@attrs.frozen
class Counts:
    """Records through one queue since the run began; `dropped` is by reason."""

    received: int = 0
    handled: int = 0
    queued: int = 0
    dropped: Mapping[str, int] = attrs.field(factory=dict)
    #: Of the received, those that were lost before they came here (`BoundedQueue.count_lost`).
    announced: int = 0
    balance: Balance | None = None

    @property
    def lost(self) -> int:
        """All that did not get through, whatever the reason."""
        return sum(self.dropped.values())


@attrs.frozen
class Balance:
    """What the source behind a queue says of its own records; see `linnix_core.Sink`."""

    emitted: int
    received: int
    lost: Mapping[str, int]


@attrs.frozen
class Item:
    """What waits in a queue: the hook that takes it, what it takes, and its records."""

    hook: str
    argument: Any
    records: int = 0


class BoundedQueue:
    """A FIFO of batches, with notices among them, between two threads.

    ``limit`` is in records. When a batch does not fit, ``overflow`` decides: the oldest
    batches go, the new one does, or the sender waits. Notices always fit.
    """

    def __init__(
        self, limit: int, overflow: Overflow, *, on_put: Callable[[], None] | None = None
    ) -> None:
        self._limit = limit
        self._overflow = overflow
        self._on_put = on_put
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._received = self._handled = self._waiting = self._taken = 0
        self._notices = self._notices_taken = self._announced = 0
        self._dropped: dict[str, int] = {}
        self._balance: Balance | None = None

    def put(self, records: Sequence[Record], hook: str = "linnix_handle") -> None:
        """Add a batch, or deal with its not fitting."""
        count = len(records)
        if not count:
            return
        with self._changed:
            if not self._closed and not self._fits(count):
                self._make_room(count)
            # Not before: while its sender waits, a batch is the sender's.
            self._received += count
            if self._closed or not self._fits(count):
                self._count_dropped("stopped" if self._closed else "queue_full", count)
                return
            self._items.append(Item(hook, records, count))
            self._waiting += count
            self._changed.notify_all()
        if self._on_put is not None:
            self._on_put()

    def _fits(self, count: int) -> bool:
        # A batch larger than the limit passes alone; it would wait for ever otherwise.
        return self._waiting + count <= self._limit or not self._waiting

    def _make_room(self, count: int) -> None:
        if self._overflow == "block":
            self._changed.wait_for(lambda: self._closed or self._fits(count))
        elif self._overflow == "drop_oldest":
            kept: deque[Item] = deque()
            for item in self._items:
                if item.records and not self._fits(count):
                    self._waiting -= item.records
                    self._count_dropped("queue_full", item.records)
                else:
                    kept.append(item)
            self._items = kept

    def put_notice(self, hook: str, notice: Any) -> bool:
        """Add a notice; False when `MAX_NOTICES` wait already, or the queue is closed."""
        with self._changed:
            if self._closed or self._notices >= MAX_NOTICES:
                return False
            self._items.append(Item(hook, notice))
            self._notices += 1
            self._changed.notify_all()
        return True

    def get(self, timeout: float | None = None) -> Item | None:
        """The next item, or None when none came in time or the queue is closed and empty.

        Its records count as queued until `done` says what became of them; a notice is in
        hand until `notice_done`.
        """
        with self._changed:
            if not self._items and not self._closed:
                self._changed.wait_for(lambda: self._items or self._closed, timeout)
            return self._take()

    def get_all(self) -> list[Item]:
        """Everything that waits, without waiting for it."""
        with self._changed:
            items = list(self._items)
            self._items.clear()
            self._taken += self._waiting
            self._notices_taken += self._notices
            self._waiting = self._notices = 0
            self._changed.notify_all()
        return items

    def _take(self) -> Item | None:
        if not self._items:
            return None
        item = self._items.popleft()
        if item.records:
            self._waiting -= item.records
            self._taken += item.records
        else:
            self._notices -= 1
            self._notices_taken += 1
        self._changed.notify_all()
        return item

    def done(self, records: int, lost: int = 0, why: str = "") -> None:
        """Say that ``records`` that were taken are through, ``lost`` of them for ``why``."""
        with self._changed:
            self._taken -= records
            self._handled += records - lost
            if lost:
                self._count_dropped(why, lost)
            self._changed.notify_all()

    def notice_done(self) -> None:
        """Say that a notice that was taken is through."""
        with self._changed:
            self._notices_taken -= 1
            self._changed.notify_all()

    def count_lost(self, why: str, count: int) -> None:
        """Count records that were lost before they got here, as received and dropped."""
        with self._changed:
            self._announce(why, count)

    def set_balance(self, balance: Balance) -> None:
        """Take what the source counted, and count what it lost since it last said so."""
        with self._changed:
            before = {} if self._balance is None else self._balance.lost
            for why, total in balance.lost.items():
                if total > before.get(why, 0):
                    self._announce(why, total - before.get(why, 0))
            self._balance = balance

    def _announce(self, why: str, count: int) -> None:
        self._received += count
        self._announced += count
        self._count_dropped(why, count)

    def _count_dropped(self, why: str, count: int) -> None:
        self._dropped[why] = self._dropped.get(why, 0) + count

    def counts(self) -> Counts:
        """All counters of one instant."""
        with self._changed:
            return Counts(
                self._received,
                self._handled,
                self._waiting + self._taken,
                dict(self._dropped),
                self._announced,
                self._balance,
            )

    @property
    def waiting(self) -> int:
        """Records that nobody has taken yet."""
        return self._waiting

    @property
    def finished(self) -> bool:
        """Whether it is closed and nothing waits."""
        with self._changed:
            return self._closed and not self._items

    def close(self) -> None:
        """Take nothing more, let a waiting sender go, and let the reader finish."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self, why: str) -> None:
        """Drop what waits, counted: nobody is going to read it."""
        with self._changed:
            if self._waiting:
                self._count_dropped(why, self._waiting)
            self._items.clear()
            self._waiting = self._notices = 0
            self._changed.notify_all()

    def wait_idle(self, deadline: float) -> bool:
        """Wait until nothing is queued or in hand, or until the monotonic ``deadline``."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._items and not self._taken and not self._notices_taken,
                max(deadline - time.monotonic(), 0.0),
            )


class Stamp:
    """Gives every record of a run its ``seq``, without gaps, and says where it was made."""

    def __init__(self, *, host: str, run_id: str, boot_id: str, clock: Clock) -> None:
        self.host = host
        self.run_id = run_id
        self.boot_id = boot_id
        self._clock = clock
        self._next = 1
        self._lock = threading.Lock()

    def reserve(self, count: int) -> int:
        """The first of ``count`` numbers that are now the caller's."""
        with self._lock:
            first = self._next
            self._next += count
            return first

    def records(self, records: Iterable[Any], count: int) -> None:
        """Stamp ``count`` records in place."""
        host, run_id, boot_id = self.host, self.run_id, self.boot_id
        for seq, record in enumerate(records, self.reserve(count)):
            record.seq = seq
            record.host = host
            record.run_id = run_id
            if not record.boot_id:
                record.boot_id = boot_id
            if not record.ts_ns:
                record.ts_ns = self._clock.time_ns()

    def notice(self, notice: Any) -> None:
        """Stamp one notice in place."""
        self.records((notice,), 1)


@attrs.define
class _Source:
    component: str
    queue: BoundedQueue


class Pipeline:
    """The one thread that writes the process table.

    Takes what collectors left in their queues, checks, stamps and cleans it, applies it
    to the table, has it enriched and hands it to every handler's queue. ``enrich`` gets
    each batch after the table and before the handlers.
    """

    def __init__(
        self,
        *,
        stamp: Stamp,
        table: ProcessTable,
        clock: Clock,
        batch_size: int = 256,
        linger_s: float = 0.02,
        enrich: Callable[[Batch], None] | None = None,
    ) -> None:
        self._stamp = stamp
        self._table = table
        self._clock = clock
        self._batch_size = batch_size
        self._linger_s = linger_s
        self._enrich = enrich
        self._sources: list[_Source] = []
        self._sinks: list[_Source] = []
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._published: dict[tuple[str, str], int] = {}
        self._window_began = clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="linnix-pipeline", daemon=True)

    def source(self, component: str, limit: int, overflow: Overflow) -> BoundedQueue:
        """A queue for a collector to fill."""
        queue = BoundedQueue(limit, overflow, on_put=self._wake.set)
        self._sources = [*self._sources, _Source(component, queue)]
        return queue

    def sink(self, component: str, limit: int, overflow: Overflow) -> BoundedQueue:
        """A queue that gets every batch from now on."""
        queue = BoundedQueue(limit, overflow)
        self._sinks = [*self._sinks, _Source(component, queue)]
        return queue

    def start(self) -> None:
        """Begin to move records."""
        self._thread.start()

    def stop(self, deadline: float) -> bool:
        """Move what waits, write the last losses, and end; whether that was done in time."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(max(deadline - time.monotonic(), 0.0))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._wake.wait(LOSS_WINDOW_S)
            # Cleared before anything is looked at: what comes later wakes it again.
            self._wake.clear()
            stopping = self._stopping.is_set()
            if not stopping and 0 < self._waiting() < min(self._batch_size, ENOUGH):
                # Let a batch fill up, so that its fixed cost is shared.
                self._stopping.wait(self._linger_s)
            self._move()
            if self._clock.monotonic() - self._window_began >= LOSS_WINDOW_S:
                self._publish_losses()
            if stopping and not self._waiting():
                self._publish_losses()
                return

    def _waiting(self) -> int:
        return sum(source.queue.waiting for source in self._sources)

    def _move(self) -> None:
        for source in self._sources:
            pending: list[Record] = []
            for item in source.queue.get_all():
                pending.extend(item.argument)
                while len(pending) >= self._batch_size:
                    self._admit(source.queue, pending[: self._batch_size])
                    del pending[: self._batch_size]
            if pending:
                self._admit(source.queue, pending)

    def _admit(self, queue: BoundedQueue, records: list[Record]) -> None:
        """Check and clean what enters, then publish it."""
        entered = clean_records(records)
        if entered:
            self._stamp.records(entered, len(entered))
            self._table.update(entered)
            self._publish(entered)
        queue.done(len(records), len(records) - len(entered), "invalid")

    def _publish(self, records: list[Record]) -> None:
        batch = Batch(records)
        if self._enrich is not None:
            self._enrich(batch)
        for sink in self._sinks:
            sink.queue.put(batch)

    def _publish_losses(self) -> None:
        """One cumulative record for each reason whose count has moved in this window.

        A source that counts for itself has one of each of its reasons in every window in
        which it made anything: that nothing was lost is worth a record.
        """
        now = self._clock.monotonic()
        window_ns = int((now - self._window_began) * 1e9)
        self._window_began = now
        losses: list[Record] = []
        for side in (*self._sources, *self._sinks):
            counts = side.queue.counts()
            stated = counts.balance
            made = stated is not None and self._moved(side, "", stated.emitted)
            for why, total in counts.dropped.items():
                if stated is not None and why in stated.lost:
                    continue
                if lost := self._moved(side, why, total):
                    losses.append(
                        Loss(
                            component=side.component,
                            why=why,
                            lost=lost,
                            lost_total=total,
                            window_ns=window_ns,
                            # What the source made, whether or not it could hand it over.
                            emitted=counts.received if side in self._sources else None,
                            received=counts.received - counts.announced,
                            handled=counts.handled,
                            dropped=counts.lost - counts.announced,
                            queued=counts.queued,
                        )
                    )
            if stated is None or not made:
                continue
            losses += [
                Loss(
                    component=side.component,
                    why=why,
                    lost=self._moved(side, why, total),
                    lost_total=total,
                    window_ns=window_ns,
                    emitted=stated.emitted,
                    received=stated.received,
                    dropped=sum(stated.lost.values()),
                )
                for why, total in stated.lost.items()
            ]
        if losses:
            self._stamp.records(losses, len(losses))
            self._publish(losses)

    def _moved(self, side: _Source, counter: str, total: int) -> int:
        """By how much a counter has grown since it was last asked for."""
        before = self._published.get((side.component, counter), 0)
        self._published[side.component, counter] = total
        return total - before
