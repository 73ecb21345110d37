"""``linnix incidents``, ``explain`` and ``feedback``: what happened, why, and was it worth it."""

from __future__ import annotations

import contextlib
import getpass
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linnix_core import SEVERITIES, LinnixError
from linnix_plugin_client.lines import incident_name
from linnix_plugin_client.moments import MOMENT
from linnix_plugin_client.options import agent_options, as_json, no_color
from linnix_plugin_client.paper import SEVERITY
from linnix_plugin_client.shown import day_time, number, percent, size, span

if TYPE_CHECKING:
    from linnix_plugin_client.agent import Agent
    from linnix_plugin_client.paper import Cell, Paper

__all__ = ["explain", "feedback", "incidents"]

#: Seconds to wait for an incident to be explained once more.
PATIENCE_S = 60.0


@click.command()
@click.option("--open/--closed", "is_open", default=None, help="Only those that go on, or not.")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Only of this severity.")
@click.option("--since", type=MOMENT, metavar="TIME", help="Only changed since: 10m, 04:10, …")
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, metavar="N",
    help="The latest so many.",
)  # fmt: skip
@as_json
@no_color
@agent_options
def incidents(
    agent: Agent,
    is_open: bool | None,
    severity: str | None,
    since: float | None,
    limit: int,
    as_json: bool,
    no_color: bool,
) -> None:
    """Show the incidents that a running agent knows, the one that changed last first."""
    from linnix_plugin_client.paper import Paper, note

    found = agent.get(
        "/incidents",
        open=None if is_open is None else str(is_open).lower(),
        severity=severity,
        since=None if since is None else f"{since:.6f}",
        limit=limit,
    )
    paper = Paper(no_color=no_color)
    if as_json:
        paper.json(found)
    elif not found:
        note("No incidents.")
    else:
        paper.table(("ID", "OPENED", "FOR", "SEVERITY", "WHAT", "ALERTS:", ""), map(_row, found))


def _row(incident: dict[str, Any]) -> tuple[Cell, ...]:
    severity = str(incident["severity"])
    return (
        incident["id"],
        day_time(incident["opened_ns"]),
        _lasted(incident),
        (severity, SEVERITY.get(severity, "")),
        incident_name(incident),
        str(incident["alerts"]),
        incident["llm_analysis"] or incident["summary"],
    )


def _lasted(incident: dict[str, Any]) -> str:
    closed = incident["closed_ns"]
    lasted = span(max((closed or time.time_ns()) - incident["opened_ns"], 0) / 1e9)
    return lasted if closed else f"{lasted}, goes on"


@click.command()
@click.argument("incident_id", metavar="ID")
@click.option("--again", is_flag=True, help="Have it explained once more, and wait for that.")
@click.option("--bundle", "file", metavar="FILE", help="Write all of it to a file, and end.")
@as_json
@no_color
@agent_options
def explain(
    agent: Agent, incident_id: str, again: bool, file: str | None, as_json: bool, no_color: bool
) -> None:
    """Show one incident: what was measured, who is behind it, and why it happened.

    linnix incidents lists the IDs. The file of --bundle can be judged again by any reasoner,
    also elsewhere.
    """
    from linnix_plugin_client.paper import Paper

    path = f"/incidents/{quoted(incident_id)}"
    if file is not None:
        with _known():
            _write(agent.get(f"{path}/bundle"), file)
        return
    with _known():
        incident = _explained_again(agent, path) if again else agent.get(path)
    paper = Paper(no_color=no_color)
    if as_json:
        paper.json(incident)
    else:
        _print(paper, incident)


def _write(document: Any, file: str) -> None:
    from linnix_core import load_bundle, write_bundle

    try:
        bundle = load_bundle(json.dumps(document))
    except ValueError as error:
        raise LinnixError(f"the agent's bundle cannot be read: {error}") from None
    write_bundle(bundle, Path(file))


def _explained_again(agent: Agent, path: str) -> dict[str, Any]:
    def insights(incident: dict[str, Any]) -> set[str]:
        return {insight["id"] for insight in incident["insights"]}

    before = insights(agent.get(path))
    agent.post(f"{path}/explain")
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        incident: dict[str, Any] = agent.get(path)
        if insights(incident) - before:
            return incident
        time.sleep(0.2)
    raise LinnixError(
        f"no new explanation within {PATIENCE_S:g} s",
        hint="it may still come: linnix explain shows it then",
    )


