"""``linnix history``: look into the database, with or without a running agent."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click

from linnix_core import (
    Alert,
    Incident,
    Insight,
    LinnixError,
    Process,
    ProcessKey,
    Query,
    encode,
    printable,
    write_bundle,
)
from linnix_plugin_sqlite.handler import FILE_NAME
from linnix_plugin_sqlite.moments import MOMENT, shown
from linnix_plugin_sqlite.reader import MAX_LIMIT, Moment, Reader, Report

__all__ = ["history"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Characters of a command line that a tree shows.
_MAX_SHOWN = 160

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_since = click.option("--since", type=MOMENT, metavar="TIME", help="Not before this.")
_until = click.option("--until", type=MOMENT, metavar="TIME", help="Not after this.")


def _database(command: _Command) -> _Command:
    """The option that names the database; without it, where agents keep it by default."""
    return click.option(
        "--db",
        type=click.Path(path_type=Path),
        callback=lambda _, __, path: path or _default_path(),
        metavar="FILE",
        help="The database, if it is not in the default data folder.",
    )(command)


def _default_path() -> Path:
    """The history in the data folder of this user's agents, else in that of root's."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "linnix"
    folders = (Path("/var/lib/linnix"), state)
    paths = [folder / "handlers.sqlite" / FILE_NAME for folder in folders]
    if os.geteuid() != 0:
        paths.reverse()
    # Not Path.exists(): that raises where a folder may not be entered.
    return next((path for path in paths if os.path.lexists(path)), paths[0])


@contextlib.contextmanager
def _reading(db: Path) -> Iterator[Reader]:
    with contextlib.closing(Reader(db)) as reader:
        yield reader


@click.group()
def history() -> None:
    """Look into what was recorded, also without a running agent.

    TIME is 2026-11-22T04:10:00, 04:10 (today), 10m (so long ago), seconds since the epoch,
    or now.
    """


# --- the tree ---------------------------------------------------------------------------


@history.command()
@click.option("--at", type=MOMENT, required=True, metavar="TIME", help="The moment.")
@click.argument("pid", type=int, required=False)
@_json
@_database
def tree(at: int, pid: int | None, as_json: bool, db: Path) -> None:
    """Show who was alive at a moment, or only PID and what it had started."""
    with _reading(db) as reader:
        moment = reader.tree_at(at)
    family = _family(moment.processes)
    roots = family.pop(None, [])
    if pid is not None:
        roots = [process for process in moment.processes if process.pid == pid]
        if not roots:
            raise LinnixError(f"no process had the pid {pid} at {shown(at)}")
    listed = list(_walk(roots, family))
    if as_json:
        _print_json(_tree_as_dict(moment, [process for _, process in listed]))
        return
    for depth, process in listed:
        click.echo(f"{process.pid:>7} {'  ' * depth}{_command_line(process)}")
    for remark in _remarks(moment):
        click.echo(remark, err=True)


def _family(processes: Sequence[Process]) -> dict[ProcessKey | None, list[Process]]:
    """Children by their parent; under None those whose parent is not alive, or not known."""
    alive = {process.key for process in processes}
    family: dict[ProcessKey | None, list[Process]] = {}
    for process in sorted(processes, key=lambda process: (process.key.start_ns, process.pid)):
        parent = process.parent if process.parent in alive else None
        family.setdefault(None if parent == process.key else parent, []).append(process)
    return family


def _walk(
    roots: Sequence[Process], family: dict[ProcessKey | None, list[Process]]
) -> Iterator[tuple[int, Process]]:
    """Depth and process, parents first; not recursive, because a chain can be long."""
    waiting = [(0, root) for root in reversed(roots)]
    seen: set[ProcessKey] = set()
    while waiting:
        depth, process = waiting.pop()
        if process.key in seen:
            continue
        seen.add(process.key)
        yield depth, process
        waiting += [(depth + 1, child) for child in reversed(family.get(process.key, []))]


def _command_line(process: Process) -> str:
    if not process.args:
        return printable(process.exe or f"[{process.comm}]", _MAX_SHOWN)
    return printable(" ".join(process.args), _MAX_SHOWN)


def _remarks(moment: Moment) -> list[str]:
    remarks = []
    if not moment.recording:
        remarks.append(
            f"Nothing was recorded at that moment: this is how it was at {shown(moment.as_of_ns)}."
        )
    if moment.lost:
        remarks.append(
            f"This run lost {moment.lost} records: somebody may be missing, or be here too long."
        )
    return remarks


def _tree_as_dict(moment: Moment, processes: Sequence[Process]) -> dict[str, Any]:
    names = ("comm", "exe", "args", "uid", "gid", "cwd", "cgroup", "labels", "first_ns")
    return {
        **{name: getattr(moment, name) for name in _MOMENT},
        "processes": [
            {
                **process.key._asdict(),
                "parent": None if process.parent is None else process.parent._asdict(),
                **{name: getattr(process, name) for name in names},
            }
            for process in processes
        ],
    }


_MOMENT = ("ts_ns", "as_of_ns", "run_id", "host", "recording", "lost")


# --- the ledger -------------------------------------------------------------------------


