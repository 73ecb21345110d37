"""What the operations work with: the state of the run, its stream, and the agent's own views."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import attrs
import msgspec

from linnix_core import (
    Alert,
    ComponentStatus,
    Context,
    Feedback,
    Incident,
    Insight,
    Loss,
    Metric,
    Query,
    encode,
)
from linnix_plugin_http.config import HttpConfig
from linnix_plugin_http.living import Living, Measure
from linnix_plugin_http.state import State
from linnix_plugin_http.stream import Stream

__all__ = ["Api", "as_json"]

_R = TypeVar("_R", Alert, Incident, Insight, Loss, Feedback)

#: Seconds between two requests to explain one incident.
EXPLAIN_EVERY_S = 60.0

#: Findings of earlier runs that one answer looks at.
MAX_RECORDED = 1000

#: Seconds for which what components say of themselves is taken as known.
METRICS_S = 5.0

#: Collectors whose events come from the kernel.
_KERNEL = ("ebpf", "bcc")


def as_json(record: _R, extras: msgspec.Struct | None = None) -> _R:
    """The JSON of a record, to be put where an answer holds one; ``extras`` are more keys of it."""
    line = encode(record)
    if extras is not None:
        line = line[:-1] + b"," + msgspec.json.encode(extras)[1:]
    # Only ever encoded again, and that writes it as it is.
    return cast("_R", msgspec.Raw(line))


@attrs.frozen
class Instrumentation:
    """Whether kernel events are being seen, by which collector, and if not, why."""

    active: bool
    transport: str
    reason: str | None


class Api:
    """One for each server."""

    def __init__(self, config: HttpConfig, context: Context, state: State, stream: Stream) -> None:
        self.config = config
        self.context = context
        self.state = state
        self.stream = stream
        self.living = Living(context.processes)
        self._asked: dict[str, float] = {}
        self._metrics: Sequence[Metric] = ()
        self._metrics_due = 0.0
        self._lock = threading.Lock()

    # --- processes --------------------------------------------------------------------

    def measure(self) -> Measure:
        """For the processes of one answer."""
        return Measure(self.state.system()[1].get("memory_total_bytes"))

    # --- components -------------------------------------------------------------------

    def components(self, kind: str = "") -> list[ComponentStatus]:
        """The components of the run, or those of one kind."""
        return [each for each in self.context.components() if kind in ("", each.kind)]

    def metrics(self) -> Sequence[Metric]:
        """What components say of themselves, asked every few seconds at most."""
        with self._lock:
            if time.monotonic() >= self._metrics_due:
                self._metrics = tuple(self.context.metrics())
                self._metrics_due = time.monotonic() + METRICS_S
            return self._metrics

    def instrumentation(self) -> Instrumentation:
        """Whether kernel events are being seen."""
        collectors = self.components("collectors")
        running = [each for each in collectors if each.state in ("running", "degraded")]
        ours = [each for each in collectors if (each.plugin or each.name) in _KERNEL]
        kernel = [each for each in running if each in ours]
        if self.state.kernel_event_ns is not None and running and (kernel or not ours):
            return Instrumentation(True, (kernel or running)[0].name, None)
        if kernel:
            name = kernel[0].name
            return Instrumentation(False, name, f"collectors.{name} has not seen an event yet")
        if not running:
            said = [f"{each.component} is {each.state}: {each.reason}" for each in collectors]
            why = "; ".join(said) or "this run has no collector"
            return Instrumentation(False, "userspace", f"nothing is collected: {why}")
        said = [f"{each.component} is {each.state}: {each.reason}" for each in ours]
        why = "; ".join(said) or "install linnix-plugin-ebpf"
        names = ", ".join(each.component for each in running)
        reason = f"no events come from the kernel, only what {names} sees ({why})"
        return Instrumentation(False, "userspace", reason)

    # --- findings ---------------------------------------------------------------------

    def alerts(
        self,
        limit: int,
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
        accept: Callable[[Alert], bool] = lambda _alert: True,
    ) -> list[Alert]:
        """Alerts between two times, the latest first: those of this run, then of the history."""
        found = {alert.id: alert for alert in self.state.alerts()}
        if len(found) < limit or since_ns is not None or until_ns is not None:
            for record in self._of_history("alert", since_ns, until_ns):
                found.setdefault(record.id, record)
        chosen = [
            alert
            for alert in found.values()
            if (since_ns is None or alert.ts_ns >= since_ns)
            and (until_ns is None or alert.ts_ns <= until_ns)
            and accept(alert)
        ]
        chosen.sort(key=lambda alert: (alert.ts_ns, alert.seq), reverse=True)
        return chosen[:limit]

    def alert(self, alert_id: str) -> Alert | None:
        """One by its id, from this run or the history."""
        known = next((each for each in self.state.alerts() if each.id == alert_id), None)
        if known is None:
            known = next((each for each in self._of_history("alert") if each.id == alert_id), None)
        return known

    def incidents(self, since_ns: int | None = None) -> list[Incident]:
        """Incidents, the one that changed last first; of earlier runs, as far as is recorded."""
        # Of each, the latest publication comes last.
        found = {each.id: each for each in self._of_history("incident", since_ns)}
        found |= {each.id: each for each in self.context.incidents.recent(self.config.max_page)}
        chosen = [i for i in found.values() if since_ns is None or i.updated_ns >= since_ns]
        chosen.sort(key=lambda each: each.updated_ns, reverse=True)
        return chosen

    def incident(self, incident_id: str) -> Incident | None:
        """One by its id, from this run or the history."""
        known = self.context.incidents.get(incident_id)
        if known is None:
            recorded = self._of_history("incident", incident=incident_id)
            known = recorded[-1] if recorded else None
        return known

    def is_open(self, incident: Incident) -> bool:
        """Whether it is not over; one of an earlier run is, whether that has said so or not."""
        return incident.closed_ns is None and incident.run_id == self.context.run_id

    def explained(self, incidents: Iterable[Incident]) -> dict[str, Insight]:
        """The latest insight of each incident that has one."""
        found: dict[str, Insight] = {}
        wanted = {each.id: each.run_id for each in incidents}
        if self._of_earlier_runs(wanted.values()):
            found = {each.incident: each for each in self._of_history("insight")}
        for incident_id in wanted:
            if (known := self.state.explanation(incident_id)) is not None:
                found[incident_id] = known
        return {each: found[each] for each in wanted if each in found}

    def insights(self, limit: int) -> list[Insight]:
        """Insights, the latest first."""
        found = {each.id: each for each in self.state.insights()}
        if len(found) < limit:
            for record in self._of_history("insight"):
                found.setdefault(record.id, record)
        chosen = sorted(found.values(), key=lambda each: (each.ts_ns, each.seq), reverse=True)
        return chosen[:limit]

    def insight(self, insight_id: str) -> Insight | None:
        """One by its id, from this run or the history."""
        known = self.state.insight(insight_id)
        if known is not None:
            return known
        return next((i for i in self._of_history("insight") if i.id == insight_id), None)

    def explanations(self, incident_id: str) -> list[Insight]:
        """Every insight that there is of an incident, the latest first."""
        found = {each.id: each for each in self.state.insights() if each.incident == incident_id}
        for record in self._of_history("insight", incident=incident_id):
            found.setdefault(record.id, record)
        return sorted(found.values(), key=lambda each: each.ts_ns, reverse=True)

    def verdicts(self, runs: Mapping[str, str]) -> dict[str, str]:
        """The latest verdict on each incident that has one; ``runs`` says of which run each is."""
        found: dict[str, str] = {}
        if self._of_earlier_runs(runs.values()):
            only = next(iter(runs)) if len(runs) == 1 else None
            recorded = self._of_history("feedback", incident=only)
            found = {each.incident: each.verdict for each in recorded}
        for incident_id in runs:
            if (known := self.state.verdict(incident_id)) is not None:
                found[incident_id] = known
        return found

    def feedback_total(self) -> int:
        """How often somebody has said something: in this run, and in recorded ones before it."""
        recorded = self._of_history("feedback")
        return self.state.feedback_total + self._of_earlier_runs(each.run_id for each in recorded)

    def _of_earlier_runs(self, run_ids: Iterable[str]) -> int:
        return sum(run_id != self.context.run_id for run_id in run_ids)

    def _of_history(
        self,
        kind: str,
        since_ns: int | None = None,
        until_ns: int | None = None,
        incident: str | None = None,
    ) -> list[Any]:
        """Records of one type, in the order of their time; the last ones where there are more."""
        query = Query((kind,), since_ns, until_ns, incident, limit=MAX_RECORDED)
        result = self.context.query(query)
        return [] if result is None else [each for each in result.records if each.type == kind]

    def explain(self, incidents: Iterable[str], *, at_once: bool = False) -> list[str]:
        """Have incidents explained; those that were queued. Each one seldom, unless ``at_once``."""
        now = time.monotonic()
        queued = []
        with self._lock:
            for incident_id in incidents:
                asked = self._asked.get(incident_id)
                recently = asked is not None and now - asked < EXPLAIN_EVERY_S
                if (at_once or not recently) and self.context.explain(incident_id):
                    self._asked.pop(incident_id, None)
                    self._asked[incident_id] = now
                    queued.append(incident_id)
            while len(self._asked) > MAX_RECORDED:
                del self._asked[next(iter(self._asked))]
        return queued
