"""The handler: its configuration, what it is told, and what it adds to others."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import attrs

from linnix_core import (
    Alert,
    Batch,
    Context,
    Duration,
    Fact,
    Health,
    Incident,
    Metric,
    Mount,
    Process,
    ProcessSample,
    Subject,
    hookimpl,
)
from linnix_plugin_attribution.alerts import StallAlerts
from linnix_plugin_attribution.api import AttributionApp
from linnix_plugin_attribution.document import attribution_document
from linnix_plugin_attribution.facts import facts_about
from linnix_plugin_attribution.groups import Unit, nearest
from linnix_plugin_attribution.ledger import Ledger
from linnix_plugin_attribution.rounds import MAX_GROUPS, Rounds

__all__ = ["AttributionConfig", "AttributionHandler"]

#: Nanoseconds before the latest alert of an incident that its facts are about.
EVIDENCE_NS = 60 * 10**9


def _above_zero(instance: object, field: attrs.Attribute[Duration], value: Duration) -> None:
    if value < 0.001:
        raise ValueError(f"{field.name} must be at least 1ms")


def _positive(instance: object, field: attrs.Attribute[int], value: int) -> None:
    if value < 1:
        raise ValueError(f"{field.name} must be at least 1")


@attrs.frozen
class AttributionConfig:
    """What is worth telling, and how much is kept."""

    threshold: Duration = attrs.field(
        default=Duration(0.1),
        validator=_above_zero,
        metadata={"help": "stall of one pair in one interval from which it is more than a count"},
    )
    max_pairs: int = attrs.field(
        default=4096,
        validator=_positive,
        metadata={"help": "counters of each kind; the longest quiet one makes room for a new one"},
    )
    alerts: bool = attrs.field(
        default=False,
        metadata={"help": "raise an alert when one group keeps another one waiting"},
    )
    sustained: Duration = attrs.field(
        default=Duration(15.0),
        metadata={"help": "alert after a pair was above the threshold for so long"},
    )
    cooldown: Duration = attrs.field(
        default=Duration(300.0),
        metadata={"help": "no second alert about a pair before; 0s: one in each interval"},
    )


class AttributionHandler:
    """Tell which cgroup makes which other one wait."""

    Config = AttributionConfig

    def __init__(self, config: AttributionConfig, context: Context) -> None:
        threshold_us = round(config.threshold * 1e6)
        self._context = context
        self._rounds = Rounds()
        self._ledger = Ledger(threshold_us=threshold_us, max_pairs=config.max_pairs)
        self._alerts = None
        if config.alerts:
            self._alerts = StallAlerts(
                sustained_ns=round(config.sustained * 1e9),
                cooldown_ns=round(config.cooldown * 1e9),
                threshold_us=threshold_us,
            )
        self._saw_pressure = False
        self._saw_cpu = False
        # Batches, facts, metrics and queries come from different threads.
        self._lock = threading.Lock()

    @hookimpl
    def linnix_handle(self, batch: Batch) -> list[Alert]:
        """Take records in; alerts of the rounds that they complete, if any are wanted."""
        alerts: list[Alert] = []
        with self._lock:
            for record in batch:
                finished = self._rounds.add(record)
                if finished is None:
                    continue
                self._saw_pressure = any(path != "/" for path in finished.pressure_us)
                self._saw_cpu = any(g.cpu_us is not None for g in finished.groups.values())
                told = self._ledger.add(finished)
                if self._alerts is not None:
                    alerts += self._alerts.judge(told, finished.seconds, self._subject)
        return alerts

    @hookimpl
    def linnix_evidence(self, incident: Incident) -> list[Fact]:
        """Who waited for the group of this incident, and for whom it waited."""
        cgroup, key = incident.subject.cgroup, incident.subject.key
        if cgroup is None and key is not None:
            process = self._context.processes.get(key)
            cgroup = process.cgroup if process is not None else None
        until_ns = incident.updated_ns or incident.ts_ns
        with self._lock:
            place = None if cgroup is None else nearest(cgroup, self._ledger.places)
            unit = Unit(cgroup) if cgroup is not None else None
            if place is not None:
                unit = self._ledger.places[place]
            # Samples of the moment of an alert may be a little younger than it.
            rows = self._ledger.recent(until_ns - EVIDENCE_NS, until_ns + EVIDENCE_NS)
        # The core gives the subject of an incident the first number.
        return list(facts_about(unit, rows, process=None if key is None else "P1"))

    @hookimpl
    def linnix_metrics(self) -> list[Metric]:
        """The counters of all pairs."""
        with self._lock:
            return list(self._ledger.metrics(self._context.host))

    @hookimpl
    def linnix_http(self) -> list[Mount]:
        """``/attribution``, for whoever serves HTTP."""
        return [Mount("/attribution", AttributionApp(self.attribution), "Who stalls whom")]

    @hookimpl
    def linnix_health(self) -> Health:
        """Always ok; the limits say what is not measured here."""
        limits = []
        if not self._saw_pressure:
            limits.append("no pressure of groups has been measured: it needs collectors.psi")
        elif not self._saw_cpu:
            limits.append("the CPU of groups is summed up from processes, which misses short ones")
        if left_out := self._rounds.left_out:
            limits.append(f"{left_out} groups are not followed: {MAX_GROUPS} is the most")
        return Health(limits=tuple(limits))

    def attribution(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The document that ``/attribution`` answers with; see `attribution_document`.

        Raises ``ValueError`` with a sentence for a query that cannot be answered.
        """
        with self._lock:
            return attribution_document(self._ledger, query)

    def _subject(self, offender: Unit) -> Subject:
        """The group as people find it, with its busiest process."""
        paths = sorted(path for path, unit in self._ledger.places.items() if unit == offender)

        def busy(sample: ProcessSample) -> float | None:
            return sample.cpu_percent if sample.cgroup in paths else None

        cgroup = paths[0] if paths else offender.cgroup or None
        for process in self._context.processes.top(1, by=busy):
            return _subject(process, cgroup)
        return Subject(cgroup=cgroup)


def _subject(process: Process, cgroup: str | None) -> Subject:
    return Subject(process.key, process.exe, process.comm, cgroup)
