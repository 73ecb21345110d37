"""How much memory is left, and for how long: limits of cgroups, and leaks."""

from __future__ import annotations

import heapq
import statistics
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from linnix_core import CgroupSample, Evidence, SystemSample
from linnix_plugin_rules.detector import (
    Finding,
    key,
    number,
    percent,
    positive_number,
    seconds,
)
from linnix_plugin_rules.rounds import MEGABYTE, Round, RoundDetector
from linnix_plugin_rules.tree import Process, deepest

__all__ = ["MemoryLeft", "RssGrowth", "Slope", "slope"]

#: Points in a window that the slope is taken of, and what may be followed, the largest first.
POINTS = 20
MAX_FOLLOWED = 2048

#: Cgroups whose limit is remembered.
MAX_LIMITS = 4096


class MemoryLeft:
    """What may still be used, as the latest samples of cgroups and of the machine tell."""

    def __init__(self) -> None:
        self._limits: OrderedDict[str, int] = OrderedDict()
        self._available: int | None = None
        self._machine = 0

    def learn(self, sample: CgroupSample | SystemSample) -> None:
        """Take in the limit of a cgroup, or what is available on the machine."""
        if isinstance(sample, SystemSample):
            self._available = sample.memory_available_bytes
            self._machine = sample.memory_total_bytes or 0
            return
        if sample.memory_limit_bytes is None:
            self._limits.pop(sample.cgroup, None)
            return
        self._limits[sample.cgroup] = sample.memory_limit_bytes
        self._limits.move_to_end(sample.cgroup)
        if len(self._limits) > MAX_LIMITS:
            self._limits.popitem(last=False)

    def of(
        self,
        cgroup: str | None,
        anonymous: Mapping[Process, float],
        shared: Mapping[Process, float],
    ) -> tuple[int, float] | None:
        """The tightest limit for what runs in a cgroup, and how much is left; both in bytes."""
        found = []
        if self._available is not None:
            found.append((self._machine, float(self._available)))
        while self._limits and cgroup:
            limit = self._limits.get(cgroup)
            if limit is not None:
                used = sum(_inside(cgroup, anonymous)) + max(_inside(cgroup, shared), default=0)
                found.append((limit, limit - used))
            cgroup = cgroup.rpartition("/")[0]
        return min(found, key=lambda one: one[1], default=None)


def _inside(cgroup: str, amounts: Mapping[Process, float]) -> Iterator[float]:
    below = cgroup.rstrip("/") + "/"
    for process, amount in amounts.items():
        group = process.cgroup
        if group is not None and (group == cgroup or group.startswith(below)):
            yield amount


@attrs.frozen
class Slope:
    """By how much something grows in a second; ``least`` with the confidence asked for."""

    median: float
    least: float
    #: The median of the second half of the points, where it was asked for.
    latest: float = 0.0


def slope(points: Sequence[tuple[float, float]], confidence: float) -> Slope:
    """The slope of Theil and Sen with the lower bound of Sen (1968), of three points or more.

    Half of the pairs may be wrong before the median is: a single jump makes no trend, and
    what goes up and down has a lower bound below zero.
    """
    slopes = sorted(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for n, earlier in enumerate(points)
        for later in points[n + 1 :]
    )
    count, pairs = len(points), len(slopes)
    deviation = (count * (count - 1) * (2 * count + 5) / 18) ** 0.5
    rank = (pairs - statistics.NormalDist().inv_cdf(confidence) * deviation) / 2
    return Slope(statistics.median(slopes), slopes[max(int(rank), 0)])


