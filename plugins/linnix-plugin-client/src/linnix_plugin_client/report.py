"""What ``linnix reason`` prints: the measurements as a table of its own, then the words."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_client.paper import fitted
from linnix_plugin_client.shown import clock_time, day_time, percent

if TYPE_CHECKING:
    from linnix_plugin_client.agent import Agent
    from linnix_plugin_client.endpoint import Reply
    from linnix_plugin_client.machine import Picture
    from linnix_plugin_client.paper import Paper

__all__ = ["Findings", "print_measured", "print_reply", "report_document"]

#: The most alerts and insights that are shown and given to a model.
MAX_FINDINGS = 10

#: Columns of a program's name where no window says how many there are.
NAME_WIDTH = 66


@attrs.frozen
class Findings:
    """What an agent has found lately; None where nobody asked."""

    alerts: list[dict[str, Any]] | None = None
    insights: list[dict[str, Any]] | None = None

    @classmethod
    def of(cls, agent: Agent, *, alerts: bool, insights: bool) -> Findings:
        """The latest of an agent."""
        return cls(
            agent.get("/alerts", limit=MAX_FINDINGS) if alerts else None,
            [record["insight"] for record in agent.get("/insights/recent", limit=MAX_FINDINGS)]
            if insights
            else None,
        )


def print_measured(paper: Paper, picture: Picture, findings: Findings) -> None:
    """The machine, its busiest processes, and what an agent has found."""
    paper.line((f"System snapshot ({picture.source}, {clock_time(picture.ts_ns)})", "bold"))
    paper.line(f"  CPU      {percent(picture.cpu_percent)}")
    paper.line(f"  Memory   {percent(picture.memory_percent)}")
    paper.line("  Load     " + " ".join(f"{value:.2f}" for value in picture.load))
    if picture.stalled:
        waits = ", ".join(f"{name} {percent(share)}" for name, share in picture.stalled.items())
        paper.line(f"  Stalled  {waits} of the last 10 s")
    paper.line()
    paper.line(("Top resource consumers", "bold"))
    for line in _box(picture, paper.width):
        paper.line(line)
    if findings.alerts is not None:
        paper.line()
        paper.line(("Alerts", "bold"))
        for alert in findings.alerts:
            paper.line(f"  {day_time(alert['ts_ns'])} [{str(alert['severity']).upper()}] "
                       f"{alert['rule']}: {alert['message']}")  # fmt: skip
        if not findings.alerts:
            paper.line("  none")
    if findings.insights is not None:
        paper.line()
        paper.line(("Insights", "bold"))
        for insight in findings.insights:
            paper.line(f"  {day_time(insight['ts_ns'])} {insight['class']}: {insight['why']}")
        if not findings.insights:
            paper.line("  none")
    paper.line()
    paper.flush()


def print_reply(paper: Paper, reply: Reply, *, said_already: bool) -> None:
    """The words of the model, and whose they are."""
    if not said_already:
        for line in reply.text.splitlines():
            paper.line(line, whole=True)
    else:
        paper.words("\n")
    cut = ", cut off at its limit" if reply.cut else ""
    paper.line((f"— in the words of {reply.model}{cut}; the table is what was measured", "dim"))


def report_document(
    picture: Picture,
    findings: Findings,
    reply: Reply | None,
    endpoint: str,
    error: LinnixError | None,
) -> dict[str, Any]:
    """All of it as one JSON document."""
    document = attrs.asdict(picture)
    by_cpu, by_memory = document.pop("by_cpu"), document.pop("by_memory")
    return {
        "snapshot": document,
        "processes": [
            {"id": f"P{number}", **row} for number, row in enumerate([*by_cpu, *by_memory], 1)
        ],
        "alerts": findings.alerts,
        "insights": findings.insights,
        "endpoint": endpoint,
        "analysis": None if reply is None else attrs.asdict(reply),
        "error": None if error is None else {"message": str(error), "hint": error.hint},
    }


def _box(picture: Picture, width: int | None) -> list[str]:
    """A table with lines around it, as wide as the window at most."""
    from rich.cells import cell_len

    room = NAME_WIDTH if width is None else max(width - 36, 8)
    longest = max((cell_len(printable(row.command)) for row in picture.rows), default=0)
    widths = (3, 7, min(max(longest, len("Process")), room), 7, 7)

    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (width + 2) for width in widths) + right

    def line(number: str, pid: str, name: str, cpu: str, memory: str) -> str:
        cells = (
            number.rjust(widths[0]),
            pid.rjust(widths[1]),
            fitted(printable(name), widths[2]),
            cpu.rjust(widths[3]),
            memory.rjust(widths[4]),
        )
        return f"│ {' │ '.join(cells)} │"

    lines = [rule("┌", "┬", "┐"), line("ID", "PID", "Process", "CPU", "Memory")]
    ids = (f"P{number}" for number in itertools.count(1))
    for rows in filter(None, (picture.by_cpu, picture.by_memory)):
        lines.append(rule("├", "┼", "┤"))
        lines += [
            line(
                next(ids),
                str(row.pid),
                row.command,
                percent(row.cpu_percent),
                percent(row.memory_percent),
            )
            for row in rows
        ]
    return [*lines, rule("└", "┴", "┘")]
