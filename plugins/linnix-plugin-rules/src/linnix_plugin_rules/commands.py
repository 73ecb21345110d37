"""``linnix rules``: look through a file of rules, and try it before it is rolled out."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import attrs
import click

from linnix_core import (
    Alert,
    Feedback,
    Incident,
    Insight,
    LinnixError,
    Record,
    decode,
    printable,
)
from linnix_plugin_rules.engine import Engine, Rule
from linnix_plugin_rules.rulefile import RuleFile, RuleFileError, read_rules
from linnix_plugin_rules.trials import parse_trials, run_trial

__all__ = ["command"]

_FILE = click.argument("file", required=False, type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

#: Longer lines hold no record.
MAX_LINE_BYTES = 2**20

#: The path that stands for standard input.
STANDARD_INPUT = Path("-")

#: What follows the name of a file that the handler `jsonl` has rotated, maybe compressed since.
_ROTATED = re.compile(r"\.\d{8}T\d{6}\.\d{6}Z(\.gz)?", re.ASCII)

_GZIP = b"\x1f\x8b"


class _Wrong(LinnixError):
    """A file that cannot be used."""

    exit_code = 2


@click.group("rules")
def command() -> None:
    """Check, list and try rules: FILE, or those that are shipped."""


@command.command("check")
@_FILE
@_JSON
def check(file: Path | None, as_json: bool) -> None:
    """Tell every mistake in FILE with its line; exit code 2 if there is one."""
    try:
        found = read_rules(file)
    except RuleFileError as error:
        if not as_json:
            raise
        mistakes = [attrs.asdict(mistake) for mistake in error.mistakes]
        _print_json({"file": error.source, "rules": None, "tests": None, "mistakes": mistakes})
        raise SystemExit(2) from None
    if as_json:
        counts = {"rules": len(found.rules), "tests": len(found.tests)}
        _print_json({"file": found.source, **counts, "mistakes": []})
        return
    click.echo(f"{found.source}: {len(found.rules)} rules and {len(found.tests)} tests, no mistake")


@command.command("list")
@_FILE
@_JSON
def list_rules(file: Path | None, as_json: bool) -> None:
    """List the rules of FILE with their classes."""
    found = read_rules(file)
    described = [
        _described(rule, word) for rule, word in zip(found.rules, found.words, strict=True)
    ]
    if as_json:
        _print_json(described)
        return
    rows = [("NAME", "SEVERITY", "CLASS", "DETECTOR", "SCOPE", "KEYS")]
    for each in described:
        keys = " ".join(f"{key}={value}" for key, value in each["keys"].items())
        rows.append((
            each["name"], each["severity"], each["class"] or "-", each["detector"],
            each["scope"], keys,
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(printable("  ".join(cells).rstrip()))


@command.command("test")
@_FILE
@click.option(
    "--replay", type=click.Path(path_type=Path),
    help="Judge this recording (JSON lines) and what was rotated from it; - is standard input.",
)  # fmt: skip
@click.option(
    "--rules", "other", type=click.Path(path_type=Path),
    help="With --replay: compare with the rules of this file.",
)  # fmt: skip
@_JSON
def test(file: Path | None, replay: Path | None, other: Path | None, as_json: bool) -> None:
    """Run the tests inside FILE, or tell what would have fired on a recording.

    Exit code 1 if a test fails.
    """
    if replay is not None:
        _replay(replay, [read_rules(file), *([read_rules(other)] if other else [])], as_json)
        return
    if other is not None:
        raise click.UsageError("--rules compares on a recording: name one with --replay")
    found = read_rules(file)
    trials = parse_trials(found.tests, [rule.name for rule in found.rules], [])
    # Rules are stateful, so that each test gets rules of its own.
    outcomes = [run_trial(trial, read_rules(file).rules) for trial in trials]
    failed = sum(bool(outcome.problems) for outcome in outcomes)
    if as_json:
        _print_json({
            "file": found.source, "tests": len(outcomes), "failed": failed,
            "outcomes": [
                {
                    "name": outcome.trial.name, "line": outcome.trial.line,
                    "passed": not outcome.problems, "problems": list(outcome.problems),
                    "alerts": [_alert(alert) for alert in outcome.alerts],
                }
                for outcome in outcomes
            ],
        })  # fmt: skip
    else:
        for outcome in outcomes:
            word = "failed" if outcome.problems else "passed"
            click.echo(printable(f"{word}  {outcome.trial.name}"))
            for problem in outcome.problems:
                click.echo(printable(f"    {problem}"))
        click.echo(f"{found.source}: {len(outcomes) - failed} passed, {failed} failed")
    if failed:
        raise SystemExit(1)


# --- a recording ----------------------------------------------------------------------


def _replay(path: Path, files: Sequence[RuleFile], as_json: bool) -> None:
    engines = [Engine(file.rules) for file in files]
    alerts: list[list[Alert]] = [[] for _ in files]
    records = unreadable = 0
    for record in _records(path):
        if record is None:
            unreadable += 1
            continue
        records += 1
        for engine, raised in zip(engines, alerts, strict=True):
            raised.extend(engine.handle([record]))
    if not records and unreadable:
        raise _Wrong(f"{path}: not one of {unreadable} lines is a record")
    marks = [[_mark(alert) for alert in raised] for raised in alerts]
    if as_json:
        document: dict[str, Any] = {
            "recording": str(path), "records": records, "unreadable": unreadable,
            "files": [
                {"file": file.source, "alerts": [_alert(alert) for alert in raised]}
                for file, raised in zip(files, alerts, strict=True)
            ],
        }  # fmt: skip
        if len(files) == 2:
            document["only"] = [
                [_alert(alert) for alert in raised if _mark(alert) not in others]
                for raised, others in zip(alerts, reversed(marks), strict=True)
            ]
        _print_json(document)
        return
    click.echo(f"{path}: {records} records, {unreadable} lines that hold none")
    if len(files) == 1:
        for alert in alerts[0]:
            click.echo(_line(alert))
        click.echo(f"{files[0].source}: {len(alerts[0])} alerts")
        return
    _compare(files, alerts, marks)


def _compare(
    files: Sequence[RuleFile], alerts: Sequence[list[Alert]], marks: Sequence[list[Any]]
) -> None:
    """One list in the order of time: "-" only the first would raise it, "+" only the second."""
    lines = [(a.ts_ns, " " if _mark(a) in marks[1] else "-", a) for a in alerts[0]]
    lines += [(a.ts_ns, "+", a) for a in alerts[1] if _mark(a) not in marks[0]]
    for _, sign, alert in sorted(lines, key=lambda line: line[0]):
        click.echo(f"{sign} {_line(alert)}")
    for sign, file, raised in zip("-+", files, alerts, strict=True):
        click.echo(f"{sign} {file.source}: {len(raised)} alerts")


def _mark(alert: Alert) -> tuple[Any, ...]:
    """What two alerts have in common that are the same to people."""
    return alert.rule, alert.severity, alert.class_, alert.subject, alert.ts_ns


def _records(path: Path) -> Iterator[Record | None]:
    """What was collected; None for a line that cannot be read. Notices are passed over."""
    try:
        with contextlib.ExitStack() as files:
            # The file itself first: if it is rotated meanwhile, none of it is missed.
            parts = [_open(path, files)]
            if path != STANDARD_INPUT:
                parts[:0] = [_open(older, files) for older in _rotated_from(path)]
            for part in parts:
                yield from _decoded(part)
    except OSError as error:
        name = printable(str(error.filename or path))
        raise _Wrong(f"{name}: cannot be read: {error.strerror or error}") from None


def _rotated_from(path: Path) -> list[Path]:
    """What the handler `jsonl` has rotated from a file, the oldest first."""
    names = (each.name for each in path.absolute().parent.iterdir())
    rotated = {
        name.removesuffix(".gz"): name
        # The shorter name last: while one is being compressed there are both.
        for name in sorted(names, key=len, reverse=True)
        if name.startswith(path.name) and _ROTATED.fullmatch(name, len(path.name))
    }
    return [path.with_name(name) for _, name in sorted(rotated.items())]


def _open(path: Path, files: contextlib.ExitStack) -> BinaryIO:
    """A file that is plain or gzipped, as its first bytes tell; ``files`` will close it."""
    if path == STANDARD_INPUT:
        file: Any = sys.stdin.buffer
    else:
        file = files.enter_context(path.open("rb"))
    if file.peek(len(_GZIP)).startswith(_GZIP):
        file = files.enter_context(gzip.GzipFile(fileobj=file))
    return cast(BinaryIO, file)


def _decoded(part: BinaryIO) -> Iterator[Record | None]:
    try:
        while line := part.readline(MAX_LINE_BYTES):
            if line.isspace():
                continue
            try:
                record = decode(line)
            except ValueError:
                yield None
                continue
            if not isinstance(record, Alert | Feedback | Incident | Insight):
                yield record
    except (EOFError, gzip.BadGzipFile, zlib.error):
        yield None  # what is left of a damaged file


# --- what is printed ------------------------------------------------------------------


def _described(rule: Rule, word: str) -> dict[str, Any]:
    detector = rule.detector
    keys = {
        field.name: getattr(value, "pattern", value)
        for field in attrs.fields(type(detector))
        if "parse" in field.metadata and (value := getattr(detector, field.name)) is not None
    }
    return {
        "name": rule.name, "severity": rule.severity, "class": rule.class_, "detector": word,
        "scope": detector.scope, "cooldown": rule.cooldown_s, "filtered": detector.choosy,
        "keys": keys,
    }  # fmt: skip


def _alert(alert: Alert) -> dict[str, Any]:
    key = alert.subject.key
    return {
        "ts_ns": alert.ts_ns, "rule": alert.rule, "severity": alert.severity,
        "class": alert.class_, "message": alert.message,
        "pid": key.pid if key else None, "exe": alert.subject.exe, "comm": alert.subject.comm,
        "cgroup": alert.subject.cgroup,
        "evidence": [attrs.asdict(each) for each in alert.evidence],
    }  # fmt: skip


def _line(alert: Alert) -> str:
    import datetime as dt

    at = dt.datetime.fromtimestamp(alert.ts_ns / 1e9, dt.UTC)
    said = f"{at:%Y-%m-%d %H:%M:%S}Z  {alert.severity:8}  {alert.rule}: {alert.message}"
    return printable(said)


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2))