@attrs.define(kw_only=True)
class RssGrowth(RoundDetector):
    """Memory that grows by ``threshold`` megabytes a minute or more, all through the window.

    With ``within_seconds`` only if that leads to the limit so soon: ``limit_mb``, or else
    that of the cgroup or of the machine. Where none is known it does not; nor, with ``used_pct``,
    before so many percent of the limit are used.
    """

    class_ = "oom_risk"
    scopes = ("subtree", "process", "cgroup")

    threshold: float = key(positive_number)
    window_seconds: float = key(seconds)
    confidence: float = key(
        lambda value: number(value, 0.5, 0.9999, "a number from 0.5 to 0.9999"), 0.95
    )
    limit_mb: float | None = key(positive_number, None)
    within_seconds: float | None = key(seconds, None)
    used_pct: float = key(percent, 0)

    left: MemoryLeft = attrs.field(factory=MemoryLeft, init=False, eq=False, repr=False)
    #: The amounts of the window, and since when each is among them without a gap.
    _rounds: deque[tuple[float, Mapping[Any, float]]] = attrs.field(
        factory=deque, init=False, eq=False, repr=False
    )
    _since_s: dict[Hashable, float] = attrs.field(factory=dict, init=False, eq=False, repr=False)
    _latest_s: float = attrs.field(default=0, init=False, eq=False)

    def start(self) -> None:
        """Begin with nothing known."""
        self._rounds.clear()
        self._since_s, self._latest_s = {}, 0

    def on_round(self, samples: Round) -> Sequence[Finding]:
        """Judge those that grew, as often as there is a point to add."""
        now_s = samples.ts_ns / 1e9
        if now_s - self._latest_s < self.window_seconds / POINTS:
            return ()
        self._latest_s = now_s
        amounts = samples.held(self)
        if len(amounts) > MAX_FOLLOWED:
            amounts = dict(heapq.nlargest(MAX_FOLLOWED, amounts.items(), lambda each: each[1]))
        rounds, before = self._rounds, self._since_s
        rounds.append((now_s, amounts))
        while now_s - rounds[0][0] > self.window_seconds:
            rounds.popleft()
        self._since_s = {each: before.get(each, now_s) for each in amounts}
        least, long_s = self.threshold * MEGABYTE / 60, 0.8 * self.window_seconds
        first_s, first = rounds[0]
        since, grown = self._since_s, least * (now_s - first_s)
        growing: dict[Any, Slope] = {}
        for each, amount in amounts.items():
            since_s = since[each]
            if since_s <= first_s:
                if amount - first[each] < grown:
                    continue  # Nearly all are done with here.
                since_s = first_s
            span_s = now_s - since_s
            if span_s < long_s:
                continue
            points = [(at_s, known[each]) for at_s, known in rounds if at_s >= since_s]
            if (
                len(points) >= 5
                and amount - points[0][1] >= least * span_s
                and (found := slope(points, self.confidence)).least >= least
                # What grows less and less may never get there.
                and (latest := slope(points[len(points) // 2 :], 0.5)).median >= least
            ):
                growing[each] = attrs.evolve(found, latest=latest.median)
        if self.scope == "subtree":
            growing = {each: growing[each] for each in deepest(growing)}
        findings = (self._finding(samples, e, amounts[e], s) for e, s in growing.items())
        return [finding for finding in findings if finding is not None]

    def _finding(self, samples: Round, each: Any, held: float, found: Slope) -> Finding | None:
        process = each if isinstance(each, Process) else None
        if process is None:
            worst = samples.heaviest("anon", lambda p: self.chooses(p) and p.cgroup == each)
            process = None if worst is None else worst.offender
        limit = self._limit(samples, each, held)
        until_s = None if limit is None else max(limit[1], 0) / found.latest
        if self.within_seconds is not None and (until_s is None or until_s > self.within_seconds):
            return None
        if self.used_pct and (
            limit is None or limit[0] - limit[1] < self.used_pct / 100 * limit[0]
        ):
            return None
        evidence = [
            Evidence("rss_growth", round(found.median), "By/s"),
            Evidence("threshold", round(self.threshold * MEGABYTE / 60), "By/s"),
            Evidence("window", self.window_seconds, "s"),
            Evidence("rss_growth_at_least", round(found.least), "By/s"),
            Evidence("confidence", round(100 * self.confidence, 2), "%"),
            Evidence("rss", held, "By"),
        ]
        message = f"memory grows by {found.median * 60 / MEGABYTE:.0f} MB/min"
        message += "" if process is None else f" by {process}"
        if limit is not None and until_s is not None:
            evidence.append(Evidence("limit", limit[0], "By"))
            evidence.append(Evidence("time_until_limit", round(until_s), "s"))
            message += f": {limit[0] / MEGABYTE:.0f} MB are reached in {until_s:.0f} s"
        in_group = each if self.scope == "cgroup" else None
        return Finding(process, message, tuple(evidence), about=in_group, cgroup=in_group)

    def _limit(self, samples: Round, each: Any, held: float) -> tuple[float, float] | None:
        if self.limit_mb is not None:
            return self.limit_mb * MEGABYTE, self.limit_mb * MEGABYTE - held
        cgroup = each.cgroup if isinstance(each, Process) else each
        return self.left.of(cgroup, samples.own("anon"), samples.own("shmem"))
