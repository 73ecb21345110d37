"""Prompts and replies as token ids, in files of some thousand.

    python -m training.corpus OUT.npz --seed 1 --count 8000 --recorded recorded.jsonl

A share comes from `training.families`, the rest from recorded incidents as `training.varied`
varies them. Families of `VALIDATION` are left out unless ``--families`` says otherwise.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from linnix_core import ReasonRequest, narrowed, render_prompt
from linnix_plugin_insight.example import Example, load_example
from training.answers import reply, right_process
from training.families import Drawn, drawn
from training.tokenizing import Tokenizer
from training.varied import varied

__all__ = ["VALIDATION", "Recorded", "Sample", "encoded", "samples"]

#: Families of the development split that are not trained on: what the model is chosen and its
#: confidence is calibrated by.
VALIDATION = frozenset(
    ("bash_subshells", "xargs_jobs", "python_workers", "c_spin", "dd_direct", "c_leak",
     "deploy_script", "pip_install", "web_server", "sort_file", "cache", "python_tests")
)  # fmt: skip

#: What stands for a confidence until the model knows one of its own.
ANY_CONFIDENCE = 50

#: Longer prompts are left out; the context of the model has room for them.
MOST_TOKENS = 900


class Sample(NamedTuple):
    """Token ids of a prompt and of its reply."""

    prompt: list[int]
    reply: list[int]


def can_be_told(example: Example) -> bool:
    """Whether an incident shows in its facts as much as the evaluation's witness has to count.

    Far more eager rules than the shipped ones see an incident before it is one: such a moment
    is like ordinary work, and nobody should be told more.
    """
    request, class_ = example.bundle.request, example.class_
    if class_ == "normal" or "shipped" in example.notes:
        return True
    first = request.facts[0]
    values = {fact.name: fact.value for fact in reversed(request.facts)}
    rate = first.value / max(values.get("window", 1.0), 0.1)
    if class_ == "fork_storm":
        return rate >= 50
    if class_ == "short_job_flood":
        return rate >= 30
    if class_ == "runaway_tree":
        return values.get("descendants alive", 0) >= 60
    if class_ == "cpu_spin":
        return values["threshold"] >= 60 or values["window"] == 7
    if class_ == "io_saturation":
        stalled = values.get("I/O stall, some", 0) >= 15
        return stalled or first.value >= 20 or first.name.startswith("psi")
    if first.name == "rss_growth":
        return values.get("time_until_limit", 0) <= 130
    short = values.get("cgroup memory used", 0) >= 70 or values.get("memory available", 100) <= 15
    return first.name != "rss" or short


class Recorded:
    """Recorded examples to draw from: every true and detected class as often as another."""

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples
        kinds: dict[object, list[Example]] = defaultdict(list)
        for example in examples:
            kinds[example.class_, example.bundle.request.incident.class_].append(example)
        # A case that many rules tell of again and again counts little more than another; what
        # people are told of by default counts more than what eager rules find.
        told = Counter(_case(example) for example in examples)
        self.kinds = [
            (
                members,
                [(1.0 if "drawn" in e.notes else 3.0) / told[_case(e)] ** 0.7 for e in members],
            )
            for members in kinds.values()
        ]
        self.weights = [len(members) ** 0.5 for members, _ in self.kinds]

    @classmethod
    def read(cls, paths: list[Path], *, validation: bool | None = None) -> Recorded:
        """The examples of some files, if wanted only those of `VALIDATION`, or all others."""
        found = [
            example
            for path in paths
            for line in path.read_text().splitlines()
            if (example := load_example(line)).label is not None
            and not example.held_out
            and validation in (None, example.family in VALIDATION)
            and can_be_told(example)
        ]
        return cls(found)

    def draw(self, draw: random.Random, *, others: int) -> Drawn:
        """One of them, varied."""
        members, weights = draw.choices(self.kinds, self.weights)[0]
        example = draw.choices(members, weights)[0]
        return varied(example, self.examples, draw, most_others=others)


def _case(example: Example) -> str:
    return example.id.rpartition(".")[0]


def encoded(
    tokenizer: Tokenizer,
    request: ReasonRequest,
    made: Drawn,
    confidence: int = ANY_CONFIDENCE,
    *,
    names: bool = False,
) -> Sample:
    """The prompt of a request, and the right reply to it."""
    process = right_process(request, made.class_, made.culprits)
    answer = reply(request, made.class_, process, confidence)
    prompt = render_prompt(request, names=names)
    return Sample(tokenizer.prompt(prompt), tokenizer.encode(answer + "<|end|>"))


def samples(
    tokenizer: Tokenizer, seed: int, count: int, recorded: Recorded | None, *, others: int = 11,
    made_up: float = 0.5, usual: float = 0.7,
) -> Iterator[Sample]:  # fmt: skip
    """So many samples; the same seed gives the same.

    A share of ``usual`` is asked as the reasoner ``llama-cpp`` asks by default: about what
    weighs most, and without the names of processes.
    """
    draw = random.Random(seed)  # noqa: S311 - the same seed must give the same samples
    while count:
        if recorded is None or draw.random() < made_up:
            made = drawn(draw.getrandbits(48), others=others)
        else:
            made = recorded.draw(draw, others=others)
        request = made.request
        if draw.random() < usual:
            request = narrowed(request)
        names = draw.random() >= usual
        sample = encoded(tokenizer, request, made, names=names)
        if len(sample.prompt) <= MOST_TOKENS:
            count -= 1
            yield sample


def save(path: Path, found: list[Sample]) -> None:
    """As arrays: all ids, one after the other, and how many each part has."""
    np.savez_compressed(
        path,
        ids=np.array([i for s in found for part in s for i in part], dtype=np.uint16),
        sizes=np.array([[len(part) for part in s] for s in found], dtype=np.uint16),
    )


def load(path: Path) -> list[Sample]:
    """What `save` wrote."""
    with np.load(path) as arrays:
        ids, sizes = arrays["ids"].tolist(), arrays["sizes"].tolist()
    found, at = [], 0
    for prompt, answer in sizes:
        found.append(Sample(ids[at : at + prompt], ids[at + prompt : at + prompt + answer]))
        at += prompt + answer
    return found


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--others", type=int, default=11)
    parser.add_argument("--made-up", type=float, default=0.5)
    parser.add_argument("--usual", type=float, default=0.7)
    parser.add_argument("--recorded", type=Path, nargs="*", default=[])
    parser.add_argument("--families", choices=("training", "validation", "all"), default="training")
    chosen = parser.parse_args()
    recorded = None
    if chosen.recorded:
        only = {"training": False, "validation": True, "all": None}[chosen.families]
        recorded = Recorded.read(chosen.recorded, validation=only)
    found = samples(
        Tokenizer(), chosen.seed, chosen.count, recorded, others=chosen.others,
        made_up=chosen.made_up, usual=chosen.usual,
    )  # fmt: skip
    save(chosen.out, list(found))


if __name__ == "__main__":
    main()
