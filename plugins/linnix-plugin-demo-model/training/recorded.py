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
import itertools
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from datasets.collect import EAGER, _did_it
from evaluation.judging import _owner
from evaluation.recordings import Recording, recordings
from linnix_core import Bundle, Incident, ProcessTable, build_request
from linnix_core.incidents import IncidentBook
from linnix_core.surroundings import Surroundings
from linnix_plugin_insight.example import Example, Label, dump_example
from linnix_plugin_insight.making import Ask, anonymous, make_example
from linnix_plugin_insight.reasoners import opened
from linnix_plugin_rules.engine import Engine
from linnix_plugin_rules.rulefile import read_rules

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
    found = {"shipped": Engine(read_rules(None).rules)}
    draw = random.Random(seed)  # noqa: S311 - the same seed must give the same rules
    files = {"eager": EAGER}
    files |= {f"drawn{number}": yaml.safe_dump(drawn_rules(draw)) for number in range(DRAWN)}
    with tempfile.TemporaryDirectory() as folder:
        for name, rules in files.items():
            path = Path(folder) / f"{name}.yaml"
            path.write_text(rules)
            found[name] = Engine(read_rules(path).rules)
    return found


def labelled(recording: Recording, ask: Ask, seed: int) -> Iterator[Example]:
    """Every incident that the rules make of a recording and that is about one of its cases."""
    table, surroundings = ProcessTable(), Surroundings()
    playing = engines(seed)
    books = {
        name: IncidentBook(new_id=iter(map(str, range(10**6))).__next__, processes=table.view)
        for name in playing
    }
    numbers = defaultdict(lambda: itertools.count(1))
    cases = {case["name"]: case for case in recording.truth["cases"]}
    batch: list[Any] = []

    def judge() -> Iterator[Example]:
        table.update(batch)
        surroundings.update(batch)
        for name, engine in playing.items():
            for alert in engine.handle(batch):
                case = cases.get(_owner(alert, list(cases.values()), recording.truth))
                if case is None or (case["kind"] is not None and not case["happened"]):
                    continue
                if name == "eager" and case["kind"] is not None:
                    continue  # its limits say nothing, also about an incident
                true = {case["kind"], *case["also"]}
                if name != "shipped" and case["kind"] is not None and alert.class_ not in true:
                    continue
                for incident in books[name].add(alert):
                    if incident.change in ("opened", "worse"):
                        number = next(numbers[case["name"]])
                        if number <= MOST_OF_A_CASE:
                            yield made(incident, case, name, number)

    def made(incident: Incident, case: Mapping[str, Any], by: str, number: int) -> Example:
        request = build_request(incident, table.view, surroundings=surroundings)
        did_it = tuple(p.id for p in request.processes if _did_it(p.key, case))
        return make_example(
            anonymous(Bundle(request)),
            ask,
            id=f"{recording.name[:4]}.{case['name']}.{number}",
            label=Label(case["kind"] or "normal", tuple(case["also"]), did_it),
            family=case["family"],
            notes=f"found by {by} rules",
        )

    for record in recording.records():
        batch.append(record)
        if len(batch) >= 64:
            yield from judge()
            batch.clear()
    yield from judge()


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with opened(["heuristics"]) as (heuristics,):
        for number, recording in enumerate(recordings(chosen.root)):
            if recording.name.endswith("-development"):
                for example in labelled(recording, heuristics.ask, chosen.seed + number):
                    print(dump_example(example), flush=True)


if __name__ == "__main__":
    main()
