"""What happens on the made-up machines: families of incidents and of ordinary work.

Ranges are those of the evaluation's development families and of what its recordings show. No
family knows a program of the held-out split; names are made up anyway, and say nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from linnix_core import Evidence, IncidentClass, ReasonRequest
from training.hosts import Host, Running

__all__ = ["FAMILIES", "Drawn", "drawn"]

MIB = 2**20


@attrs.frozen
class Drawn:
    """A request with what is true of it."""

    family: str
    request: ReasonRequest
    class_: IncidentClass
    #: Those that did it; empty for what is normal.
    culprits: tuple[str, ...]


@attrs.define
class _Scene:
    """One incident while it is being made up."""

    draw: random.Random
    host: Host
    true: IncidentClass
    detected: IncidentClass | None
    #: Whom the alerts name.
    subject: Running | None
    cgroup: str | None
    culprits: list[Running]
    evidence: list[Evidence]
    alerts: int = 1
    #: Whether memory is short on the whole machine.
    short: bool = False

    def log(self, least: float, most: float) -> float:
        """As many small ones as large ones."""
        return least * (most / least) ** self.draw.random()

    def maybe(self, share: float) -> bool:
        return self.draw.random() < share


_Make = Callable[[_Scene], None]
FAMILIES: dict[str, tuple[IncidentClass, _Make]] = {}


def _family(class_: IncidentClass) -> Callable[[_Make], _Make]:
    def enter(make: _Make) -> _Make:
        FAMILIES[make.__name__] = class_, make
        return make

    return enter


# --- what alerts measured -------------------------------------------------------------


def _counted(scene: _Scene, noun: str, rate: float, shipped: tuple[int, float]) -> float:
    """Evidence of a rule that counts; the shipped limit where the rate allows it."""
    draw = scene.draw
    threshold, window = shipped
    if rate < threshold / window or scene.maybe(0.3):
        window = draw.choice((2, 2.5, 3, 5, 10, 20))
        threshold = max(5, int(rate * window * draw.uniform(0.15, 1.0)))
    # Mostly told at the moment at which the limit is reached.
    count = threshold if scene.maybe(0.75) else int(max(rate * window, threshold))
    share = draw.choice((100, 99, 98, draw.randint(48, 97)))
    scene.evidence += [
        Evidence(noun, count, noun),
        Evidence("threshold", threshold, noun),
        Evidence("window", window, "s"),
        Evidence("offender_share", share, "%"),
    ]
    return count


def _told(
    scene: _Scene, name: str, amount: float, limit: float, unit: str, window: float, processes: int
) -> None:
    """Evidence of a rule that measures: amount, limit, for how long, of how many."""
    scene.evidence += [
        Evidence(name, round(amount, 1), unit),
        Evidence("threshold", round(limit, 1), unit),
        Evidence("window", window, "s"),
        Evidence("processes", processes, "processes"),
    ]


def _measured(scene: _Scene, of: Running, cpu: float, rss: float, **moved: float) -> None:
    """What its samples say, if there were any of it."""
    if not scene.maybe(0.25):
        scene.host.sample(of, cpu=round(cpu, 1), rss=rss, **moved)


def _new_subject(scene: _Scene) -> Running:
    scene.cgroup = "/app.slice/one" if scene.maybe(0.8) else None
    scene.subject = scene.host.process(cgroup=scene.cgroup)
    return scene.subject


def _small_rss(scene: _Scene) -> float:
    return scene.log(0.8, 90)


# --- incidents ------------------------------------------------------------------------


@_family("fork_storm")
def forks_for_nothing(scene: _Scene) -> None:
    """A loop of forks; the children live for a moment and start nothing."""
    subject = _new_subject(scene)
    rate = scene.log(60, 1500)
    scene.detected = scene.draw.choice(("fork_storm",) * 9 + ("runaway_tree",))
    count = _counted(scene, "forks", rate, (300, 2))
    seen = min(2.0 if scene.maybe(0.6) else 8.0, 10.0)
    ended = min(int(max(count, rate * seen) * scene.draw.uniform(0.85, 1.1)), 900)
    life = scene.draw.choice((0.0, 0.0003, 0.001, 0.002, 0.02))
    alive = scene.draw.choice((0, 0, 1, 2, int(rate * life), scene.draw.randint(0, 25)))
    if scene.maybe(0.06):
        ended = 0  # Who only looks now and then has missed them.
    scene.host.children(
        subject, ended=ended, alive=alive, life_s=life,
        executed=scene.draw.choice((0, 0, 0, 0.01, 0.03, 0.06)),
    )  # fmt: skip
    _measured(scene, subject, scene.log(0.5, 90), _small_rss(scene))
    scene.culprits = [subject]


@_family("short_job_flood")
def one_program_over_and_over(scene: _Scene) -> None:
    """A loop that runs a program, or a few; now and then they are of the same executable."""
    subject = _new_subject(scene)
    rate = scene.log(40, 700)
    same = scene.maybe(0.12)
    if scene.maybe(0.75) or same:
        scene.detected, shipped, noun = "short_job_flood", (125, 2.5), "short_jobs"
    else:
        scene.detected, shipped, noun = "fork_storm", (300, 2.0), "forks"
    if scene.maybe(0.04):
        noun = scene.draw.choice(("execs", "executions"))
    count = _counted(scene, noun, rate, shipped)
    ended = min(int(max(count, rate * 2.5) * scene.draw.uniform(0.9, 1.2)), 800)
    scene.host.children(
        subject, ended=ended, alive=scene.draw.choice((0, 1, 1, 2, 4, 17)),
        life_s=scene.draw.choice((0.001, 0.001, 0.002, 0.004, 0.02, 0.16)),
        executed=0.0 if same else scene.draw.choice((1, 1, 1, 1, 0.99, 0.9, 0.67)),
        programs=scene.draw.choice((1, 1, 1, 2, 2, 3)),
    )  # fmt: skip
    _measured(scene, subject, scene.log(0.5, 60), _small_rss(scene))
    scene.culprits = [subject]


@_family("runaway_tree")
def children_that_stay(scene: _Scene) -> None:
    """Workers that nobody stops, or children that have children."""
    draw, subject = scene.draw, _new_subject(scene)
    rate = scene.log(10, 300)
    kind = draw.random()
    if kind < 0.7:
        scene.detected, noun, shipped = "runaway_tree", "forks", (100, 10.0)
    elif kind < 0.92:
        scene.detected, noun, shipped = "fork_storm", "forks", (300, 2.0)
    else:
        scene.detected, noun, shipped = "short_job_flood", "short_jobs", (125, 2.5)
    count = int(_counted(scene, noun, rate, shipped))
    alive = max(int(count * draw.uniform(0.9, 1.6)) + draw.randint(0, 60), draw.randint(60, 130))
    ended = draw.choice((0, 0, 0, 1, draw.randint(0, alive)))
    scene.host.children(
        subject, ended=min(ended, 400), alive=min(max(alive, 20), 400),
        life_s=scene.log(0.01, 0.3), executed=draw.choice((0, 1, 1)), programs=draw.choice((1, 2)),
    )  # fmt: skip
    _measured(scene, subject, scene.log(0.1, 9), _small_rss(scene))
    for _ in range(draw.choice((0, 0, 2, 3))):
        child = scene.host.process(subject.comm, parent=subject, cgroup=scene.cgroup)
        scene.host.sample(child, cpu=draw.uniform(0, 0.3), rss=draw.uniform(0.1, 10))
    scene.culprits = [subject]


@_family("cpu_spin")
def busy_for_nothing(scene: _Scene) -> None:
    """One process, or a few, compute; nothing is read or written, no program started."""
    draw, subject = scene.draw, _new_subject(scene)
    processes = draw.choice((1, 1, 1, 1, 2, 3))
    amount = draw.uniform(30, 101) * draw.choice((1, 1, 1, 2))
    scene.detected = "cpu_spin"
    if scene.maybe(0.06):
        scene.evidence += [
            Evidence("psi_cpu_some", round(draw.uniform(40, 100), 1), "%"),
            Evidence("threshold", draw.choice((20, 40, 50)), "%"),
            Evidence("window", 10, "s"),
            Evidence("offender_cpu", round(amount, 1), "%"),
        ]
    else:
        if scene.maybe(0.85):
            _steady(scene, amount, processes)
        else:
            amount = max(amount, 60)
            _told(scene, "cpu", amount, draw.uniform(50, amount), "%", 10, processes)
        amount = float(scene.evidence[0].value)
    if processes == 1:
        scene.host.sample(subject, cpu=amount, rss=_small_rss(scene))
    else:
        scene.host.sample(subject, cpu=draw.uniform(0, 1), rss=_small_rss(scene))
        for _ in range(processes - 1):
            child = scene.host.process(subject.comm, parent=subject, cgroup=scene.cgroup)
            scene.host.sample(child, cpu=amount / (processes - 1), rss=_small_rss(scene))
    scene.culprits = [subject]


def _steady(scene: _Scene, amount: float, processes: int) -> None:
    """Evidence of the shipped rule: 65 %, or that share of what there is where others want it."""
    draw = scene.draw
    share = draw.choice((1, 0.5, 0.4, 0.308, draw.uniform(0.25, 1)))
    limit, window = round(draw.choice((65, 65, 50)) * share, 1), 7
    amount = min(limit * draw.uniform(1, 2.6), max(amount, limit))
    _told(scene, "cpu", amount, limit, "%", window, processes)


def _eager(scene: _Scene, amount: float, processes: int) -> None:
    """Evidence of a rule that asks for less: whoever has something to do passes it."""
    draw = scene.draw
    limit = draw.choice((50, 50, draw.randint(25, 60)))
    window = draw.choice((2, 3, 5, 5, 10))
    _told(scene, "cpu", max(amount, limit), limit, "%", window, processes)


@_family("io_saturation")
def storage_kept_busy(scene: _Scene) -> None:
    """Blocks are written, or read, without a pause; the disk may or may not keep up."""
    draw, subject = scene.draw, _new_subject(scene)
    rate = scene.log(3, 900)
    reads, writes = draw.choice(((0.0, rate), (0.0, rate), (rate, 0.0), (rate / 2, rate / 2)))
    processes = draw.choice((1, 1, 2, 2, 3, 39))
    scene.detected = "io_saturation"
    if scene.maybe(0.25):
        stall = draw.uniform(30, 99)
        scene.evidence += [
            Evidence("psi_io_full" if scene.maybe(0.7) else "psi_io_some", round(stall, 1), "%"),
            Evidence("threshold", draw.choice((20, 40, 50, 50)), "%"),
            Evidence("window", 4, "s"),
            Evidence("offender_io", round(rate * MIB, 1), "By/s"),
        ]
    else:
        limits = [limit for limit in (2.9, 28.6, 28.6, 47.7, 95.4) if limit <= rate]
        if scene.maybe(0.8):
            limit, window = draw.choice(limits), draw.choice((6, 6, 5))
            _told(scene, "io", rate * MIB, limit * MIB, "By/s", window, processes)
        else:
            limit = rate * draw.uniform(0.3, 1) * MIB
            _told(scene, "io", rate * MIB, limit, "By/s", draw.choice((3, 5, 10)), processes)
    if processes == 1:
        scene.host.sample(
            subject, cpu=scene.log(0.5, 60), rss=_small_rss(scene), reads=reads, writes=writes
        )
    else:
        scene.host.sample(
            subject, cpu=0.0, rss=_small_rss(scene),
            writes=writes if scene.maybe(0.4) else 0.0,
        )  # fmt: skip
        scene.host.children(
            subject, ended=draw.choice((0, 0, 4, 8)), alive=min(processes - 1, 40),
            life_s=draw.uniform(0.5, 2), executed=1.0,
        )  # fmt: skip
        child = scene.host.process(parent=subject, cgroup=scene.cgroup)
        scene.host.sample(child, cpu=scene.log(1, 50), rss=2.0, reads=reads, writes=writes)
    scene.culprits = [subject]


@_family("oom_risk")
def memory_that_only_grows(scene: _Scene) -> None:
    """A leak towards a limit, somebody killed for memory, or all that reclaims."""
    draw, subject = scene.draw, _new_subject(scene)
    limit = scene.log(60, 8000)
    growth = scene.log(0.3, 60)
    kind = draw.random()
    rss = limit * draw.uniform(0.08, 0.9)
    cgroup = scene.maybe(0.75)
    killed = 0
    if kind < 0.5:
        growth = max((limit - rss) / draw.uniform(5, 105), 0.3)
        _growth(scene, growth, rss, limit)
    elif kind < 0.75:
        killed, rss = draw.choice((1, 1, 2, 5)), limit * draw.uniform(0.05, 1)
        scene.evidence += [
            Evidence("oom_kills", killed, "oom_kills"),
            Evidence("threshold", 1, "oom_kills"),
            Evidence("window", 60, "s"),
            Evidence("offender_share", 100, "%"),
        ]
    elif kind < 0.88:
        rss = limit * draw.uniform(0.86, 1.0)
        _told(scene, "rss", rss * MIB, limit * MIB * draw.uniform(0.1, 0.8), "By", 5, 1)
    else:
        scene.evidence += [
            Evidence("psi_memory_some", round(draw.uniform(15, 95), 1), "%"),
            Evidence("threshold", draw.choice((10, 20)), "%"),
            Evidence("window", 4, "s"),
            Evidence("offender_rss", round(rss * MIB), "By"),
        ]
    scene.detected = "oom_risk"
    if kind < 0.5 and scene.maybe(0.1):
        scene.evidence += [
            Evidence("oom_kills", 1, "oom_kills"),
            Evidence("threshold", 1, "oom_kills"),
            Evidence("window", 60, "s"),
            Evidence("offender_share", 100, "%"),
        ]
        scene.alerts = 2
        rss = limit * draw.uniform(0.9, 1.0)
    if scene.cgroup and cgroup:
        used = rss * draw.uniform(0.85, 1.0) if not killed else limit * draw.uniform(0.05, 1.0)
        scene.host.cgroup(
            scene.cgroup, used=min(used, limit), limit=limit, killed=killed,
            stalls=(draw.uniform(0, 60), draw.uniform(0, 30)) if scene.maybe(0.3) else None,
        )  # fmt: skip
    if not killed or scene.maybe(0.5):
        _measured(
            scene, subject, scene.log(0.1, 60), rss, reads=draw.choice((0.0, 0.0, growth * 5))
        )
    scene.culprits = [subject]


@_family("oom_risk")
def thrashing(scene: _Scene) -> None:
    """At its limit a program loses its own code, and reads it again: the alert is of storage."""
    draw, subject = scene.draw, _new_subject(scene)
    limit, reads = scene.log(40, 4000), scene.log(10, 900)
    scene.detected = draw.choice(("io_saturation",) * 5 + ("cpu_spin",))
    if scene.detected == "io_saturation":
        _told(scene, "io", reads * MIB, draw.choice((28.6, 95.4, 9.5)) * MIB, "By/s", 6, 1)
    else:
        _steady(scene, draw.uniform(30, 100), 1)
    used = limit * draw.uniform(0.93, 1.0)
    if scene.cgroup:
        scene.host.cgroup(
            scene.cgroup, used=used, limit=limit, killed=draw.choice((0, 0, 1, 2)),
            stalls=(draw.uniform(10, 95), draw.uniform(5, 90)) if scene.maybe(0.6) else None,
        )  # fmt: skip
    _measured(scene, subject, scene.log(1, 60), used * draw.uniform(0.8, 1.0), reads=reads)
    scene.short = not scene.cgroup
    scene.culprits = [subject]


def _growth(scene: _Scene, growth: float, rss: float, limit: float) -> None:
    draw = scene.draw
    per_minute = draw.choice((15, 15, scene.log(3, 30)))
    scene.evidence += [
        Evidence("rss_growth", round(growth * MIB), "By/s"),
        Evidence("threshold", round(per_minute * 1_000_000 / 60), "By/s"),
        Evidence("window", draw.choice((10, 20, 20)), "s"),
        Evidence("rss_growth_at_least", round(growth * draw.uniform(0.6, 1.0) * MIB), "By/s"),
        Evidence("confidence", 95, "%"),
        Evidence("rss", round(rss * MIB), "By"),
    ]
    if scene.maybe(0.9):
        scene.evidence += [
            Evidence("limit", round(limit * MIB), "By"),
            Evidence("time_until_limit", max(0, round((limit - rss) / growth)), "s"),
        ]


# --- ordinary work --------------------------------------------------------------------


@_family("normal")
def scripts_and_builds(scene: _Scene) -> None:
    """Many programs of several kinds, at the pace of a shell or of a compiler."""
    draw, subject = scene.draw, _new_subject(scene)
    rate = scene.log(4, 75)
    noun, scene.detected = draw.choice(
        (
            ("forks", "fork_storm"), ("short_jobs", "short_job_flood"), ("forks", "runaway_tree"),
        )
    )  # fmt: skip
    shipped = {"fork_storm": (300, 2.0), "short_job_flood": (125, 2.5), "runaway_tree": (100, 10.0)}
    count = _counted(scene, noun, rate, shipped[scene.detected])
    ended = int(max(count, rate * draw.uniform(2, 10)) * draw.uniform(0.8, 1.3))
    scene.host.children(
        subject, ended=min(ended, 500), alive=draw.choice((0, 1, 2, 3, 8, draw.randint(0, 40))),
        life_s=scene.log(0.002, 2.2),
        executed=draw.choice((1, 1, 0.99, 0.9, 0.85, 0.75, 0.5, 0.5, 0.3)),
        programs=draw.randint(4, 20),
    )  # fmt: skip
    _measured(
        scene, subject, scene.log(0.2, 60), _small_rss(scene),
        reads=draw.choice((0.0, 0.0, scene.log(0.1, 5))),
        writes=draw.choice((0.0, 0.0, scene.log(0.1, 5))),
    )  # fmt: skip


@_family("normal")
def pool_of_workers(scene: _Scene) -> None:
    """A server or a test run starts its workers, and that is all."""
    draw, subject = scene.draw, _new_subject(scene)
    count = draw.randint(8, 60)
    window = draw.choice((5, 10, 20))
    scene.detected = "runaway_tree"
    threshold = int(count * draw.uniform(0.5, 1)) or 1
    scene.evidence += [
        Evidence("forks", count if scene.maybe(0.5) else threshold, "forks"),
        Evidence("threshold", threshold, "forks"),
        Evidence("window", window, "s"),
        Evidence("offender_share", draw.randint(48, 100), "%"),
    ]
    scene.host.children(
        subject, ended=draw.randint(0, count), alive=draw.randint(0, min(count, 32)),
        life_s=scene.log(0.01, 3), executed=draw.choice((0, 0.3, 1)), programs=draw.randint(1, 8),
    )  # fmt: skip
    _measured(
        scene, subject, scene.log(0.5, 90), scene.log(5, 300),
        writes=draw.choice((0.0, scene.log(0.1, 9))),
    )  # fmt: skip


@_family("normal")
def computes_for_a_purpose(scene: _Scene) -> None:
    """A core is busy, and something comes of it: bytes, programs, or answers."""
    draw, subject = scene.draw, _new_subject(scene)
    amount = draw.uniform(35, 101) * draw.choice((1, 1, 1.5, 2))
    scene.detected = "cpu_spin"
    processes = draw.choice((1, 1, 2, 3, 8, 33))
    eager = scene.maybe(0.8)
    (_eager if eager else _steady)(scene, amount, processes)
    amount = float(scene.evidence[0].value)
    # A low limit is passed by whoever has something to do; a high one by who has much.
    how = draw.choice(("moves", "starts", "both", "grows", *(("answers",) * 3 if eager else ())))
    moved = {}
    if how in ("moves", "both"):
        moved = draw.choice(
            (
                {"writes": scene.log(0.3, 60)}, {"reads": scene.log(0.3, 60)},
                {"reads": scene.log(0.3, 60), "writes": scene.log(0.3, 60)},
            )
        )  # fmt: skip
    if how in ("starts", "both") or processes > 1:
        scene.host.children(
            subject, ended=draw.randint(3, 60), alive=processes - 1, life_s=scene.log(0.002, 2),
            executed=draw.choice((1, 1, 0.9)), programs=draw.randint(2, 9),
        )  # fmt: skip
    rss = scene.log(60, 900) if how == "grows" else scene.log(2, 300)
    scene.host.sample(
        subject, cpu=amount if processes == 1 else draw.uniform(0, 3), rss=rss, **moved
    )


@_family("normal")
def files_at_a_normal_pace(scene: _Scene) -> None:
    """Copies, logs, installations: storage is used in bursts, by several programs."""
    draw, subject = scene.draw, _new_subject(scene)
    rate = scene.log(3, 130)
    scene.detected = "io_saturation"
    processes = draw.choice((1, 1, 2, 3, 6))
    limit = min(rate, draw.choice((9.5, 9.5, scene.log(2, 60))))
    window = draw.choice((5, 6)) if scene.maybe(0.12) else draw.choice((2, 3, 3, 3, 4))
    _told(scene, "io", rate * MIB, limit * MIB, "By/s", window, processes)
    scene.host.children(
        subject, ended=draw.choice((0, 3, 12, 60)), alive=processes - 1,
        life_s=scene.log(0.004, 2), executed=1.0, programs=draw.randint(1, 9),
    )  # fmt: skip
    reads, writes = draw.choice(((0.0, rate), (rate, 0.0), (rate / 2, rate / 2)))
    scene.host.sample(
        subject, cpu=scene.log(5, 100), rss=scene.log(2, 200),
        reads=reads * draw.choice((0, 0.1, 1)), writes=writes * draw.choice((0, 0.1, 1)),
    )  # fmt: skip


@_family("normal")
def large_and_content(scene: _Scene) -> None:
    """A cache, a database or a compiler holds memory, and there is plenty left."""
    draw, subject = scene.draw, _new_subject(scene)
    rss = scene.log(30, 1500)
    scene.detected = "oom_risk"
    if scene.maybe(0.85):
        limit = min(rss, draw.choice((47.7, 47.7, rss * draw.uniform(0.1, 0.9))))
        _told(
            scene, "rss", rss * MIB, limit * MIB, "By", draw.choice((2, 2, 5)),
            draw.choice((1, 1, 3, 9)),
        )  # fmt: skip
    else:
        # It fills up, with far more to be had.
        growth = scene.log(0.3, 60)
        _growth(scene, growth, rss, rss + growth * scene.log(160, 3000))
    if scene.cgroup and scene.maybe(0.5):
        limit = rss * scene.log(2, 60)
        scene.host.cgroup(scene.cgroup, used=rss * draw.uniform(0.5, 1.1), limit=limit)
    _measured(
        scene, subject, scene.log(0.2, 120), rss,
        writes=draw.choice((0.0, 0.0, scene.log(0.1, 20))),
    )  # fmt: skip
    if scene.maybe(0.3):
        scene.host.children(
            subject, ended=draw.randint(0, 40), alive=draw.randint(0, 9),
            life_s=scene.log(0.004, 2), executed=1.0, programs=draw.randint(1, 9),
        )  # fmt: skip


#: Families that are rarer, or more often, than the others.
_WEIGHTS = {"thrashing": 0.3}


# --- all together ---------------------------------------------------------------------


def drawn(seed: int, *, others: int = 9, class_: IncidentClass | None = None) -> Drawn:
    """One incident; the same seed gives the same. ``others`` is how many run beside it."""
    draw = random.Random(seed)  # noqa: S311 - the same seed must give the same incident
    names = sorted(name for name, (true, _) in FAMILIES.items() if class_ in (None, true))
    weights = [_WEIGHTS.get(name, 1.0) for name in names]
    name = draw.choices(names, weights)[0]
    true, make = FAMILIES[name]
    host = Host(draw)
    scene = _Scene(draw, host, true, None, None, None, [], [])
    host.others(draw.randint(0, others) // 2, busy=True)
    make(scene)
    host.others(draw.randint(0, others), busy=True)
    if scene.cgroup and scene.maybe(0.3) and true != "oom_risk":
        used = scene.log(0.2, 900)
        host.cgroup(
            scene.cgroup, used=used, limit=used * scene.log(1.3, 200) if scene.maybe(0.5) else None
        )
    _machine(scene)
    if scene.maybe(0.15):
        scene.alerts = draw.randint(2, 9)
    detected = None if scene.maybe(0.03) else scene.detected
    subject = scene.subject
    # Pressure is of nobody: now and then the alert names none.
    if true in ("io_saturation", "oom_risk") and scene.evidence[0].name.startswith("psi"):
        subject = None if scene.maybe(0.3) else subject
    request = host.request(
        detected, subject, scene.evidence, alerts=scene.alerts, cgroup=scene.cgroup
    )
    keys = {culprit.key for culprit in scene.culprits}
    culprits = tuple(p.id for p in request.processes if p.key in keys)
    return Drawn(name, request, true, culprits)


def _machine(scene: _Scene) -> None:
    draw = scene.draw
    if scene.maybe(0.04):
        return
    busy = scene.maybe(0.6)
    cpu_stall = draw.uniform(50, 99) if busy else draw.uniform(0, 60)
    memory_stall = draw.choice((0.0, 0.0, 0.0, draw.uniform(0, 2)))
    io_stall = draw.choice((0.0, draw.uniform(0, 5), draw.uniform(0, 30)))
    available = draw.uniform(88, 98) if scene.maybe(0.7) else draw.uniform(25, 98)
    swap = draw.choice((None, None, None, draw.uniform(0, 20)))
    disk = (draw.choice((0.0, 0.0, scene.log(1, 40))), draw.choice((0.0, 0.0, scene.log(1, 90))))
    if scene.true == "oom_risk":
        if scene.short or scene.maybe(0.25):
            memory_stall, available = draw.uniform(0, 70), draw.uniform(0.5, 20)
            swap = draw.choice((None, draw.uniform(20, 100)))
        if scene.evidence[0].name.startswith("psi_memory"):
            memory_stall = min(100.0, float(scene.evidence[0].value) * draw.uniform(0.7, 1.1))
    if scene.true == "io_saturation":
        io_stall = draw.choice((draw.uniform(2, 30), draw.uniform(20, 99)))
        if scene.evidence[0].name.startswith("psi_io"):
            io_stall = min(100.0, float(scene.evidence[0].value) * draw.uniform(0.8, 1.3))
        disk = (disk[0], scene.log(2, 900))
    scene.host.machine(
        cpu=draw.uniform(95, 100) if busy else draw.uniform(20, 100),
        stalls=(cpu_stall, memory_stall, io_stall),
        available=available,
        swap=swap,
        disk=disk,
        full_io=None if scene.maybe(0.4) else io_stall * draw.uniform(0, 0.9),
    )
