"""The slow path: one thread makes incidents of alerts, another has them explained."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

import attrs

from linnix_core.context import Clock
from linnix_core.incidents import IncidentBook
from linnix_core.loading import describe
from linnix_core.records import Alert, Feedback, Incident, Insight
from linnix_core.redact import clean_alert

__all__ = ["AlertThread", "ReasonThread"]

_LOG = logging.getLogger("linnix.agent")

#: Alerts, and incidents to be explained, that may wait; both come far apart.
MAX_WAITING_ALERTS = 4096
MAX_WAITING_INCIDENTS = 256

Publish: TypeAlias = Callable[[Alert | Incident | Insight | Feedback], None]


class AlertThread:
    """Takes alerts one by one: publishes them, keeps the incidents, asks for explanations."""

    def __init__(
        self,
        book: IncidentBook,
        *,
        publish: Publish,
        explain: Callable[[Incident], None],
        clock: Clock,
    ) -> None:
        self._book = book
        self._publish = publish
        self._explain = explain
        self._clock = clock
        self._alerts: queue.Queue[Alert | None] = queue.Queue(MAX_WAITING_ALERTS)
        #: By how much alerts are behind the clock: those of a replay are from long ago.
        self._behind_ns = 0
        self._pending = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="linnix-alerts", daemon=True)

    def start(self) -> None:
        """Begin to take alerts."""
        self._thread.start()

    def submit(self, alert: Alert) -> bool:
        """Queue an alert; False when too many wait. Never blocks."""
        with self._changed:
            self._pending += 1
        try:
            self._alerts.put_nowait(alert)
        except queue.Full:
            self._finished()
            return False
        return True

    def wait_idle(self, deadline: float) -> bool:
        """Wait until every alert has been published, or until the monotonic ``deadline``."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._pending, max(deadline - time.monotonic(), 0.0)
            )

    def stop(self, deadline: float) -> None:
        """Take what waits, then end."""
        if self._thread.ident is not None and self.wait_idle(deadline):
            self._alerts.put(None)
            self._thread.join(max(deadline - time.monotonic(), 0.0))

    def _run(self) -> None:
        while True:
            timeout = None
            if (next_close := self._book.next_close_ns) is not None:
                timeout = max((next_close - self._now_ns()) / 1e9, 0.1)
            try:
                alert = self._alerts.get(timeout=timeout)
            except queue.Empty:
                for incident in self._book.close_quiet(self._now_ns()):
                    self._publish(incident)
                continue
            if alert is None:
                return
            try:
                self._take(alert)
            except Exception as error:  # noqa: BLE001 - one alert must not end the others
                _LOG.error("an alert was lost: %s", describe(error))
            finally:
                self._finished()

    def _take(self, given: Alert) -> None:
        # The sender keeps its own object; what everyone gets is the core's.
        alert = attrs.evolve(given)
        clean_alert(alert)
        self._publish(alert)
        self._behind_ns = self._clock.time_ns() - alert.ts_ns
        for incident in self._book.add(alert):
            self._publish(incident)
            if incident.class_ is not None and incident.change in ("opened", "worse"):
                self._explain(incident)

    def _now_ns(self) -> int:
        """The time in the story that the alerts tell."""
        return self._clock.time_ns() - self._behind_ns

    def _finished(self) -> None:
        with self._changed:
            self._pending -= 1
            self._changed.notify_all()


class Reason(Protocol):
    """Explains an incident by a moment of ``time.monotonic()``."""

    def __call__(self, incident: Incident, deadline: float, *, again: bool) -> Insight | None:
        """``again``: also where it was explained before. None where nobody can."""


@attrs.frozen
class _Waiting:
    incident: Incident
    deadline: float
    again: bool


class ReasonThread:
    """Has one incident at a time explained, each within ``timeout_s`` of being asked for."""

    def __init__(self, *, reason: Reason, publish: Publish, timeout_s: float) -> None:
        self._reason = reason
        self._publish = publish
        self._timeout_s = timeout_s
        self._end = math.inf
        self._waiting: dict[str, _Waiting] = {}
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="linnix-reasoning", daemon=True)

    def start(self) -> None:
        """Begin to explain."""
        self._thread.start()

    def ask(self, incident: Incident, *, again: bool = False) -> None:
        """Queue an incident; it replaces an older state of itself that still waits."""
        asked = _Waiting(incident, time.monotonic() + self._timeout_s, again)
        with self._changed:
            if (before := self._waiting.get(incident.id)) is not None:
                asked = _Waiting(incident, before.deadline, again or before.again)
            self._waiting[incident.id] = asked
            if len(self._waiting) > MAX_WAITING_INCIDENTS:
                oldest = self._waiting.pop(next(iter(self._waiting))).incident
                _LOG.warning("incident %s stays unexplained: too many wait", oldest.id)
            self._changed.notify_all()

    def wait_idle(self, deadline: float) -> bool:
        """Wait until every incident has been explained, or until the monotonic ``deadline``."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._busy,
                max(deadline - time.monotonic(), 0.0),
            )

    def stop(self, deadline: float) -> None:
        """Explain what waits, as far as time allows, then end."""
        if self._thread.ident is None:
            return
        self._end = deadline
        self.wait_idle(deadline)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(max(deadline - time.monotonic(), 0.0))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                asked = self._waiting.pop(next(iter(self._waiting)))
                incident = asked.incident
                self._busy = True
            try:
                deadline = min(asked.deadline, self._end)
                insight = self._reason(incident, deadline, again=asked.again)
                if insight is not None:
                    self._publish(insight)
            except Exception as error:  # noqa: BLE001 - one incident must not end the others
                _LOG.error("incident %s stays unexplained: %s", incident.id, describe(error))
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
