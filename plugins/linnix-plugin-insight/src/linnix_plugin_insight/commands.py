"""``linnix insight``: make, check, mend and hand over datasets of incidents; score reasoners."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from linnix_core import CLASSES, LinnixError, printable, read_bundle
from linnix_plugin_insight.example import BadExample, Example, Label, dump_example, load_example
from linnix_plugin_insight.files import (
    STANDARD,
    Line,
    digest_of,
    is_one_document,
    lines_of,
    require_file,
    writing,
)

__all__ = ["command"]

#: Mistakes that are printed; the rest is counted.
MAX_SHOWN = 100

#: Examples of which something is kept while the rest is read: their ids, or an entry.
MAX_EXAMPLES = 1_000_000

_FILES = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
_FILE = click.argument("file", type=click.Path(path_type=Path))
_OUT = click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=STANDARD,
    help="The file to write; otherwise standard output.",
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_KEEP = click.option(
    "--keep-names", is_flag=True, help="Keep host, tree, arguments, cgroups and paths."
)
_FAMILY = click.option("--family", help="What makes incidents alike; never in two splits.")
_HELD_OUT = click.option("--held-out", is_flag=True, help="Keep them out of training.")
_NOTES = click.option("--notes", default="", help="Where they come from.")


@click.group("insight")
def command() -> None:
    """Datasets of incidents and their insights, by rules of thumb; scores of reasoners."""


# --- making ---------------------------------------------------------------------------


@command.command("new")
@_FILE
@_OUT
@click.option("--id", "name", help="Its name; otherwise one made of its content.")
@click.option("--class", "class_", type=click.Choice(CLASSES), help="What it really was.")
@click.option("--process", "processes", multiple=True, help="Who did it: P1. May be repeated.")
@click.option(
    "--source-type", type=click.Choice(["recorded", "synthetic", "unknown"]), default="recorded"
)
@_NOTES
@_FAMILY
@_HELD_OUT
@_KEEP
def new(
    file: Path, output: Path, name: str | None, class_: Any, processes: tuple[str, ...],
    source_type: Any, notes: str, family: str | None, held_out: bool, keep_names: bool,
) -> None:  # fmt: skip
    """Make one example of the bundle in FILE, with what you know of it."""
    from linnix_plugin_insight.making import anonymous, make_example
    from linnix_plugin_insight.reasoners import opened

    if processes and class_ is None:
        raise click.UsageError("--process says who did it: say what with --class")
    label = Label(class_, (), processes) if class_ else None
    bundle = read_bundle(file)
    with opened(["heuristics"]) as (heuristics,):
        example = make_example(
            bundle if keep_names else anonymous(bundle),
            heuristics.ask,
            id=name, label=label, family=family, held_out=held_out, source=source_type, notes=notes,
        )  # fmt: skip
    line = _checked(example)
    with writing(output) as out:
        out.write(f"{line}\n")


def _checked(example: Example) -> str:
    """Its line, which is right: options can hold anything."""
    line = dump_example(example)
    try:
        load_example(line)
    except BadExample as error:
        raise LinnixError(f"that makes no example: {error}") from None
    return line


@command.command("from-incidents")
@_FILES
@_OUT
@_NOTES
@_FAMILY
@_HELD_OUT
@_KEEP
def from_incidents(
    files: tuple[Path, ...], output: Path, notes: str, family: str | None, held_out: bool,
    keep_names: bool,
) -> None:  # fmt: skip
    """Make examples of bundles, and of recordings (JSON lines of a run), one per incident.

    What is true of them nobody knows yet: their labels are null. Incidents that are there
    already are left out.
    """
    from linnix_plugin_insight.making import anonymous, make_example
    from linnix_plugin_insight.reasoners import opened
    from linnix_plugin_insight.recordings import Recording

    seen: set[str] = set()
    made = left_out = 0
    with opened(["heuristics"]) as (heuristics,), writing(output) as out:
        for path in files:
            require_file(path)
            one = is_one_document(path)
            for bundle in [read_bundle(path)] if one else Recording(path).bundles():
                example = make_example(
                    bundle if keep_names else anonymous(bundle), heuristics.ask,
                    family=family, held_out=held_out, notes=notes,
                )  # fmt: skip
                if example.id in seen:
                    left_out += 1
                    continue
                _bound(len(seen))
                seen.add(example.id)
                out.write(f"{_checked(example)}\n")
                made += 1
    _say(f"{made} examples, {left_out} left out that were there already")


# --- checking -------------------------------------------------------------------------


class _Mistakes:
    """Mistakes are told at once, up to a bound, and counted."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.count = 0
        self.shown: list[dict[str, Any]] = []

    def add(self, line: Line, place: str, reason: str) -> None:
        self.count += 1
        if self.count > MAX_SHOWN:
            return
        self.shown.append(
            {"file": line.source, "line": line.number, "place": place, "reason": reason}
        )
        if not self.quiet:
            _say(f"{line.place}: {place}: {reason}")
            if self.count == MAX_SHOWN:
                _say("more are counted, and not shown")


