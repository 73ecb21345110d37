"""``linnix alerts``: what rules have said, lately or as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from linnix_core import SEVERITIES
from linnix_plugin_client.moments import MOMENT
from linnix_plugin_client.options import agent_options, as_json, no_color
from linnix_plugin_client.shown import day_time

if TYPE_CHECKING:
    from linnix_plugin_client.agent import Agent

__all__ = ["alerts"]


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with new ones until interrupted.")
@click.option(
    "--severity", type=click.Choice(SEVERITIES), default="info", metavar="SEVERITY",
    help=f"Only from this one upwards: {' '.join(SEVERITIES)}.",
)  # fmt: skip
@click.option("--rule", metavar="NAME", help="Only of this rule.")
@click.option("--since", type=MOMENT, metavar="TIME", help="Only from then on: 10m, 04:10, …")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N",
    help="The latest so many.",
)  # fmt: skip
@as_json
@no_color
@agent_options
def alerts(
    agent: Agent,
    follow: bool,
    severity: str,
    rule: str | None,
    since: float | None,
    limit: int,
    as_json: bool,
    no_color: bool,
) -> None:
    """Show the latest alerts that a running agent knows, oldest first.

    With --json a list, and with --follow one alert a line.
    """
    from linnix_plugin_client.lines import alert_cells
    from linnix_plugin_client.paper import Paper, note

    paper = Paper(no_color=no_color)
    least = SEVERITIES.index(severity)

    def wanted(alert: dict[str, Any]) -> bool:
        return SEVERITIES.index(alert["severity"]) >= least and rule in (None, alert["rule"])

    def latest() -> list[dict[str, Any]]:
        start = None if since is None else f"{since:.6f}"
        asked = limit if not least else None
        found = agent.get("/alerts", start=start, rule=rule, limit=asked)
        return [alert for alert in found if wanted(alert)][:limit][::-1]

    def show(alert: dict[str, Any]) -> None:
        if as_json:
            paper.json_line(alert)
        else:
            paper.line(day_time(alert["ts_ns"]), " ", *alert_cells(alert))

    if not follow:
        found = latest()
        if as_json:
            paper.json(found)
            return
        for alert in found:
            show(alert)
        if not found:
            note("No alerts.")
        return
    from linnix_plugin_client.events import follow as follow_events

    known: set[str] | None = None
    for event in follow_events(agent, "/alerts", {}, say=note):
        if event.name == "hello" and known is None:
            # Asked for only now: so none can come between the list and the stream.
            before = latest()
            known = {alert["id"] for alert in before}
            for alert in before:
                show(alert)
        elif event.name == "alert" and wanted(event.data) and event.data["id"] not in (known or ()):
            show(event.data)
        paper.flush()
