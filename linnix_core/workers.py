"""The threads that run collectors and handlers, and what happens when those fail."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from linnix_core.errors import LinnixError, PluginUnavailable, RecordsLost
from linnix_core.pipeline import Balance, BoundedQueue, Item
from linnix_core.plugins import Component
from linnix_core.records import Record

__all__ = ["CollectorWorker", "FailureGate", "HandlerWorker"]

#: Failures in a row after which a component is left alone for a while.
QUARANTINE_AFTER = 5

#: Seconds of the first pause; each further failure doubles it, up to the last.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0

#: Seconds between two flushes of a handler that is busy.
FLUSH_EVERY_S = 1.0


class FailureGate:
    """Counts failures in a row and tells how long to keep away.

    >>> gate = FailureGate()
    >>> [gate.failed() for _ in range(7)]
    [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 4.0]
    """

    def __init__(self) -> None:
        self.in_a_row = 0

    def failed(self) -> float:
        """Count one failure; the seconds to pause before the next try."""
        self.in_a_row += 1
        excess = self.in_a_row - QUARANTINE_AFTER
        # The power is bounded too: no float holds what a day of failures would make of it.
        return 0.0 if excess < 0 else min(FIRST_PAUSE_S * 2.0 ** min(excess, 64), LAST_PAUSE_S)

    def passed(self) -> None:
        """Forget the failures."""
        self.in_a_row = 0


class _Worker:
    """What both have in common: a daemon thread, a failure gate and a moment of last life."""

    def __init__(self, component: Component, logger: logging.Logger, stop: threading.Event) -> None:
        self.component = component
        self._logger = logger
        self._stop = stop
        self._gate = FailureGate()
        #: Monotonic time at which the call that runs now began; None between calls.
        self.busy_since: float | None = None
        self._stalled = False
        self._thread = threading.Thread(target=self._run, name=f"linnix-{component}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, deadline: float) -> bool:
        """Wait until the thread has ended or the monotonic ``deadline``; whether it ended."""
        if self._thread.ident is not None:
            self._thread.join(max(deadline - time.monotonic(), 0.0))
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        raise NotImplementedError

    def _call(self, hook: str, **arguments: Any) -> Any:
        self.busy_since = time.monotonic()
        try:
            return self.component.call(hook, **arguments)
        finally:
            self.busy_since = None

    def watch(self, limit_s: float) -> None:
        """Show a call that does not return; called now and then by the agent."""
        since = self.busy_since
        stalled = since is not None and time.monotonic() - since > limit_s
        if stalled and not self._stalled and self.component.state == "running":
            self._stalled = True
            self.component.set_state(
                "degraded", "stalled", f"a call has not returned for {limit_s:g} s"
            )
            self._logger.warning("%s: a call has not returned for %g s", self.component, limit_s)
        elif self._stalled and not stalled:
            self._stalled = False
            if self.component.status().code == "stalled":
                self._recovered()

    def _recovered(self) -> None:
        self.component.set_state("running")
        self._logger.warning("%s works again", self.component)

    def _failed(self, error: LinnixError) -> float:
        """Count and show a failure; the seconds to pause."""
        self.component.failures += 1
        pause = self._gate.failed()
        code, said = "crash", f"{error}"
        if pause:
            code = "quarantined"
            said = f"{error}; {self._gate.in_a_row} failures in a row, next try in {pause:g} s"
        self.component.set_state("degraded", code, said)
        if self._gate.in_a_row == 1 or pause:
            self._logger.error("%s: %s", self.component, said, exc_info=_debug_cause(error))
        return pause

    def _passed(self) -> None:
        """A call came back: that settles what earlier ones were in trouble for."""
        self._gate.passed()
        if self.component.state == "degraded" and self.component.status().code not in _NOT_OURS:
            self._recovered()


def _debug_cause(error: LinnixError) -> Any:
    wanted = logging.getLogger("linnix").isEnabledFor(logging.DEBUG)
    return error.__cause__ if wanted else None


class CollectorSink:
    """A collector's way into the pipeline; see `linnix_core.Sink`."""

    def __init__(self, queue: BoundedQueue) -> None:
        self._queue = queue

    def emit(self, record: Record) -> None:
        self._queue.put((record,))

    def emit_many(self, records: Sequence[Record]) -> None:
        self._queue.put(tuple(records))

    def lost(self, why: str, count: int = 1) -> None:
        if count > 0:
            self._queue.count_lost(why, count)

    def balance(self, emitted: int, received: int, lost: Mapping[str, int]) -> None:
        self._queue.set_balance(Balance(emitted, received, dict(lost)))