def _examples(files: Sequence[Path], mistakes: _Mistakes) -> Iterator[tuple[Line, Example]]:
    """Every example, and a mistake for each line that is none, or has a name that was used."""
    names: dict[str, str] = {}
    for path in files:
        for line in lines_of(path):
            if line.data is None:
                mistakes.add(line, "$", "is too long to be an example")
                continue
            try:
                example = load_example(line.data)
            except BadExample as error:
                mistakes.add(line, error.place, error.reason)
                continue
            if _is_new(example.id, line, names, mistakes):
                yield line, example


def _is_new(name: str, line: Line, names: dict[str, str], mistakes: _Mistakes) -> bool:
    """Whether an example has a name of its own, which is noted; otherwise that is a mistake."""
    if name in names:
        mistakes.add(line, "$.id", f"{name} is the name of {names[name]}, too")
        return False
    _bound(len(names))
    names[name] = line.place
    return True


def _bound(count: int) -> None:
    if count >= MAX_EXAMPLES:
        raise LinnixError(f"more than {MAX_EXAMPLES} examples at once", hint="cut the file")


@command.command("validate")
@_FILES
@_JSON
def validate(files: tuple[Path, ...], as_json: bool) -> None:
    """Tell every mistake in FILES with its line and place; exit code 1 if there is one."""
    mistakes = _Mistakes(quiet=as_json)
    right = sum(1 for _ in _examples(files, mistakes))
    if as_json:
        _print_json({"examples": right, "mistakes": mistakes.count, "shown": mistakes.shown})
    else:
        click.echo(f"{right} examples, {mistakes.count} mistakes")
    if mistakes.count:
        raise SystemExit(1)


@command.command("repair")
@_FILE
@_OUT
def repair(file: Path, output: Path) -> None:
    """Mend the lines of FILE without inventing anything, and tell what was done.

    A line that cannot be mended so is left out and told; exit code 1 if there is one.
    """
    from linnix_plugin_insight.repairing import repair as mend

    mistakes = _Mistakes()
    names: dict[str, str] = {}
    mended = 0
    with writing(output) as out:
        for line in lines_of(file):
            if line.data is None:
                mistakes.add(line, "$", "is too long to be an example")
                continue
            try:
                result = mend(line.data)
            except BadExample as error:
                mistakes.add(line, error.place, error.reason)
                continue
            if not _is_new(result.name, line, names, mistakes):
                continue
            for note in result.notes:
                _say(f"{line.place}: {note}")
            out.write(f"{result.line}\n")
            mended += bool(result.notes)
    _say(f"{len(names)} examples, {mended} of them mended; {mistakes.count} lines left out")
    if mistakes.count:
        raise SystemExit(1)


