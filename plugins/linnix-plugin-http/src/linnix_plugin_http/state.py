"""What the handler remembers of the run for those who ask later. Bounded, and quick to feed."""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import attrs
from msgspec import Meta, Struct

from linnix_core import (
    Alert,
    Feedback,
    Incident,
    Insight,
    Loss,
    Pressure,
    ProcessEvent,
    Record,
    SystemSample,
)

__all__ = ["State", "SystemPoint", "mem_percent"]

#: How many of each are remembered.
MAX_ALERTS = 1000
MAX_INSIGHTS = 512
MAX_LOSSES = 256
MAX_INCIDENTS = 1280

#: Points of the history of the machine, one a second: ten minutes.
MAX_POINTS = 600

#: Fields of a system sample that are about itself.
_OWN = frozenset({"interval_ns", "ts_ns", "seq", "host", "run_id", "boot_id", "type"})
_MEASURED = tuple(f.name for f in attrs.fields(SystemSample) if f.name not in _OWN)


class SystemPoint(Struct, kw_only=True):
    """The machine and the run at a moment; totals are since the run began."""

    at: Annotated[float, Meta(description="seconds since 1970")]
    events_total: int
    lost_total: int
    cpu_percent: float | None
    mem_percent: float | None
    psi_cpu_some_avg10: float | None


