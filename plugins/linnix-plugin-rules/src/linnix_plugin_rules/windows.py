"""Forks of the last seconds: how many, and by which trees."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import attrs

from linnix_plugin_rules.tree import Process, lineage, subtree_sums

__all__ = ["ForkTree", "ForkWindow"]

#: Steps in which time passes for a window: it never counts a fork that is older than its
#: length, and may miss one that is younger by less than a thousandth of it.
TICKS = 1000

#: Entries that name who forked; one holds the forks of one process within a tick. Past this
#: forks still count for the host, and for no tree.
MAX_ENTRIES = 16_384

#: The offender's share in the forks of a tree, at least.
OFFENDER_SHARE = 0.8


@attrs.frozen
class ForkTree:
    """Forks that hang together, and the deepest process that they nearly all descend from.

    For a shell loop that is the shell, for a fork bomb the process at its root.
    ``by_offender`` of the forks are its own or those of its descendants.
    """

    forks: int
    offender: Process
    by_offender: int


class ForkWindow:
    """A sliding window over forks: ``total`` is exact however many there are.

    Counting a fork costs the same whatever the number of processes and the depth of the
    tree. Finding the offender takes longer; `add` says when there may be a reason to.
    """

    def __init__(self, seconds: float) -> None:
        self._tick_ns = max(int(seconds * 1e9) // TICKS, 1)
        self._tick = 0
        self._tick_ends_ns = 0
        # An entry is a tick, a process, its origin, and how often it forked. Side by side,
        # because an object for each would keep the garbage collector busy.
        self._ticks: deque[int] = deque()
        self._forkers: deque[Process | None] = deque()
        self._origins: deque[Process | None] = deque()
        self._forks: deque[int] = deque()
        #: Forks by the origin of the tree that they belong to.
        self.by_origin: dict[Process | None, int] = {}
        self._last: object = self  # the forker of the last entry, if that is of this tick
        self._gone = 0
        #: Forks since the beginning.
        self.ever = 0
        #: The tree that the latest fork belongs to.
        self.origin: Process | None = None
        #: Below this total nobody wants to look.
        self.limit: float = math.inf

    @property
    def total(self) -> int:
        """Forks in the window."""
        return self.ever - self._gone

    @property
    def sampled(self) -> int:
        """Those of them that a tree can be found from: all, unless there are very many."""
        if len(self._ticks) < MAX_ENTRIES:
            return self.total
        return self.total - self.by_origin.get(None, 0)

    def add(self, now_ns: int, forker: Process | None, origin: Process | None) -> bool:
        """Count one fork, and say whether it is worth a look; time never goes back."""
        self.ever += 1
        if now_ns >= self._tick_ends_ns:
            self._advance(now_ns // self._tick_ns)
        if len(self._ticks) >= MAX_ENTRIES:
            forker = origin = None
        if self._last is forker and self.origin is origin:
            self._forks[-1] += 1
            self.by_origin[origin] += 1
        else:
            self._last, self.origin = forker, origin
            self._ticks.append(self._tick)
            self._forkers.append(forker)
            self._origins.append(origin)
            self._forks.append(1)
            self.by_origin[origin] = self.by_origin.get(origin, 0) + 1
        return self.ever - self._gone >= self.limit

    def _advance(self, tick: int) -> None:
        self._tick = tick
        self._tick_ends_ns = (tick + 1) * self._tick_ns
        self._last = self
        oldest = tick - TICKS
        ticks, by_origin = self._ticks, self.by_origin
        while ticks and ticks[0] <= oldest:
            ticks.popleft()
            self._forkers.popleft()
            origin, forks = self._origins.popleft(), self._forks.popleft()
            self._gone += forks
            left = by_origin[origin] - forks
            if left:
                by_origin[origin] = left
            else:
                del by_origin[origin]

    def main_origin(self) -> Process | None:
        """The origin that most forks of the heaviest tree go back to: a quick answer."""
        tree = _heaviest(self.by_origin.items())
        return None if tree is None else tree.offender

    def heaviest_tree(self) -> ForkTree | None:
        """The tree below init that forked most; None if nobody is known to have forked."""
        return _heaviest(zip(self._forkers, self._forks, strict=True))

    def tree_of(self, origin: Process) -> ForkTree:
        """The tree that grew from a process whose forks are in the window."""
        entries = zip(self._forkers, self._forks, self._origins, strict=True)
        tree = _heaviest((forker, forks) for forker, forks, of in entries if of is origin)
        assert tree is not None
        return tree


def _heaviest(entries: Iterable[tuple[Process | None, int]]) -> ForkTree | None:
    own: dict[Process, int] = {}
    for forker, forks in entries:
        if forker is not None:
            own[forker] = own.get(forker, 0) + forks
    if not own:
        return None
    parents = lineage(own)
    sums = subtree_sums(own, parents)
    tops = (process for process, above in parents.items() if above is None)
    top = offender = max(tops, key=sums.__getitem__)
    enough = OFFENDER_SHARE * sums[top]
    for process, above in parents.items():
        # Only one child can have more than half: this goes down a single line.
        if above is offender and sums[process] >= enough:
            offender = process
    return ForkTree(sums[top], offender, sums[offender])