@command.command("stats")
@_FILES
@_JSON
def stats(files: tuple[Path, ...], as_json: bool) -> None:
    """Count examples by class: labels, families, who agrees with the label, how sure."""
    from linnix_plugin_insight.tables import table

    mistakes = _Mistakes(quiet=as_json)
    found: dict[str, dict[str, Any]] = {}
    for _, example in _examples(files, mistakes):
        each = found.setdefault(
            example.class_,
            {"examples": 0, "labelled": 0, "agree": 0, "held_out": 0, "families": set(),
             "recorded": 0, "confidence": 0, "facts": 0},
        )  # fmt: skip
        each["examples"] += 1
        each["labelled"] += example.label is not None
        each["agree"] += example.label is not None and example.agrees
        each["held_out"] += example.held_out
        each["recorded"] += example.source == "recorded"
        each["confidence"] += example.answer.confidence
        each["facts"] += len(example.bundle.request.facts)
        if example.family:
            each["families"].add(example.family)
    described = {
        class_: {
            **found[class_],
            "families": len(found[class_]["families"]),
            "confidence": round(found[class_]["confidence"] / found[class_]["examples"], 1),
            "facts": round(found[class_]["facts"] / found[class_]["examples"], 1),
        }
        for class_ in CLASSES
        if class_ in found
    }
    if as_json:
        _print_json({"classes": described, "mistakes": mistakes.count})
    elif described:
        rows = [("CLASS", *(key.upper() for key in next(iter(described.values()))))]
        rows += [(c, *map(str, each.values())) for c, each in described.items()]
        for row in table(rows):
            click.echo(row)
    else:
        click.echo("no examples")
    if mistakes.count:
        raise SystemExit(1)


# --- handing over ---------------------------------------------------------------------


@command.command("export")
@_FILES
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="The folder to write train.jsonl, valid.jsonl, test.jsonl and splits.json into.",
)  # fmt: skip
@click.option(
    "--shares", default="80/10/10", show_default=True, help="Of train, valid and test in percent."
)
@click.option("--seed", default=0, show_default=True, help="Another one splits differently.")
@click.option("--narrow", is_flag=True, help="Prompts for models of little memory.")
@click.option("--unlabelled", is_flag=True, help="Also what nobody has looked at.")
def export(
    files: tuple[Path, ...], output: Path, shares: str, seed: int, narrow: bool, unlabelled: bool
) -> None:
    """Write examples as chats to train a model on: prompts as models get them, ids as replies.

    Prompts that are there twice are written once. Families, and prompts that differ in their
    numbers only, are never in two splits; the written files are read again to check that.
    """
    from linnix_plugin_insight.exporting import Export

    for path in files:
        require_file(path)
    mistakes = _Mistakes()
    job = Export(narrow=narrow, unlabelled=unlabelled)

    for line, example in _examples(files, mistakes):
        _bound(len(job.entries))
        job.take(line.place, example)
    for place, why in job.left_out[:MAX_SHOWN]:
        _say(f"{place}: left out: {why}")
    job.split(_shares(shares), seed)
    try:
        output.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LinnixError(f"cannot write {output}: {error.strerror}") from error
    # What is wrong was told in the first pass.
    again = _examples(files, _Mistakes(quiet=True))
    report = job.write(output, ((line.place, example) for line, example in again))
    for split, counts in report["splits"].items():
        said = ", ".join(f"{class_} {n}" for class_, n in counts["classes"].items())
        _say(f"{split}: {counts['examples']} ({said or 'none'})")
    _say(
        f"left out: {report['duplicates']} that were there already, "
        f"{report['contradictions']} that contradict one that was, {report['left_out']} others"
    )
    _say(f"leaks between splits: {len(report['leaks'])}")
    if report["leaks"] or mistakes.count:
        for leak in report["leaks"][:MAX_SHOWN]:
            _say(leak)
        raise SystemExit(1)


