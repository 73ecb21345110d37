"""The answer to ``/attribution``: the shape of the original Linnix, for any group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from linnix_plugin_attribution.groups import Unit
from linnix_plugin_attribution.ledger import Attribution, Ledger

__all__ = ["BadQuery", "attribution_document"]

DEFAULT_WINDOW_MINUTES = 5

#: A year of minutes, and the last second that fits into nanoseconds of 63 bits.
_MAX_MINUTES = 525_600
_MAX_SECONDS = 2**63 // 10**9


class BadQuery(ValueError):
    """A question that cannot be answered; the text says what to ask instead."""


def attribution_document(ledger: Ledger, query: Mapping[str, str]) -> dict[str, Any]:
    """Who made a victim wait, the most blamed first; times are whole Unix seconds.

    ``query`` has ``cgroup``, or ``pod`` and ``namespace``, and may have ``window`` in minutes,
    ``from`` and ``to`` (both included), ``max_id`` (nothing that came later) and ``event``.
    Without a time it is the last five minutes before the latest samples.
    The ``permalink`` in the answer asks for the same again. Raises `BadQuery`.
    """
    victim = _victim(query)
    window = _whole(query, "window", DEFAULT_WINDOW_MINUTES, most=_MAX_MINUTES)
    until = _whole(query, "to", ledger.last_ns // 10**9, most=_MAX_SECONDS)
    since = _whole(query, "from", max(until - window * 60, 0), most=_MAX_SECONDS)
    if since > until:
        raise BadQuery(f"from ({since}) is later than to ({until})")
    max_id = _whole(query, "max_id", ledger.last_id, most=2**63)
    # Seconds name everything that happens in them, so the last one counts to its end.
    rows = ledger.recent(since * 10**9, until * 10**9 + 10**9 - 1, victim=victim, max_id=max_id)
    event = query.get("event")
    if event is not None:
        rows = [row for row in rows if row.event_id == event]
    rows.sort(key=lambda row: (-row.blame_score, row.id))
    asked = {"pod": victim.pod, "namespace": victim.namespace}
    if not victim.pod:
        asked = {"cgroup": victim.cgroup}
    link = {**asked, "from": since, "to": until, "max_id": max_id}
    if event is not None:
        link["event"] = event
    return {
        "victim": asked,
        "window_minutes": (until - since) // 60,
        "from": since,
        "to": until,
        "permalink": f"/attribution?{urlencode(link)}",
        "attributions": [_row(row) for row in rows],
    }


def _row(row: Attribution) -> dict[str, Any]:
    offender = row.offender
    return {
        "offender": offender.name,
        "offender_pod": offender.pod or None,
        "offender_namespace": offender.namespace or None,
        "resource": row.resource,
        "stall_us": row.stall_us,
        "attributed_stall_us": row.attributed_us,
        "blame_score": row.blame_score,
        "timestamp": row.ts_ns // 10**9,
        "cpu_share": row.use_share if row.resource == "cpu" else 0.0,
        "fork_count": row.forks,
        "short_job_count": row.short_jobs,
        "event_id": row.event_id,
        "reason": row.reason,
    }


def _victim(query: Mapping[str, str]) -> Unit:
    cgroup, pod, namespace = (query.get(key, "") for key in ("cgroup", "pod", "namespace"))
    if cgroup and not (pod or namespace):
        return Unit(cgroup)
    if pod and namespace and not cgroup:
        return Unit("", namespace, pod)
    raise BadQuery("name the victim: either cgroup, or both pod and namespace")


def _whole(query: Mapping[str, str], key: str, default: int, *, most: int) -> int:
    text = query.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= most):
        raise BadQuery(f"{key} must be a whole number from 0 to {most}, got {text!r:.40}")
    return int(text)
