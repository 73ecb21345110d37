"""``linnix status``: how a running agent is, what it sees, and what it has lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from linnix_plugin_client.options import agent_options, as_json, no_color
from linnix_plugin_client.shown import count, percent, size, span

if TYPE_CHECKING:
    from linnix_plugin_client.agent import Agent
    from linnix_plugin_client.paper import Cell, Paper

__all__ = ["status"]

_STATES = {"running": "green", "degraded": "yellow", "unavailable": "yellow", "failed": "red"}


@click.command()
@click.option("--check", is_flag=True, help="Exit 1 if anything is wrong.")
@as_json
@no_color
@agent_options
def status(agent: Agent, check: bool, as_json: bool, no_color: bool) -> None:
    """Show how a running agent is: what it sees, its components, what it has lost.

    Exit 1 if none answers.
    """
    from linnix_plugin_client.paper import Paper

    document = {
        "url": agent.url,
        "status": agent.get("/status"),
        "ready": agent.get("/readyz", ok=(503,)),
        "components": agent.get("/plugins"),
        "loss": agent.get("/loss"),
    }
    document["problems"] = list(_problems(document))
    paper = Paper(no_color=no_color)
    if as_json:
        paper.json(document)
    else:
        _print(paper, document)
    if check and document["problems"]:
        raise click.exceptions.Exit(1)


def _problems(document: dict[str, Any]) -> Iterator[str]:
    """What is wrong, each as a sentence with its next step where there is one."""
    ready, lost = document["ready"], document["loss"]["lost_total"]
    if not ready["ready"]:
        yield f"not ready: {ready['reason'] or 'no reason given'}"
    for component in document["components"]:
        if component["state"] in ("degraded", "failed"):
            hint = f" ({component['hint']})" if component["hint"] else ""
            reason = component["reason"] or component["code"]
            yield f"{component['component']} is {component['state']}: {reason}{hint}"
    if lost:
        yield f"{lost:,} records were lost"


def _print(paper: Paper, document: dict[str, Any]) -> None:
    status, ready, loss = document["status"], document["ready"], document["loss"]
    paper.line(
        (f"linnix {status['version']}", "bold"),
        f" at {document['url']} on {status['host']}, up {span(status['uptime_s'])}",
    )
    for name, *cells in _lines(status, ready, loss):
        paper.line(f"  {name:<15}", *cells)
    paper.line()
    paper.table(
        ("COMPONENT", "STATE", "RECEIVED:", "DROPPED:", ""), map(_row, document["components"])
    )
    blind = [(c["component"], limit) for c in document["components"] for limit in c["limits"]]
    if blind:
        paper.line()
        paper.line(("What is not seen", "bold"))
        for component, limit in blind:
            paper.line(f"  {component}: {limit}", whole=True)
    lost = [(c, why, n) for c, whys in loss["by_component"].items() for why, n in whys.items()]
    if lost:
        paper.line()
        paper.line(("What was lost", "bold"))
        for component, why, number in lost:
            paper.line(f"  {component} {why}: {count(number, 'record')}")
    if document["problems"]:
        paper.line()
        paper.line(("What is wrong", "bold"))
        for problem in document["problems"]:
            paper.line("  ", (problem, "yellow"), whole=True)


def _lines(
    status: dict[str, Any], ready: dict[str, Any], loss: dict[str, Any]
) -> Iterator[tuple[Cell, ...]]:
    active = ready["kernel_instrumentation"] == "active"
    yield (
        "kernel events",
        ("active" if active else "not seen", "green" if active else "yellow"),
        f", by collectors.{ready['transport']}" if active else f": {ready['reason']}",
    )
    yield (
        "events",
        (
            f"{status['events_per_sec']:,}/s, {status['events_total']:,} in all, "
            f"{loss['lost_total']:,} records lost"
        ),
    )
    yield "processes", f"{status['processes']:,}"
    btf = "with" if ready["btf_available"] else "without"
    yield "kernel", f"{status['kernel_version']}, {btf} type information (BTF)"
    rss_mb = status["rss_mb"]
    yield (
        "agent",
        (
            f"CPU {percent(status['cpu_pct'])} of one core, "
            f"memory {size(None if rss_mb is None else rss_mb * 2**20)}"
        ),
    )
    yield (
        "incidents",
        (
            f"{status['incidents_open']} open, {status['incidents_last_1h']} in the last hour, "
            f"{count(status['feedback_entries'], 'verdict')}"
        ),
    )
    yield "explained by", ", ".join(status["reasoner"]["names"]) or "nobody"
    if status["active_rules"] is not None:
        yield "rules", f"{status['active_rules']}"
    yield "subscribers", f"{status['subscribers']}"


def _row(component: dict[str, Any]) -> tuple[Cell, ...]:
    counters = component["counters"]
    reason = component["reason"]
    if component["hint"]:
        reason += f" ({component['hint']})"
    return (
        component["component"],
        (component["state"], _STATES.get(component["state"], "")),
        *(f"{counters[name]:,}" if name in counters else "-" for name in ("received", "dropped")),
        reason,
    )
