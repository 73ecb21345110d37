"""Detectors that look at all samples of one moment together: what processes use."""

from __future__ import annotations

import operator
import statistics
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import attrs

from linnix_core import Evidence, ProcessSample, SystemSample, printable
from linnix_plugin_rules.detector import (
    Detector,
    Finding,
    Scope,
    flag,
    key,
    number,
    one_of,
    percent,
    positive_number,
    seconds,
    whole_number,
)
from linnix_plugin_rules.tree import (
    Lineage,
    Process,
    Subtree,
    deepest,
    heaviest,
    lineage,
    subtree_most,
    subtree_sums,
)

__all__ = [
    "FdCount",
    "IoRate",
    "Round",
    "RoundDetector",
    "SubtreeCpu",
    "SubtreeRss",
    "ThreadCount",
    "ZombieCount",
]

#: The core's unit of a size without "i" (IEC 80000-13).
MEGABYTE = 1_000_000

#: Nanoseconds that a child may have been dead before it is waited for.
WAITED_NS = 200_000_000

#: The CPU time that a spin has to get, as a part of its duration. Where more is to be waited
#: for, it takes longer until that says something.
ENOUGH_CPU = 1 / 4

#: By how much memory may differ while nothing happens. A loop that does nothing touches no new
#: page, so that the kernel's counters stand still; where they move, it is by 32 pages or more
#: (percpu_counter_batch).
STEADY_BYTES = 2**16


#: Samples of one moment by process.
Samples: TypeAlias = Mapping[Process, ProcessSample]


def _demand(samples: Samples) -> dict[Process, float]:
    """The CPU time that each would use if nobody else wanted any."""
    return {
        process: demand
        for process, sample in samples.items()
        if (demand := (sample.cpu_percent or 0.0) + (sample.cpu_delay_percent or 0.0))
    }


def _anon(samples: Samples) -> dict[Process, float]:
    """What is resident and of the process alone; all that is, where that is not known."""
    return {
        process: amount
        for process, s in samples.items()
        if (amount := s.rss_bytes if s.rss_anon_bytes is None else s.rss_anon_bytes)
    }


#: What can be measured of processes, where it is known and not nothing. Each is a loop of its
#: own, as all are measured every second.
MEASURES: dict[str, Callable[[Samples], Mapping[Process, float]]] = {
    "cpu": lambda samples: {p: s.cpu_percent for p, s in samples.items() if s.cpu_percent},
    "demand": _demand,
    "rss": lambda samples: {p: s.rss_bytes for p, s in samples.items() if s.rss_bytes},
    "anon": _anon,
    "shmem": lambda samples: {
        p: s.rss_shmem_bytes for p, s in samples.items() if s.rss_shmem_bytes
    },
    "offset": lambda samples: {
        p: s.read_offset_bytes for p, s in samples.items() if s.read_offset_bytes
    },
    "threads": lambda samples: {p: s.threads for p, s in samples.items() if s.threads},
    "fds": lambda samples: {p: s.fds for p, s in samples.items() if s.fds},
}


#: What several processes have that is one and the same: of them the largest counts.
SHARED = {"shmem"}

#: Whether what was read counts, and what was written.
STORAGE = {"io": (True, True), "read": (True, False), "written": (False, True)}


def _moved(process: Process, sample: ProcessSample) -> tuple[int, int]:
    """What it read and wrote, and what its children did since they were measured last.

    The kernel adds all that a child has moved to its parent's when that waits for it. What was
    counted of the child while it lived is taken off, so that nothing counts twice.
    """
    read, written = sample.read_bytes or 0, sample.write_bytes or 0
    if process.inherits is not None:
        seen_read, seen_written = process.inherits
        late = process.bereft_ns > sample.ts_ns - WAITED_NS
        left = max(seen_read - read, 0), max(seen_written - written, 0)
        process.inherits = left if late and any(left) else None
        read, written = max(read - seen_read, 0), max(written - seen_written, 0)
    return read, written