class CollectorWorker(_Worker):
    """Runs ``linnix_collect`` until the end, or ``linnix_poll`` every ``interval_s``.

    A collector that fails is called again, after ever longer pauses from the fifth time
    on. One that returns by itself is finished: ``on_finished`` hears of it.
    """

    def __init__(
        self,
        component: Component,
        queue: BoundedQueue,
        *,
        interval_s: float,
        logger: logging.Logger,
        stop: threading.Event,
        on_finished: Callable[[], None],
    ) -> None:
        super().__init__(component, logger, stop)
        self.queue = queue
        self._sink = CollectorSink(queue)
        self._interval_s = interval_s
        self._on_finished = on_finished
        self._streaming_since: float | None = None

    def _run(self) -> None:
        try:
            if self.component.has("linnix_collect"):
                self._collect()
            else:
                self._poll()
        finally:
            self._on_finished()

    def _collect(self) -> None:
        while not self._stop.is_set():
            self._streaming_since = time.monotonic()
            try:
                # Streaming is one long call: it cannot stall.
                self.component.call("linnix_collect", sink=self._sink, stop=self._stop)
            except PluginUnavailable as error:
                self.component.fail(error)
                return
            except LinnixError as error:
                self._streaming_since = None
                self._stop.wait(self._failed(error) or 0.1)
            else:
                if not self._stop.is_set():
                    self.component.set_state("stopped", "finished", "nothing more to collect")
                return

    def watch(self, limit_s: float) -> None:
        """The same, and forget the failures of a stream that has lasted since."""
        super().watch(limit_s)
        since = self._streaming_since
        if since is not None and time.monotonic() - since > limit_s:
            self._passed()

    def _poll(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(due - time.monotonic(), 0.0)):
            pause = 0.0
            try:
                records: Iterable[Record] | None = self._call("linnix_poll")
                # A generator runs here, so what it raises belongs to the plugin.
                polled = tuple(records or ())
            except PluginUnavailable as error:
                self.component.fail(error)
                return
            except LinnixError as error:
                pause = self._failed(error)
            except Exception as error:  # noqa: BLE001 - from iterating over the plugin's answer
                pause = self._failed(LinnixError(f"linnix_poll: {error!r}"))
            else:
                self._passed()
                self._sink.emit_many(polled)
            now = time.monotonic()
            # Keep the beat, but do not make up for beats that were missed.
            due = max(due + self._interval_s, now) + pause

    def counters(self) -> Mapping[str, int]:
        """Records so far: taken from the collector, moved on, lost, waiting."""
        return _counters(self.queue)


class HandlerWorker(_Worker):
    """Feeds one handler from its queue: batches and notices in their order, then flushes."""

    def __init__(
        self,
        component: Component,
        queue: BoundedQueue,
        *,
        logger: logging.Logger,
        stop: threading.Event,
        on_alerts: Callable[[Component, Iterable[Any]], None],
    ) -> None:
        super().__init__(component, logger, stop)
        self.queue = queue
        self._on_alerts = on_alerts
        self._flush_due: float | None = None
        #: Set once the run is over: no more pauses, what waits is still delivered.
        self.hurry = threading.Event()

    def _run(self) -> None:
        while True:
            timeout = None
            if self._flush_due is not None:
                timeout = max(self._flush_due - time.monotonic(), 0.0)
            item = self.queue.get(timeout)
            if item is not None:
                pause = self._deliver(item)
                if pause:
                    self.hurry.wait(pause)
            elif self.queue.finished:
                break
            if self._flush_due is not None and time.monotonic() >= self._flush_due:
                self._flush()
        self._flush()

    def _deliver(self, item: Item) -> float:
        lost, why, pause = 0, "", 0.0
        try:
            if self.component.has(item.hook):
                alerts = self._call(item.hook, **{_ARGUMENT[item.hook]: item.argument})
                if item.records and alerts is not None:
                    self._on_alerts(self.component, alerts)
            self._passed()
        except RecordsLost as error:
            lost, why = min(max(error.count, 0), item.records), error.why
            self.component.set_state("degraded", error.why, str(error))
        except PluginUnavailable as error:
            lost, why = item.records, "unavailable"
            self._gone(error)
        except LinnixError as error:
            lost, why, pause = item.records, "error", self._failed(error)
        except Exception as error:  # noqa: BLE001 - from iterating over the plugin's alerts
            lost, why = item.records, "error"
            pause = self._failed(LinnixError(f"{item.hook}: {error!r}"))
        finally:
            if item.records:
                self.queue.done(item.records, lost, why)
            else:
                self.queue.notice_done()
        if self._flush_due is None and self.component.has("linnix_flush"):
            self._flush_due = time.monotonic() + FLUSH_EVERY_S
        return pause

    def _gone(self, error: PluginUnavailable) -> None:
        """It says that it cannot work here: nothing is for it any more."""
        self.component.fail(error)
        self.queue.close()
        self.queue.discard("unavailable")

    def _flush(self) -> None:
        self._flush_due = None
        if not self.component.runs:
            return
        try:
            self._call("linnix_flush")
        except RecordsLost as error:
            # They were counted as handled, and turn out not to be.
            self.queue.done(0, error.count, error.why)
            self.component.set_state("degraded", error.why, str(error))
        except PluginUnavailable as error:
            self._gone(error)
        except LinnixError as error:
            self._flush_failed(error)
        else:
            if self.component.status().code == "flush":
                self._recovered()

    def _flush_failed(self, error: LinnixError) -> None:
        """Say it once; batches that pass meanwhile do not settle it, the next flush may."""
        self.component.failures += 1
        if self.component.set_state("degraded", "flush", f"{error}"):
            self._logger.error("%s: %s", self.component, error, exc_info=_debug_cause(error))

    def counters(self) -> Mapping[str, int]:
        """Records so far: received, handled, dropped, waiting."""
        return _counters(self.queue)


#: The one argument of each hook that a queue delivers to.
_ARGUMENT = {
    "linnix_handle": "batch",
    "linnix_alert": "alert",
    "linnix_incident": "incident",
    "linnix_insight": "insight",
    "linnix_feedback": "feedback",
}

#: Reasons for being degraded that a call which comes back does not settle.
_NOT_OURS = frozenset({"health", "stalled", "enrich", "answer", "flush", "reload"})


def _counters(queue: BoundedQueue) -> Mapping[str, int]:
    counts = queue.counts()
    return {
        "received": counts.received,
        "handled": counts.handled,
        "dropped": counts.lost,
        "queued": counts.queued,
    }
