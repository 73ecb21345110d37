"""Labelled examples from the recordings of the evaluation, for people to look through.

    python -m datasets.collect /var/tmp/linnix-evaluation --split held-out > candidates.jsonl

Runs from the root of a checkout. Alerts are those of the shipped rules and, for ordinary work,
of far more eager ones, since good rules say nothing about it. The label is that of the case whose
cgroup or process an alert names; what others ran on the machine is passed over.
"""

# ruff: noqa: INP001, T201 - a script, which prints

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.judging import _is_offender, _owner
from evaluation.recordings import Recording, recordings
from linnix_core import (
    Alert,
    Bundle,
    Incident,
    ProcessKey,
    ProcessTable,
    Subject,
    build_request,
)
from linnix_core.incidents import IncidentBook
from linnix_core.surroundings import Surroundings
from linnix_plugin_insight.example import Example, Label, dump_example
from linnix_plugin_insight.making import Ask, anonymous, make_example
from linnix_plugin_insight.reasoners import opened
from linnix_plugin_rules.engine import Engine
from linnix_plugin_rules.rulefile import read_rules

EAGER = """
- {name: eager_forks, detector: fork_burst, threshold: 30, window_seconds: 5, cooldown: 30}
- {name: eager_jobs, detector: short_job_flood, threshold: 40, window_seconds: 5, cooldown: 30}
- {name: eager_tree, detector: runaway_tree, threshold: 20, window_seconds: 10, cooldown: 30}
- {name: eager_cpu, detector: subtree_cpu_pct, threshold: 50, duration: 5, cooldown: 30}
- {name: eager_io, detector: io_rate, threshold: 10, duration: 3, cooldown: 30}
- {name: eager_memory, detector: subtree_rss_mb, threshold: 50, duration: 2, cooldown: 30}
"""


#: What an example says of where it is from, by its case and the name of the rules.
Notes = Callable[[Mapping[str, Any], str], str]


def engines_of(files: Mapping[str, str]) -> dict[str, Engine]:
    """The shipped rules, and those of these texts, by their names."""
    found = {"shipped": Engine(read_rules(None).rules)}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder) / f"{name}.yaml"
            path.write_text(text)
            found[name] = Engine(read_rules(path).rules)
    return found


def labelled(
    recording: Recording, ask: Ask, engines: Mapping[str, Engine], notes: Notes, *,
    most: int | None = None,
) -> Iterator[Example]:  # fmt: skip
    """Every incident that the rules make of a recording and that is about one of its cases.

    Of incidents, ``eager`` rules tell nothing: their limits say nothing about one. Other rules than
    the shipped ones are listened to where they name its class. ``most`` bounds what a case gives.
    """
    table, surroundings = ProcessTable(), Surroundings()
    books = {
        name: IncidentBook(new_id=iter(map(str, range(10**6))).__next__, processes=table.view)
        for name in engines
    }
    numbers = defaultdict(lambda: itertools.count(1))
    cases = {case["name"]: case for case in recording.truth["cases"]}
    batch: list[Any] = []

    def judge() -> Iterator[Example]:
        table.update(batch)
        surroundings.update(batch)
        for name, engine in engines.items():
            for alert in engine.handle(batch):
                case = cases.get(_owner(alert, list(cases.values()), recording.truth))
                if case is None or (case["kind"] is not None and not case["happened"]):
                    continue
                true = {case["kind"], *case["also"]}
                heard = name == "shipped" or (name != "eager" and alert.class_ in true)
                if case["kind"] is not None and not heard:
                    continue
                for incident in books[name].add(alert):
                    if incident.change in ("opened", "worse"):
                        number = next(numbers[case["name"]])
                        if most is None or number <= most:
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
            held_out=case["split"] == "held-out",
            notes=notes(case, by),
        )

    for record in recording.records():
        batch.append(record)
        if len(batch) >= 64:
            yield from judge()
            batch.clear()
    yield from judge()


def _did_it(key: ProcessKey, case: Mapping[str, Any]) -> bool:
    """Whether the witness saw this process, and that it did it or those below it."""
    seen = {(member["pid"], member["start_ns"]) for member in case["members"]}
    alert = Alert("", "info", "", subject=Subject(key))
    return bool(case["kind"]) and (key.pid, key.start_ns) in seen and _is_offender(alert, case)


def drawn_notes(case: Mapping[str, Any], by: str) -> str:
    """What was drawn for the case, for whoever looks through."""
    drawn = ", ".join(f"{name} {value}" for name, value in case["drawn"].items())
    return f"{case['family']} ({drawn}), found by the {by} rules"


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", choices=("development", "held-out"))
    chosen = parser.parse_args()
    with opened(["heuristics"]) as (heuristics,):
        for recording in recordings(chosen.root):
            if chosen.split is None or recording.name.endswith(chosen.split):
                engines = engines_of({"eager": EAGER})
                for example in labelled(recording, heuristics.ask, engines, drawn_notes):
                    print(dump_example(example), flush=True)


if __name__ == "__main__":
    main()
