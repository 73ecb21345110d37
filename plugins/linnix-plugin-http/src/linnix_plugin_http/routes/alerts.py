"""Alerts, in short and in full."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from linnix_core import Alert, Severity
from linnix_plugin_http.api import Api, as_json
from linnix_plugin_http.moments import Moment, moment_ns
from linnix_plugin_http.operations import Problem, operation
from linnix_plugin_http.shapes import TimelineEntry

__all__ = ["found"]


class Between(Struct, kw_only=True):
    """Which alerts."""

    start: Moment | None = None
    end: Moment | None = None
    severity: Severity | None = None
    rule: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000


class OneAlert(Struct, kw_only=True):
    """One alert."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]


def found(api: Api, ask: Between) -> list[Alert]:
    """The alerts that are asked for, the latest first."""
    return api.alerts(
        min(ask.limit, api.config.max_page),
        since_ns=None if ask.start is None else moment_ns(ask.start, "start"),
        until_ns=None if ask.end is None else moment_ns(ask.end, "end"),
        accept=lambda alert: (
            (ask.severity is None or alert.severity == ask.severity)
            and (ask.rule is None or alert.rule == ask.rule)
        ),
    )


@operation("GET", "/timeline", blocking=True)
def timeline(api: Api, ask: Between) -> list[TimelineEntry]:
    """Alerts in short, the latest first."""
    return [
        TimelineEntry(
            id=alert.id,
            timestamp=alert.ts_ns / 1e9,
            severity=alert.severity,
            rule=alert.rule,
            message=alert.message,
            host=alert.host,
            class_=alert.class_,
            pid=None if alert.subject.key is None else alert.subject.key.pid,
            comm=alert.subject.comm,
        )
        for alert in found(api, ask)
    ]


@operation("GET", "/alerts/{id}", statuses=(404,), blocking=True)
def alert(api: Api, ask: OneAlert) -> Alert:
    """One alert, as a record."""
    known = api.alert(ask.id)
    if known is None:
        raise Problem(404, "Not found", hint="/timeline lists the alerts that are known")
    return as_json(known)
