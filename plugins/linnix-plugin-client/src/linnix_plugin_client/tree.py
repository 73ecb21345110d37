"""``linnix tree``: who lives, or lived at a moment, and who started whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from linnix_plugin_client.moments import MOMENT
from linnix_plugin_client.options import agent_options, as_json, no_color
from linnix_plugin_client.shown import count, percent, size

if TYPE_CHECKING:
    from linnix_plugin_client.agent import Agent

__all__ = ["tree", "walk"]

#: Generations that are drawn; what is deeper says how deep.
MAX_DRAWN = 12

#: pid and start: who somebody is.
_Key: TypeAlias = tuple[int, int | None]


@click.command()
@click.option(
    "--at", type=MOMENT, metavar="TIME",
    help="At a moment that the agent's history has: 2026-11-22T04:10:00, 04:10, 10m ago, …",
)  # fmt: skip
@click.argument("pid", type=click.IntRange(0), required=False)
@as_json
@no_color
@agent_options
def tree(agent: Agent, at: float | None, pid: int | None, as_json: bool, no_color: bool) -> None:
    """Show who lives, or only PID and what it has started.

    TIME is 2026-11-22T04:10:00, 04:10 (today), 10m (so long ago), seconds since the epoch,
    or now; it needs an agent that keeps history.
    """
    from linnix_plugin_client.machine import command_line
    from linnix_plugin_client.paper import Paper, note

    document = agent.get("/tree", at=None if at is None else f"{at:.6f}", pid=pid)
    walked = list(walk(document["processes"]))
    paper = Paper(no_color=no_color)
    if as_json:
        paper.json({**document, "processes": [process for _, process in walked]})
    elif document["live"]:
        paper.table(
            ("PID:", "CPU:", "RSS:", "COMMAND"),
            (
                (
                    str(process["pid"]),
                    percent(process["cpu_pct"]),
                    size(process["rss_bytes"]),
                    (branches + command_line(process), "dim" if process["ended"] else ""),
                )
                for branches, process in walked
            ),
        )
    else:
        paper.table(
            ("PID:", "COMMAND"),
            (
                (str(process["pid"]), branches + command_line(process))
                for branches, process in walked
            ),
        )
    if not document["complete"]:
        note(f"Somebody may be missing: {document['why_incomplete'] or 'no reason given'}.")
    if document["changed"]:
        note(f"{count(len(document['changed']), 'process')} had another name at that moment.")


def walk(processes: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each process with the branches to draw before it, parents first.

    Not recursive, because a chain can be long.
    """
    family = _family(processes)
    roots = family.pop(None, [])
    # What stands before a process, and before its children.
    waiting = [("", "", 0, root) for root in reversed(roots)]
    while waiting:
        before, below, depth, process = waiting.pop()
        yield before, process
        children = family.pop(_key(process), [])
        for child in reversed(children):
            last = child is children[-1]
            if depth < MAX_DRAWN:
                drawn = below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")
            else:
                drawn = f"{depth + 1:>{3 * MAX_DRAWN - 1}} ", below
            waiting.append((*drawn, depth + 1, child))


def _key(process: Mapping[str, Any]) -> _Key:
    return process["pid"], process["start_ns"]


def _family(processes: Sequence[dict[str, Any]]) -> dict[_Key | None, list[dict[str, Any]]]:
    """Children by their parent; under None those whose parent is not here, or not known."""
    here = {_key(process) for process in processes}
    family: dict[_Key | None, list[dict[str, Any]]] = {}
    for process in sorted(processes, key=lambda process: (process["start_ns"], process["pid"])):
        parent = (process["ppid"], process["parent_start_ns"])
        known = parent in here and parent != _key(process)
        family.setdefault(parent if known else None, []).append(process)
    return family