def _print(paper: Paper, incident: dict[str, Any]) -> None:
    severity, subject = str(incident["severity"]), incident["subject"]
    paper.line(
        (f"Incident {incident['id']}", "bold"),
        f": {incident_name(incident)}, ",
        (severity, SEVERITY.get(severity, "")),
        f", on {incident['host']}",
    )
    key, origin = subject["key"], incident["origin"]
    lines = [
        ("opened", f"{day_time(incident['opened_ns'])}, for {_lasted(incident)}"),
        ("what", incident["summary"]),
        ("who", f"{subject['comm'] or '?'} (pid {key['pid']})" if key else subject["comm"]),
        ("program", subject["exe"]),
        ("cgroup", subject["cgroup"]),
        ("came from", f"{origin['kind']} {origin['name']}" if origin else None),
        ("measured", ", ".join(map(_measured, incident["evidence"]))),
        ("at most", ", ".join(map(_measured, incident["peak"]))),
        ("alerts", f"{incident['alerts']} of {', '.join(incident['rules'])}"),
        ("feedback", incident["feedback"]),
    ]
    for name, words in lines:
        if words:
            paper.line(f"  {name:<10} {words}", whole=True)
    paper.line()
    _print_insight(paper, incident)
    if incident["tree"]:
        paper.line()
        paper.line(("The tree around it, as it was then", "bold"))
        _print_tree(paper, incident["tree"])


def _print_insight(paper: Paper, incident: dict[str, Any]) -> None:
    insight = incident["investigation"]
    if insight is None:
        paper.line(
            "Not explained" + (" yet; linnix explain --again asks for it." if incident["class"]
            else ": its rule has no class, and only classes are explained."),
            whole=True,
        )  # fmt: skip
        return
    paper.line(("Why", "bold"))
    paper.line(f"  {insight['why']}", whole=True)
    for fact in insight["facts"]:
        paper.line(f"  {_measured(fact)}")
    for action in insight["actions"]:
        paper.line(f"  try: {action}", whole=True)
    paper.line(
        (
            (
                f"  {insight['class']}, says {insight['reasoner']}; its own confidence "
                f"{100 * insight['confidence']:.0f}%"
            ),
            "dim",
        ),
        whole=True,
    )


def _measured(evidence: dict[str, Any]) -> str:
    unit = "" if evidence["unit"] in ("1", evidence["name"]) else f" {evidence['unit']}"
    return f"{evidence['name']} {number(evidence['value'])}{unit}"


def _print_tree(paper: Paper, processes: list[dict[str, Any]]) -> None:
    from linnix_plugin_client.machine import command_line
    from linnix_plugin_client.tree import walk

    flat = [
        {
            **process,
            "pid": process["key"]["pid"],
            "start_ns": process["key"]["start_ns"],
            "ppid": (process["parent"] or {}).get("pid"),
            "parent_start_ns": (process["parent"] or {}).get("start_ns"),
        }
        for process in processes
    ]
    paper.table(
        ("PID:", "CPU:", "RSS:", "COMMAND"),
        (
            (
                str(process["pid"]),
                percent(process["cpu_percent"]),
                size(process["rss_bytes"]),
                (
                    branches + command_line(process),
                    "bold" if process["relation"] == "subject" else "",
                ),
            )
            for branches, process in walk(flat)
        ),
    )


@click.command()
@click.argument("incident_id", metavar="ID")
@click.argument("verdict", type=click.Choice(["useful", "noise", "wrong"]))
@click.option("--note", default="", help="In your words.")
@click.option("--by", metavar="NAME", help="Who says so; without it, your login name.")
@as_json
@agent_options
def feedback(
    agent: Agent, incident_id: str, verdict: str, note: str, by: str | None, as_json: bool
) -> None:
    """Say what an incident was worth: useful to hear of, noise, or wrong about the cause."""
    given = {"feedback": verdict, "note": note, "by": _login() if by is None else by}
    from linnix_plugin_client.paper import Paper

    with _known():
        answer = agent.post(f"/incidents/{quoted(incident_id)}/feedback", given)
    if as_json:
        Paper().json(answer)
    else:
        Paper().line(f"Noted: {incident_id} is {verdict}.")


@contextlib.contextmanager
def _known() -> Iterator[None]:
    from linnix_plugin_client.agent import NotFound

    try:
        yield
    except NotFound as error:
        raise LinnixError(str(error), hint="linnix incidents lists those that are known") from None


def _login() -> str:
    try:
        return getpass.getuser()[:100]
    except (OSError, KeyError):
        return ""


def quoted(part: str) -> str:
    """A part of a path that stays one part, whatever it holds."""
    from urllib.parse import quote

    return quote(part, safe="")
