"""What the machine and the cgroups were like lately: the part of a request that is no process."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any

from linnix_core.records import (
    CgroupSample,
    Fact,
    Loss,
    Pressure,
    ProcessEvent,
    ProcessSample,
    SystemSample,
)

__all__ = ["Surroundings"]

#: How many cgroups are remembered, those that were measured last.
MAX_CGROUPS = 1024

#: How many windows of losses are remembered, and for how many nanoseconds they count.
MAX_LOSSES = 256
LOSSES_NS = 60 * 10**9

#: Measurements older than this say nothing about an incident.
FRESH_NS = 60 * 10**9


class Surroundings:
    """Keeps the latest samples of machine and cgroups; one thread updates, any reads."""

    def __init__(self) -> None:
        self._system: SystemSample | None = None
        self._cgroups: OrderedDict[str, CgroupSample] = OrderedDict()
        self._losses: deque[Loss] = deque(maxlen=MAX_LOSSES)

    def update(self, records: Iterable[Any]) -> None:
        """Take what is no event and no sample of a process."""
        for record in records:
            kind = type(record)
            if kind is ProcessEvent or kind is ProcessSample:
                continue
            if kind is CgroupSample:
                self._cgroups.pop(record.cgroup, None)
                self._cgroups[record.cgroup] = record
                if len(self._cgroups) > MAX_CGROUPS:
                    self._cgroups.popitem(last=False)
            elif kind is SystemSample:
                self._system = record
            elif kind is Loss and record.lost:
                self._losses.append(record)

    def facts(self, cgroup: str | None, now_ns: int) -> Iterator[Fact]:
        """What was measured within a minute of ``now_ns``, the cgroup of the subject first."""
        sample = self._cgroups.get(cgroup) if cgroup else None
        if sample is not None and _is_fresh(sample.ts_ns, now_ns):
            yield from _cgroup_facts(sample)
        if self._system is not None and _is_fresh(self._system.ts_ns, now_ns):
            yield from _system_facts(self._system)
        lost = sum(
            loss.lost for loss in tuple(self._losses) if abs(now_ns - loss.ts_ns) <= LOSSES_NS
        )
        if lost:
            yield Fact("records lost within a minute", lost, "records")


def _is_fresh(ts_ns: int, now_ns: int) -> bool:
    return abs(now_ns - ts_ns) <= FRESH_NS


def _cgroup_facts(sample: CgroupSample) -> Iterator[Fact]:
    if sample.cpu_percent is not None:
        yield Fact("cgroup CPU", round(sample.cpu_percent, 1), "%")
    if sample.throttled_ns:
        yield Fact(
            "cgroup throttled", round(100 * sample.throttled_ns / sample.interval_ns, 1), "%"
        )
    if sample.memory_bytes is not None:
        yield Fact("cgroup memory", _mib(sample.memory_bytes), "MiB")
        if sample.memory_limit_bytes:
            yield Fact("cgroup memory limit", _mib(sample.memory_limit_bytes), "MiB")
            used = 100 * sample.memory_bytes / sample.memory_limit_bytes
            yield Fact("cgroup memory used", round(used, 1), "%")
    if killed := (sample.memory_events or {}).get("oom_kill"):
        yield Fact("cgroup OOM kills", killed, "kills")
    for resource, pressure in _pressures(sample):
        yield from _stalled(f"cgroup {resource}", pressure)


def _system_facts(sample: SystemSample) -> Iterator[Fact]:
    if sample.cpu_percent is not None:
        yield Fact("machine CPU", round(sample.cpu_percent, 1), "%")
    if sample.cpus is not None:
        yield Fact("cores", sample.cpus, "cores")
    for resource, pressure in _pressures(sample):
        yield from _stalled(resource, pressure)
    if sample.memory_available_bytes is not None and sample.memory_total_bytes:
        free = 100 * sample.memory_available_bytes / sample.memory_total_bytes
        yield Fact("memory available", round(free, 1), "%")
    if sample.swap_used_bytes and sample.swap_total_bytes:
        yield Fact(
            "swap used", round(100 * sample.swap_used_bytes / sample.swap_total_bytes, 1), "%"
        )
    for name, rate in (
        ("disk reads", sample.disk_read_bytes_per_s),
        ("disk writes", sample.disk_write_bytes_per_s),
    ):
        if rate is not None and rate >= 2**20:
            yield Fact(name, _mib(rate), "MiB/s")


def _pressures(sample: CgroupSample | SystemSample) -> Iterator[tuple[str, Pressure]]:
    for resource, pressure in (
        ("CPU", sample.psi_cpu),
        ("memory", sample.psi_memory),
        ("I/O", sample.psi_io),
    ):
        if pressure is not None:
            yield resource, pressure


def _stalled(what: str, pressure: Pressure) -> Iterator[Fact]:
    yield Fact(f"{what} stall, some", round(pressure.some_avg10, 1), "%")
    # For the CPU of the whole machine there is none: somebody always runs.
    if pressure.full_avg10:
        yield Fact(f"{what} stall, full", round(pressure.full_avg10, 1), "%")


def _mib(size: float) -> float:
    return round(size / 2**20, 1)
