"""Which class the facts support. Every limit in here is from recorded incidents."""

from __future__ import annotations

import math

import attrs

from linnix_core import Fact, IncidentClass
from linnix_plugin_heuristics.evidence import Facts

__all__ = ["Judgement", "culprit", "judge"]

#: What the first fact of an incident measured, by the class that it speaks for.
_SPEAKS_FOR: dict[str, IncidentClass] = {
    "forks": "fork_storm",
    "short_jobs": "short_job_flood",
    "execs": "short_job_flood",
    "executions": "short_job_flood",
    "processes": "runaway_tree",
    "cpu": "cpu_spin",
    "cpu_percent": "cpu_spin",
    "psi_cpu_some": "cpu_spin",
    "psi_cpu_full": "cpu_spin",
    "io": "io_saturation",
    "io_rate": "io_saturation",
    "read": "io_saturation",
    "write": "io_saturation",
    "psi_io_some": "io_saturation",
    "psi_io_full": "io_saturation",
    "rss": "oom_risk",
    "rss_growth": "oom_risk",
    "oom_kills": "oom_risk",
    "psi_memory_some": "oom_risk",
    "psi_memory_full": "oom_risk",
}

#: Processes that came and stayed: a tree that grows has these, and about as many as have ended
#: in the last ten seconds. One that churns has far fewer.
MANY_ALIVE = 60
TREE_STAYS = 1.5

#: Ended processes from which on their number, and what they started, says something.
ENOUGH_ENDED = 5

#: Seconds that what ended lately is counted in.
LATELY_S = 10.0

#: Forks, or jobs, in a second: with fewer there is neither a storm nor a flood.
MANY_A_SECOND = 30

#: Percent of the ended processes that started a program: nearly none in a storm of forks,
#: nearly all in a flood of jobs. Scripts and builds are between them.
FEW_STARTED = 10
MOST_STARTED = 60

#: Different programs: a flood repeats one or few, a build or a script has more.
MANY_PROGRAMS = 5

#: Percent of the machine's processors in use, below which whoever wants more gets more; and what
#: one that never pauses may then lack of each processor that it takes.
MACHINE_FULL = 90
WHOLE = 15

#: Percent of the time stalled, and of a limit used, at which memory is short.
MEMORY_STALL = 15
MEMORY_USED = 85
MEMORY_AVAILABLE = 10

#: How much longer than memory was seen to grow it is believed to go on.
FORESIGHT = 15

#: Percent of the time stalled for memory, at which it may be what keeps storage busy, and the
#: share of the time stalled for storage that it then has.
RECLAIM_STALL = 5
RECLAIM_SHARE = 0.5

#: Percent of the time in which something waited for storage: with less the storage keeps up. With
#: less than the second it does for whoever computes that share of the time.
IO_STALL = 2
IO_STALL_BUSY = 5
BUSY = 25

#: MiB/s of storage, which a tree that only spins does not move.
MOVES = 1.0


@attrs.frozen
class Judgement:
    """A class, the facts that decided beside the alerts, and whether those agree with it."""

    class_: IncidentClass
    because: tuple[Fact, ...] = ()
    agrees: bool = True


def judge(facts: Facts, detected: IncidentClass | None) -> Judgement:
    """The class of the alerts as far as the facts support it, else the one that they do."""
    suspected = detected or _suspected(facts)
    if suspected in ("fork_storm", "short_job_flood", "runaway_tree"):
        found = _of_forks(facts, suspected)
    elif suspected == "cpu_spin":
        found = _of_cpu(facts)
    elif suspected == "oom_risk":
        found = _of_memory(facts)
    elif suspected == "io_saturation":
        found = _of_io(facts)
    else:
        found = Judgement("normal")
    return attrs.evolve(found, agrees=found.class_ == detected)


def _suspected(facts: Facts) -> IncidentClass:
    """What the alerts measured or, where that says nothing, what the machine suffers from."""
    for fact in facts.all:
        if fact.name in _SPEAKS_FOR:
            return _SPEAKS_FOR[fact.name]
    stalls: dict[IncidentClass, float] = {
        "oom_risk": facts.value("memory stall, some", "cgroup memory stall, some"),
        "io_saturation": facts.value("I/O stall, some", "cgroup I/O stall, some") / 2,
    }
    worst = max(stalls, key=lambda class_: stalls[class_])
    return worst if stalls[worst] >= MEMORY_STALL else "normal"


