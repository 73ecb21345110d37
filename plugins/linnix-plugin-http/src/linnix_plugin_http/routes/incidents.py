"""Incidents: what people are told about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct

from linnix_core import (
    Feedback,
    Incident,
    Insight,
    LinnixError,
    Severity,
    dump_bundle,
    printable,
)
from linnix_plugin_http.api import Api, as_json
from linnix_plugin_http.moments import Moment, moment_ns
from linnix_plugin_http.operations import Problem, Reply, operation
from linnix_plugin_http.shapes import (
    Done,
    FeedbackGiven,
    IncidentExtras,
    IncidentStats,
)

__all__ = ["give_feedback"]

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]


class IncidentReport(IncidentExtras, kw_only=True):
    """An incident, with what is known about it besides."""


class IncidentDetail(IncidentExtras, kw_only=True):
    """An incident, with every insight that there is of it."""

    investigation: Insight | None
    insights: list[Insight]


class IncidentSummary(Struct, kw_only=True):
    """Counts over the incidents that this run knows, and the latest ten."""

    total: int
    open: int
    analyzed: int
    pending_analysis: int
    by_event_type: dict[str, int]
    by_severity: dict[str, int]
    recent: list[IncidentReport]


class Queued(Struct, kw_only=True):
    """It will be explained; the insight comes as an event and at ``/insights/recent``."""

    queued: bool


class Which(Struct, kw_only=True):
    """Which incidents."""

    limit: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    analyzed: Annotated[bool | None, Meta(description="only those with, or without insight")] = None
    open: Annotated[bool | None, Meta(description="only those that are not over, or are")] = None
    event_type: Annotated[str | None, Meta(description="class, or rule of one without")] = None
    severity: Severity | None = None
    since: Annotated[Moment | None, Meta(description="those that changed since")] = None


class One(Struct, kw_only=True):
    """An incident."""

    id: Id


@operation("GET", "/incidents", blocking=True, returns=list[IncidentReport])
def incidents(api: Api, ask: Which) -> list[Incident]:
    """Incidents, the one that changed last first."""
    every = api.incidents(None if ask.since is None else moment_ns(ask.since, "since"))
    insights = api.explained(every)
    found = [
        each
        for each in every
        if (ask.open is None or ask.open == api.is_open(each))
        and (ask.severity is None or ask.severity == each.severity)
        and (ask.event_type is None or ask.event_type == _kind(each))
        and (ask.analyzed is None or ask.analyzed == (each.id in insights))
    ]
    return _reports(api, found[: min(ask.limit, api.config.max_page)], insights)


@operation("GET", "/incidents/summary", blocking=True)
def summary(api: Api) -> IncidentSummary:
    """Counts, and the latest ten."""
    every = api.incidents()
    insights = api.explained(every)
    return IncidentSummary(
        total=len(every),
        open=sum(map(api.is_open, every)),
        analyzed=len(insights),
        pending_analysis=len(every) - len(insights),
        by_event_type=dict(Counter(map(_kind, every))),
        by_severity=dict(Counter(each.severity for each in every)),
        recent=_reports(api, every[:10], insights),  # type: ignore[arg-type]
    )


@operation("GET", "/incidents/stats", blocking=True)
def stats(api: Api) -> IncidentStats:
    """Counts, and how long incidents lasted."""
    every = api.incidents()
    lasted = [(e.updated_ns - e.opened_ns) / 1e6 for e in every if e.closed_ns is not None]
    return IncidentStats(
        total=len(every),
        open=sum(map(api.is_open, every)),
        analyzed=len(api.explained(every)),
        by_severity=dict(Counter(each.severity for each in every)),
        circuit_breaker_triggers=0,
        avg_recovery_time_ms=sum(lasted) / len(lasted) if lasted else None,
        feedback_entries=api.feedback_total(),
    )


@operation("GET", "/incidents/{id}", statuses=(404,), blocking=True, returns=IncidentDetail)
def incident(api: Api, ask: One) -> Incident:
    """One incident, with its evidence, the tree around it and every insight."""
    found = _known(api, ask.id)
    insights = api.explanations(found.id)
    written = [as_json(each) for each in insights]
    verdict = api.verdicts({found.id: found.run_id}).get(found.id)
    extras = _extras(api, found, insights[0] if insights else None, verdict)
    shared = {name: getattr(extras, name) for name in IncidentExtras.__struct_fields__}
    return as_json(
        found,
        IncidentDetail(**shared, investigation=written[0] if written else None, insights=written),
    )


@operation("GET", "/incidents/{id}/bundle", statuses=(404,), blocking=True, returns=dict[str, Any])
def bundle(api: Api, ask: One) -> dict[str, Any]:
    """One incident of this run as a file that any reasoner can judge again."""
    made = api.context.bundle(ask.id)
    if made is None:
        raise Problem(404, "no such incident in this run", hint="GET /incidents lists them")
    document: dict[str, Any] = json.loads(dump_bundle(made))
    return document


@operation("POST", "/incidents/{id}/feedback", scope="act", statuses=(404,), blocking=True)
def feedback(api: Api, ask: One, body: FeedbackGiven) -> Done:
    """Say what an incident was worth."""
    return give_feedback(api, _known(api, ask.id).id, body.feedback, body.note, body.by)


@operation(
    "POST",
    "/incidents/{id}/explain",
    scope="act",
    statuses=(404, 409),
    returns=Queued,
    blocking=True,
)
def explain(api: Api, ask: One) -> Reply:
    """Have an incident of this run explained once more."""
    found = _known(api, ask.id)
    if not api.explain([found.id], at_once=True):
        raise Problem(409, "only incidents of this run that have a class can be explained")
    return Reply(Queued(queued=True), status=202)


def give_feedback(api: Api, incident_id: str, verdict: str, note: str, by: str) -> Done:
    """Pass it on to everybody who wants to know."""
    given = Feedback(incident_id, verdict, note, by)  # type: ignore[arg-type]
    try:
        api.context.feedback(given)
    except LinnixError as error:
        raise Problem(503, str(error), hint=error.hint) from None
    return Done()


def _known(api: Api, incident_id: str) -> Incident:
    found = api.incident(incident_id)
    if found is None:
        raise Problem(404, "no such incident", hint="GET /incidents lists those that are known")
    return found


def _kind(incident: Incident) -> str:
    return incident.class_ or (incident.rules[0] if incident.rules else "")


def _reports(
    api: Api, incidents: Sequence[Incident], insights: Mapping[str, Insight]
) -> list[Incident]:
    verdicts = api.verdicts({each.id: each.run_id for each in incidents})
    return [
        as_json(each, _extras(api, each, insights.get(each.id), verdicts.get(each.id)))
        for each in incidents
    ]


def _extras(
    api: Api, incident: Incident, insight: Insight | None, verdict: str | None
) -> IncidentExtras:
    around = api.state.around(incident.id)
    psi_cpu, psi_memory = around.get("psi_cpu"), around.get("psi_memory")
    load = [around.get(name) for name in ("load1", "load5", "load15")]
    key = incident.subject.key
    return IncidentExtras(
        timestamp=incident.opened_ns / 1e9,
        event_type=_kind(incident),
        target_pid=None if key is None else key.pid,
        target_name=incident.subject.comm or incident.subject.exe,
        psi_cpu=None if psi_cpu is None else psi_cpu.some_avg10,
        psi_memory=None if psi_memory is None else psi_memory.some_avg10,
        cpu_percent=around.get("cpu_percent"),
        load_avg=None if None in load else ",".join(f"{value:.2f}" for value in load),
        feedback=verdict,
        llm_analysis=None if insight is None else insight.why,
        llm_analyzed_at=None if insight is None else insight.ts_ns / 1e9,
        investigation_rendered=None if insight is None else _rendered(insight),
    )


def _rendered(insight: Insight) -> str:
    """An insight as lines of text; what a process has chosen cannot break them."""
    lines = [f"[{insight.class_}] {printable(insight.why)}"]
    lines += [
        f"   supports:    {printable(fact.name)} = {fact.value:g} {printable(fact.unit)}"
        for fact in insight.facts
    ]
    lines += [f"   proposed:    {printable(action)}" for action in insight.actions]
    lines.append(f"   confidence {insight.confidence:.2f} by {printable(insight.reasoner)}")
    return "\n".join(lines)
