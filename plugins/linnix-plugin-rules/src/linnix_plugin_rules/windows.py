"""Events of the last seconds: how many, by whom, and in which group."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import attrs
import msgspec

from linnix_plugin_rules.tree import Child, Process, Subtree, heaviest

__all__ = ["NOT_CHOSEN", "Entry", "EventWindow", "Group", "Patience"]

#: In place of a group: it does not count.
NOT_CHOSEN = object()

#: Steps in which time passes for a window: it never counts an event that is older than its
#: length, and may miss one that is younger by less than a 250th of it.
TICKS = 250

#: Entries that name who did it; one holds what one process did within a tick. Past this
#: events still count for the host, and for no group.
MAX_ENTRIES = 16_384

#: Entries that are looked at to find out how long enough of them stay.
MAX_STEPS = 1024


@attrs.define(eq=False)
class Patience:
    """How many forks may be noted before they have to be counted, and until when.

    Whatever is taken back of what was counted before uses it up as well.
    """

    events: float = 0
    until_ns: int = 0


@attrs.define(eq=False)
class Group:
    """What is counted together: a tree, a cgroup, an executable …"""

    key: Any
    count: int = 0
    #: Its latest entry.
    entry: Entry | None = None
    #: Until then nobody looks once more, unless it rises above the limit again.
    rest_ns: int = 0


class Entry(msgspec.Struct, eq=False):
    """How often one process did it within a tick."""

    window: EventWindow
    tick: int
    actor: Process | None
    group: Group
    count: int = 0
    #: The hash of the latest command line, where programs are counted.
    command: int | None = None

    def take_back(self, why: Literal["exec", "exit"]) -> None:
        """Uncount one of its events, if they still count and this is why not to."""
        window = self.window
        if window.until == why and self.tick > window.tick - TICKS:
            self.count -= 1
            self.group.count -= 1
            window.gone += 1
            window.patience.events -= 1


class EventWindow:
    """A sliding window over events: ``total`` is exact however many there are.

    Each event was done by an actor and counts for a group; it can be taken back by its
    ``entry``. Counting costs the same whatever the number of processes and the depth of the
    tree. Finding the offender takes longer; `add` says when there may be a reason to.
    """

    def __init__(
        self,
        seconds: float,
        until: Literal["exec", "exit"] | None = None,
        patience: Patience | None = None,
    ) -> None:
        #: What of a process takes back that it was counted.
        self.until = until
        self.patience = Patience() if patience is None else patience
        self.length_ns = int(seconds * 1e9)
        self._tick_ns = max(self.length_ns // TICKS, 1)
        #: The latest; time passes only when something is counted.
        self.tick = 0
        self._tick_ends_ns = 0
        self._room_made = -1
        self._entries: deque[Entry] = deque()
        self._groups: dict[Hashable, Group] = {}
        #: That of the latest event; of nobody at the beginning of a tick.
        self.entry = self._nobody = Entry(self, -TICKS, None, Group(self))
        #: Events since the beginning, and those that do not count any more.
        self.ever = self.gone = 0
        #: Below this total nobody wants to look; if ``grouped``, below this of one group.
        self.limit: float = math.inf
        self.grouped = False
        #: No group has more events.
        self.most = 0
        #: The least counts that some rule takes. Past the one that it takes nobody looks once
        #: more until the group has rested; if not ``grouped``, until as many events have
        #: happened ever, or until this time.
        self.limits: frozenset[int] = frozenset()
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

    def rouse(self) -> None:
        """Look again whatever was found before: others look from now on."""
        self.look_at = self.look_ns = 0
        for group in self._groups.values():
            group.rest_ns = 0

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
            if count < self.limit:
                return False
            return now_ns >= group.rest_ns or count in self.limits or weight > 1
        total = ever - self.gone
        return total >= self.limit and (
            ever >= self.look_at or now_ns >= self.look_ns or total in self.limits or weight > 1
        )

    def add_births(
        self,
        births: Sequence[Child],
        group_of: Callable[[Process | None, Process | None], Any] | None = None,
    ) -> bool:
        """Count forks, and say whether the latest is worth a look.

        Of those whose child has started a program or ended, if that is what takes them back,
        it is known at once that they do not count any more.
        """
        counting = births
        if self.until == "exec":
            counting = [birth for birth in births if not birth.exec_ns]
        elif self.until == "exit":
            counting = [birth for birth in births if not birth.ended]
        over = len(births) - len(counting)
        self.ever += over
        self.gone += over
        worth = False
        for birth in counting:
            group = birth.origin if group_of is None else group_of(birth.forker, birth.origin)
            worth = group is not NOT_CHOSEN and self.add(birth.now_ns, birth.forker, group)
            if self.until and group is not NOT_CHOSEN and not birth.ended:
                birth.counted = (*birth.counted, self.entry)
        return worth and counting[-1] is births[-1]

    def kept_until(self, count: float) -> int:
        """Until when at least so many stay, if none of them is taken back."""
        for entry in islice(reversed(self._entries), MAX_STEPS):
            count -= entry.count
            if count <= 0:
                return (entry.tick + TICKS) * self._tick_ns
        return 0

    def _enter(self, actor: Process | None, key: Hashable) -> Entry:
        """The entry to count in from now on."""
        if len(self._entries) >= MAX_ENTRIES and not self._make_room():
            actor = key = None
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key)
        entry = group.entry
        if entry is None or entry.tick != self.tick or entry.actor is not actor:
            entry = group.entry = Entry(self, self.tick, actor, group)
            self._entries.append(entry)
        self.entry = entry
        return entry

    def _make_room(self) -> bool:
        """Give up entries whose events were all taken back, once a tick at most."""
        if self._room_made != self.tick:
            self._room_made = self.tick
            entries = self._entries
            # In one of this tick more may be counted.
            self._entries = deque(e for e in entries if e.count or e.tick == self.tick)
            self._leave([e for e in entries if not e.count and e.tick != self.tick])
        return len(self._entries) < MAX_ENTRIES

    def _advance(self, tick: int) -> None:
        self.tick = tick
        self._tick_ends_ns = (tick + 1) * self._tick_ns
        self.entry = self._nobody
        oldest = tick - TICKS
        entries, leaving = self._entries, []
        while entries and entries[0].tick <= oldest:
            leaving.append(entries.popleft())
        self._leave(leaving)

    def _leave(self, entries: Iterable[Entry]) -> None:
        """Count the events of these no more."""
        for entry in entries:
            group, count = entry.group, entry.count
            self.gone += count
            group.count -= count
            latest = group.entry
            if (
                not group.count
                and latest is not None
                and latest.tick != self.tick  # or more may be counted in it
                and self._groups.get(group.key) is group
            ):
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

    def repeated(self) -> dict[Hashable, float]:
        """The share of programs that the same command started with the same command line, by group.

        That of all is that of None. Looked at are the latest entries, and of each the latest
        program: enough to tell what is the same again and again from what never is.
        """
        lately = [
            (entry.group.key, entry.actor and entry.actor.image.args, entry.command)
            for entry in islice(reversed(self._entries), MAX_STEPS)
            if entry.command is not None
        ]
        of_group = Counter(key for key, _, _ in lately)
        again: Counter[Hashable] = Counter()
        for (key, _, _), count in Counter(lately).items():
            if count > 1:
                again[key] += count
        shares: dict[Hashable, float] = {key: again[key] / of_group[key] for key in of_group}
        shares[None] = again.total() / max(len(lately), 1)
        return shares

    def heaviest_tree(self) -> Subtree | None:
        """The tree below init that did most; None if nobody is known to have done anything."""
        return _heaviest(self._entries)

    def tree_of(self, key: Hashable) -> Subtree | None:
        """The tree that did most of what counts for a group."""
        group = self._groups.get(key)
        return _heaviest([entry for entry in self._entries if entry.group is group])


def _heaviest(entries: Iterable[Entry]) -> Subtree | None:
    own: dict[Process, int] = {}
    for entry in entries:
        if entry.actor is not None:
            own[entry.actor] = own.get(entry.actor, 0) + entry.count
    return heaviest(own)
