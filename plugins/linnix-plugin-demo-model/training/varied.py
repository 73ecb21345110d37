"""Recorded incidents, varied: other names and pids, other company, numbers moved a little.

What is varied says nothing about the truth, or moves as a whole: a count and its limit by one
factor. The memory limit of a cgroup is taken away, or given, at random: in the recordings it
tells ordinary work from incidents, which on no other machine it does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs

from linnix_core import AllowedAction, Fact, ProcessKey, ReasonRequest, RequestProcess
from linnix_plugin_insight.example import Example
from training.answers import right_process
from training.families import Drawn
from training.hosts import made_up_name

__all__ = ["varied"]

#: Of the machine, and not of what the incident is about.
_SURROUNDINGS = frozenset(
    ("machine CPU", "cores", "CPU stall, some", "I/O stall, full", "disk reads", "disk writes")
)
_LIMITS = frozenset(("cgroup memory limit", "cgroup memory used"))


def varied(
    example: Example, others: Sequence[Example], draw: random.Random, *, most_others: int = 11
) -> Drawn:
    """The example with what says nothing exchanged; ``others`` lend their surroundings."""
    assert example.label is not None
    request, label = example.bundle.request, example.label
    facts = list(request.facts)
    if label.class_ != "io_saturation" and draw.random() < 0.5:
        facts = _elsewhere(facts, draw.choice(others).bundle.request.facts, draw)
    facts = _cgroup(facts, label.class_ == "oom_risk", draw)
    facts = _moved(facts, draw)
    keep = _kept(request, label.processes, draw, most_others)
    ids = {old: f"P{number}" for number, old in enumerate(keep, 1)}
    facts = [
        attrs.evolve(fact, process=ids.get(fact.process) if fact.process else None)
        for fact in facts
        if fact.process is None or fact.process in ids
    ]
    pids = {p.key.pid: _pid(draw) for p in request.processes}
    processes = tuple(
        _process(p, ids[p.id], pids, facts, draw)
        for p in sorted(
            (p for p in request.processes if p.id in ids), key=lambda p: keep.index(p.id)
        )
    )
    subject = request.incident.subject
    if subject.key is not None:
        key = ProcessKey(subject.key.boot_id, pids.get(subject.key.pid, 1), subject.key.start_ns)
        subject = attrs.evolve(subject, key=key)
    actions = tuple(AllowedAction(a.id, _renumbered(a.text, pids)) for a in request.actions)
    made = attrs.evolve(
        request,
        incident=attrs.evolve(request.incident, subject=subject),
        facts=tuple(attrs.evolve(fact, id=f"f{n}") for n, fact in enumerate(facts, 1)),
        processes=processes,
        actions=actions,
    )
    culprits = tuple(ids[id_] for id_ in label.processes if id_ in ids)
    return Drawn(example.family or "", made, label.class_, culprits)


def _elsewhere(facts: list[Fact], borrowed: Sequence[Fact], draw: random.Random) -> list[Fact]:
    """The facts with another machine around them."""
    values = {f.name: f.value for f in borrowed if f.process is None and f.name in _SURROUNDINGS}
    if draw.random() < 0.5:
        values["cores"] = draw.choice((1, 2, 4, 8, 16, 32, 64))
    return [
        attrs.evolve(f, value=values.get(f.name, f.value)) if f.process is None else f
        for f in facts
    ]


def _cgroup(facts: list[Fact], memory: bool, draw: random.Random) -> list[Fact]:
    if memory:
        return facts
    facts = [f for f in facts if f.name not in _LIMITS]
    used = next((f for f in facts if f.name == "cgroup memory"), None)
    if used is None:
        return facts
    at = facts.index(used)
    if draw.random() < 0.3:
        del facts[at]
    elif draw.random() < 0.5 and used.value:
        limit = round(used.value * 200 ** draw.random() * 1.2 + 8, 1)
        facts[at + 1 : at + 1] = [
            Fact("cgroup memory limit", limit, "MiB"),
            Fact("cgroup memory used", round(100 * used.value / limit, 1), "%"),
        ]
    return facts


#: What is counted, or measured, together with its limit.
_TOGETHER = frozenset(("threshold", "forks", "short_jobs", "io", "rss", "cpu"))
_ENDED = frozenset(("descendants alive", "descendants that ended lately"))
_AS_IT_IS = frozenset(
    ("window", "alerts", "cores", "processes", "confidence", "oom_kills", "programs",
     "cgroup OOM kills", "offender_share", "share with an exec")
)  # fmt: skip


def _moved(facts: list[Fact], draw: random.Random) -> list[Fact]:
    """Numbers as they might have been: measurements by some percent, counts together."""
    together = draw.uniform(0.9, 1.1) if draw.random() < 0.7 else 1.0
    ended = draw.uniform(0.85, 1.15)
    found = []
    for fact in facts:
        factor = draw.uniform(0.9, 1.1)
        if fact.name in _TOGETHER and fact.unit not in ("oom_kills", "alerts"):
            factor = together
        elif fact.name in _ENDED:
            factor = ended
        elif fact.name in _AS_IT_IS or fact.unit == "oom_kills":
            factor = 1.0
        value = fact.value * factor
        if fact.unit == "%" and fact.value <= 100 and fact.name not in ("CPU", "cpu"):
            value = min(value, 100.0)
        whole = float(fact.value).is_integer() and fact.value >= 5
        found.append(attrs.evolve(fact, value=round(value) if whole else round(value, 1)))
        if factor == 1.0 or fact.value < 0.05 or fact.unit == "s":
            found[-1] = fact
    return found


def _kept(
    request: ReasonRequest, culprits: Sequence[str], draw: random.Random, most: int
) -> list[str]:
    """The subject, who did it, and some of the others in another order."""
    key = request.incident.subject.key
    subject = [p.id for p in request.processes if p.key == key]
    named = right_process(request, "cpu_spin", tuple(culprits)) if culprits else None
    needed = [id_ for id_ in culprits if id_ not in subject]
    needed = needed if len(needed) <= 3 else [id_ for id_ in needed if id_ == named]
    rest = [p.id for p in request.processes if p.id not in (*subject, *needed)]
    draw.shuffle(rest)
    rest = rest[: draw.randint(0, max(most, 0))]
    # The order of the core is children, CPU, memory, storage: others stay behind them.
    order = [p.id for p in request.processes]
    behind = sorted([*needed, *rest], key=order.index)
    return [*subject, *behind]


def _process(
    process: RequestProcess,
    id_: str,
    pids: dict[int, int],
    facts: Sequence[Fact],
    draw: random.Random,
) -> RequestProcess:
    values = {fact.name: fact.value for fact in facts if fact.process == id_}
    name = made_up_name(draw)
    cpu, rss = process.cpu_percent, process.rss_bytes
    return attrs.evolve(
        process,
        id=id_,
        key=ProcessKey(process.key.boot_id, pids[process.key.pid], process.key.start_ns),
        comm=name,
        exe=f"/usr/bin/{name}",
        cpu_percent=cpu if cpu is None else values.get("CPU", cpu),
        rss_bytes=rss if rss is None else int(values.get("RSS", rss / 2**20) * 2**20),
    )


def _pid(draw: random.Random) -> int:
    return draw.randint(2, 10 ** draw.choice((3, 4, 5, 5, 5, 6, 7)))


def _renumbered(text: str, pids: dict[int, int]) -> str:
    """An action with the new pid; there is one pid in it, as a word of its own."""
    return " ".join(
        str(pids[int(word)]) if word.isdecimal() and int(word) in pids else
        "/".join(str(pids[int(p)]) if p.isdecimal() and int(p) in pids else p
                 for p in word.split("/"))
        for word in text.split(" ")
    )  # fmt: skip
