"""Insights: why. They are read here, never made: no caller waits for a model."""

from __future__ import annotations

import html
import time
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct
from starlette.responses import HTMLResponse

from linnix_core import CLASSES, Insight, printable
from linnix_plugin_http.api import Api, as_json
from linnix_plugin_http.operations import Problem, Reply, operation
from linnix_plugin_http.routes.incidents import give_feedback
from linnix_plugin_http.shapes import (
    Consumer,
    Done,
    FeedbackGiven,
    FeedbackOfReference,
    InsightRecord,
    Overview,
    OverviewAlert,
    OverviewMetrics,
)

__all__ = ["INSIGHT_SCHEMA"]

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]

#: Insights of one answer, whatever ``limit`` says.
MAX_RECENT = 200

#: What every reasoner's answer is made into, as a JSON Schema.
INSIGHT_SCHEMA: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Insight",
    "type": "object",
    "additionalProperties": False,
    "required": ["class", "confidence", "primary_process", "why", "actions"],
    "properties": {
        "class": {"enum": list(CLASSES)},
        "confidence": {"type": "number", "minimum": 0.0, "maximum": 1.0},
        "primary_process": {
            "oneOf": [{"type": "null"}, {"type": "string", "minLength": 1, "maxLength": 120}]
        },
        "why": {"type": "string", "minLength": 1, "maxLength": 120},
        "actions": {
            "type": "array",
            "maxItems": 3,
            "items": {"type": "string", "minLength": 1, "maxLength": 160},
        },
    },
}


class Recent(Struct, kw_only=True):
    """How many."""

    limit: Annotated[
        int, Meta(ge=1, le=1_000_000, description=f"at most {MAX_RECENT} in any case")
    ] = 20


class One(Struct, kw_only=True):
    """An insight."""

    id: Id


class OneAs(One, kw_only=True):
    """An insight, and how it is to be shown."""

    format: Literal["json", "html"] = "json"


@operation("GET", "/insights", blocking=True)
def overview(api: Api) -> Overview:
    """What is going on. Open incidents without an insight are queued to be explained."""
    open_ = sorted(api.context.incidents.open(), key=lambda i: i.updated_ns, reverse=True)
    explained = {each.id: api.state.explanation(each.id) for each in open_}
    queued = api.explain(
        each.id for each in open_ if each.class_ is not None and explained[each.id] is None
    )
    latest = next((each for each in explained.values() if each is not None), None)
    _, system = api.state.system()
    if not open_:
        summary = "No incident is open."
    elif latest is None:
        summary = f"{_count(open_)} open; not explained yet."
    else:
        summary = f"{_count(open_)} open. {latest.why}"
    measure = api.measure()
    view = api.context.processes
    return Overview(
        summary=summary,
        risks=[f"{each.severity}: {each.summary}" for each in open_[:5]],
        metrics=OverviewMetrics(
            cpu_percent=system.get("cpu_percent"),
            mem_percent=_memory_percent(system),
            load_avg=[system.get(name) for name in ("load1", "load5", "load15")],
        ),
        top_cpu=[
            Consumer(pid=p.pid, comm=p.comm, cpu_percent=p.sample.cpu_percent)
            for p in view.top(5, by=lambda sample: sample.cpu_percent)
            if p.sample is not None
        ],
        top_memory=[
            Consumer(pid=p.pid, comm=p.comm, mem_percent=measure.memory_percent(p))
            for p in view.top(5, by=lambda sample: sample.rss_bytes)
        ],
        alerts=[
            OverviewAlert(
                comm=alert.subject.comm,
                reason=alert.message,
                pid=None if alert.subject.key is None else alert.subject.key.pid,
            )
            for alert in api.state.alerts()[:5]
        ],
        insight=None if latest is None else as_json(latest),
        queued=queued,
        timestamp=time.time(),
    )


@operation("GET", "/insights/recent", blocking=True)
def recent(api: Api, ask: Recent) -> list[InsightRecord]:
    """Insights, the latest first."""
    return _records(api, api.insights(min(ask.limit, MAX_RECENT)))


@operation("GET", "/insights/schema")
@operation("GET", "/schema/insight")
def schema(api: Api) -> dict[str, Any]:
    """The JSON Schema of what a reasoner's answer is made into."""
    return INSIGHT_SCHEMA


@operation("GET", "/insights/{id}", statuses=(404,), blocking=True, returns=InsightRecord)
def insight(api: Api, ask: OneAs) -> Reply:
    """One insight; ``format=html`` makes it a page of its own."""
    found = _known(api, ask.id)
    if ask.format == "html":
        return Reply(HTMLResponse(_page(found)))
    return Reply(_records(api, [found])[0])


@operation("POST", "/insights/{id}/feedback", scope="act", statuses=(404,), blocking=True)
def feedback(api: Api, ask: One, body: FeedbackGiven) -> Done:
    """Say what the incident of an insight was worth, or that its cause is wrong."""
    found = _known(api, ask.id)
    return give_feedback(api, found.incident, body.feedback, body.note, body.by)


@operation("POST", "/api/feedback", scope="act", statuses=(404,), blocking=True)
def feedback_of_reference(api: Api, body: FeedbackOfReference) -> Done:
    """The same, as the reference's clients send it; ``insight_id`` may name an incident."""
    known = api.insight(body.insight_id)
    incident_id = body.insight_id if known is None else known.incident
    if known is None and api.incident(body.insight_id) is None:
        raise Problem(404, "no such insight")
    by = ":".join(part for part in (body.source, body.user_id) if part)
    return give_feedback(api, incident_id, body.label, "", by)


def _known(api: Api, insight_id: str) -> Insight:
    found = api.insight(insight_id)
    if found is None:
        raise Problem(404, "no such insight", hint="GET /insights/recent lists those there are")
    return found


def _records(api: Api, insights: list[Insight]) -> list[InsightRecord]:
    verdicts = api.verdicts({each.incident: each.run_id for each in insights})
    return [
        InsightRecord(
            timestamp=each.ts_ns / 1e9,
            insight=as_json(each),
            feedback=verdicts.get(each.incident),
        )
        for each in insights
    ]


def _count(incidents: list[Any]) -> str:
    return "1 incident is" if len(incidents) == 1 else f"{len(incidents)} incidents are"


def _memory_percent(system: dict[str, Any]) -> float | None:
    total, available = system.get("memory_total_bytes"), system.get("memory_available_bytes")
    if not total or available is None:
        return None
    return float(round((total - available) / total * 100, 2))


def _page(insight: Insight) -> str:
    def safe(text: object) -> str:
        return html.escape(printable(str(text)))

    facts = "".join(
        f"<tr><td>{safe(f.name)}<td>{f.value:g} {safe(f.unit)}<td>{safe(f.process or '')}"
        for f in insight.facts
    )
    actions = "".join(f"<li>{safe(action)}" for action in insight.actions)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{safe(insight.class_)}'
        f"</title><h1>{safe(insight.why)}</h1><p>{safe(insight.class_)}, confidence "
        f"{insight.confidence:.2f}, by {safe(insight.reasoner)}, incident "
        f"{safe(insight.incident)}<table>{facts}</table><ul>{actions}</ul></html>"
    )
