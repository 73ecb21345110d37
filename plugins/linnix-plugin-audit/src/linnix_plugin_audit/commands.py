"""``linnix audit``: the checks that a release runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from linnix_core import LinnixError, printable

if TYPE_CHECKING:
    from linnix_plugin_audit.findings import Finding
    from linnix_plugin_audit.moves import Move
    from linnix_plugin_audit.rulefile import Rules
    from linnix_plugin_audit.tree import Tree

__all__ = ["command"]

REPORT = "SPLIT_REPORT.md"

_PATH = click.Path(path_type=Path)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both audits take."""
    for option in (
        click.argument("path", required=False, type=_PATH, default="."),
        click.option(
            "--rules", "rules_file", type=_PATH, metavar="FILE",
            help="Add these rules to those that ship.  [default: linnix-audit.toml in PATH]",
        ),
        click.option("--sarif", "shape", flag_value="sarif", help="Print SARIF 2.1.0."),
        click.option("--json", "shape", flag_value="json", help="Print JSON."),
        click.option("--no-history", is_flag=True, help="Leave out what was committed once."),
        click.option(
            "-o", "--output", type=_PATH, metavar="FILE", help="Write the findings there."
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group("audit")
def command() -> None:
    """Look through a repository before a release. Exit code 1 if something is found."""


@command.command("split")
@_options
@click.option("--wheels", type=_PATH, metavar="DIR", help="Look into these wheels and sdists, too.")
@click.option("--plan", is_flag=True, help="Print what would be moved, from where, to where.")
@click.option("--apply", is_flag=True, help="Move it with git, and write the report.")
@click.option("--to", type=_PATH, metavar="DIR", help="With --apply: a folder of a repository.")
@click.option(
    "--report", type=_PATH, metavar="FILE",
    help=f"With --apply: the report.  [default: {REPORT} in PATH]",
)  # fmt: skip
def split(
    path: Path,
    rules_file: Path | None,
    shape: Literal["sarif", "json"] | None,
    output: Path | None,
    wheels: Path | None,
    no_history: bool,
    plan: bool,
    apply: bool,
    to: Path | None,
    report: Path | None,
) -> None:
    """Is the open edition free of what is enterprise, and are licences and sizes right?

    Looks at the files and the history of the repository at PATH, and at wheels.
    """
    if plan and apply:
        raise click.UsageError("--plan shows, --apply does: choose one")
    if apply != (to is not None):
        raise click.UsageError("--apply and --to DIR belong together")
    if report is not None and not apply:
        raise click.UsageError("--report is for --apply")
    tree = _tree(path, rules_file)
    if plan or apply:
        from linnix_plugin_audit.moves import plan_moves

        moves = plan_moves(tree)
        if to is not None:
            _apply(tree, moves, to, report)
        else:
            _show_plan(moves, as_json=shape == "json")
        return
    from linnix_plugin_audit.split import audit_split

    found = audit_split(tree, history=not no_history, wheels=_wheels(wheels))
    _tell("split", tree.rules, found, shape, output)


@command.command("segregation")
@_options
def segregation(
    path: Path,
    rules_file: Path | None,
    shape: Literal["sarif", "json"] | None,
    output: Path | None,
    no_history: bool,
) -> None:
    """Are generic files free of personal paths, hosts and names, and all files of keys?"""
    from linnix_plugin_audit.segregation import audit_segregation

    tree = _tree(path, rules_file)
    found = audit_segregation(tree, history=not no_history)
    _tell("segregation", tree.rules, found, shape, output)


def _tree(path: Path, rules_file: Path | None) -> Tree:
    from linnix_plugin_audit.repository import Repository
    from linnix_plugin_audit.rulefile import read_rules
    from linnix_plugin_audit.tree import Tree

    repository = Repository(path)
    return Tree(repository, read_rules(repository.root, rules_file))


def _wheels(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    found = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    if not found:
        raise click.UsageError(f"{folder} holds no wheel")
    return found


def _tell(
    kind: Literal["split", "segregation"],
    rules: Rules,
    found: list[Finding],
    shape: Literal["sarif", "json"] | None,
    output: Path | None,
) -> None:
    from linnix_plugin_audit.findings import as_json, as_sarif, as_text

    if shape == "sarif":
        messages = {each.rule: f"There is {each.message}." for each in rules.artefacts}
        messages |= {each.rule: f"There is {each.message}." for each in rules.patterns}
        text = as_sarif(found, messages)
    elif shape == "json":
        text = as_json(kind, found)
    else:
        text = as_text(found)
    if output is not None:
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise _Unwritable(f"{output} cannot be written: {error.strerror}") from None
    elif text:
        click.echo(text)
    if output is not None or shape is None:
        click.echo(f"audit {kind}: {len(found)} findings", err=shape is not None)
    if found:
        raise SystemExit(1)


class _Unwritable(LinnixError):
    """A file that cannot be written."""

    exit_code = 2


def _show_plan(moves: list[Move], *, as_json: bool) -> None:
    from linnix_plugin_audit.moves import plan_text

    if as_json:
        shown = [
            {"rule": move.rule, "from": _plain(move.path), "to": _plain(move.to), "size": move.size}
            for move in moves
        ]
        click.echo(json.dumps({"moves": shown}, indent=2))
    else:
        click.echo(plan_text(moves))


def _plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _apply(tree: Tree, moves: list[Move], to: Path, report: Path | None) -> None:
    from linnix_plugin_audit.moves import apply_moves, report_text
    from linnix_plugin_audit.split import artefacts_in, audit_split
    from linnix_plugin_audit.tree import Tree

    before = sum(tree.sizes.values())
    file = report or tree.root / REPORT
    if file.exists():
        raise _Unwritable(f"{file} exists", hint="name another with --report")
    done = apply_moves(tree, moves, to)
    after = Tree(tree.repository, tree.rules)
    left = audit_split(after, history=False)
    kept = [each for each in artefacts_in(after) if after.allowed(each)]
    text = report_text(after, done, before, left, kept)
    try:
        file.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        click.echo(text)
        raise _Unwritable(f"{file} cannot be written: {error.strerror}") from None
    click.echo(f"{len(done.moves)} files moved; the report is {printable(str(file))}")
    for commit in dict.fromkeys((done.removed, done.added)):
        root = done.source if commit == done.removed else done.destination
        click.echo(f"undo: git -C {printable(str(root))} revert --no-edit {commit}")
