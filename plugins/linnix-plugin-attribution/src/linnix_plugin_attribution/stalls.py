"""From a round to stalls: which groups waited, who was active then, and who was in whom."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping

import attrs

from linnix_plugin_attribution.groups import Unit, above, deepest, nearest, unit_of
from linnix_plugin_attribution.rounds import RESOURCES, Counts, Growth, Resource, Round
from linnix_plugin_attribution.split import Activity, Reason, Split, split

__all__ = ["Stall", "stalls"]

#: Groups whose waiting is split in one round, those that waited longest, for each resource.
MAX_VICTIMS = 64

#: Part of the interval below which waiting is noise of the scheduler, and is not split.
MIN_STALL = 0.001

_REASONS: dict[Resource, Reason] = {
    "cpu": "high_cpu_contention",
    "memory": "memory_growth",
    "io": "high_io_contention",
}


@attrs.frozen
class Stall:
    """One group waited in one round, and this is how its time was split."""

    ts_ns: int
    resource: Resource
    cgroup: str
    victim: Unit
    split: Split[Unit]


@attrs.define
class _Node:
    """A group of a round. What ends in ``_all`` counts those below it as well."""

    unit: Unit
    counts: Counts = attrs.field(factory=Counts)
    growth: Growth | None = None
    cpu_below: int = 0
    memory_below: int = 0
    io_below: int = 0
    #: Who is in it without a pressure of its own: its waiting is part of this group's.
    inside: set[Unit] = attrs.field(factory=set)

    @property
    def cpu_counted(self) -> int | None:
        """What the kernel counted, which misses nothing."""
        return None if self.growth is None else self.growth.cpu_us

    @property
    def cpu_all(self) -> int:
        """Microseconds, from the processes that were sampled where the kernel did not count."""
        counted = self.cpu_counted
        return self.cpu_below + self.counts.cpu_us if counted is None else counted

    @property
    def memory_all(self) -> int:
        """Bytes by which it has grown; of what was not measured, nothing."""
        return 0 if self.growth is None else self.growth.memory_bytes

    @property
    def io_all(self) -> int:
        """Bytes read and written by processes that were sampled."""
        return self.io_below + self.counts.io_bytes

    def own(self, resource: Resource) -> Activity:
        """What was done in this group and not in one below it."""
        if resource == "cpu":
            used = max(self.cpu_all - self.cpu_below, 0)
            bound = None if self.cpu_counted is None else used
            return Activity(used, self.counts.forks, self.counts.short_jobs, bound)
        if resource == "memory":
            return Activity(max(self.memory_all - self.memory_below, 0))
        return Activity(self.counts.io_bytes)

    def itself(self, resource: Resource, longest_us: int) -> Activity:
        """What competes with the waiting of the group, done in it or below it.

        One thread never waits for itself: of CPU, what is more than one core's worth counts.
        """
        if resource == "cpu":
            return Activity(max(self.cpu_all - longest_us, 0), at_most_us=self.cpu_counted)
        return Activity(max(self.memory_all, 0) if resource == "memory" else self.io_all)


def stalls(round_: Round) -> Iterator[Stall]:
    """Split the waiting of every group that has none below it with a pressure of its own.

    The pressure and the use of a group include those of the groups below it, so only the
    deepest are victims, and a group answers only for what was not used below it. The root has
    everybody below it, and is never a victim.
    """
    if not round_.seconds:
        return
    longest_us = round(round_.seconds * 1e6)
    least_us = max(longest_us * MIN_STALL, 1)
    nodes = _tree(round_)
    victims = deepest(round_.pressure_us) - {"/"}
    for resource in RESOURCES:
        activities = _by_unit(nodes.values(), resource)
        waited = (
            (stall_us, path)
            for path in victims
            if (stall_us := round_.groups[path].stall_us.get(resource, 0)) >= least_us
        )
        for stall_us, path in heapq.nlargest(MAX_VICTIMS, waited):
            victim = nodes[path]
            others = {
                unit: activity
                for unit, activity in activities.items()
                if unit != victim.unit and unit not in victim.inside
            }
            parts = split(
                stall_us,
                others,
                seconds=round_.seconds,
                itself=victim.itself(resource, longest_us),
                by_limit_us=_by_limit(resource, stall_us, round_.groups[path]),
                use_reason=_REASONS[resource],
            )
            yield Stall(round_.ts_ns, resource, path, victim.unit, parts)


def _by_limit(resource: Resource, stall_us: int, growth: Growth) -> int:
    """What the group's own limit explains, at most."""
    if resource == "cpu":
        return growth.throttled_us  # summed up over CPUs, and maybe longer than the stall
    return stall_us if resource == "memory" and growth.at_memory_limit else 0


def _tree(round_: Round) -> dict[str, _Node]:
    groups = round_.groups
    nodes = {path: _Node(growth.unit, growth=growth) for path, growth in groups.items()}
    for path, counts in round_.counts.items():
        place = nearest(path, groups)
        if place is None:
            # Nothing above it was measured: it stands for itself.
            nodes[path] = _Node(unit_of(path, None), counts)
            continue
        own = nodes[place].counts
        own.forks += counts.forks
        own.short_jobs += counts.short_jobs
        own.cpu_us += counts.cpu_us
        own.io_bytes += counts.io_bytes
    # The deepest first, so that what is below a group is complete when it is its turn.
    for path in sorted(nodes, key=_depth, reverse=True):
        parent = above(path, groups)
        if parent is not None:
            _pass_on(nodes[path], nodes[parent], has_pressure=path in round_.pressure_us)
    return nodes


def _pass_on(node: _Node, parent: _Node, *, has_pressure: bool) -> None:
    """Count what was done in a group and below it for the group above."""
    parent.cpu_below += node.cpu_all
    parent.memory_below += node.memory_all
    parent.io_below += node.io_all
    if not has_pressure:
        parent.inside |= node.inside | {node.unit}


def _depth(path: str) -> int:
    return -1 if path == "/" else path.count("/")


def _by_unit(nodes: Iterable[_Node], resource: Resource) -> Mapping[Unit, Activity]:
    """What each unit did, those that did nothing left out."""
    units: dict[Unit, Activity] = {}
    for node in nodes:
        own = node.own(resource)
        if own.use or own.forks or own.short_jobs:
            known = units.get(node.unit)
            units[node.unit] = own if known is None else _sum(known, own)
    return units


def _sum(one: Activity, other: Activity) -> Activity:
    bounded = one.at_most_us is not None and other.at_most_us is not None
    return Activity(
        one.use + other.use,
        one.forks + other.forks,
        one.short_jobs + other.short_jobs,
        (one.at_most_us or 0) + (other.at_most_us or 0) if bounded else None,
    )
