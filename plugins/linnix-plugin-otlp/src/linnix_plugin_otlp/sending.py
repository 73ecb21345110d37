"""The thread that sends: batches, metrics, and pauses while the Collector does not answer."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from linnix_core import Metric, ProcessEvent
from linnix_plugin_otlp.births import Births
from linnix_plugin_otlp.config import OtlpConfig
from linnix_plugin_otlp.encoding import OriginatedEvent, log_request, metrics_data
from linnix_plugin_otlp.exporters import Exporters, Outcome
from linnix_plugin_otlp.gathering import Gathering
from linnix_plugin_otlp.mapping import log_event
from linnix_plugin_otlp.resources import Origin, Resources
from linnix_plugin_otlp.waiting import Waiting

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

__all__ = ["Sender"]

#: Bytes of one export, about: a Collector takes 4 MiB by gRPC unless told otherwise.
MAX_BATCH_BYTES = 2 * 2**20

#: Seconds of the first pause after a failed export; each further one doubles it, up to the last.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 30.0

#: Of the time for stopping, what is kept for an export that has to be broken off.
BREAK_OFF_S = 0.5


class Sender:
    """Maps and sends what waits, in a daemon thread of its own that begins with the first record.

    Nothing that the Collector does holds back who puts records.
    """

    def __init__(
        self,
        config: OtlpConfig,
        births: Births,
        waiting: Waiting,
        gathering: Gathering,
        *,
        here: Origin,
        make_exporters: Callable[[OtlpConfig], Exporters],
        components: Callable[[], Sequence[Metric]],
        now_ns: Callable[[], int],
        logger: logging.Logger,
    ) -> None:
        self._config = config
        self._births = births
        self._waiting = waiting
        self._gathering = gathering
        self._here = here
        self._make_exporters = make_exporters
        self._components = components
        self._now_ns = now_ns
        self._logger = logger
        self._resources = Resources(here.host, config.resource)
        self._exporters: Exporters | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._lost: Counter[str] = Counter()
        self._said: dict[str, str] = {}
        self._failures = 0
        self._pause_until = 0.0
        self._metrics_due = time.monotonic() + config.metrics_interval
        #: What is wrong with the Collector now; empty while it takes what it gets.
        self.trouble = ""
        self.exported = 0
        self.events_lost = 0
        self.notices_lost = 0
        self.failed_exports = 0

    # --- called by the handler --------------------------------------------------------

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="linnix-otlp", daemon=True)
        self._thread.start()

    def count_lost(self, events: int, notices: int) -> None:
        """Count what the Collector will not get; from any thread."""
        with self._lock:
            self.events_lost += events
            self.notices_lost += notices

    def lost(self) -> tuple[int, str, str]:
        """How many events the sending thread lost since the last call, and why: code and words.

        Of several reasons it is the one with the most events.
        """
        with self._lock:
            lost, self._lost = self._lost, Counter()
        why = max(lost, key=lambda each: lost[each], default="")
        return sum(lost.values()), why, self._said.get(why, "")

    def full(self) -> str:
        """Why events are pushed out, in words."""
        said = f"{self._config.max_queue} events wait for the Collector already (max_queue)"
        return f"{said}: {self.trouble}" if self.trouble else said

    def stop(self, deadline: float) -> None:
        """Send what waits until the monotonic ``deadline``, then give up the rest, counted."""
        with self._lock:
            self._stopping.set()
        self._waiting.wake()
        thread = self._thread
        if thread is not None:
            left = deadline - time.monotonic()
            thread.join(max(left - min(BREAK_OFF_S, left / 2), 0.0))
            if thread.is_alive():
                self._close()
                thread.join(max(deadline - time.monotonic(), 0.0))
        events, notices = self._waiting.clear()
        self.count_lost(events, notices)
        if events or notices:
            self._logger.warning(
                "%d events and %d notices did not reach the Collector: %s",
                events,
                notices,
                self.trouble or "the time was over",
            )

    # --- the thread -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                pause = self._pause_until - time.monotonic()
                if pause > 0:
                    self._stopping.wait(pause)
                    continue
                if not self._round():
                    self._waiting.wait(self._config.delay, self._config.batch_size)
            # What waited through a pause has one more chance.
            while self._send_batch():
                if self._failures or self._closed:
                    return
            if self._config.metrics_interval and not self._failures:
                self._send_metrics(())
        finally:
            self._close()

    def _round(self) -> bool:
        """Send what is due; whether there is more to send at once."""
        if self._config.metrics_interval and time.monotonic() >= self._metrics_due:
            self._metrics_due = time.monotonic() + self._config.metrics_interval
            self._send_metrics(self._components())
        return self._send_batch() and len(self._waiting) >= self._config.batch_size

    def _send_batch(self) -> bool:
        """Send one batch; whether there was one."""
        batch = self._waiting.take(self._config.batch_size, MAX_BATCH_BYTES)
        if not batch:
            return False
        outcome = self._attempt(
            lambda exporters: exporters.logs(self._request(batch), len(batch)), len(batch)
        )
        if outcome.again:
            events, notices = self._waiting.back()
            self._count_lost("queue_full", self.full(), events, notices)
            return True
        self._waiting.done()
        events = sum(type(record) is ProcessEvent for record in batch)
        # Which ones were refused is not said: they count as events as long as there are some.
        refused = min(outcome.refused, events)
        self._count_lost("refused", outcome.said, refused, outcome.refused - refused)
        self.exported += len(batch) - outcome.refused
        return True

    def _request(self, batch: Sequence[Any]) -> ExportLogsServiceRequest:
        events = [
            OriginatedEvent(
                Origin(record.host, record.boot_id, record.run_id),
                log_event(record, self._births, arguments=self._config.arguments),
            )
            for record in batch
        ]
        return log_request(events, self._resources, self._now_ns())

    def _send_metrics(self, components: Sequence[Metric]) -> None:
        values = self._gathering.values(components, self._here, self._now_ns())
        if not values:
            return
        delta = self._config.chosen_temporality == "delta"
        data = metrics_data(values, self._resources, delta=delta)
        if self._attempt(
            lambda exporters: exporters.metrics(data, len(values)), len(values)
        ).delivered:
            self._gathering.delivered()

    def _attempt(self, export: Callable[[Exporters], Outcome], count: int) -> Outcome:
        """Export once, which tries several times itself, and set the pause that follows."""
        try:
            exporters = self._open()
            if exporters is None:
                return Outcome(False, again=True)
            outcome = export(exporters)
        except Exception as error:
            self._logger.exception("an export failed")
            outcome = Outcome(False, count, said=f"an export failed: {error!r}")
        if outcome.delivered:
            self._failures = 0
        else:
            self.failed_exports += 1
            self._failures += 1
            pause = min(FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 16), LAST_PAUSE_S)
            self._pause_until = time.monotonic() + max(pause, outcome.retry_after_s)
        self._say(outcome.said)
        return outcome

    def _say(self, said: str) -> None:
        if said and not self.trouble:
            self._logger.warning("%s", said)
        elif self.trouble and not said:
            self._logger.info("the Collector takes what it gets again")
        self.trouble = said

    def _count_lost(self, why: str, said: str, events: int, notices: int) -> None:
        if events:
            with self._lock:
                self._lost[why] += events
                self._said[why] = said
        self.count_lost(events, notices)

    def _open(self) -> Exporters | None:
        """The exporters, made on first use; None once they were closed."""
        with self._lock:
            if self._exporters is None and not self._closed:
                self._exporters = self._make_exporters(self._config)
            return self._exporters

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            exporters, self._exporters = self._exporters, None
        if exporters is not None:
            exporters.shutdown()
