"""``linnix stream``: what a running agent sees, as it happens."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import click

from linnix_plugin_client.options import agent_options, as_json, no_color

if TYPE_CHECKING:
    from linnix_plugin_client.agent import Agent

__all__ = ["stream"]

#: What can be asked for: kinds of events, and types of records.
TYPES = (
    "event", "seen", "fork", "exec", "exit", "oom",
    "sample", "cgroup", "system", "loss", "alert", "incident", "insight", "feedback", "all",
)  # fmt: skip


@click.command()
@click.option(
    "--type", "types", type=click.Choice(TYPES), multiple=True, metavar="TYPE",
    help=f"Only these; repeatable. One of {' '.join(TYPES)}; without it, event.",
)  # fmt: skip
@click.option("--pid", "pids", type=click.IntRange(0), multiple=True, help="Only of these.")
@click.option("--comm", metavar="NAME", help="Only of programs of that name; * and ? match any.")
@click.option("--cgroup", metavar="PATH", help="Only in that cgroup and below it.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many.")
@as_json
@no_color
@agent_options
def stream(
    agent: Agent,
    types: tuple[str, ...],
    pids: tuple[int, ...],
    comm: str | None,
    cgroup: str | None,
    count: int | None,
    as_json: bool,
    no_color: bool,
) -> None:
    """Show what a running agent sees, as it happens, until interrupted.

    A connection that breaks is made again, and goes on where it was as far as the agent still
    knows. With --json, one record a line, as docs/records.md describes them.
    """
    query = {
        "type": ",".join(types) or None,
        "pid": ",".join(map(str, pids)) or None,
        "comm": comm,
        "cgroup": cgroup,
    }
    from linnix_plugin_client.events import follow
    from linnix_plugin_client.lines import record_cells
    from linnix_plugin_client.paper import Paper, note

    paper = Paper(no_color=no_color)
    with contextlib.closing(follow(agent, "/stream", query, say=note)) as events:
        records = (event.data for event in events if "type" in event.data)
        for record in itertools.islice(records, count):
            if as_json:
                paper.json_line(record)
            else:
                paper.line(*record_cells(record))
                paper.flush()