class Machine:
    """What the machine has, and how long work on it waits, by its latest sample."""

    def __init__(self) -> None:
        self.cpus: int | None = None
        #: The share (%) of the latest interval in which some work waited for storage.
        self.waiting = 0.0
        self._stalled: tuple[int, int] | None = None

    def learn(self, sample: SystemSample) -> None:
        """Take in a sample of the machine."""
        self.cpus = sample.cpus or self.cpus
        if sample.psi_io is None:
            return
        before, now = self._stalled, (sample.ts_ns, sample.psi_io.some_total_us)
        self._stalled = now
        if before is not None and now[0] > before[0]:
            share = (now[1] - before[1]) * 1e5 / (now[0] - before[0])
            self.waiting = min(max(share, sample.psi_io.some_avg10, 0.0), 100.0)


class Round:
    """All samples of one moment, and what these processes used, alone and together."""

    def __init__(self, ts_ns: int, samples: Samples, machine: Machine) -> None:
        self.ts_ns = ts_ns
        self.machine = machine
        self._samples = samples
        self._storage = {
            process: _moved(process, sample)
            for process, sample in samples.items()
            if sample.read_bytes
            or sample.write_bytes
            or (process.inherits and (sample.read_bytes, sample.write_bytes) != (None, None))
        }
        self._own: dict[str, Mapping[Process, float]] = {}
        self._sums: dict[str, Mapping[Process, float]] = {}
        self._lineages: list[tuple[list[Process], Lineage]] = []

    @cached_property
    def parents(self) -> dict[Process, Process | None]:
        """Those of all that were measured and of their ancestors."""
        return lineage(self._samples)

    def own(self, measure: str) -> Mapping[Process, float]:
        """What each process used alone, where that is known and not nothing."""
        if measure not in self._own:
            self._own[measure] = self._measure(measure)
        return self._own[measure]

    def _measure(self, measure: str) -> Mapping[Process, float]:
        if measure == "zombies":
            return self._zombies()
        if measure in STORAGE:
            reads, writes = STORAGE[measure]
            return {
                process: moved * 1e9 / interval_ns
                for process, (read, written) in self._storage.items()
                if (moved := read * reads + written * writes)
                and (interval_ns := self._samples[process].interval_ns)
            }
        return MEASURES[measure](self._samples)

    def amounts(self, measure: str, of: Detector) -> Mapping[Any, float]:
        """The same by process, subtree, cgroup, or for the host, as the detector's scope says."""
        own = self.own(measure)
        together, add = (subtree_most, max) if measure in SHARED else (subtree_sums, operator.add)
        if of.scope == "subtree" and not of.choosy:
            if measure not in self._sums:
                self._sums[measure] = together(own, self._lineage(own))
            return self._sums[measure]
        if of.choosy:
            own = {process: amount for process, amount in own.items() if of.chooses(process)}
        if of.scope == "process":
            return own
        if of.scope == "subtree":
            return together(own, lineage(own))
        sums: dict[Any, float] = {}
        for process, amount in own.items():
            group = "host" if of.scope == "host" else process.cgroup
            if group is not None:
                sums[group] = add(sums.get(group, 0), amount)
        return sums

    def _lineage(self, own: Mapping[Process, float]) -> Lineage:
        """Theirs, made once for all measures that the same processes have something of."""
        processes = list(own)
        for known, parents in self._lineages:
            if known == processes:
                return parents
        parents = lineage(own)
        self._lineages.append((processes, parents))
        return parents

    def held(self, of: Detector) -> Mapping[Any, float]:
        """The memory of each that the kernel cannot have back; what is shared counts once."""
        held = dict(self.amounts("anon", of))
        for each, amount in self.amounts("shmem", of).items():
            held[each] = held.get(each, 0) + amount
        return held

    def heaviest(self, measure: str, chosen: Callable[[Process], bool]) -> Subtree | None:
        """Who used most of it among some."""
        own = {p: amount for p, amount in self.own(measure).items() if amount and chosen(p)}
        return heaviest(own)

    @cached_property
    def sizes(self) -> Mapping[Process, int]:
        """How many were measured of each process and its descendants."""
        return subtree_sums(dict.fromkeys(self._samples, 1), self.parents)

    @cached_property
    def intervals_ns(self) -> Mapping[Process, int]:
        """The time that a process and its descendants were measured over at least."""
        shortest = {
            process: sample.interval_ns
            for process, sample in self._samples.items()
            if sample.cpu_percent is not None
        }
        for process, above in reversed(self.parents.items()):
            if above is not None and process in shortest:
                shortest[above] = min(shortest[process], shortest.get(above, shortest[process]))
        return shortest

    @cached_property
    def interval_ns(self) -> int:
        """The time that most were measured over at least: the least but for the newest."""
        intervals = sorted(sample.interval_ns for sample in self._samples.values())
        return intervals[len(intervals) // 2] if intervals else 0

    def lived(self, process: Process) -> bool:
        """Whether it lived then: its children may have outlived it long ago."""
        return process in self._samples or process.alive

    def _zombies(self) -> Mapping[Process, float]:
        """How many children each process has that are dead and were not waited for."""
        zombies: dict[Process, float] = {}
        for process, sample in self._samples.items():
            if sample.state == "Z":
                parent = process.parent or process
                zombies[parent] = zombies.get(parent, 0) + 1
        return zombies


@attrs.define(kw_only=True)
class RoundDetector(Detector):
    """Looks at all samples of one moment together."""

    @abstractmethod
    def on_round(self, samples: Round) -> Sequence[Finding]:
        """Judge one round of samples; each is later than the one before."""


class _Timer(NamedTuple):
    """Since when it is above the limit; with how much memory, and what CPU time it has used (s)."""

    began_ns: int
    rss: float = 0.0
    used_s: float = 0.0


@attrs.define(kw_only=True)
class _Use(RoundDetector):
    """What is used, of one thing, stays above a limit.

    Each process (tree, cgroup) has a timer of its own. Of trees only the deepest for which it
    has run out is meant: its ancestors are above the limit because of it.
    """

    scopes: ClassVar[tuple[Scope, ...]] = ("process", "subtree", "cgroup", "host")

    threshold: float
    duration: float

    @property
    def measured(self) -> str:
        """What is looked at, of what the rounds measure."""
        return self.measure

    #: The measure, the name of its evidence, its unit, and how many of these there are in
    #: what the threshold counts.
    measure: ClassVar[str]
    unit: ClassVar[str]
    units: ClassVar[int] = 1
    #: Whether it is an average over the time since the round before.
    is_rate: ClassVar[bool] = False

    _timers: dict[Hashable, _Timer] = attrs.field(factory=dict, init=False, eq=False, repr=False)

    def start(self) -> None:
        self._timers = {}

    def on_round(self, samples: Round) -> Sequence[Finding]:
        now_ns = samples.ts_ns
        limit = self.threshold * self.units
        before, self._timers = self._timers, {}
        if sum(samples.own(self.measured).values()) <= limit:
            return ()  # So no part of it is above.
        amounts = samples.amounts(self.measured, self)
        for each, amount in amounts.items():
            if amount > limit and (not isinstance(each, Process) or samples.lived(each)):
                self._timers[each] = self._timer(before.get(each), each, samples)
        lasting: list[Any] = [
            each
            for each, timer in self._timers.items()
            if self._lasts(timer, amounts[each], now_ns)
        ]
        if not lasting:
            return ()
        if self.scope == "subtree":
            lasting = deepest(dict.fromkeys(lasting))
            for each in (lineage(lasting).keys() - set(lasting)) & self._timers.keys():
                # Because of a descendant: on its own it has yet to last as long.
                self._timers[each] = self._timers[each]._replace(began_ns=now_ns, used_s=0.0)
        return [self._finding(samples, each, amounts[each]) for each in lasting]

    def _timer(self, before: _Timer | None, each: Any, samples: Round) -> _Timer:
        return before or _Timer(samples.ts_ns - self._measured_ns(each, samples))

    def _lasts(self, timer: _Timer, amount: float, now_ns: int) -> bool:
        return now_ns - timer.began_ns >= self.duration * 1e9

    def _measured_ns(self, each: Any, samples: Round) -> int:
        """For how long it has been like this when it is so for the first time."""
        if not self.is_rate:
            return 0
        if isinstance(each, Process):
            return samples.intervals_ns.get(each, 0)
        return samples.interval_ns

    def _finding(self, samples: Round, each: Any, amount: float) -> Finding:
        used, description = self._use(samples, each, amount)
        evidence = [
            *used,
            Evidence("threshold", self.threshold * self.units, self.unit),
            Evidence("window", self.duration, "s"),
        ]
        message = f"{description} for {self.duration:g} s"
        if isinstance(each, Process):
            message += f" by {each}"
            if self.scope == "subtree":
                size = samples.sizes[each]
                message += f", {size} processes" if size > 1 else ""
                evidence.append(Evidence("processes", size, "processes"))
            return Finding(each, message, tuple(evidence))
        if self.scope == "cgroup":
            message += f" in cgroup {printable(each, limit=120)}"
        worst = samples.heaviest(
            self.measured,
            lambda p: self.chooses(p) and (self.scope == "host" or p.cgroup == each),
        )
        cgroup = each if self.scope == "cgroup" else None
        if worst is None:
            return Finding(None, message, tuple(evidence), about=each, cgroup=cgroup)
        evidence.append(Evidence(f"offender_{self.measure}", worst.by_offender, self.unit))
        message += f", most of it by {worst.offender}"
        return Finding(worst.offender, message, tuple(evidence), about=each)

    def _use(self, samples: Round, each: Any, amount: float) -> tuple[list[Evidence], str]:
        """How much it is, as evidence and, with what it should be, as words."""
        return [Evidence(self.measure, round(amount, 1), self.unit)], self._describe(amount)

    @abstractmethod
    def _describe(self, amount: float) -> str:
        """How much it is, and what it should be."""


@attrs.define(kw_only=True)
class SubtreeCpu(_Use):
    """More than ``threshold`` percent of one core for ``duration`` seconds."""

    class_ = "cpu_spin"
    scopes = ("subtree", "process", "cgroup", "host")
    measure, unit, is_rate = "cpu", "%", True

    threshold: float = key(positive_number)
    duration: float = key(seconds)
    steady: bool = key(flag, False)

    @property
    def measured(self) -> str:
        """With ``steady`` what it would use if nobody else wanted any."""
        return "demand" if self.steady else "cpu"

    def _timer(self, before: _Timer | None, each: Any, samples: Round) -> _Timer:
        if not self.steady:
            return super()._timer(before, each, samples)
        rss = samples.amounts("rss", self).get(each, 0)
        active = any(samples.amounts(moved, self).get(each, 0) for moved in ("io", "offset"))
        if before is not None:
            active |= abs(rss - before.rss) > STEADY_BYTES
        if active:
            return _Timer(samples.ts_ns, rss)
        measured_ns = self._measured_ns(each, samples)
        used_s = samples.amounts("cpu", self).get(each, 0) / 100 * measured_ns / 1e9
        if before is not None:
            return before._replace(used_s=before.used_s + used_s)
        return _Timer(samples.ts_ns - measured_ns, rss, used_s)

    def _lasts(self, timer: _Timer, amount: float, now_ns: int) -> bool:
        enough = not self.steady or timer.used_s >= ENOUGH_CPU * self.duration
        return enough and super()._lasts(timer, amount, now_ns)

    def _use(self, samples: Round, each: Any, amount: float) -> tuple[list[Evidence], str]:
        if not self.steady:
            return super()._use(samples, each, amount)
        cpu = samples.amounts("cpu", self).get(each, 0)
        used = [
            Evidence("cpu", round(cpu, 1), "%"),
            Evidence("cpu_delay", round(amount - cpu, 1), "%"),
        ]
        waited = f" and as much as {amount:.0f} % wanted" if amount - cpu >= 1 else ""
        description = (
            f"CPU: {cpu:.0f} % of one core{waited}, above {self.threshold:g} %, and nothing else,"
        )
        return used, description

    def _describe(self, amount: float) -> str:
        return f"CPU: {amount:.0f} % of one core, above {self.threshold:g} %"


@attrs.define(kw_only=True)
class SubtreeRss(_Use):
    """More than ``threshold`` megabytes (10^6 bytes) resident for ``duration`` seconds."""

    class_ = "oom_risk"
    scopes = ("subtree", "process", "cgroup", "host")
    measure, unit, units = "rss", "By", MEGABYTE

    threshold: float = key(positive_number)
    duration: float = key(seconds)

    def _describe(self, amount: float) -> str:
        return f"memory: {amount / MEGABYTE:.0f} MB resident, above {self.threshold:g} MB"


@attrs.define(kw_only=True)
class IoRate(_Use):
    """More than ``threshold`` megabytes a second read and written for ``duration`` seconds."""

    class_ = "io_saturation"
    scopes = ("subtree", "process", "cgroup", "host")
    measure, unit, units, is_rate = "io", "By/s", MEGABYTE, True

    threshold: float = key(positive_number)
    duration: float = key(seconds)
    direction: Literal["both", "read", "write"] = key(one_of("both", "read", "write"), "both")
    waiting_pct: float = key(percent, 0)
    share_pct: float = key(percent, 0)

    #: The rounds of the duration: when, how long work on the machine waited (%), and how much
    #: was moved by all.
    _lately: deque[tuple[int, float, float]] = attrs.field(
        factory=deque, init=False, eq=False, repr=False
    )

    def start(self) -> None:
        """Begin with nothing known."""
        super().start()
        self._lately.clear()

    def on_round(self, samples: Round) -> Sequence[Finding]:
        """Judge a round, knowing what went on in those of the duration."""
        moved = sum(samples.own(self.measured).values())
        self._lately.append((samples.ts_ns, samples.machine.waiting, moved))
        while samples.ts_ns - self._lately[0][0] > self.duration * 1e9:
            self._lately.popleft()
        return super().on_round(samples)

    def _lasts(self, timer: _Timer, amount: float, now_ns: int) -> bool:
        if not super()._lasts(timer, amount, now_ns):
            return False
        waited = statistics.fmean(share for _, share, _ in self._lately)
        moved = statistics.fmean(amount for *_, amount in self._lately)
        # Who moves next to nothing of what is moved is not why others wait.
        return waited >= self.waiting_pct and amount >= self.share_pct / 100 * moved

    @property
    def measured(self) -> str:
        """Bytes of one direction, or of both."""
        return {"both": "io", "read": "read", "write": "written"}[self.direction]

    def _describe(self, amount: float) -> str:
        waiting = " while other work waits for it" if self.waiting_pct else ""
        return f"storage: {amount / MEGABYTE:.0f} MB/s{waiting}, above {self.threshold:g} MB/s"


@attrs.define(kw_only=True)
class _Count(_Use):
    """Things that a process has too many of."""

    threshold: int = key(whole_number)
    duration: float = key(lambda value: number(value, 0, 86_400, "seconds from 0 to 86400"), 0)

    def _describe(self, amount: float) -> str:
        return f"{self.unit}: {amount:.0f}, more than {self.threshold}"


@attrs.define(kw_only=True)
class ThreadCount(_Count):
    """More than ``threshold`` threads for ``duration`` seconds."""

    measure, unit = "threads", "threads"


@attrs.define(kw_only=True)
class FdCount(_Count):
    """More than ``threshold`` open descriptors for ``duration`` seconds."""

    measure, unit = "fds", "descriptors"


@attrs.define(kw_only=True)
class ZombieCount(_Count):
    """More than ``threshold`` children that are dead and were not waited for.

    Their parent is to blame, as it is the one that has to wait.
    """

    scopes = ("host", "process", "subtree", "cgroup")
    measure, unit = "zombies", "zombies"
