"""What is known of every series between two exports of metrics. Bounded."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import attrs

from linnix_core import CgroupSample, Loss, Metric, ProcessSample, SystemSample
from linnix_plugin_otlp.births import Births
from linnix_plugin_otlp.points import (
    Point,
    cgroup_points,
    component_points,
    loss_points,
    process_points,
    system_points,
)
from linnix_plugin_otlp.resources import Origin

__all__ = ["Gathering", "Value"]

#: Processes or cgroups that are remembered, machines, reasons for losses, and series of
#: components.
MAX_SAMPLED = 100_000
MAX_MACHINES = 64
MAX_LOSSES = 512
MAX_COMPONENT_SERIES = 4096

#: Exports without a sample after which a process or cgroup is forgotten.
FORGET_AFTER = 3

_Sample = TypeVar("_Sample", bound=ProcessSample | CgroupSample)


class Value(NamedTuple):
    """A point as it is exported: at ``ts_ns``, counted since ``since_ns`` (0: not known)."""

    origin: Origin
    point: Point
    since_ns: int
    ts_ns: int


@attrs.define
class _Seen(Generic[_Sample]):
    """The latest sample, with its amounts added up since ``since_ns``."""

    sample: _Sample
    since_ns: int
    missed: int = 0


class Gathering:
    """Keeps the latest sample of each process, cgroup and machine, and adds up amounts.

    `add` is called by the handler's thread, `values` and `delivered` by the exporter's. ``top``
    bounds the processes and the cgroups that have series: so many by CPU and so many by memory.
    """

    def __init__(self, births: Births, *, top: int, delta: bool, cpus: int, began_ns: int) -> None:
        self._births = births
        self._top = top
        self._delta = delta
        self._cpus = cpus
        self._began_ns = began_ns
        self._lock = threading.Lock()
        self._processes: dict[Any, _Seen[ProcessSample]] = {}
        self._cgroups: dict[Any, _Seen[CgroupSample]] = {}
        self._systems: dict[Origin, SystemSample] = {}
        self._losses: dict[Any, Loss] = {}
        #: Counters as they were when they were last delivered, and as they are being told.
        self._told: dict[Any, tuple[float, int]] = {}
        self._telling: dict[Any, tuple[float, int]] = {}

    def add(self, records: Iterable[Any]) -> None:
        """Take note of samples and losses; other records are none of its business."""
        with self._lock:
            for record in records:
                key: Any
                kind = type(record)
                if kind is ProcessSample:
                    key = (record.host, record.boot_id, record.pid, record.start_ns)
                    _keep(self._processes, key, record, ("read_bytes", "write_bytes"))
                elif kind is CgroupSample:
                    key = (record.host, record.boot_id, record.cgroup)
                    _keep(self._cgroups, key, record, ("throttled_ns",))
                elif kind is SystemSample:
                    _put(self._systems, _origin(record), record, MAX_MACHINES)
                elif kind is Loss:
                    where = (_origin(record), record.component, record.why)
                    _put(self._losses, where, record, MAX_LOSSES)

    def values(self, components: Sequence[Metric], here: Origin, now_ns: int) -> list[Value]:
        """Every series that there is something new of, and what ``components`` say now."""
        with self._lock:
            processes = _fresh(self._processes)
            cgroups = _fresh(self._cgroups)
            systems, self._systems = self._systems, {}
            losses = list(self._losses.values())
        for system in systems.values():
            self._cpus = system.cpus or self._cpus
        found: list[Value] = []
        for each in self._largest(processes, lambda sample: sample.rss_bytes):
            points = process_points(each.sample, self._births, self._cpus)
            found += self._values(each.sample, points, each.since_ns)
        for group in self._largest(cgroups, lambda sample: sample.memory_bytes):
            # What the kernel counts of a cgroup, it counts since that was made: unknown when.
            for value in self._values(group.sample, cgroup_points(group.sample), 0):
                ours = value.point.series.name == "linnix.cgroup.cpu.throttled.time"
                found.append(value._replace(since_ns=group.since_ns) if ours else value)
        for system in systems.values():
            found += self._values(system, system_points(system), 0)
        for loss in losses:
            found += self._values(loss, loss_points(loss), self._began_ns)
        for metric in components[:MAX_COMPONENT_SERIES]:
            for point in component_points(metric):
                found.append(Value(here, point, self._began_ns, now_ns))
        return list(self._since_told(found)) if self._delta else found

    def delivered(self) -> None:
        """What `values` gave last has arrived: differences count from there."""
        self._told = self._telling

    def _values(self, record: Any, points: Iterable[Point], since_ns: int) -> Iterator[Value]:
        origin = _origin(record)
        for point in points:
            yield Value(origin, point, since_ns, record.ts_ns)

    def _largest(
        self, seen: Sequence[_Seen[_Sample]], memory: Callable[[_Sample], int | None]
    ) -> list[_Seen[_Sample]]:
        by_cpu: list[_Seen[_Sample]] = heapq.nlargest(
            self._top, seen, key=lambda each: each.sample.cpu_percent or 0
        )
        by_memory: list[_Seen[_Sample]] = heapq.nlargest(
            self._top, seen, key=lambda each: memory(each.sample) or 0
        )
        chosen: dict[int, _Seen[_Sample]] = {id(each): each for each in (*by_cpu, *by_memory)}
        return list(chosen.values())

    def _since_told(self, values: Iterable[Value]) -> Iterator[Value]:
        """Counters as differences to what was delivered last; everything else as it is."""
        telling: dict[Any, tuple[float, int]] = {}
        for value in values:
            series = value.point.series
            if series.instrument != "counter":
                yield value
                continue
            key = (value.origin, series)
            now = telling[key] = (value.point.value, value.ts_ns)
            before = self._told.get(key, (0.0, value.since_ns) if value.since_ns else now)
            if before is now:
                continue  # counted since nobody knows when: a difference begins here
            more = now[0] - before[0] if now[0] >= before[0] else now[0]
            yield value._replace(point=value.point._replace(value=more), since_ns=before[1])
        self._telling = telling


def _origin(record: Any) -> Origin:
    return Origin(record.host, record.boot_id, record.run_id)


def _put(into: dict[Any, Any], key: Any, value: Any, limit: int) -> None:
    if key in into or len(into) < limit:
        into[key] = value


def _keep(
    into: dict[Any, _Seen[_Sample]], key: Any, sample: _Sample, amounts: tuple[str, ...]
) -> None:
    before = into.get(key)
    if before is None:
        if len(into) < MAX_SAMPLED:
            into[key] = _Seen(sample, sample.ts_ns - sample.interval_ns)
        return
    sums = {}
    for name in amounts:
        so_far, more = getattr(before.sample, name), getattr(sample, name)
        if so_far:
            sums[name] = so_far + (more or 0)
    before.sample = attrs.evolve(sample, **sums) if sums else sample
    before.missed = 0


def _fresh(seen: dict[Any, _Seen[_Sample]]) -> list[_Seen[_Sample]]:
    """Copies of those with a sample since the last call; the long unseen are forgotten."""
    fresh = []
    for key, each in list(seen.items()):
        if each.missed == 0:
            fresh.append(attrs.evolve(each))
        each.missed += 1
        if each.missed > FORGET_AFTER:
            del seen[key]
    return fresh
