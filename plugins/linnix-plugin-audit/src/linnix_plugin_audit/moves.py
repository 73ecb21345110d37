"""Moving enterprise artefacts out of the open edition: the plan, doing it, the report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_audit.findings import Finding
from linnix_plugin_audit.repository import GitError, Repository
from linnix_plugin_audit.split import artefacts_in
from linnix_plugin_audit.tree import Tree

__all__ = ["Done", "Move", "apply_moves", "plan_moves", "plan_text", "report_text"]


@attrs.frozen
class Move:
    """A file, where it goes below the destination, and how large it is."""

    rule: str
    path: str
    to: str
    size: int


@attrs.frozen
class Done:
    """What was moved, by which commits, so that it can be undone."""

    moves: tuple[Move, ...]
    source: Path
    destination: Path
    #: What was added there, and what was removed here; one commit where both are the same.
    added: str
    removed: str


def plan_moves(tree: Tree) -> list[Move]:
    """Every artefact of the tree that may not stay, with where it goes."""
    rules = {rule.rule: rule for rule in tree.rules.artefacts if rule.to}
    found = [each for each in artefacts_in(tree) if not tree.allowed(each)]
    moves = []
    taken: set[str] = set()
    for each in sorted(found, key=lambda each: (each.rule, each.path)):
        if each.rule not in rules:
            continue
        rule = rules[each.rule]
        # From the folder that was named on, else the name alone, unless that is taken.
        inner = rule.matching.match(each.path) or PurePosixPath(each.path).name
        to = f"{rule.to}/{inner}"
        if to in taken:
            to = f"{rule.to}/{each.path}"
        taken.add(to)
        moves.append(Move(each.rule, each.path, to, each.size or 0))
    return moves


def plan_text(moves: Sequence[Move]) -> str:
    """What, from where, to where, how large: as the migration report lists it."""
    lines = []
    for rule in dict.fromkeys(move.rule for move in moves):
        of_rule = [move for move in moves if move.rule == rule]
        total = sum(move.size for move in of_rule)
        lines.append(f"{rule} ({len(of_rule)} files, {human(total)})")
        lines += [
            f"  {printable(move.path)} -> {printable(move.to)} ({human(move.size)})"
            for move in of_rule
        ]
    total = sum(move.size for move in moves)
    lines.append(f"{len(moves)} files to move, {human(total)}")
    return "\n".join(lines)


def human(size: float) -> str:
    """Bytes as people write them.

    >>> human(999), human(72_000), human(5_800_000_000)
    ('999 B', '72.0 KB', '5.8 GB')
    """
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def apply_moves(tree: Tree, moves: Sequence[Move], to: Path) -> Done:
    """Move the files to the folder ``to``, with one commit in each repository it concerns.

    Raises `LinnixError` before anything is touched where a working tree is not clean, where a
    file is there already, or where ``to`` is in no repository; after a failure both
    repositories are as they were.
    """
    source = tree.repository
    destination = Repository(_nearest(to))
    target = to.resolve()
    same = destination.root == source.root
    for repository in (source,) if same else (source, destination):
        if changed := repository.changed():
            raise LinnixError(
                f"{repository.root} is not clean: {printable(changed[0].strip(), 80)} "
                f"and {len(changed) - 1} more",
                hint="commit or stash what you have changed, untracked files too",
            )
        if repository.head() is None:
            raise LinnixError(f"{repository.root} has no commit yet", hint="make a first one")
    if not moves:
        raise LinnixError("there is nothing to move")
    files = {move.path: target / move.to for move in moves}
    for path, file in files.items():
        if os.path.lexists(file):
            raise LinnixError(f"{file} exists, so {printable(path)} cannot go there")
        if not file.resolve().is_relative_to(destination.root):
            raise LinnixError(f"{file} leads out of {destination.root}")
    before = {each.root: each.head() or "" for each in (source, destination)}
    made: list[Path] = []
    try:
        for path, file in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            made.append(file)
            shutil.copy2(source.root / path, file, follow_symlinks=False)
        _stage(destination, "add", [os.path.relpath(file, destination.root) for file in made])
        subject = f"Split: {len(moves)} enterprise artefacts"
        if same:
            _stage(source, "rm", list(files))
            added = removed = _commit(source, f"{subject} moved")
        else:
            added = _commit(destination, f"{subject} taken over")
            _stage(source, "rm", list(files))
            removed = _commit(source, f"{subject} moved out")
    except (OSError, GitError) as error:
        for repository in (destination, source):
            _put_back(repository, before[repository.root])
        for file in made:
            file.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        hint = getattr(error, "hint", None)
        raise LinnixError(f"nothing was moved: {reason}", hint=hint) from None
    return Done(tuple(moves), source.root, destination.root, added, removed)


def _put_back(repository: Repository, head: str) -> None:
    """As it was: it was clean, so that nothing of anybody's is lost."""
    if repository.head() == head:
        # Without touching the branch, which may be what cannot be written.
        repository.run("read-tree", "--reset", "-u", head)
    else:
        repository.run("reset", "-q", "--hard", head)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    folder = folder.resolve()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _stage(repository: Repository, what: str, paths: Sequence[str]) -> None:
    options = ["--force"] if what == "add" else ["-q", "-r"]
    given = b"\0".join(os.fsencode(path) for path in paths)
    repository.run(
        what, *options, "--pathspec-from-file=-", "--pathspec-file-nul", given=given, identity=True
    )


