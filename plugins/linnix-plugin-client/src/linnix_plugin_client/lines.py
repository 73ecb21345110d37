"""Each record as one line: what ``linnix stream`` and ``linnix alerts`` print."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from linnix_plugin_client.paper import SEVERITY
from linnix_plugin_client.shown import clock_time, count, percent, size, span

if TYPE_CHECKING:
    from linnix_plugin_client.paper import Cell

__all__ = ["alert_cells", "record_cells"]

#: The style of each kind of event.
_KINDS = {"exec": "green", "fork": "cyan", "exit": "dim", "oom": "bold red"}


def record_cells(record: dict[str, Any]) -> list[Cell]:
    """The line of any record; of a type that is not known, its name."""
    kind = str(record["type"])
    cells: list[Cell] = _LINES[kind](record) if kind in _LINES else [kind]
    return [clock_time(record["ts_ns"]), " ", *cells]


def alert_cells(alert: dict[str, Any]) -> list[Cell]:
    """``[HIGH]     fork_storm - 212 forks in 5 s by bash (pid 4412) (testhost)``."""
    severity = str(alert["severity"])
    return [
        _tag(severity, SEVERITY.get(severity, "")),
        f" {alert['rule']} - {alert['message']} ({alert['host']})",
    ]


def _tag(name: str, style: str = "") -> Cell:
    return f"[{name.upper()}]".ljust(10), style


def _event(event: dict[str, Any]) -> list[Cell]:
    kind = str(event["kind"])
    ppid = "-" if event["ppid"] is None else event["ppid"]
    command = " ".join(event["args"] or ()) or event["exe"] or event["comm"]
    cells: list[Cell] = [
        _tag(kind, _KINDS.get(kind, "")),
        f" PID {event['pid']:<8} PPID {ppid:<8} CMD ",
    ]
    if kind == "exit":
        return [*cells, f"{event['comm']}  ", (_end(event), "dim")]
    return [*cells, command]


def _end(event: dict[str, Any]) -> str:
    parts = []
    if event["signal"] is not None:
        parts.append(f"signal {event['signal']}")
    elif event["exit_code"] is not None:
        parts.append(f"exit code {event['exit_code']}")
    if event["duration_ns"] is not None:
        parts.append(f"after {span(event['duration_ns'] / 1e9)}")
    if event["cpu_ns"] is not None:
        parts.append(f"CPU {span(event['cpu_ns'] / 1e9)}")
    if event["max_rss_bytes"] is not None:
        parts.append(f"RSS {size(event['max_rss_bytes'])}")
    return ", ".join(parts)


def _sample(sample: dict[str, Any]) -> list[Cell]:
    return [
        _tag("sample"),
        (
            f" PID {sample['pid']:<8} CPU {percent(sample['cpu_percent']):<7} "
            f"RSS {size(sample['rss_bytes']):<6} CMD {sample['comm']}"
        ),
    ]


def _cgroup(sample: dict[str, Any]) -> list[Cell]:
    return [
        _tag("cgroup"),
        (
            f" CPU {percent(sample['cpu_percent']):<7} "
            f"memory {size(sample['memory_bytes']):<6} {sample['cgroup']}"
        ),
    ]


def _system(sample: dict[str, Any]) -> list[Cell]:
    total, available = sample["memory_total_bytes"], sample["memory_available_bytes"]
    used = None if not total or available is None else 100 * (1 - available / total)
    loads = (sample[name] for name in ("load1", "load5", "load15"))
    load = " ".join("-" if value is None else f"{value:.2f}" for value in loads)
    return [
        _tag("system"),
        f" CPU {percent(sample['cpu_percent'])} memory {percent(used)} load {load}",
    ]


def _loss(loss: dict[str, Any]) -> list[Cell]:
    return [
        _tag("loss", "yellow" if loss["lost"] else "dim"),
        (
            f" {loss['component']} {loss['why']}: {count(loss['lost'], 'record')} lost, "
            f"{loss['lost_total']:,} since the start"
        ),
    ]


def _incident(incident: dict[str, Any]) -> list[Cell]:
    severity = str(incident["severity"])
    return [
        _tag("incident", SEVERITY.get(severity, "")),
        (
            f" {incident['change']} {severity} {incident_name(incident)} {incident['id']}: "
            f"{incident['summary']}"
        ),
    ]


def incident_name(incident: dict[str, Any]) -> str:
    """Its class, or its rules where they have none."""
    return str(incident["class"] or ", ".join(incident["rules"]) or "incident")


def _insight(insight: dict[str, Any]) -> list[Cell]:
    said = (
        f" {insight['class']} {100 * insight['confidence']:.0f}% by {insight['reasoner']} "
        f"{insight['incident']}: {insight['why']}"
    )
    if insight["actions"]:
        said += "; try: " + "; or ".join(insight["actions"])
    return [_tag("insight", "bold"), said]


def _feedback(feedback: dict[str, Any]) -> list[Cell]:
    said = f" {feedback['incident']} {feedback['verdict']}"
    if feedback["by"]:
        said += f" by {feedback['by']}"
    return [_tag("feedback"), f"{said}: {feedback['note']}" if feedback["note"] else said]


_LINES: dict[str, Callable[[dict[str, Any]], list[Cell]]] = {
    "event": _event,
    "sample": _sample,
    "cgroup": _cgroup,
    "system": _system,
    "loss": _loss,
    "alert": alert_cells,
    "incident": _incident,
    "insight": _insight,
    "feedback": _feedback,
}
