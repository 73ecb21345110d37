"""From an incident to an insight: facts with numbers go out, ids come back.

A reasoner chooses; the core writes. The request names processes ``P1``…, facts ``f1``…
and allowed actions ``a1``…, and the answer holds nothing but such ids, a class and a
confidence. What people read is rendered here from what the ids stand for, so that a
sentence cannot say what no record said.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import attrs

from linnix_core.escape import printable
from linnix_core.grounding import MAX_ACTIONS, MAX_PRIMARY_PROCESS, MAX_WHY
from linnix_core.processes import Process, ProcessView
from linnix_core.records import (
    CLASSES,
    AllowedAction,
    Evidence,
    Fact,
    Incident,
    IncidentClass,
    Insight,
    ProcessSample,
    ReasonRequest,
    RequestProcess,
)
from linnix_core.surroundings import Surroundings

__all__ = ["build_request", "insight_document", "insight_schema"]

MAX_ACTION = 160
MAX_CHILDREN = 3

#: Facts of a request; of them the incident's evidence, and what handlers add.
MAX_FACTS = 64
MAX_EVIDENCE = 24
MAX_EXTRA = 16

#: Descendants of the subject that are looked at, and how long ago the end of one is lately.
MAX_LOOKED_AT = 10_000
LATELY_NS = 10 * 10**9

#: Characters of a fact's name and unit in a sentence.
MAX_NAME = 40
MAX_UNIT = 16

# What may be proposed, by class; the core fills in the process. Nothing here is carried
# out by Linnix, and nothing is irreversible before a person has looked.
_ACTIONS: dict[IncidentClass, tuple[str, ...]] = {
    "fork_storm": (
        "Look at the tree: pstree -aps {pid}",
        "Stop it from forking while you look: kill -STOP {pid}",
        "Bound its cgroup with pids.max (systemd: TasksMax=)",
    ),
    "short_job_flood": (
        "Look at the tree: pstree -aps {pid}",
        "Find what starts the jobs: the cron, CI or retry loop above pid {pid}",
        "Let one long-lived worker do them in batches",
    ),
    "runaway_tree": (
        "Look at the tree: pstree -aps {pid}",
        "Stop it from growing while you look: kill -STOP {pid}",
        "Bound its cgroup with pids.max (systemd: TasksMax=)",
    ),
    "cpu_spin": (
        "See where it spins: perf top -p {pid}",
        "Give others the CPU first: renice -n 10 -p {pid}",
        "Bound its cgroup with cpu.max (systemd: CPUQuota=)",
    ),
    "io_saturation": (
        "See who reads and writes: pidstat -d -p {pid} 1",
        "Give others the disk first: ionice -c 3 -p {pid}",
        "Bound its cgroup with io.max (systemd: IOWriteBandwidthMax=)",
    ),
    "oom_risk": (
        "See what holds the memory: cat /proc/{pid}/smaps_rollup",
        "Bound its cgroup with memory.high (systemd: MemoryHigh=)",
        "Restart it at a quiet moment, before the kernel chooses one",
    ),
    "normal": ("Watch whether it comes back",),
}


# --- the request ----------------------------------------------------------------------


def build_request(
    incident: Incident,
    processes: ProcessView,
    *,
    surroundings: Surroundings | None = None,
    extra: Iterable[Fact] = (),
    timeout_s: float = 30.0,
) -> ReasonRequest:
    """Number everything that a reasoner may refer to.

    ``P1`` is the subject; then its largest children and who uses most CPU, memory and
    storage. Facts are, the weightiest first, the incident's evidence, the tree below the
    subject, what the subject uses, what ``linnix_evidence`` added, the cgroup and the
    machine, and what the others use. The last action is always to wait and see.
    """
    chosen = _choose(incident, processes)
    numbered = {process.key: f"P{n}" for n, process in enumerate(chosen, 1)}
    subject = numbered.get(incident.subject.key) if incident.subject.key else None
    facts = [_fact_of(evidence, subject) for evidence in incident.evidence[:MAX_EVIDENCE]]
    facts.append(Fact("alerts", incident.alerts, "alerts", subject))
    if incident.subject.key is not None and subject is not None:
        facts.extend(_tree_facts(incident, processes, subject))
        facts.extend(_measurements(chosen[0], subject))
    facts.extend(
        attrs.evolve(fact, process=fact.process if fact.process in numbered.values() else None)
        for fact in itertools.islice(extra, MAX_EXTRA)
    )
    if surroundings is not None:
        facts.extend(surroundings.facts(incident.subject.cgroup, incident.updated_ns))
    for process in chosen:
        if numbered[process.key] != subject:
            facts.extend(
                fact for fact in _measurements(process, numbered[process.key]) if fact.value
            )
    facts = [
        attrs.evolve(fact, name=printable(fact.name, MAX_NAME), unit=printable(fact.unit, MAX_UNIT))
        for fact in facts
        if _is_sound(fact)
    ]
    proposals = [*incident.actions, *_ACTIONS[incident.class_ or "normal"], *_ACTIONS["normal"]]
    pid = incident.subject.key.pid if incident.subject.key else None
    return ReasonRequest(
        incident=incident,
        facts=tuple(attrs.evolve(fact, id=f"f{n}") for n, fact in enumerate(facts[:MAX_FACTS], 1)),
        processes=tuple(_request_process(numbered[p.key], p) for p in chosen),
        actions=tuple(
            AllowedAction(f"a{n}", text) for n, text in enumerate(_fill_in(proposals, pid), 1)
        ),
        timeout_s=timeout_s,
    )


def _fact_of(evidence: Evidence, subject: str | None) -> Fact:
    """Evidence as a fact; bytes in a unit that people, and models, can compare."""
    value, unit = evidence.value, evidence.unit
    if unit in ("By", "By/s") and isinstance(value, int | float) and 2**17 <= abs(value) < 2**63:
        value, unit = round(value / 2**20, 1), unit.replace("By", "MiB")
    return Fact(evidence.name, value, unit, subject)


def _choose(incident: Incident, processes: ProcessView) -> list[Process]:
    chosen: dict[Any, Process] = {}
    subject = incident.subject
    if subject.key is not None:
        found = processes.get(subject.key)
        chosen[subject.key] = found or Process(
            subject.key, comm=subject.comm, exe=subject.exe, cgroup=subject.cgroup
        )
        children = [child for child in processes.children(subject.key) if child.sample]
        children.sort(key=lambda child: _rss(child.sample) or 0, reverse=True)
        chosen.update((child.key, child) for child in children[:MAX_CHILDREN])
    for process in [
        *processes.top(5, by=lambda sample: sample.cpu_percent or None),
        *processes.top(5, by=_rss),
        *processes.top(3, by=_storage),
    ]:
        chosen.setdefault(process.key, process)
    return list(chosen.values())


def _rss(sample: ProcessSample | None) -> int | None:
    return (sample.rss_bytes if sample else None) or None


def _storage(sample: ProcessSample) -> float | None:
    """Bytes read and written in a second."""
    moved = (sample.read_bytes or 0) + (sample.write_bytes or 0)
    return moved * 1e9 / sample.interval_ns if moved and sample.interval_ns > 0 else None


def _tree_facts(incident: Incident, processes: ProcessView, subject: str) -> Iterable[Fact]:
    """How many are below the subject, how many of them ended lately, and how soon."""
    key = incident.subject.key
    if key is None:
        return
    below = processes.descendants(key, MAX_LOOKED_AT, ended=True)
    since_ns = incident.updated_ns - LATELY_NS
    alive = [process for process in below if process.ended_ns is None]
    ended = [process for process in below if (process.ended_ns or 0) >= since_ns]
    if alive:
        yield Fact("descendants alive", len(alive), "processes", subject)
    if not ended:
        return
    yield Fact("descendants that ended lately", len(ended), "processes", subject)
    lives = sorted(p.duration_ns for p in ended if p.duration_ns is not None)
    if lives:
        yield Fact("their median life", round(lives[len(lives) // 2] / 1e9, 3), "s", subject)
    root = processes.get(key)
    programs = [p.exe for p in ended if p.exe and (root is None or p.exe != root.exe)]
    if root is not None and root.exe:
        share = 100 * len(programs) / len(ended)
        yield Fact("share with an exec", round(share), "%", subject)
    if programs:
        yield Fact("programs", len(set(programs)), "programs", subject)


def _measurements(process: Process, process_id: str) -> Iterable[Fact]:
    sample = process.sample
    if sample is None:
        return
    if sample.cpu_percent is not None:
        yield Fact("CPU", round(sample.cpu_percent, 1), "%", process_id)
    if sample.rss_bytes is not None:
        yield Fact("RSS", round(sample.rss_bytes / 2**20, 1), "MiB", process_id)
    for name, moved in (("reads", sample.read_bytes), ("writes", sample.write_bytes)):
        if moved and sample.interval_ns > 0:
            rate = round(moved * 1e9 / sample.interval_ns / 2**20, 1)
            if rate:
                yield Fact(name, rate, "MiB/s", process_id)


def _request_process(process_id: str, process: Process) -> RequestProcess:
    sample = process.sample
    return RequestProcess(
        id=process_id,
        key=process.key,
        comm=process.comm,
        exe=process.exe,
        cpu_percent=sample.cpu_percent if sample else None,
        rss_bytes=sample.rss_bytes if sample else None,
    )


def _fill_in(texts: Iterable[str], pid: int | None) -> Iterable[str]:
    for text in filter(None, dict.fromkeys(texts)):
        if "{pid}" not in text:
            yield printable(text, MAX_ACTION)
        elif pid is not None:
            yield printable(text.replace("{pid}", str(pid)), MAX_ACTION)


def _is_sound(fact: Fact) -> bool:
    """Whether a fact, maybe of a plugin, has words and a number that JSON can hold."""
    return (
        isinstance(fact.name, str)
        and isinstance(fact.unit, str)
        and isinstance(fact.value, int | float)
        and abs(fact.value) < 2**63  # which neither infinity nor NaN is
    )


# --- the schema -----------------------------------------------------------------------


def insight_schema() -> dict[str, Any]:
    """The JSON Schema that `insight_document` fits and that clients are served."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Insight",
        "type": "object",
        "additionalProperties": False,
        "required": ["class", "confidence", "primary_process", "why", "actions"],
        "properties": {
            "class": {"type": "string", "enum": list(CLASSES)},
            "confidence": {"type": "number", "minimum": 0.0, "maximum": 1.0},
            "primary_process": {
                "oneOf": [
                    {"type": "null"},
                    {"type": "string", "minLength": 1, "maxLength": MAX_PRIMARY_PROCESS},
                ]
            },
            "why": {"type": "string", "minLength": 1, "maxLength": MAX_WHY},
            "actions": {
                "type": "array",
                "maxItems": MAX_ACTIONS,
                "items": {"type": "string", "minLength": 1, "maxLength": MAX_ACTION},
            },
        },
    }


def insight_document(insight: Insight) -> dict[str, Any]:
    """The five keys of the insight schema."""
    return {
        "class": insight.class_,
        "confidence": insight.confidence,
        "primary_process": insight.primary_process,
        "why": insight.why,
        "actions": list(insight.actions),
    }
