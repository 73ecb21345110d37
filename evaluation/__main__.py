"""``python -m evaluation``: record programs, and tell how well rules judge what was recorded."""

from __future__ import annotations

import json
import time
from itertools import islice
from pathlib import Path

import click

from evaluation.cases import Split

ROOT = Path("/var/tmp/linnix-evaluation")

_ROOT = click.option(
    "--root", type=click.Path(path_type=Path), default=ROOT, show_default=True,
    help="Where recordings are kept.",
)  # fmt: skip
_SPLIT = click.option(
    "--split",
    type=click.Choice(["development", "held-out", "both"]),
    default="both",
    show_default=True,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Record programs of known kinds, and judge rules by them."""


@main.command("record")
@_ROOT
@_SPLIT
@click.option(
    "--what",
    type=click.Choice(["all", "incidents", "mixed", "ordinary"]),
    default="all",
    show_default=True,
)
@click.option(
    "--minutes",
    type=float,
    default=10.0,
    show_default=True,
    help="Begin no session after so long, or when there is a file `stop`.",
)
@click.option(
    "--only",
    multiple=True,
    help="One session with the cases FAMILY or FAMILY:SEED, one after the other.",
)
def record_command(
    root: Path, split: str, what: str, minutes: float, only: tuple[str, ...]
) -> None:
    """Run the sessions that are not recorded yet. Needs root."""
    from evaluation.cases import FAMILIES, Case
    from evaluation.recorder import record
    from evaluation.schedule import Session, sessions

    if only:
        cases = []
        for each in only:
            name, _, seed = each.partition(":")
            cases.append(Case.of(FAMILIES[name], int(seed or 1)))
        planned = iter([Session(f"x-{time.time():.0f}", (tuple(cases),))])
    else:
        planned = sessions(_splits(split), what)
    end = time.monotonic() + minutes * 60
    for session in planned:
        if time.monotonic() > end or (root / "stop").exists():
            return
        if (root / "recordings" / session.name).exists():
            continue
        began = time.monotonic()
        names = [case.name for lane in session.lanes for case in lane]
        click.echo(f"{session.name}: {', '.join(names)}")
        try:
            record(session.lanes, root, session.name)
        except Exception as error:  # noqa: BLE001 - the next one may go well
            click.echo(f"{session.name}: {type(error).__name__}: {error}", err=True)
            time.sleep(5)
        click.echo(f"{session.name}: {time.monotonic() - began:.0f} s")


@main.command("score")
@click.argument("names", nargs=-1)
@_ROOT
@_SPLIT
@click.option(
    "--rules",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Judge these, too.",
)
@click.option("--demo/--no-demo", default=True, help="Judge the rules of the original, too.")
@click.option("--details", is_flag=True, help="List every mistake.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def score_command(
    names: tuple[str, ...],
    root: Path,
    split: str,
    files: tuple[Path, ...],
    demo: bool,
    details: bool,
    as_json: bool,
) -> None:
    """Replay the recordings NAMES, or all, and tell how good rules are."""
    from evaluation.report import printed
    from evaluation.scoring import score_recordings

    judged = {"shipped rules": None, **{str(file): file for file in files}}
    if demo:
        judged["demo rules of the original"] = Path(__file__).parent / "demo_rules.yaml"
    splits = _splits(split)
    found = score_recordings(root, judged, splits, names)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for each in splits:
        click.echo(printed(found[each], details=details))


@main.command("run")
@_ROOT
@click.option(
    "--minutes", type=float, default=30.0, show_default=True, help="How long to record at first."
)
@click.pass_context
def run_command(context: click.Context, root: Path, minutes: float) -> None:
    """Record for a while if nothing is recorded yet, then score."""
    if not any((root / "recordings").glob("*/truth.json")):
        context.invoke(record_command, root=root, minutes=minutes)
    context.invoke(score_command, root=root)


@main.command("live")
@_ROOT
@_SPLIT
@click.option("--sessions", "count", default=2, show_default=True, help="How many to run.")
@click.option("--first", default=1, show_default=True, help="The number of the first one.")
@click.option(
    "--rules", type=click.Path(path_type=Path, exists=True), help="In place of the shipped ones."
)
@click.option("--details", is_flag=True, help="List every mistake.")
def live_command(
    root: Path, split: str, count: int, first: int, rules: Path | None, details: bool
) -> None:
    """Run incidents beside the agent itself; times are those at which alerts came out of it."""
    from evaluation.report import printed
    from evaluation.scoring import score_live

    splits = _splits(split)
    found = score_live(root, splits, first, count, rules)
    for each in splits:
        click.echo(printed(found[each], details=details))


def _splits(split: str) -> list[Split]:
    both: list[Split] = ["development", "held-out"]
    return [each for each in both if split in (each, "both")]


@main.command("families")
@click.option("--seeds", default=1, show_default=True, help="How many cases of each to show.")
def families_command(seeds: int) -> None:
    """List what is run."""
    from evaluation.cases import FAMILIES, Case
    from evaluation.schedule import SOURCES

    assert SOURCES
    for each in FAMILIES.values():
        for case in islice((Case.of(each, seed) for seed in range(1, 1000)), seeds):
            drawn = " ".join(f"{key}={value}" for key, value in case.drawn.items())
            click.echo(f"{each.kind or 'ordinary':16} {each.split:12} {each.name:20} {drawn}")


if __name__ == "__main__":
    main()
