"""The card: how the shipped model does, asked as the agent would ask it.

    python -m training.card --about about.json > card.json
    python -m training.card --readme README.md --about card.json    # its tables into a README

Every figure comes from `linnix_plugin_insight.scoring` and the reasoner ``llama-cpp`` with its
defaults, beside ``heuristics``.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from linnix_core import CLASSES, Answer, Fact, ReasonRequest, narrowed
from linnix_core.testing.injections import injected
from linnix_plugin_demo_model import path as shipped
from linnix_plugin_insight.example import Example, load_example
from linnix_plugin_insight.reasoners import Reasoner, opened
from linnix_plugin_insight.scoring import score
from training.answers import reply

__all__ = ["by_class", "cites_by_rule", "tables", "without_limits"]

HELD_OUT = Path("datasets/held-out/incidents.jsonl")
EXAMPLES = Path("datasets/examples/incidents.jsonl")

#: Hostile requests for each held-out incident, of the sixty that there are, others for each.
ATTACKS = 3

#: The limit and the window of an eager rule tell ordinary work from incidents in the held-out
#: set, which has no alerts of good rules about ordinary work. With these they do not.
SHIPPED = {
    "forks": (300.0, 2.0), "short_jobs": (125.0, 2.5), "cpu": (65.0, 7.0), "io": (30.0, 6.0),
}  # fmt: skip


def by_class(confusion: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Precision and recall of each class, of the ``classes`` of a score."""
    said: collections.Counter[str] = collections.Counter()
    for row in confusion.values():
        said.update(row["said"])
    found = {}
    for class_ in CLASSES:
        row = confusion.get(class_, {"cases": 0, "said": {}})
        right = row["said"].get(class_, 0)
        found[class_] = {
            "cases": row["cases"],
            "precision": round(right / said[class_], 3) if said[class_] else None,
            "recall": round(right / row["cases"], 3) if row["cases"] else None,
        }
    return found


def cites_by_rule(request: ReasonRequest, answer: Answer) -> tuple[bool, bool]:
    """Whether facts and actions are those that the rule of the training data cites."""
    request = narrowed(request)  # as the reasoner asks
    wanted = json.loads(reply(request, answer.class_, answer.process, answer.confidence))
    return list(answer.facts) == wanted["facts"], list(answer.actions) == wanted["actions"]


def without_limits(request: ReasonRequest) -> ReasonRequest:
    """The request with the limits that the shipped rules have, whichever rule alerted."""
    facts: list[Fact] = []
    limits: tuple[float, float] | None = None
    for fact in request.facts:
        limits = SHIPPED.get(fact.name, limits)
        at = {"threshold": 0, "window": 1}.get(fact.name)
        if at is not None and limits is not None:
            fact = attrs.evolve(fact, value=limits[at])  # noqa: PLW2901
        facts.append(fact)
    return attrs.evolve(request, facts=tuple(facts))


# --- tables ---------------------------------------------------------------------------

_BEGIN, _END = "<!-- card -->\n", "<!-- end of card -->"


def tables(card: Mapping[str, Any]) -> str:
    """The figures of a card in Markdown."""
    scores = card["scores"]
    heads = (
        "set, reasoner, class right (95 %), of incidents, normal told, process right, grounded, "
        "injected, Brier"
    )
    lines = [f"| {heads.replace(', ', ' | ')} |", "|---|---|---|---|---|---|---|---|---|"]
    for name in scores["llama-cpp"]:
        for reasoner in ("llama-cpp", "heuristics"):
            row = scores[reasoner].get(name)
            if row is None:
                continue
            low, high = row["class_accuracy_95"]
            injected_ = "-" if not row["attacked"] else f"{row['injected']:.3f}"
            lines.append(
                f"| {name} ({row['cases']}) | {_NAMES[reasoner]} | {row['class_accuracy']:.2f} "
                f"({low:.2f} to {high:.2f}) | {row['incident_accuracy']:.2f} | "
                f"{row['refused_normal']:.2f} | {row['right_process']:.2f} | "
                f"{row['grounded']:.2f} | {injected_} | "
                f"{row['brier']:.3f} |"
            )
    held_out = scores["llama-cpp"]["held-out"]
    lines += ["", "| class, held out | cases | precision | recall |", "|---|---|---|---|"]
    for class_, row in held_out["classes"].items():
        lines.append(
            f"| {class_} | {row['cases']} | {_share(row['precision'])} | {_share(row['recall'])} |"
        )
    lines += ["", "| said to be sure, held out | answers | sure on average | right |"]
    lines.append("|---|---|---|---|")
    lines += [
        f"| {bin_['at_least']:.1f} to {bin_['below']:.1f} | {bin_['answers']} | "
        f"{bin_['confidence']:.2f} | {bin_['right']:.2f} |"
        for bin_ in held_out["reliability"]
    ]
    said = (
        f"Ids of facts are those of the rule in {held_out['facts_by_rule']:.0%} of the answers, "
        f"ids of actions in {held_out['actions_by_rule']:.0%}; all are ids that were given. "
        f"{held_out['attacked']} hostile requests were asked of each reasoner."
    )
    lines += ["", said]
    return "\n".join(lines) + "\n"


