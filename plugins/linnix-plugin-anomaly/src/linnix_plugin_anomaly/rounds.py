"""Samples of one interval as one point for each series, so that their rhythm does not matter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from linnix_core import CgroupSample, ProcessKey, ProcessSample, Record, SystemSample
from linnix_plugin_anomaly.measures import Kind, of_cgroup, of_host, of_process

__all__ = ["Point", "Program", "Rounds", "Series"]

#: Hosts whose rounds are open at a time.
MAX_HOSTS = 64


class Series(NamedTuple):
    """One measure of a host (empty name), a cgroup (its path) or an executable."""

    host: str
    kind: Kind
    name: str
    measure: str


class Point(NamedTuple):
    """The mean of a series over a round that ends at ``ts_ns``.

    ``key`` is the process that had most of it, for a program.
    """

    series: Series
    ts_ns: int
    value: float
    key: ProcessKey | None


#: Which program the process of a sample runs.
Program: TypeAlias = Callable[[ProcessSample], str]


class _Sum:
    """What a series came to in the round: amount times nanoseconds, and nanoseconds."""

    __slots__ = ("amount", "key", "most", "ns")

    def __init__(self) -> None:
        self.amount = 0.0
        self.ns = 0
        self.most = -math.inf
        self.key: ProcessKey | None = None


class _Round:
    """The open round of one host."""

    __slots__ = ("number", "processes_from_ns", "processes_until_ns", "sums")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sums: dict[Series, _Sum] = {}
        # The time in which processes were sampled.
        self.processes_from_ns = 0
        self.processes_until_ns = 0


class Rounds:
    """The open rounds; a host's is over when one of its samples belongs to a later one.

    A series that was measured for less than half of a round gives no point in it. At most
    ``max_series`` are summed up in a round of one host; further ones are in ``left_out``.
    """

    def __init__(self, interval_ns: int, max_series: int, program: Program) -> None:
        self._interval_ns = interval_ns
        self._max_series = max_series
        self._program = program
        self._open: dict[str, _Round] = {}
        self.left_out = 0

    def add(self, record: Record) -> Iterable[Point]:
        """Take a record in; the points of the round that it ends."""
        if not isinstance(record, SystemSample | CgroupSample | ProcessSample):
            return ()
        number = record.ts_ns // self._interval_ns
        round_ = self._open.get(record.host)
        points: Iterable[Point] = ()
        # A sample may be a little late; one from long before means that the clock was set back.
        if round_ is None or not round_.number - 1 <= number <= round_.number:
            if round_ is not None and number > round_.number:
                points = self._points(round_)
            elif round_ is None and len(self._open) >= MAX_HOSTS:
                del self._open[next(iter(self._open))]
            round_ = self._open[record.host] = _Round(number)
        self._take(round_, record)
        return points

    def _take(self, round_: _Round, record: SystemSample | CgroupSample | ProcessSample) -> None:
        if record.interval_ns <= 0:
            return
        kind: Kind
        if isinstance(record, ProcessSample):
            began_ns = record.ts_ns - record.interval_ns
            round_.processes_from_ns = min(round_.processes_from_ns or began_ns, began_ns)
            round_.processes_until_ns = max(round_.processes_until_ns, record.ts_ns)
            kind, name, amounts = "exe", self._program(record), of_process(record)
        elif isinstance(record, CgroupSample):
            kind, name, amounts = "cgroup", record.cgroup, of_cgroup(record)
        else:
            kind, name, amounts = "host", "", of_host(record)
        for measure, amount in amounts:
            self._sum(round_, Series(record.host, kind, name, measure), record, amount)

    def _sum(
        self,
        round_: _Round,
        series: Series,
        record: SystemSample | CgroupSample | ProcessSample,
        amount: float,
    ) -> None:
        if not math.isfinite(amount):
            return
        sums = round_.sums.get(series)
        if sums is None:
            if len(round_.sums) >= self._max_series:
                self.left_out += 1
                return
            sums = round_.sums[series] = _Sum()
        sums.amount += amount * record.interval_ns
        sums.ns += record.interval_ns
        if isinstance(record, ProcessSample) and amount > sums.most:
            sums.most, sums.key = amount, record.key

    def _points(self, round_: _Round) -> Iterable[Point]:
        ends_ns = (round_.number + 1) * self._interval_ns
        together_ns = round_.processes_until_ns - round_.processes_from_ns
        for series, sums in round_.sums.items():
            # Processes of a program come and go: what they used counts over the whole time.
            ns = together_ns if series.kind == "exe" else sums.ns
            if 2 * ns >= self._interval_ns:
                yield Point(series, ends_ns, sums.amount / ns, sums.key)
