"""Events of the last seconds: how many, by whom, and in which group."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from linnix_plugin_rules.tree import Process, Subtree, heaviest

__all__ = ["Entry", "EventWindow", "Group"]

#: Steps in which time passes for a window: it never counts an event that is older than its
#: length, and may miss one that is younger by less than a 250th of it.
TICKS = 250

#: Entries that name who did it; one holds what one process did within a tick. Past this
#: events still count for the host, and for no group.
MAX_ENTRIES = 16_384


class Group(msgspec.Struct, eq=False):
    """What is counted together: a tree, a cgroup, an executable …"""

    key: Any
    count: int = 0
    #: Its latest entry.
    entry: Entry | None = None


class Entry(msgspec.Struct, eq=False):
    """How often one process did it within a tick; of no window once that has gone on."""

    window: EventWindow | None
    tick: int
    actor: Process | None
    group: Group
    count: int = 0

    def take_back(self, why: Literal["exec", "exit"]) -> None:
        """Uncount one of its events, if they still count and this is why not to."""
        window = self.window
        if window is not None and window.until == why:
            self.count -= 1
            self.group.count -= 1
            window.gone += 1


class EventWindow:
    """A sliding window over events: ``total`` is exact however many there are.

    Each event was done by an actor and counts for a group; it can be taken back by its
    ``entry``. Counting costs the same whatever the number of processes and the depth of the
    tree. Finding the offender takes longer; `add` says when there may be a reason to.
    """

    def __init__(self, seconds: float, until: Literal["exec", "exit"] | None = None) -> None:
        #: What of a process takes back that it was counted.
        self.until = until
        self.length_ns = int(seconds * 1e9)
        self._tick_ns = max(self.length_ns // TICKS, 1)
        self._tick = 0
        self._tick_ends_ns = 0
        self._room_made = -1
        self._entries: deque[Entry] = deque()
        self._groups: dict[Hashable, Group] = {}
        #: That of the latest event; of nobody at the beginning of a tick.
        self.entry = self._nobody = Entry(None, 0, None, Group(self))
        #: Events since the beginning, and those that do not count any more.
        self.ever = self.gone = 0
        #: Below this total nobody wants to look; if ``grouped``, below this of one group.
        self.limit: float = math.inf
        self.grouped = False
        #: No group has more events.
        self.most = 0
        #: If not ``grouped``: nobody looks once more above ``highest`` until as many events
        #: have happened ever, or until this time.
        self.highest: float = math.inf
        self.look_at = 0
        self.look_ns = 0

    @property
    def total(self) -> int:
        """Events in the window, less what was taken back."""
        return self.ever - self.gone

    @property
    def sampled(self) -> int:
        """Those of the total that a tree can be found from: all, unless there are very many."""
        if len(self._entries) < MAX_ENTRIES:
            return self.total
        return self.total - self.count_of(None)

    def count_most(self) -> int:
        """Events of the group that has most."""
        self.most = max([group.count for group in self._groups.values()], default=0)
        return self.most

    @property
    def counts(self) -> Mapping[Hashable, int]:
        """Events by group."""
        return {key: group.count for key, group in self._groups.items() if group.count}

    def count_of(self, key: Hashable) -> int:
        """Events of one group."""
        group = self._groups.get(key)
        return 0 if group is None else group.count

    def add(self, now_ns: int, actor: Process | None, key: Hashable, weight: int = 1) -> bool:
        """Count an event, and say whether it is worth a look; time never goes back."""
        if now_ns >= self._tick_ends_ns:
            self._advance(now_ns // self._tick_ns)
        entry = self.entry
        group = entry.group
        if entry.actor is not actor or group.key is not key:
            entry = self._enter(actor, key)
            group = entry.group
        entry.count += weight
        count = group.count = group.count + weight
        if count > self.most:  # noqa: PLR1730  # max() is a call
            self.most = count
        ever = self.ever = self.ever + weight
        if self.grouped:
            return count >= self.limit
        total = ever - self.gone
        return total >= self.limit and (
            total <= self.highest or ever >= self.look_at or now_ns >= self.look_ns
        )

    def _enter(self, actor: Process | None, key: Hashable) -> Entry:
        """The entry to count in from now on."""
        if len(self._entries) >= MAX_ENTRIES and not self._make_room():
            actor = key = None
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key)
        entry = group.entry
        if entry is None or entry.tick != self._tick or entry.actor is not actor:
            entry = group.entry = Entry(self, self._tick, actor, group)
            self._entries.append(entry)
        self.entry = entry
        return entry

    def _make_room(self) -> bool:
        """Give up entries whose events were all taken back, once a tick at most."""
        if self._room_made != self._tick:
            self._room_made = self._tick
            entries, self._entries = self._entries, deque()
            for entry in entries:
                # In one of this tick more may be counted.
                if entry.count or entry.tick == self._tick:
                    self._entries.append(entry)
                else:
                    self._leave(entry)
        return len(self._entries) < MAX_ENTRIES

    def _advance(self, tick: int) -> None:
        self._tick = tick
        self._tick_ends_ns = (tick + 1) * self._tick_ns
        self.entry = self._nobody
        oldest = tick - TICKS
        entries = self._entries
        while entries and entries[0].tick <= oldest:
            self._leave(entries.popleft())

    def _leave(self, entry: Entry) -> None:
        """Count its events no more."""
        entry.window = None
        group = entry.group
        self.gone += entry.count
        group.count -= entry.count
        latest = group.entry
        if latest is not None and latest.tick == self._tick:
            return  # More may be counted in it.
        if not group.count and self._groups.get(group.key) is group:
            group.entry = None  # It leads back to the group.
            del self._groups[group.key]

    def counts_below(self, top: Process) -> dict[Process, int]:
        """How often this process and each of its descendants did it."""
        below: dict[Process | None, bool] = {None: False, top: True}
        counts: dict[Process, int] = {}
        for entry in self._entries:
            actor = entry.actor
            if actor is None:
                continue
            path = []
            above: Process | None = actor
            while above not in below:
                assert above is not None
                path.append(above)
                above = above.parent
            below.update(dict.fromkeys(path, below[above]))
            if below[actor]:
                counts[actor] = counts.get(actor, 0) + entry.count
        return counts

    def main_origin(self) -> Process | None:
        """Where the groups are origins, that of most events of the heaviest tree, quickly."""
        groups = self._groups.items()
        own = {key: group.count for key, group in groups if isinstance(key, Process)}
        tree = heaviest(own)
        return None if tree is None else tree.offender

    def heaviest_tree(self) -> Subtree | None:
        """The tree below init that did most; None if nobody is known to have done anything."""
        return _heaviest(self._entries)

    def tree_of(self, key: Hashable) -> Subtree | None:
        """The tree that did most of what counts for a group."""
        return _heaviest(entry for entry in self._entries if entry.group.key == key)


def _heaviest(entries: Iterable[Entry]) -> Subtree | None:
    own: dict[Process, int] = {}
    for entry in entries:
        if entry.actor is not None:
            own[entry.actor] = own.get(entry.actor, 0) + entry.count
    return heaviest(own)