def _shares(text: str) -> Any:
    try:
        train, valid, test = (int(part) for part in text.split("/"))
    except ValueError:
        raise click.UsageError("--shares is three numbers such as 80/10/10") from None
    if min(train, valid, test) < 0 or train + valid + test != 100:
        raise click.UsageError("--shares has to add up to 100")
    return {"train": train / 100, "valid": valid / 100, "test": test / 100}


# --- scoring --------------------------------------------------------------------------


@command.command("score")
@_FILES
@click.option(
    "-r", "--reasoner", "reasoners", multiple=True, default=("heuristics",), show_default=True,
    help="Whom to ask; may be repeated.",
)  # fmt: skip
@click.option("-c", "--config", help="The configuration with the tables of the reasoners.")
@click.option("--attacks", default=2, show_default=True, help="Hostile requests for each case.")
@click.option(
    "--corpus", default="linnix_core.testing.injections:injected", show_default=True,
    help="The function that makes them.",
)  # fmt: skip
@click.option("--timeout", default=30.0, show_default=True, help="Seconds that a call may take.")
@click.option("--limit", type=click.IntRange(1), help="Ask about so many cases only.")
@click.option("--all", "everything", is_flag=True, help="Also about what is not held out.")
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the score of one reasoner to this file, to ship it as score.json.",
)  # fmt: skip
@_JSON
def score(
    files: tuple[Path, ...], reasoners: tuple[str, ...], config: str | None, attacks: int,
    corpus: str, timeout: float, limit: int | None, everything: bool, save: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Ask reasoners about the held-out examples in FILES, and judge them by the labels.

    Every one gets the same cases. Examples without a label, and those that a model may have
    been trained on, are passed over.
    """
    from linnix_plugin_insight.reasoners import opened
    from linnix_plugin_insight.scoring import score as judge
    from linnix_plugin_insight.tables import score_text

    if save is not None and len(set(reasoners)) > 1:
        raise click.UsageError("--save is for one reasoner at a time")
    if save is not None or len(set(reasoners)) > 1:
        for path in files:
            require_file(path)
    if not timeout > 0:
        raise click.UsageError("--timeout has to be positive")
    hostile = _corpus(corpus) if attacks > 0 else None
    scores: list[Any] = []
    with opened(reasoners, config) as found:
        for reasoner in found:
            mistakes = _Mistakes(quiet=bool(scores))
            cases = (
                example
                for _, example in _examples(files, mistakes)
                if example.label is not None and (example.held_out or everything)
            )
            scores.append(
                judge(
                    reasoner.name,
                    reasoner.ask,
                    _first(cases, limit),
                    hostile=hostile,
                    attacks=attacks,
                    timeout_s=timeout,
                    tokens=reasoner.tokens,
                )
            )
        about = found[0].about()
    if not scores[0].cases:
        raise LinnixError(
            "there is no held-out example with a label", hint="--all asks about the others, too"
        )
    if save is not None:
        digests = {path.name: digest_of(path) for path in files}
        with writing(save) as out:
            out.write(f"{json.dumps(scores[0].card(about, digests), indent=2)}\n")
    if as_json:
        _print_json([each.document() for each in scores])
    else:
        for line in score_text(scores):
            click.echo(line)
    if mistakes.count:
        raise SystemExit(1)


def _first(cases: Iterator[Example], limit: int | None) -> Iterator[Example]:
    import itertools

    return itertools.islice(cases, limit)


def _corpus(name: str) -> Any:
    import pkgutil

    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        hint = "pip install 'linnix-core[testing]', or --attacks 0"
        raise LinnixError(
            f"there is no corpus {printable(name, 80)}: {error}", hint=hint
        ) from error


# --- what is printed ------------------------------------------------------------------


def _say(words: str) -> None:
    """What is no result goes to standard error, so that results can be piped."""
    click.echo(printable(words), err=True)


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2))