@history.command()
@_since
@_until
@click.option("--limit", default=20, show_default=True, help="How many at most; 0 is all.")
@_json
@_database
def ledger(since: int | None, until: int | None, limit: int, as_json: bool, db: Path) -> None:
    """Show the CPU time that went into processes of less than a second, by who started them."""
    with _reading(db) as reader:
        costs = reader.ledger(since, until)
    if as_json:
        _print_json([attrs.asdict(cost) for cost in (costs[:limit] if limit > 0 else costs)])
        return
    if not costs:
        click.echo("No process of less than a second was recorded in that time.")
        return
    rows = [
        (
            f"{cost.cpu_s:.2f}",
            str(cost.jobs),
            f"{cost.cpu_s / max(cost.jobs - cost.unmeasured, 1) * 1000:.1f}",
            cost.parent_exe or "(not known)",
            cost.cgroup or "(not known)",
        )
        for cost in (costs[:limit] if limit > 0 else costs)
    ]
    _print_table(("CPU s", "JOBS", "ms EACH", "STARTED BY", "CGROUP"), rows)
    total = sum(cost.cpu_s for cost in costs)
    jobs, unmeasured = (sum(getattr(c, n) for c in costs) for n in ("jobs", "unmeasured"))
    known = f"; of {unmeasured} the CPU time is not known" if unmeasured else ""
    click.echo(f"{total:.2f} CPU seconds in {jobs} processes of less than a second{known}")


# --- findings ---------------------------------------------------------------------------


@history.command("list")
@click.argument("what", type=click.Choice(["alerts", "incidents", "insights"]))
@_since
@_until
@click.option("--limit", default=1000, show_default=True, help="How many at most.")
@_json
@_database
def list_findings(
    what: str, since: int | None, until: int | None, limit: int, as_json: bool, db: Path
) -> None:
    """List alerts, incidents (each as it was published last) or insights, oldest first."""
    with _reading(db) as reader:
        found = reader.query(
            Query((what.removesuffix("s"),), since, until, limit=min(max(limit, 1), MAX_LIMIT))
        )
        over = reader.ended_runs()
    records: list[Any] = list(found.records)
    if what == "incidents":
        records = list({record.id: record for record in records}.values())
    if as_json:
        click.echo(b"[" + b",\n ".join(map(encode, records)) + b"]")
    elif not records:
        click.echo(f"No {what} were recorded in that time.")
    else:
        header, cells = _COLUMNS[what]
        _print_table(header, [cells(record, over) for record in records])
    if not found.complete:
        click.echo("There is more: --limit, --since and --until choose.", err=True)


def _alert_cells(alert: Alert, _: Collection[str]) -> tuple[str, ...]:
    return (shown(alert.ts_ns), alert.severity, alert.rule, alert.message)


def _incident_cells(incident: Incident, over: Collection[str]) -> tuple[str, ...]:
    # Of a run that is over, nobody watched to the end of what was open.
    unknown = "run ended" if incident.run_id in over else "open"
    ended = unknown if incident.closed_ns is None else shown(incident.closed_ns)
    return (
        incident.id, shown(incident.opened_ns), ended, incident.severity,
        incident.class_ or "-", str(incident.alerts), incident.summary,
    )  # fmt: skip


def _insight_cells(insight: Insight, _: Collection[str]) -> tuple[str, ...]:
    return (shown(insight.ts_ns), insight.incident, insight.class_, insight.reasoner, insight.why)


_COLUMNS: dict[str, tuple[tuple[str, ...], Callable[[Any, Collection[str]], tuple[str, ...]]]] = {
    "alerts": (("TIME", "SEVERITY", "RULE", ""), _alert_cells),
    "incidents": (
        ("ID", "OPENED", "CLOSED", "SEVERITY", "CLASS", "ALERTS", ""),
        _incident_cells,
    ),
    "insights": (("TIME", "INCIDENT", "CLASS", "REASONER", ""), _insight_cells),
}


@history.command()
@click.argument("incident")
@click.argument("file", type=click.Path(path_type=Path))
@_database
def bundle(incident: str, file: Path, db: Path) -> None:
    """Write all that is known of INCIDENT to FILE, which any reasoner can judge again.

    Of a running agent, `linnix explain --bundle` writes what its reasoners were asked.
    """
    with _reading(db) as reader:
        write_bundle(reader.bundle(incident), file)


# --- the database itself ----------------------------------------------------------------


@history.command()
@_json
@_database
def check(as_json: bool, db: Path) -> None:
    """Read all of it: is it whole, how large, and what is missing. Exit 1 if it is damaged."""
    with _reading(db) as reader:
        report = reader.check()
    if as_json:
        _print_json({"path": str(db), "ok": not report.problems, **attrs.asdict(report)})
    else:
        click.echo("\n".join(_report_lines(db, report)))
    if report.problems:
        raise LinnixError(
            f"{db} is damaged", hint="stop the agent and move it away; a new one is begun"
        )


def _report_lines(db: Path, report: Report) -> Iterator[str]:
    yield f"{printable(str(db))}: {report.bytes:,} bytes"
    for type_, summed in sorted(report.chunks.items()):
        many = f"{summed['records']:,} records in " if type_ != "tree" else ""
        yield f"  {type_:<9} {many}{summed['chunks']:,} chunks, {summed['bytes']:,} bytes"
    for type_, count in sorted(report.findings.items()):
        yield f"  {type_:<9} {count:,}"
    for run in report.runs:
        ended = "has not ended" if run["ended_ns"] is None else f"to {shown(run['ended_ns'])}"
        said = f"{run['stored']:,} records stored, {run['lost']:,} lost"
        killed = ", killed" if run["killed"] else ""
        yield f"  run {printable(run['run_id'])} {shown(run['began_ns'])} {ended}{killed}: {said}"
    for problem in report.problems:
        yield f"  DAMAGED: {printable(problem)}"


# --- output -----------------------------------------------------------------------------


def _print_json(document: object) -> None:
    # ASCII: what a process chose cannot control the terminal.
    click.echo(json.dumps(document, indent=2))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    cells = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())