_NAMES = {"llama-cpp": "demo model", "heuristics": "heuristics"}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _into(readme: Path, card: Mapping[str, Any]) -> None:
    before, _, rest = readme.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    readme.write_text(f"{before}{_BEGIN}{tables(card)}{_END}{after}")


# --- figures --------------------------------------------------------------------------


def _read(path: Path) -> list[Example]:
    return [load_example(line) for line in path.read_text().splitlines()]


@contextmanager
def _asked(model: Path | None, *, names: bool) -> Iterator[list[Reasoner]]:
    """The model, by default that of the plugin, and heuristics."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(f"[reasoners.llama-cpp]\nnames = {str(names).lower()}\n")
        if model is not None:
            config.write(f"model = {json.dumps(str(model.absolute()))}\n")
        config.flush()
        with opened(["llama-cpp", "heuristics"], config.name) as reasoners:
            yield reasoners


def _scored(reasoner: Reasoner, cases: Iterable[Example], attacks: int) -> dict[str, Any]:
    facts = actions = asked = 0

    def asking(request: ReasonRequest) -> Answer | None:
        nonlocal facts, actions, asked
        answer = reasoner.ask(request)
        if answer is not None:
            asked += 1
            by_rule = cites_by_rule(request, answer)
            facts += by_rule[0]
            actions += by_rule[1]
        return answer

    hostile = injected if attacks else None
    result = score(reasoner.name, asking, cases, hostile=hostile, attacks=attacks, timeout_s=60.0)
    document = result.document()
    kept = (
        "cases", "class_accuracy", "class_accuracy_95", "incident_accuracy",
        "incident_accuracy_95", "refused_normal", "right_process", "right_process_95",
        "grounded", "failed", "injected", "attacked", "brier", "reliability", "latency_s",
    )  # fmt: skip
    found = {key: document[key] for key in kept}
    found["facts_by_rule"] = round(facts / max(asked, 1), 3)
    found["actions_by_rule"] = round(actions / max(asked, 1), 3)
    return {**found, "classes": by_class(document["classes"]), "said": document["classes"]}


def main() -> None:
    """Print the card, or put its tables into a README."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--about", type=Path)
    parser.add_argument("--model", type=Path, help="another file than that of the plugin")
    parser.add_argument("--attacks", type=int, default=ATTACKS)
    parser.add_argument("--cases", type=int, help="so many of each set only, from all over it")
    parser.add_argument("--readme", type=Path, help="put the tables of --about into it")
    chosen = parser.parse_args()
    if chosen.readme:
        _into(chosen.readme, json.loads(chosen.about.read_text()))
        return
    sets = {"held-out": _read(HELD_OUT), "examples": _read(EXAMPLES)}
    if chosen.cases:
        sets = {name: cases[:: max(len(cases) // chosen.cases, 1)] for name, cases in sets.items()}
    same_limits = [
        attrs.evolve(
            case, bundle=attrs.evolve(case.bundle, request=without_limits(case.bundle.request))
        )
        for case in sets["held-out"]
    ]
    card: dict[str, Any] = json.loads(chosen.about.read_text()) if chosen.about else {}
    asked = {
        "held-out": (sets["held-out"], chosen.attacks),
        "examples": (sets["examples"], 0),
        "held-out, limits of the shipped rules": (same_limits, 0),
    }
    card["scores"] = {"llama-cpp": {}, "heuristics": {}}
    with _asked(chosen.model, names=False) as reasoners:
        for reasoner in reasoners:
            for name, (cases, attacks) in asked.items():
                card["scores"][reasoner.name][name] = _scored(reasoner, cases, attacks)
    # As another reasoner shows them that was told to: by default none does.
    with _asked(chosen.model or shipped(), names=True) as (model, _):
        card["scores"]["llama-cpp"]["held-out, names shown"] = _scored(
            model, sets["held-out"], chosen.attacks
        )
    json.dump(card, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
