"""Events of the last seconds: how many, by whom, and in which group."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Any

from linnix_plugin_rules.tree import Process, Subtree, heaviest

__all__ = ["EventWindow"]

#: Steps in which time passes for a window: it never counts an event that is older than its
#: length, and may miss one that is younger by less than a 250th of it.
TICKS = 250

#: Entries that name who did it; one holds what one process did within a tick. Past this
#: events still count for the host, and for no group.
MAX_ENTRIES = 16_384


class EventWindow:
    """A sliding window over events: ``total`` is exact however many there are.

    Each event was done by an actor and counts for a group (the origin of a tree, a cgroup, an
    executable …). If ``removable``, it can be taken back. Counting costs the same whatever
    the number of processes and the depth of the tree. Finding the offender takes longer;
    `add` says when there may be a reason to.
    """

    def __init__(self, seconds: float, *, removable: bool = False) -> None:
        self.length_ns = int(seconds * 1e9)
        self._tick_ns = max(self.length_ns // TICKS, 1)
        self._tick = 0
        self._tick_ends_ns = 0
        # Each is a tick, an actor, its group, and how often it did it.
        self._entries: deque[list[Any]] = deque()
        self._index: dict[Any, list[Any]] | None = {} if removable else None
        #: Events by group.
        self.by_group: dict[Hashable, int] = {}
        self._last: object = self  # the actor of the latest entry, if that is of this tick
        self._entry: list[Any] = []
        #: Events in the window, less what was taken back.
        self.total = 0
        #: Events since the beginning.
        self.ever = 0
        #: The actor and the group of the latest event.
        self.actor: Process | None = None
        self.group: Hashable = None
        #: Below this total nobody wants to look; if ``grouped``, below this of one group.
        self.limit: float = math.inf
        self.grouped = False

    @property
    def sampled(self) -> int:
        """Those of the total that a tree can be found from: all, unless there are very many."""
        if len(self._entries) < MAX_ENTRIES:
            return self.total
        return self.total - self.by_group.get(None, 0)

    def add(self, now_ns: int, actor: Process | None, group: Hashable, weight: int = 1) -> bool:
        """Count an event, and say whether it is worth a look; time never goes back."""
        if now_ns >= self._tick_ends_ns:
            self._advance(now_ns // self._tick_ns)
        self.total += weight
        self.ever += weight
        if len(self._entries) >= MAX_ENTRIES:
            actor = group = None
        by_group = self.by_group
        if self._last is actor and self.group is group:
            self._entry[3] += weight
            by_group[group] += weight
        else:
            self._last = self.actor = actor
            self.group = group
            self._entry = self._entry_of(actor, group)
            self._entry[3] += weight
            by_group[group] = by_group.get(group, 0) + weight
        return (by_group[group] if self.grouped else self.total) >= self.limit

    def _entry_of(self, actor: Process | None, group: Hashable) -> list[Any]:
        """The entry of this tick to count in; one that can be taken back is the only one."""
        entry = None
        if self._index is not None:
            entry = self._index.get((self._tick, actor, group))
        if entry is None:
            entry = [self._tick, actor, group, 0]
            self._entries.append(entry)
            if self._index is not None:
                self._index[self._tick, actor, group] = entry
        return entry

    def take_back(self, then_ns: int, actor: Process | None, group: Hashable) -> bool:
        """Uncount an event of that time, if it is still in the window and not one of too many."""
        assert self._index is not None
        tick = then_ns // self._tick_ns
        entry = self._index.get((tick, actor, group))
        if entry is None or not entry[3]:
            # Where records are out of order it counted as of the newest time.
            entry = self._index.get((tick + 1, actor, group))
        if entry is not None and entry[3] > 0:
            entry[3] -= 1
            self.total -= 1
            self.by_group[group] -= 1
        return False

    def _advance(self, tick: int) -> None:
        self._tick = tick
        self._tick_ends_ns = (tick + 1) * self._tick_ns
        self._last = self
        oldest = tick - TICKS
        entries, by_group = self._entries, self.by_group
        while entries and entries[0][0] <= oldest:
            then, actor, group, weight = entries.popleft()
            self.total -= weight
            left = by_group.get(group, 0) - weight
            if left:
                by_group[group] = left
            else:
                by_group.pop(group, None)
            if self._index is not None:
                self._index.pop((then, actor, group), None)

    def main_origin(self) -> Process | None:
        """Where the groups are origins, that of most events of the heaviest tree, quickly."""
        own = {group: n for group, n in self.by_group.items() if isinstance(group, Process)}
        tree = heaviest(own)
        return None if tree is None else tree.offender

    def heaviest_tree(self) -> Subtree | None:
        """The tree below init that did most; None if nobody is known to have done anything."""
        return _heaviest((actor, weight) for _, actor, _, weight in self._entries)

    def tree_of(self, group: Hashable) -> Subtree | None:
        """The tree that did most of what counts for a group."""
        return _heaviest((actor, n) for _, actor, of, n in self._entries if of == group)


def _heaviest(entries: Iterable[tuple[Process | None, int]]) -> Subtree | None:
    own: dict[Process, int] = {}
    for actor, weight in entries:
        if actor is not None:
            own[actor] = own.get(actor, 0) + weight
    return heaviest(own)
