"""What the handler counts of what it is told. Bounded, and cheap for each event."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any, TypeAlias

import attrs

from linnix_core import Alert, Feedback, Incident, Insight, Loss, ProcessEvent, Record
from linnix_plugin_prometheus.latency import Latency

__all__ = ["Bounded", "Labels", "Moment", "Snapshot", "Tally"]

#: Values of the labels of one series.
Labels: TypeAlias = tuple[str, ...]

#: Different keys that one counter distinguishes; what comes after them is ``other``.
MAX_KEYS = 512

#: Incidents whose explanation is waited for.
MAX_ASKED = 1024


@attrs.frozen
class Moment:
    """Seconds on the clock that never goes back, and of CPU that this process has used."""

    monotonic_s: float = attrs.field(factory=time.monotonic)
    cpu_s: float = attrs.field(factory=time.process_time)


class Bounded:
    """Counts by labels, for as many as fit; everything else counts for ``other``."""

    def __init__(self, labels: int) -> None:
        self._other: Labels = ("other",) * labels
        self._counts: Counter[Labels] = Counter()

    def add(self, labels: Labels, amount: int = 1) -> None:
        """Count more of these."""
        if labels not in self._counts and len(self._counts) >= MAX_KEYS:
            labels = self._other
        self._counts[labels] += amount

    def counts(self) -> dict[Labels, int]:
        """A copy."""
        return dict(self._counts)


@attrs.frozen
class Snapshot:
    """Everything that was counted up to one moment."""

    events: int
    events_per_s: int
    parents_known: int
    parents_unknown: int
    alerts: int
    records_by_type: dict[Labels, int]
    events_by_kind: dict[Labels, int]
    alerts_by_rule: dict[Labels, int]
    incidents: dict[Labels, int]
    insights: dict[Labels, int]
    feedback: dict[Labels, int]
    #: By component and reason, since the run began.
    lost: dict[Labels, int]
    #: By component, for sources that count for themselves.
    emitted: dict[Labels, int]
    #: By stage: cumulative buckets, how many, and seconds in all.
    latency: dict[str, tuple[list[int], int, float]]


class Tally:
    """Fed by the handler's thread; `snapshot` is for any other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events = self._parents_unknown = self._alerts = 0
        #: Whether an event came that the kernel reported.
        self.kernel_event_seen = False
        self._others: Counter[str] = Counter()
        self._kinds = Bounded(1)
        self._rules = Bounded(2)
        self._incidents = Bounded(2)
        self._insights = Bounded(2)
        self._feedback = Bounded(1)
        self._lost: dict[Labels, int] = {}
        self._emitted: dict[Labels, int] = {}
        self._latency = {stage: Latency() for stage in ("event", "alert", "incident", "insight")}
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._second = int(time.monotonic())
        self._in_second = self._in_last_second = 0

    def batch(self, records: Sequence[Record], now_ns: int) -> None:
        """Count a batch that came at ``now_ns`` (since the epoch)."""
        events: list[Any] = [r for r in records if type(r) is ProcessEvent]
        others = (
            [r for r in records if type(r) is not ProcessEvent]
            if len(events) < len(records)
            else []
        )
        kinds = Counter([event.kind for event in events])
        unknown = [event.parent_start_ns for event in events].count(None)
        # What was running already has no moment that one could be late for.
        late = [e for e in events if e.kind != "seen"] if "seen" in kinds else events
        lags = [now_ns - event.ts_ns for event in late]
        if not self.kernel_event_seen:
            self.kernel_event_seen = any(event.source == "kernel" for event in events)
        with self._lock:
            self._tick()
            self._events += len(events)
            self._in_second += len(events)
            self._parents_unknown += unknown
            for kind, count in kinds.items():
                self._kinds.add((kind,), count)
            self._latency["event"].add(lags)
            for record in others:
                self._others[record.type] += 1
                if type(record) is Loss:
                    self._take_loss(record)

    def _take_loss(self, loss: Loss) -> None:
        _put(self._lost, (loss.component, loss.why), loss.lost_total)
        # What counts for itself says nothing of handling or queues.
        if loss.emitted is not None and loss.handled is None:
            _put(self._emitted, (loss.component,), loss.emitted)

    def alert(self, alert: Alert, now_ns: int) -> None:
        """Count an alert."""
        with self._lock:
            self._alerts += 1
            self._rules.add((alert.rule, alert.severity))
            self._latency["alert"].add([now_ns - alert.ts_ns])

    def incident(self, incident: Incident, now_ns: int) -> None:
        """Count what became of an incident, and remember when an explanation was due."""
        with self._lock:
            self._incidents.add((incident.class_ or "none", incident.change))
            if incident.change in ("opened", "worse"):
                self._latency["incident"].add([now_ns - incident.ts_ns])
                self._asked[incident.id] = time.monotonic()
                if len(self._asked) > MAX_ASKED:
                    self._asked.popitem(last=False)

    def insight(self, insight: Insight) -> None:
        """Count an insight, and how long it took since its incident was told."""
        with self._lock:
            self._insights.add((insight.class_, insight.reasoner))
            asked = self._asked.pop(insight.incident, None)
            if asked is not None:
                self._latency["insight"].add([int((time.monotonic() - asked) * 1e9)])

    def feedback(self, feedback: Feedback) -> None:
        """Count a verdict."""
        with self._lock:
            self._feedback.add((feedback.verdict,))

    def _tick(self) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._in_last_second = self._in_second if second == self._second + 1 else 0
            self._second, self._in_second = second, 0

    def snapshot(self) -> Snapshot:
        """Everything so far."""
        with self._lock:
            self._tick()
            return Snapshot(
                events=self._events,
                events_per_s=self._in_last_second,
                parents_known=self._events - self._parents_unknown,
                parents_unknown=self._parents_unknown,
                alerts=self._alerts,
                records_by_type={
                    ("event",): self._events,
                    **{(type_,): count for type_, count in self._others.items()},
                },
                events_by_kind=self._kinds.counts(),
                alerts_by_rule=self._rules.counts(),
                incidents=self._incidents.counts(),
                insights=self._insights.counts(),
                feedback=self._feedback.counts(),
                lost=dict(self._lost),
                emitted=dict(self._emitted),
                latency={
                    stage: (list(lag.buckets), lag.count, lag.sum_ns / 1e9)
                    for stage, lag in self._latency.items()
                },
            )


def _put(into: dict[Labels, int], key: Labels, total: int) -> None:
    if key in into or len(into) < MAX_KEYS:
        into[key] = total
