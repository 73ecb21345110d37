"""From single records to rounds: everything that is known of one interval between two polls."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from linnix_core import CgroupSample, ProcessEvent, ProcessSample, Record
from linnix_plugin_attribution.groups import Unit, unit_of

__all__ = ["RESOURCES", "Counts", "Growth", "Resource", "Round", "Rounds"]

Resource: TypeAlias = Literal["cpu", "memory", "io"]
RESOURCES: tuple[Resource, ...] = ("cpu", "memory", "io")

#: Groups that are followed at a time, and paths that processes are counted for in a round.
MAX_GROUPS = 4096

#: A round that is longer is not split: records are missing, or the clock was set.
MAX_SECONDS = 3600.0

#: A round is complete when something else happened so much later than its samples.
_SETTLED_NS = 500_000_000

#: Below this lifetime an exit is that of a short job.
_SHORT_NS = 10**9

#: Counters of ``memory.events`` that grow when the group's own limit is in the way; the last
#: is that of version 1.
_AT_LIMIT = ("high", "max", "oom", "failcnt")

#: More than any machine has, so that sums of what hostile records say stay finite.
_MAX_CPU_PERCENT = 1e7
_MAX_BYTES = 2**60

_NEVER_NS = 2**63


@attrs.define
class Counts:
    """What the processes of one path did within a round."""

    forks: int = 0
    short_jobs: int = 0
    cpu_us: int = 0
    io_bytes: int = 0


@attrs.frozen
class Growth:
    """What one group, with those below it, waited for and used within a round.

    ``stall_us`` has the resources of which the pressure is known, and is empty for a group
    that was not there in the round before. ``cpu_us`` is None where no controller counts it.
    """

    unit: Unit
    stall_us: Mapping[Resource, int]
    cpu_us: int | None
    throttled_us: int
    memory_bytes: int
    at_memory_limit: bool


@attrs.frozen
class Round:
    """One interval: groups by path, and what was counted by the path of processes.

    ``pressure_us`` is the CPU stall of every group that has a pressure, counted since it was
    last looked at, and for new groups since they were made. ``seconds`` is 0 for the first
    round and after a gap: then there is nothing to split.
    """

    ts_ns: int
    seconds: float
    groups: Mapping[str, Growth]
    counts: Mapping[str, Counts]
    pressure_us: Mapping[str, int]


@attrs.define
class _Before:
    """What a group had counted when it was last seen."""

    ts_ns: int
    stall_us: dict[Resource, int]
    memory_bytes: int | None
    limit_events: int


class Rounds:
    """Sorts records into rounds by their own time, whatever batches they come in.

    A round is all `CgroupSample` records of one ``ts_ns`` with what processes did since the
    ones before. ``left_out`` counts groups for which there was no room.
    """

    def __init__(self) -> None:
        self._before: OrderedDict[str, _Before] = OrderedDict()
        self._samples: dict[str, CgroupSample] = {}
        self._counts: dict[str, Counts] = {}  # until the next samples
        self._counts_before: dict[str, Counts] = {}  # until those that are being gathered
        self._ts_ns = 0  # of the samples that are being gathered
        self._ends_ns = _NEVER_NS
        self._last_ns: int | None = None  # of the samples before
        self.left_out = 0

    def add(self, record: Record) -> Round | None:
        """Take a record in; the round that it shows to be complete, if it does."""
        finished = None
        if record.ts_ns >= self._ends_ns:
            finished = self._finish()
        if isinstance(record, ProcessEvent):
            self._count_event(record)
        elif isinstance(record, ProcessSample):
            self._count_sample(record)
        elif isinstance(record, CgroupSample):
            if self._samples and record.ts_ns != self._ts_ns:
                finished = self._finish()
            self._gather(record)
        return finished

    def _count_event(self, event: ProcessEvent) -> None:
        if event.kind == "fork":
            if (counts := self._counts_of(event)) is not None:
                counts.forks += 1
        elif (
            event.kind == "exit"
            and event.duration_ns is not None
            and event.duration_ns < _SHORT_NS
            and (counts := self._counts_of(event)) is not None
        ):
            counts.short_jobs += 1

    def _count_sample(self, sample: ProcessSample) -> None:
        counts = self._counts_of(sample)
        if counts is None:
            return
        percent = _sound(sample.cpu_percent, _MAX_CPU_PERCENT)
        seconds = _sound(sample.interval_ns, MAX_SECONDS * 1e9) / 1e9
        # Whole numbers add up to the same in any order.
        counts.cpu_us += round(percent / 100 * seconds * 1e6)
        counts.io_bytes += int(_sound(sample.read_bytes, _MAX_BYTES))
        counts.io_bytes += int(_sound(sample.write_bytes, _MAX_BYTES))

    def _counts_of(self, record: ProcessEvent | ProcessSample) -> Counts | None:
        if record.cgroup is None:
            return None
        late = self._samples and record.ts_ns <= self._ts_ns
        by_path = self._counts_before if late else self._counts
        counts = by_path.get(record.cgroup)
        if counts is None and len(by_path) < MAX_GROUPS:
            counts = by_path[record.cgroup] = Counts()
        return counts

    def _gather(self, sample: CgroupSample) -> None:
        if not self._samples:
            self._ts_ns, self._ends_ns = sample.ts_ns, sample.ts_ns + _SETTLED_NS
            self._counts_before, self._counts = self._counts, {}
            self.left_out = 0
        if len(self._samples) < MAX_GROUPS or sample.cgroup in self._samples:
            self._samples[sample.cgroup] = sample
        else:
            self.left_out += 1

    def _finish(self) -> Round:
        ts_ns, last_ns, counts = self._ts_ns, self._last_ns, self._counts_before
        seconds = 0.0 if last_ns is None else (ts_ns - last_ns) / 1e9
        if not 0 < seconds <= MAX_SECONDS:
            seconds = 0.0
        groups: dict[str, Growth] = {}
        pressure_us: dict[str, int] = {}
        for path, sample in self._samples.items():
            unit = unit_of(path, sample.labels)
            before = self._before.get(path)
            now = _Before(ts_ns, _stalls(sample), sample.memory_bytes, _at_limit(sample))
            if "cpu" in now.stall_us:
                pressure_us[path] = _grown("cpu", before, now)
            steady = before if before is not None and before.ts_ns == last_ns else None
            groups[path] = _growth(sample, unit, steady, now, seconds)
            self._before[path] = now
            self._before.move_to_end(path)
        while len(self._before) > 2 * MAX_GROUPS:
            self._before.popitem(last=False)
        self._last_ns, self._ends_ns = ts_ns, _NEVER_NS
        self._samples, self._counts_before = {}, {}
        return Round(ts_ns, seconds, groups, counts, pressure_us)


def _growth(
    sample: CgroupSample, unit: Unit, before: _Before | None, now: _Before, seconds: float
) -> Growth:
    if before is None or not seconds or sample.interval_ns <= 0:
        # It was made within the round, maybe under the name of another one that is gone.
        return Growth(unit, {}, None, 0, 0, False)
    longest_us = round(seconds * 1e6)
    stall_us = {
        resource: min(total - before.stall_us[resource], longest_us)
        for resource, total in now.stall_us.items()
        if total >= before.stall_us.get(resource, total + 1)
    }
    percent = sample.cpu_percent
    memory, memory_before = now.memory_bytes, before.memory_bytes
    return Growth(
        unit,
        stall_us,
        None if percent is None else round(_sound(percent, _MAX_CPU_PERCENT) / 100 * longest_us),
        int(_sound(sample.throttled_ns, _MAX_BYTES) // 1000),
        0 if memory is None or memory_before is None else memory - memory_before,
        now.limit_events > before.limit_events,
    )


def _stalls(sample: CgroupSample) -> dict[Resource, int]:
    psi = {"cpu": sample.psi_cpu, "memory": sample.psi_memory, "io": sample.psi_io}
    return {
        resource: max(pressure.some_total_us, 0)
        for resource in RESOURCES
        if (pressure := psi[resource]) is not None
    }


def _grown(resource: Resource, before: _Before | None, now: _Before) -> int:
    """What a counter says since it was last read; all of it if it began anew."""
    total = now.stall_us[resource]
    known = 0 if before is None else before.stall_us.get(resource, 0)
    return total - known if total >= known else total


def _at_limit(sample: CgroupSample) -> int:
    events = sample.memory_events or {}
    return sum(events.get(name, 0) for name in _AT_LIMIT)


def _sound(value: float | None, most: float) -> float:
    """A measured amount; nothing where it is not known or no amount at all."""
    return min(value, most) if value is not None and 0 < value < math.inf else 0.0