def _commit(repository: Repository, subject: str) -> str:
    repository.run("commit", "-q", "-m", subject, identity=True)
    return repository.head() or ""


def report_text(
    tree: Tree, done: Done, before: int, left: Sequence[Finding], kept: Sequence[Finding]
) -> str:
    """The execution report, in Markdown: what went where, what stayed, how to undo it."""
    after = before - sum(move.size for move in done.moves)
    saved = 100 * (before - after) / before if before else 0.0
    lines = [
        "# Repository split: execution report",
        "",
        f"**Date**: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"**Status**: {'complete' if not left else f'{len(left)} findings are left'}",
        "",
        "## Files moved",
    ]
    for rule in dict.fromkeys(move.rule for move in done.moves):
        of_rule = [move for move in done.moves if move.rule == rule]
        total = sum(move.size for move in of_rule)
        lines += ["", f"**{rule} ({len(of_rule)} files, {human(total)})**:", ""]
        lines += [
            f"- `{_quoted(move.path)}` → `{_quoted(move.to)}` ({human(move.size)})"
            for move in of_rule
        ]
    lines += ["", "## Files kept", ""]
    lines += [f"- `{_quoted(each.path)}` ({human(each.size or 0)}), allowed" for each in kept] or [
        "Nothing that needed to be allowed."
    ]
    lines += ["", "## Commits", ""]
    names = {done.added: done.destination.name, done.removed: done.source.name}
    lines += [f"- `{_quoted(name)}`: `{commit}`" for commit, name in names.items()]
    lines += ["", "To undo it, the latest first:", ""]
    lines += [
        f"    git -C {_quoted(name)} revert --no-edit {commit}"
        for commit, name in reversed(names.items())
    ]
    lines += [
        "",
        "## Storage",
        "",
        "| | before | after |",
        "|---|---|---|",
        f"| files of `{_quoted(done.source.name)}` | {human(before)} | {human(after)} |",
        "",
        f"{saved:.0f} % less, where the destination is another repository. What was moved is still",
        "in the history of the repository that it left; `git filter-repo` takes it out there.",
        "",
        "## Verification",
        "",
    ]
    lines += [f"- `{_quoted(each.path)}`: {each.rule}" for each in left] or [
        "`linnix audit split` finds nothing."
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return printable(text).replace("`", "'")
