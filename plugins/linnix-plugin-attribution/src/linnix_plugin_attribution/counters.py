"""Counters of which there are only so many."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["Counters"]

K = TypeVar("K", bound=Hashable)

#: Nanoseconds without growth after which a counter goes before those that grow.
QUIET_NS = 600 * 10**9

#: The part of all counters that goes at once: choosing costs a look at all of them.
_AT_ONCE = 8


class Counters(Generic[K]):
    """At most ``most`` counters: the quiet ones have to go first, then the smallest.

    Which is to say that a new one never pushes out what is large and alive. ``evicted``
    counts those that had to go; one that comes again begins at zero.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[K, tuple[int, int]] = {}  # the sum, and when it grew
        self.evicted = 0

    def add(self, key: K, amount: int, now_ns: int) -> None:
        """Let one grow; a new one may make others go."""
        known = self._counts.get(key)
        if known is None and len(self._counts) >= self._most:
            self._evict(now_ns)
        self._counts[key] = (amount if known is None else known[0] + amount, now_ns)

    def _evict(self, now_ns: int) -> None:
        def worth(key: K) -> tuple[bool, int]:
            total, grew_ns = self._counts[key]
            return abs(now_ns - grew_ns) < QUIET_NS, total

        least = heapq.nsmallest(max(self._most // _AT_ONCE, 1), self._counts, key=worth)
        for key in least:
            del self._counts[key]
        self.evicted += len(least)

    def items(self) -> Iterator[tuple[K, int]]:
        """Keys and sums."""
        for key, (total, _) in self._counts.items():
            yield key, total
