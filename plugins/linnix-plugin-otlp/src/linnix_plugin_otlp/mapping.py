"""Records as OpenTelemetry log events: pure functions, one per type of record.

Attributes have the names of the semantic conventions (``process.*``) where these mean exactly
what a record holds, and names under ``linnix.`` otherwise. What is not known is left out. What a
process chose stays the text of an attribute and is never part of a name or of the body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from linnix_core import (
    Alert,
    Evidence,
    Feedback,
    Incident,
    Insight,
    ProcessEvent,
    Severity,
    Subject,
    printable,
)
from linnix_plugin_otlp.births import Births, iso_time

__all__ = ["Attributes", "LogEvent", "Notice", "log_event"]

Attributes: TypeAlias = dict[str, str | int | float | bool | Sequence[str]]
Notice: TypeAlias = Alert | Incident | Insight | Feedback

#: Labels that the conventions have a name for.
LABELS = {
    "container": "container.id",
    "container_name": "container.name",
    "namespace": "k8s.namespace.name",
    "node": "k8s.node.name",
    "pod": "k8s.pod.name",
    "pod_uid": "k8s.pod.uid",
}

#: Severity numbers of the log data model: INFO, INFO2, WARN, ERROR, FATAL.
SEVERITY_NUMBERS: Mapping[Severity, int] = {
    "info": 9,
    "low": 10,
    "medium": 13,
    "high": 17,
    "critical": 21,
}

#: Characters of a body, and numbers of evidence of one alert.
MAX_BODY = 2000
MAX_EVIDENCE = 32


class LogEvent(NamedTuple):
    """One log record, before any library has seen it."""

    ts_ns: int
    name: str
    severity: Severity
    body: str | None
    attributes: Attributes


def log_event(record: Any, births: Births, *, arguments: bool = True) -> LogEvent:
    """The log record of a process event or a notice; with ``arguments`` or without."""
    if type(record) is ProcessEvent:
        return _process_event(record, births, arguments)
    return _NOTICES[type(record)](record, births)


def _process_event(event: ProcessEvent, births: Births, arguments: bool) -> LogEvent:
    births.learn(event)
    attributes = _identity(event.boot_id, event.pid, event.start_ns, births)
    if event.ppid is not None:
        attributes["process.parent_pid"] = event.ppid
        if event.parent_start_ns is not None and (
            created := births.created(event.boot_id, event.parent_start_ns)
        ):
            attributes["linnix.process.parent.creation.time"] = created
    if event.uid is not None:
        attributes["process.user.id"] = event.uid
    if event.gid is not None:
        attributes["linnix.process.group.id"] = event.gid
    _executable(attributes, event.exe, event.comm, event.cgroup)
    if event.args:
        attributes["process.args_count"] = len(event.args)
        if arguments:
            attributes["process.command"] = event.args[0]
            attributes["process.command_args"] = event.args
    if event.cwd is not None:
        attributes["process.working_directory"] = event.cwd
    if event.kind == "exit":
        _ending(attributes, event)
    attributes["linnix.source"] = event.source
    if event.truncated:
        attributes["linnix.truncated"] = True
    attributes["linnix.seq"] = event.seq
    _labels(attributes, event.labels)
    severity: Severity = "high" if event.kind == "oom" else "info"
    return LogEvent(event.ts_ns, f"linnix.process.{event.kind}", severity, None, attributes)


def _identity(boot_id: str, pid: int, start_ns: int, births: Births) -> Attributes:
    """What the conventions identify a process by; the start since boot where that is all."""
    attributes: Attributes = {"process.pid": pid}
    created = births.created(boot_id, start_ns)
    if created is None:
        attributes["linnix.process.start_ns"] = start_ns
    else:
        attributes["process.creation.time"] = created
    return attributes


def _executable(attributes: Attributes, exe: str | None, comm: str, cgroup: str | None) -> None:
    if exe:
        attributes["process.executable.path"] = exe
        attributes["process.executable.name"] = exe.rpartition("/")[2]
    if comm:
        attributes["linnix.process.comm"] = comm
    if cgroup is not None:
        attributes["process.linux.cgroup"] = cgroup


def _ending(attributes: Attributes, event: ProcessEvent) -> None:
    attributes["process.exit.time"] = iso_time(event.ts_ns)
    if event.exit_code is not None:
        attributes["process.exit.code"] = event.exit_code
    if event.signal is not None:
        attributes["linnix.process.signal"] = event.signal
    if event.duration_ns is not None:
        attributes["linnix.process.duration"] = event.duration_ns / 1e9
    if event.cpu_ns is not None:
        attributes["linnix.process.cpu.time"] = event.cpu_ns / 1e9
    if event.max_rss_bytes is not None:
        attributes["linnix.process.memory.peak"] = event.max_rss_bytes


def _labels(attributes: Attributes, labels: Mapping[str, str] | None) -> None:
    for name, value in (labels or {}).items():
        attributes.setdefault(LABELS.get(name) or f"linnix.label.{name}", value)


def _subject(subject: Subject, births: Births) -> Attributes:
    key = subject.key
    attributes = {} if key is None else _identity(key.boot_id, key.pid, key.start_ns, births)
    _executable(attributes, subject.exe, subject.comm, subject.cgroup)
    return attributes


def _evidence(attributes: Attributes, evidence: Sequence[Evidence], under: str) -> None:
    for each in evidence[:MAX_EVIDENCE]:
        attributes[f"linnix.{under}.{each.name}"] = float(each.value)
        attributes[f"linnix.{under}.{each.name}.unit"] = each.unit


def _alert(alert: Alert, births: Births) -> LogEvent:
    attributes: Attributes = {
        "linnix.alert.id": alert.id,
        "linnix.rule": alert.rule,
        "linnix.severity": alert.severity,
        **_subject(alert.subject, births),
    }
    if alert.class_ is not None:
        attributes["linnix.class"] = alert.class_
    _evidence(attributes, alert.evidence, "evidence")
    _actions(attributes, alert.actions)
    return _notice(alert, "linnix.alert", alert.severity, alert.message, attributes)


def _incident(incident: Incident, births: Births) -> LogEvent:
    attributes: Attributes = {
        "linnix.incident.id": incident.id,
        "linnix.incident.fingerprint": incident.fingerprint,
        "linnix.incident.alerts": incident.alerts,
        "linnix.incident.reopened": incident.reopened,
        "linnix.incident.opened.time": iso_time(incident.opened_ns),
        "linnix.incident.updated.time": iso_time(incident.updated_ns),
        "linnix.rules": incident.rules,
        "linnix.severity": incident.severity,
        **_subject(incident.subject, births),
    }
    if incident.closed_ns is not None:
        attributes["linnix.incident.closed.time"] = iso_time(incident.closed_ns)
    if incident.class_ is not None:
        attributes["linnix.class"] = incident.class_
    if incident.origin is not None:
        attributes["linnix.incident.origin.kind"] = incident.origin.kind
        attributes["linnix.incident.origin.name"] = incident.origin.name
    _evidence(attributes, incident.evidence, "evidence")
    _evidence(attributes, incident.peak, "peak")
    _actions(attributes, incident.actions)
    # One that is over is no trouble any more, so that rules on severity do not fire at its end.
    severity = "info" if incident.change == "closed" else incident.severity
    name = f"linnix.incident.{incident.change}"
    return _notice(incident, name, severity, incident.summary, attributes)


def _insight(insight: Insight, births: Births) -> LogEvent:
    attributes: Attributes = {
        "linnix.insight.id": insight.id,
        "linnix.incident.id": insight.incident,
        "linnix.class": insight.class_,
        "linnix.insight.confidence": float(insight.confidence),
        "linnix.insight.reasoner": insight.reasoner,
        "linnix.insight.grounded": insight.grounded,
    }
    if insight.primary_process is not None:
        attributes["linnix.insight.primary_process"] = insight.primary_process
    for fact in insight.facts[:MAX_EVIDENCE]:
        attributes[f"linnix.fact.{fact.id or fact.name}"] = (
            f"{fact.name}={fact.value:g} {fact.unit}"
        )
    _actions(attributes, insight.actions)
    return _notice(insight, "linnix.insight", "info", insight.why, attributes)


def _feedback(feedback: Feedback, births: Births) -> LogEvent:
    attributes: Attributes = {
        "linnix.feedback.id": feedback.id,
        "linnix.incident.id": feedback.incident,
        "linnix.feedback.verdict": feedback.verdict,
    }
    if feedback.by:
        attributes["linnix.feedback.by"] = feedback.by
    return _notice(feedback, "linnix.feedback", "info", feedback.note, attributes)


def _actions(attributes: Attributes, actions: Sequence[str]) -> None:
    if actions:
        attributes["linnix.actions"] = tuple(actions)


def _notice(
    notice: Notice, name: str, severity: Severity, text: str, attributes: Attributes
) -> LogEvent:
    attributes["linnix.seq"] = notice.seq
    _labels(attributes, getattr(notice, "labels", None))
    return LogEvent(
        notice.ts_ns, name, severity, printable(text, MAX_BODY) if text else None, attributes
    )


_NOTICES: Mapping[type, Callable[[Any, Births], LogEvent]] = {
    Alert: _alert,
    Incident: _incident,
    Insight: _insight,
    Feedback: _feedback,
}