class Usage:
    """CPU time of this process, over the last second or more."""

    def __init__(self) -> None:
        self._at, self._used = time.monotonic(), _cpu_s()
        self._percent = 0.0
        self._lock = threading.Lock()

    def cpu_percent(self) -> float:
        """In percent of one core."""
        with self._lock:
            now, used = time.monotonic(), _cpu_s()
            if now - self._at >= 1.0 or not self._percent:
                self._percent = round((used - self._used) / max(now - self._at, 0.001) * 100, 2)
            if now - self._at >= 1.0:
                self._at, self._used = now, used
            return self._percent


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class State:
    """Fed by the handler's thread, read by the server's."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.began_ns = time.time_ns()
        self.usage = Usage()
        self.events = 0
        #: Of these, how many came of a process whose parent nobody knows.
        self.orphans = 0
        #: When the latest event came that the kernel reported, by the clock of the record.
        self.kernel_event_ns: int | None = None
        self.alerts_total = 0
        self.insights_total = 0
        self.feedback_total = 0
        self.losses: deque[Loss] = deque(maxlen=MAX_LOSSES)
        self.lost: Counter[tuple[str, str]] = Counter()
        self._system: dict[str, Any] = {}
        self._system_ns: int | None = None
        self._points: deque[SystemPoint] = deque(maxlen=MAX_POINTS)
        self._alerts: deque[Alert] = deque(maxlen=MAX_ALERTS)
        self._insights: OrderedDict[str, Insight] = OrderedDict()
        self._explained: OrderedDict[str, Insight] = OrderedDict()
        self._verdicts: OrderedDict[str, str] = OrderedDict()
        self._around: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._second = 0
        self._in_second = 0
        self._in_last_second = 0
        self._lock = threading.Lock()

    # --- feeding ----------------------------------------------------------------------

    def take(self, records: Iterable[Record]) -> None:
        """Remember what a batch says of the machine and of losses; count its events."""
        events, orphans, kernel_ns = 0, 0, None
        for record in records:
            kind = type(record)
            if kind is ProcessEvent:
                events += 1
                orphans += record.parent_start_ns is None  # type: ignore[union-attr]
                if record.source == "kernel":  # type: ignore[union-attr]
                    kernel_ns = record.ts_ns
            elif kind is SystemSample:
                self._take_system(record)  # type: ignore[arg-type]
            elif kind is Loss:
                self._take_loss(record)  # type: ignore[arg-type]
        if kernel_ns is not None:
            self.kernel_event_ns = kernel_ns
        if events:
            with self._lock:
                self._tick()
                self.events += events
                self.orphans += orphans
                self._in_second += events

    def take_alert(self, alert: Alert) -> None:
        """Remember an alert."""
        with self._lock:
            self.alerts_total += 1
            self._alerts.append(alert)

    def take_incident(self, incident: Incident) -> None:
        """Remember how the machine was when an incident opened or got worse."""
        if incident.change in ("opened", "worse"):
            with self._lock:
                _put(self._around, incident.id, dict(self._system), MAX_INCIDENTS)

    def take_insight(self, insight: Insight) -> None:
        """Remember an insight, and as the latest of its incident."""
        with self._lock:
            self.insights_total += 1
            _put(self._insights, insight.id, insight, MAX_INSIGHTS)
            _put(self._explained, insight.incident, insight, MAX_INSIGHTS)

    def take_feedback(self, feedback: Feedback) -> None:
        """Remember the latest verdict on an incident."""
        with self._lock:
            self.feedback_total += 1
            _put(self._verdicts, feedback.incident, feedback.verdict, MAX_INCIDENTS)

    def _take_system(self, sample: SystemSample) -> None:
        # Several collectors may each know a part; what one does not know is no news.
        known = {n: v for n in _MEASURED if (v := getattr(sample, n)) is not None}
        with self._lock:
            self._system.update(known)
            self._system_ns = sample.ts_ns
            at = sample.ts_ns / 1e9
            # Several collectors measure within one second: the last of them knows most.
            if self._points and int(self._points[-1].at) == int(at):
                self._points.pop()
            self._points.append(self._point(at))

    def _point(self, at: float) -> SystemPoint:
        pressure: Pressure | None = self._system.get("psi_cpu")
        return SystemPoint(
            at=at,
            events_total=self.events,
            lost_total=sum(self.lost.values()),
            cpu_percent=self._system.get("cpu_percent"),
            mem_percent=mem_percent(self._system),
            psi_cpu_some_avg10=None if pressure is None else pressure.some_avg10,
        )

    def _take_loss(self, loss: Loss) -> None:
        with self._lock:
            self.lost[loss.component, loss.why] = loss.lost_total
            if loss.lost:
                self.losses.append(loss)

    def _tick(self) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._in_last_second = self._in_second if second == self._second + 1 else 0
            self._second, self._in_second = second, 0

    # --- asking -----------------------------------------------------------------------

    @property
    def uptime_s(self) -> float:
        """Seconds since the handler was built."""
        return time.monotonic() - self.began

    @property
    def events_per_s(self) -> int:
        """Events of processes in the last whole second."""
        with self._lock:
            self._tick()
            return self._in_last_second

    def system(self) -> tuple[int | None, dict[str, Any]]:
        """When the machine was measured last, and the latest of each measurement."""
        with self._lock:
            return self._system_ns, dict(self._system)

    def points(self) -> list[SystemPoint]:
        """The last ten minutes, the latest last."""
        with self._lock:
            return list(self._points)

    def around(self, incident_id: str) -> dict[str, Any]:
        """How the machine was when an incident opened or got worse."""
        with self._lock:
            return dict(self._around.get(incident_id, {}))

    def alerts(self) -> list[Alert]:
        """The alerts that are remembered, the latest first."""
        with self._lock:
            return list(reversed(self._alerts))

    def insights(self) -> list[Insight]:
        """The insights that are remembered, the latest first."""
        with self._lock:
            return list(reversed(self._insights.values()))

    def insight(self, insight_id: str) -> Insight | None:
        """One by its id."""
        with self._lock:
            return self._insights.get(insight_id)

    def explanation(self, incident_id: str) -> Insight | None:
        """The latest insight of an incident."""
        with self._lock:
            return self._explained.get(incident_id)

    def verdict(self, incident_id: str) -> str | None:
        """The latest verdict on an incident."""
        with self._lock:
            return self._verdicts.get(incident_id)

    def losses_by_component(self) -> dict[str, dict[str, int]]:
        """What each component has lost since the run began, by reason."""
        found: dict[str, dict[str, int]] = {}
        with self._lock:
            for (component, why), lost in self.lost.items():
                if lost:
                    found.setdefault(component, {})[why] = lost
        return found

    def loss_windows(self) -> list[Loss]:
        """The latest windows in which something was lost, the latest first."""
        with self._lock:
            return list(reversed(self.losses))


def mem_percent(system: Mapping[str, Any]) -> float | None:
    """How much of the memory is used, of what is known of the machine."""
    total: int | None = system.get("memory_total_bytes")
    available: int | None = system.get("memory_available_bytes")
    if not total or available is None:
        return None
    return round((total - available) / total * 100, 2)


def _put(into: OrderedDict[str, Any], key: str, value: Any, most: int) -> None:
    into[key] = value
    into.move_to_end(key)
    if len(into) > most:
        into.popitem(last=False)
