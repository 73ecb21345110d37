"""Labelled examples from the recordings of the evaluation's development split.

    python -m training.recorded /var/tmp/linnix-evaluation > recorded.jsonl

Runs from the root of a checkout with the plugin's folder on PYTHONPATH. Each recording is played
to many rule files at once, whose limits are drawn by a seed: the shipped ones, and others that are
far more eager or far more patient. So the same work is met at many moments and limits, and a low
limit alone does not say that the work is ordinary. The held-out split is never read.
"""

# ruff: noqa: T201 - a script, which prints

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from datasets.collect import EAGER, engines_of, labelled
from evaluation.recordings import recordings
from linnix_plugin_insight.example import dump_example
from linnix_plugin_insight.reasoners import opened
from linnix_plugin_rules.engine import Engine

#: Rule files that are drawn beside the shipped one.
DRAWN = 12

#: Incidents that one case may give: some rules tell of the same work again and again.
MOST_OF_A_CASE = 24


def drawn_rules(draw: random.Random) -> list[dict[str, Any]]:
    """Rules with limits between very eager and those that are shipped."""

    def between(least: float, most: float) -> float:
        return round(least * (most / least) ** draw.random(), 1)

    def rule(name: str, detector: str, **options: Any) -> dict[str, Any]:
        return {"name": name, "detector": detector, "cooldown": 20, **options}

    return [
        rule(
            "forks", "fork_burst", threshold=int(between(25, 320)),
            window_seconds=draw.choice((2, 3, 5, 10)), **draw.choice(({}, {"counts": "bare"})),
        ),
        rule(
            "jobs", "short_job_flood", threshold=int(between(30, 150)),
            window_seconds=draw.choice((2.5, 5, 10)), **draw.choice(({}, {"scope": "exe"})),
        ),
        rule(
            "tree", "runaway_tree", threshold=int(between(15, 120)),
            window_seconds=draw.choice((5, 10, 20)), **draw.choice(({}, {"counts": "living"})),
        ),
        rule(
            "cpu", "subtree_cpu_pct", threshold=int(between(40, 90)),
            duration=draw.choice((3, 5, 7, 10)), **draw.choice(({}, {"steady": True})),
        ),
        rule(
            "io", "io_rate", threshold=int(between(3, 100)), duration=draw.choice((3, 6)),
            **draw.choice(({}, {"direction": "write"})),
        ),
        rule(
            "memory", "subtree_rss_mb", threshold=int(between(30, 300)), duration=2,
        ),
        rule("waiting", "system_psi_io", threshold_pct=int(between(20, 60)), duration=4),
        rule("reclaim", "system_psi_memory", threshold_pct=int(between(5, 30)), duration=4),
        rule(
            "leak", "rss_growth", threshold=int(between(5, 30)),
            window_seconds=draw.choice((10, 20)),
        ),
        rule("killed", "oom_kill"),
    ]  # fmt: skip


def engines(seed: int) -> dict[str, Engine]:
    """The shipped rules, those of `datasets.collect`, and drawn ones."""
    draw = random.Random(seed)  # noqa: S311 - the same seed must give the same rules
    files = {"eager": EAGER}
    files |= {f"drawn{number}": yaml.safe_dump(drawn_rules(draw)) for number in range(DRAWN)}
    return engines_of(files)


def _notes(case: Mapping[str, Any], by: str) -> str:
    return f"found by {by} rules"


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with opened(["heuristics"]) as (heuristics,):
        for number, recording in enumerate(recordings(chosen.root)):
            if recording.name.endswith("-development"):
                rules = engines(chosen.seed + number)
                for example in labelled(
                    recording, heuristics.ask, rules, _notes, most=MOST_OF_A_CASE
                ):
                    print(dump_example(example), flush=True)


if __name__ == "__main__":
    main()
