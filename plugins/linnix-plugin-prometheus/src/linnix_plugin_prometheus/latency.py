"""How long things took to get here, counted in buckets many at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

__all__ = ["BOUNDS_S", "Latency"]

#: Upper bounds of the buckets, in seconds; one without a bound follows.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_BOUNDS_NS = tuple(round(bound * 1e9) for bound in BOUNDS_S)

#: Nanoseconds beyond which a record is one of the past, such as a replay's.
_PAST_NS = 3600 * 10**9


class Latency:
    """A histogram. ``buckets`` are cumulative, one for each bound, in the order of `BOUNDS_S`.

    >>> latency = Latency()
    >>> latency.add([400_000, 3_000_000])
    >>> latency.buckets[:3], latency.count, latency.sum_ns
    ([1, 1, 2], 2, 3400000)
    """

    def __init__(self) -> None:
        self.buckets = [0] * len(BOUNDS_S)
        self.count = 0
        self.sum_ns = 0

    def add(self, lags_ns: Iterable[int]) -> None:
        """Count lags; below zero, where a clock was set, is zero, and an hour is the past."""
        # Sorted once, a look-up for each bound tells what a look-up for each lag would.
        lags = sorted(lags_ns)
        if not lags:
            return
        if lags[-1] > _PAST_NS:
            del lags[bisect_right(lags, _PAST_NS) :]
        self.count += len(lags)
        self.sum_ns += sum(lags) if not lags or lags[0] >= 0 else sum(max(lag, 0) for lag in lags)
        for place, bound in enumerate(_BOUNDS_NS):
            self.buckets[place] += bisect_right(lags, bound)
