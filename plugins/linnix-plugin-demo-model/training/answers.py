"""What a right answer to a request is: chosen by a rule, so that there is one for each request.

An incident cites what its alert measured and the limit (`f1`, `f2` by the contract of alerts),
then at most two of the facts of its class below, in that order. Ordinary work cites two facts
that show it, and then what the alert measured. Facts of others than the subject are cited only
where nobody is named. Actions are the first three, and for ordinary work the last: wait and see.
"""

from __future__ import annotations

import json

from linnix_core import Fact, IncidentClass, ReasonRequest

__all__ = ["TELLING", "reply", "right_process"]

#: Names of facts, the most telling first.
TELLING: dict[IncidentClass, tuple[str, ...]] = {
    "fork_storm": ("share with an exec", "descendants that ended lately", "descendants alive"),
    "short_job_flood": ("share with an exec", "programs", "descendants that ended lately"),
    "runaway_tree": ("descendants alive", "CPU stall, some", "machine CPU"),
    "cpu_spin": ("CPU", "machine CPU", "CPU stall, some"),
    "io_saturation": ("I/O stall, some", "writes", "reads", "disk writes"),
    "oom_risk": ("time_until_limit", "cgroup memory used", "memory available", "RSS"),
    "normal": ("programs", "writes", "reads", "memory available"),
}

MOST = 4


def _of_subject(request: ReasonRequest) -> list[Fact]:
    subject = request.incident.subject.key
    id_ = next((p.id for p in request.processes if p.key == subject), None)
    return [fact for fact in request.facts if fact.process in (id_, None)]


def reply(
    request: ReasonRequest, class_: IncidentClass, process: str | None, confidence: int
) -> str:
    """The JSON that a model should say."""
    facts = _of_subject(request)
    found = [f.id for name in TELLING[class_] for f in facts if f.name == name][:2]
    head = [f.id for f in request.facts[:2]]
    cited = [*found, *head[:1]] if class_ == "normal" else [*head, *found]
    actions = [action.id for action in request.actions]
    return json.dumps(
        {
            "class": class_,
            "confidence": confidence,
            "process": process or "none",
            "facts": list(dict.fromkeys(cited))[:MOST],
            "actions": actions[-1:] if class_ == "normal" else actions[:3],
        }
    )


def right_process(
    request: ReasonRequest, class_: IncidentClass, culprits: tuple[str, ...]
) -> str | None:
    """Whom to name: the one that the alerts name if it did it, else who used most."""
    if class_ == "normal":
        return None
    key = request.incident.subject.key
    subject = next((p.id for p in request.processes if p.key == key), None)
    if not culprits:
        return subject
    if subject in culprits:
        return subject
    # A narrowed request may not hold them all.
    left = [p for p in request.processes if p.id in culprits]
    return max(left, key=lambda p: p.cpu_percent or 0.0).id if left else None
