"""Alerts against the truth: which case each is about, and whether it was right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from linnix_core import Alert

__all__ = ["Judged", "Outcome", "Wrong", "judge"]

#: Seconds after the end of a case in which an alert may still be about it: cgroups are looked at
#: every five seconds, pressure is an average over ten.
GRACE_S = 10.0

#: An offender did, with its descendants, at least this share of what the busiest one did alone.
SHARE = 0.5


@attrs.frozen
class Outcome:
    """One incident: whether it was told, and how well."""

    case: str
    family: str
    kind: str
    split: str
    leak: bool
    #: Seconds from the beginning to the first alert of the class; None if there was none.
    detected_s: float | None
    #: Seconds from that alert until the memory had run out.
    lead_s: float | None = None
    #: Whether the first alert named the offender.
    offender: bool = False
    #: Who was named.
    named: str = ""
    rules: tuple[str, ...] = ()
    #: Alerts of the class, and incidents that people would be told of, after the first.
    more_alerts: int = 0
    more_incidents: int = 0
    measure: float = 0.0


@attrs.frozen
class Wrong:
    """Alerts of one class about something that is no incident of it."""

    kind: str | None
    #: The case; ``others`` is whatever else ran on the machine, ``agent`` Linnix itself.
    about: str
    family: str
    split: str
    on: str
    rules: tuple[str, ...]
    alerts: int
    named: str
    said: str


@attrs.frozen
class Judged:
    """What one file of rules made of one recording."""

    recording: str
    outcomes: tuple[Outcome, ...]
    wrong: tuple[Wrong, ...]
    #: Alerts about whatever else ran: nobody knows whether they are right.
    unknown: tuple[Wrong, ...]


def judge(recording: str, truth: Mapping[str, Any], alerts: Sequence[Alert]) -> Judged:
    """Give each alert to the case that it names, and see what the cases got."""
    from linnix_core.incidents import fingerprint

    cases = truth["cases"]
    owned: dict[str, list[Alert]] = {case["name"]: [] for case in cases}
    strangers: dict[tuple[str, str | None], list[Alert]] = {}
    for alert in alerts:
        owner = _owner(alert, cases, truth)
        if owner in owned:
            owned[owner].append(alert)
        else:
            strangers.setdefault((owner, alert.class_), []).append(alert)
    outcomes: list[Outcome] = []
    wrong: list[Wrong] = []
    unknown: list[Wrong] = []
    for case in cases:
        mine, kind = owned[case["name"]], case["kind"]
        right = [alert for alert in mine if kind is not None and alert.class_ == kind]
        if kind is not None and case["happened"]:
            outcomes.append(_outcome(case, right, [fingerprint(alert) for alert in right]))
        true_too = {kind, *case["also"]} if kind else set()
        for class_ in sorted({alert.class_ or "" for alert in mine}):
            if class_ in true_too or (kind is not None and not class_):
                continue
            if kind is not None and not case["happened"]:
                continue
            of_class = [alert for alert in mine if (alert.class_ or "") == class_]
            wrong.append(
                _wrong(of_class, case["name"], case["family"], case["split"], kind or "ordinary")
            )
    for (owner, _), of_class in strangers.items():
        one = _wrong(of_class, owner, owner, _split(truth), owner)
        (wrong if owner == "agent" else unknown).append(one)
    return Judged(recording, tuple(outcomes), tuple(wrong), tuple(unknown))


def _split(truth: Mapping[str, Any]) -> str:
    return truth["cases"][0]["split"] if truth["cases"] else "development"


def _owner(alert: Alert, cases: Sequence[Mapping[str, Any]], truth: Mapping[str, Any]) -> str:
    """The case that an alert is about: that of its cgroup, or that of its process."""
    subject = alert.subject
    for case in cases:
        if not case["began_ns"] <= alert.ts_ns <= case["ended_ns"] + GRACE_S * 1e9:
            continue
        if subject.cgroup and f"{subject.cgroup}/".startswith(f"{case['cgroup']}/"):
            return str(case["name"])
        if subject.key is not None and any(
            (member["pid"], member["start_ns"]) == (subject.key.pid, subject.key.start_ns)
            for member in case["members"]
        ):
            return str(case["name"])
    if subject.key is not None and subject.key.pid == truth["agent_pid"]:
        return "agent"
    return "others"


def _outcome(case: Mapping[str, Any], right: Sequence[Alert], marks: Sequence[str]) -> Outcome:
    facts: dict[str, Any] = {
        "case": case["name"], "family": case["family"], "kind": case["kind"],
        "split": case["split"], "leak": case["leak"], "measure": case["measure"],
    }  # fmt: skip
    if not right:
        return Outcome(**facts, detected_s=None)
    first = min(right, key=lambda alert: alert.ts_ns)
    full_ns = case["full_ns"]
    return Outcome(
        **facts,
        detected_s=(first.ts_ns - case["began_ns"]) / 1e9,
        lead_s=(full_ns - first.ts_ns) / 1e9 if full_ns else None,
        offender=_is_offender(first, case),
        named=_named(first),
        rules=tuple(dict.fromkeys(alert.rule for alert in right)),
        more_alerts=len(right) - 1,
        more_incidents=len(set(marks)) - 1,
    )


def _is_offender(alert: Alert, case: Mapping[str, Any]) -> bool:
    """Whether it names a process that did this: one of those that lived on, as the witness saw it.

    All of them are to blame for forks, but for the leaves of a tree that runs away; for the rest
    whoever used, with its descendants, at least half of what the busiest one used alone.
    """
    key = alert.subject.key
    if key is None:
        return False
    members = case["members"]
    named = [m for m in members if (m["pid"], m["start_ns"]) == (key.pid, key.start_ns)]
    kind = case["kind"]
    if not named:
        # Too short-lived for the witness to have seen it twice: of memory that is who ate it all
        # and was killed, of anything else it is one of the many that were started.
        return bool(kind == "oom_risk" and not case["leak"])
    children: dict[int, list[Mapping[str, Any]]] = {}
    for member in members:
        children.setdefault(member["ppid"], []).append(member)
    if kind == "runaway_tree":
        return named[0]["pid"] == case["root"] or bool(children.get(named[0]["pid"]))
    if kind in {"fork_storm", "short_job_flood"}:
        return True
    measure = {"cpu_spin": "cpu_s", "io_saturation": "io_bytes", "oom_risk": "rss_bytes"}[kind]

    def used(member: Mapping[str, Any], seen: frozenset[int] = frozenset()) -> float:
        below = [c for c in children.get(member["pid"], ()) if c["pid"] not in seen]
        return float(member[measure]) + sum(used(c, seen | {member["pid"]}) for c in below)

    most = max(float(member[measure]) for member in members)
    return most > 0 and used(named[0]) >= SHARE * most


def _wrong(alerts: Sequence[Alert], about: str, family: str, split: str, on: str) -> Wrong:
    first = alerts[0]
    rules = tuple(dict.fromkeys(alert.rule for alert in alerts))
    said = _named(first), first.message
    return Wrong(first.class_, about, family, split, on, rules, len(alerts), *said)


def _named(alert: Alert) -> str:
    subject = alert.subject
    pid = "" if subject.key is None else f" ({subject.key.pid})"
    return f"{subject.comm or subject.exe or subject.cgroup or 'nobody'}{pid}"


def seconds_of(intervals: Iterable[tuple[int, int]]) -> float:
    """How long a set of intervals (ns) covers, in seconds of one clock."""
    total, end = 0, 0
    for begin, stop in sorted(intervals):
        total += max(0, stop - max(begin, end))
        end = max(end, stop)
    return total / 1e9