def _of_forks(facts: Facts, suspected: IncidentClass) -> Judgement:
    """A storm, a flood, a growing tree, or a script or build that forks as they do."""
    alive = facts.value("descendants alive")
    ended = facts.value("descendants that ended lately")
    share, programs = facts.get("share with an exec"), facts.value("programs")
    because = _given(facts, "share with an exec", "programs")
    living = _given(facts, "descendants alive")
    if programs >= MANY_PROGRAMS and ended >= ENOUGH_ENDED:
        return Judgement("normal", because)
    if alive >= MANY_ALIVE and alive * TREE_STAYS >= ended:
        return Judgement("runaway_tree", living)
    if ended < ENOUGH_ENDED:
        # Who only compares two looks at the machine has missed what ended between them, but
        # not how many are there.
        few = suspected == "runaway_tree" and 0 < alive < MANY_ALIVE
        return Judgement("normal" if few else suspected, living)
    rates = map(facts.rate, ("forks", "short_jobs", "execs", "executions"))
    if alive < MANY_ALIVE and max(*rates, ended / LATELY_S) < MANY_A_SECOND:
        return Judgement("normal", _given(facts, "descendants that ended lately", "programs"))
    if share is None:
        return Judgement(suspected)
    if share.value <= FEW_STARTED:
        # A shell that starts itself again looks like one that forks; the alert has seen it.
        jobs = facts.get("short_jobs", "execs", "executions")
        return Judgement("fork_storm" if jobs is None else "short_job_flood", because)
    return Judgement("short_job_flood" if share.value >= MOST_STARTED else suspected, because)


def _of_cpu(facts: Facts) -> Judgement:
    """A spin, unless something comes of it, or it pauses: who spins takes what there is."""
    moved = _given(facts, "reads", "writes")
    if sum(fact.value for fact in moved) >= MOVES:
        return Judgement("normal", moved)
    ran = _given(facts, "descendants that ended lately", "programs")
    if len(ran) == 2:
        return Judgement("normal", ran)
    used = _given(facts, "cpu", "cpu_percent", "offender_cpu", "CPU")[:1]
    machine = _given(facts, "machine CPU")
    if used and machine and machine[0].value < MACHINE_FULL and not facts.get("cgroup throttled"):
        cores = max(math.ceil((used[0].value - WHOLE) / 100), 1)
        if used[0].value < (100 - WHOLE) * cores:
            return Judgement("normal", (*used, *machine))
    return Judgement("cpu_spin", _given(facts, "CPU"))


def _of_io(facts: Facts) -> Judgement:
    """Saturated, unless nothing waits for it, or memory is short: then pages are read again."""
    stalls = _given(facts, "I/O stall, some", "I/O stall, full")
    stalled = stalls[0].value if stalls else 0.0
    reclaim = _given(facts, "memory stall, some", "cgroup memory stall, some")
    reclaim = tuple(f for f in reclaim if f.value >= max(RECLAIM_STALL, stalled * RECLAIM_SHARE))
    if held := (*reclaim, *_holds_its_limit(facts)):
        return Judgement("oom_risk", held)
    computes = _at_least(facts, BUSY, "CPU")
    if stalls and stalled < (IO_STALL_BUSY if computes else IO_STALL):
        return Judgement("normal", (*stalls, *computes))
    return Judgement("io_saturation", stalls)


def _holds_its_limit(facts: Facts) -> tuple[Fact, ...]:
    """The memory of the subject, where it alone takes most of what its cgroup may have.

    What the cgroup uses is no measure of that: the files that were read are in it.
    """
    found = _given(facts, "RSS", "cgroup memory limit")
    if len(found) < 2 or found[0].value * 100 < found[1].value * MEMORY_USED:
        return ()
    return found


def _of_memory(facts: Facts) -> Judgement:
    """A risk where memory grows to its limit soon or is short; a large process is none."""
    short = (
        *_at_least(facts, 1, "oom_kills", "cgroup OOM kills"),
        *_at_least(facts, MEMORY_USED, "cgroup memory used"),
        *_at_least(
            facts, MEMORY_STALL, "psi_memory_some", "psi_memory_full", "memory stall, some",
            "cgroup memory stall, some",
        ),
    )  # fmt: skip
    available = facts.get("memory available")
    if available is not None and available.value <= MEMORY_AVAILABLE:
        short = (*short, available)
    grows, left = _given(facts, "rss_growth"), _given(facts, "time_until_limit")
    seen = facts.value("window")
    late = bool(grows and left and seen) and left[0].value > seen * FORESIGHT
    measured = {fact.name for fact in facts.all[:2]}
    if short or (grows and not late) or not measured & {"rss", "rss_bytes", "rss_growth"}:
        return Judgement("oom_risk", (*short, *grows, *left))
    if facts.value("descendants alive") >= MANY_ALIVE:
        # Many small ones are as large together as a large one.
        return Judgement("runaway_tree", _given(facts, "descendants alive"))
    return Judgement("normal", (*left, *_given(facts, "memory available", "RSS")))


def _at_least(facts: Facts, limit: float, *names: str) -> tuple[Fact, ...]:
    return tuple(fact for fact in _given(facts, *names) if fact.value >= limit)


def _given(facts: Facts, *names: str) -> tuple[Fact, ...]:
    found = (facts.get(name) for name in names)
    return tuple(fact for fact in found if fact is not None)


def culprit(facts: Facts, class_: IncidentClass) -> str | None:
    """The process that the alerts name, else the one that uses most of what is short."""
    if facts.subject is not None:
        return facts.subject
    if class_ == "io_saturation":
        return facts.largest("reads", "writes")
    if class_ == "oom_risk":
        return facts.largest("RSS")
    if class_ in ("cpu_spin", "fork_storm", "short_job_flood"):
        return facts.largest("CPU")
    return None
