"""Each thing in one line of plain text, every word that others chose made printable."""

from __future__ import annotations

import time
from typing import Protocol

from linnix_core import Alert, Incident, Insight, Loss, ProcessEvent, Subject, printable

__all__ = [
    "alert_line",
    "clock_time",
    "component_line",
    "count",
    "event_line",
    "incident_line",
    "incident_name",
    "insight_line",
    "limit_line",
    "loss_line",
    "rate",
    "span",
    "state_reason",
    "whom",
]


class Status(Protocol):
    """What is shown of a component."""

    @property
    def component(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def hint(self) -> str | None: ...


def clock_time(ts_ns: int) -> str:
    """Hours, minutes and seconds where the reader is."""
    return time.strftime("%H:%M:%S", time.localtime(ts_ns // 1_000_000_000))


def span(seconds: float) -> str:
    """A duration with its two largest units.

    >>> span(42.7), span(134), span(7260), span(183600)
    ('42s', '2m 14s', '2h 01m', '2d 03h')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "incident"), count(2, "process"), count(12345, "event")
    ('1 incident', '2 processes', '12,345 events')
    """
    if number != 1:
        noun += "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}"


def rate(per_second: float) -> str:
    """As many digits as tell something.

    >>> rate(0.04), rate(12.44), rate(48210.3)
    ('0.0', '12.4', '48,210')
    """
    return f"{per_second:.1f}" if per_second < 100 else f"{per_second:,.0f}"


def whom(subject: Subject, message: str = "") -> str:
    """Whom an alert is about, in brackets, unless its message names the process already."""
    key = subject.key
    if key is None or f"pid {key.pid}" in message:
        return ""
    return f" [{printable(subject.comm)}, pid {key.pid}]" if subject.comm else f" [pid {key.pid}]"


def alert_line(alert: Alert) -> str:
    """``10:15:30 ALERT high fork_storm: 212 forks in 5 s [bash, pid 4412]``."""
    return (
        f"{clock_time(alert.ts_ns)} ALERT {alert.severity} {printable(alert.rule)}: "
        f"{printable(alert.message)}{whom(alert.subject, alert.message)}"
    )


def incident_line(incident: Incident) -> str:
    """``10:15:31 INCIDENT opened high fork_storm: …``, a closed one with its length."""
    said = (
        f"{clock_time(incident.ts_ns)} INCIDENT {incident.change} {incident.severity} "
        f"{printable(incident_name(incident))}: "
        f"{printable(incident.summary)}{whom(incident.subject, incident.summary)}"
    )
    if incident.change == "closed":
        lasted = ((incident.closed_ns or incident.ts_ns) - incident.opened_ns) / 1e9
        said += f"; {count(incident.alerts, 'alert')} in {span(max(lasted, 0))}"
    return said


def incident_name(incident: Incident) -> str:
    """Its class, or its rules where they have none."""
    return incident.class_ or ", ".join(incident.rules) or "incident"


def insight_line(insight: Insight) -> str:
    """``10:15:33 INSIGHT fork_storm, 92 % by heuristics: why; try: this; or that``."""
    said = (
        f"{clock_time(insight.ts_ns)} INSIGHT {insight.class_}, {insight.confidence:.0%} by "
        f"{printable(insight.reasoner)}: {printable(insight.why)}"
    )
    if insight.actions:
        said += "; try: " + "; or ".join(map(printable, insight.actions))
    return said


def loss_line(loss: Loss) -> str:
    """``10:15:40 LOSS collectors.ebpf ring_full: 120 records lost, 1,240 since the start``."""
    return (
        f"{clock_time(loss.ts_ns)} LOSS {printable(loss.component)} {printable(loss.why)}: "
        f"{count(loss.lost, 'record')} lost, {loss.lost_total:,} since the start"
    )


def event_line(event: ProcessEvent) -> str:
    """``10:15:30 exec pid 4412 ppid 4001 bash: bash -c true``, an exit with how it ended."""
    ppid = "-" if event.ppid is None else event.ppid
    said = f"{clock_time(event.ts_ns)} {event.kind} pid {event.pid} ppid {ppid} "
    said += printable(event.comm)
    if event.args:
        said += ": " + printable(" ".join(event.args))
    if event.signal is not None:
        said += f" (signal {event.signal})"
    elif event.exit_code is not None:
        said += f" (exit code {event.exit_code})"
    return said


def component_line(ts_ns: int, status: Status) -> str:
    """``10:15:30 COMPONENT handlers.http unavailable: port 3000 is taken (…)``."""
    return (
        f"{clock_time(ts_ns)} COMPONENT {printable(status.component)} {status.state}"
        f"{state_reason(status)}"
    )


def limit_line(ts_ns: int, status: Status, limit: str) -> str:
    """``10:15:30 BLIND SPOT collectors.psutil: exit codes are not known``."""
    return f"{clock_time(ts_ns)} BLIND SPOT {printable(status.component)}: {printable(limit)}"


def state_reason(status: Status) -> str:
    """Why a component is as it is and what to do, as the end of a sentence."""
    said = f": {printable(status.reason)}" if status.reason else ""
    return f"{said} ({printable(status.hint)})" if status.hint else said
