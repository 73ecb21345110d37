"""Who descends from whom, as far as the rules need to know it.

The tree is kept from the records alone and in their order, so that a replay sees the
same one. Its memory has a hard bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import attrs
import msgspec

from linnix_core import ProcessEvent, ProcessKey, ProcessSample, Subject, printable

__all__ = [
    "MAX_PROCESSES",
    "Lineage",
    "Process",
    "Subtree",
    "Tree",
    "deepest",
    "heaviest",
    "lineage",
    "subtree_sums",
]

#: Living processes that are followed. Past this the oldest go of those that have neither
#: forked nor been sampled of late: most likely their exit was lost.
MAX_PROCESSES = 65_536

#: The latest exits whose parent is remembered: it has the zombies of those.
MAX_ENDED = 16_384

#: The offender's share in what its tree did, at least.
OFFENDER_SHARE = 0.8

#: The span in which it is counted how many children start a program.
STARTS_NS = 2_000_000_000

#: A process that is younger than this acts for the tree that it was born into.
YOUNG_NS = 10_000_000_000


class Process(msgspec.Struct, eq=False):
    """One process. ``start_ns`` is None while only its pid has been heard of.

    ``parent`` is the process that forked it, dead or alive; None if that is not known, and
    for the children of init and kthreadd. Those two answer for themselves only, or they
    would be to blame for everything.
    """

    boot_id: str
    pid: int
    start_ns: int | None
    parent: Process | None
    comm: str
    exe: str | None
    cgroup: str | None
    #: When it was forked, if that was seen, by whom, and the origin of the tree that grew by
    #: this (`Tree.fork`); the latter two until it ends.
    born_ns: int = 0
    forker: Process | None = None
    grown: Process | None = None
    alive: bool = True
    #: Whether it has forked or been sampled since room was last made.
    active: bool = False
    uid: int | None = None
    args: tuple[str, ...] | None = None
    #: When it last started another program, and whether it had done so before.
    exec_ns: int = 0
    again: bool = False
    #: Where its fork was counted (`EventWindow.entry`), until it ends.
    counted: Sequence[Any] = ()
    #: What it was measured to read and write. Whoever waits for it inherits all that it moved.
    moved: tuple[int, int] | None = None
    #: The same of children that ended and are being waited for, and when the last one ended.
    inherits: tuple[int, int] | None = None
    bereft_ns: int = 0
    #: How many that it forked started a program in this span and in the one before.
    starts: int = 0
    starts_before: int = 0
    starts_ns: int = 0

    def child_started(self, now_ns: int) -> None:
        """Count a child that starts its first program."""
        age_ns = now_ns - self.starts_ns
        if age_ns >= STARTS_NS:
            self.starts_before = self.starts if age_ns < 2 * STARTS_NS else 0
            self.starts, self.starts_ns = 0, now_ns
        self.starts += 1

    def started_lately(self, now_ns: int) -> float:
        """About how many did so in the `STARTS_NS` before this moment."""
        age = (now_ns - self.starts_ns) / STARTS_NS
        if age >= 1:
            return self.starts * max(2 - age, 0.0)
        return self.starts + self.starts_before * (1 - age)

    @property
    def key(self) -> ProcessKey | None:
        """Its identity, or None while its start time is not known."""
        return None if self.start_ns is None else ProcessKey(self.boot_id, self.pid, self.start_ns)

    @property
    def subject(self) -> Subject:
        """The process as an alert names it."""
        return Subject(self.key, self.exe, self.comm, self.cgroup)

    def __str__(self) -> str:
        if not self.comm:
            return f"pid {self.pid}"
        return f"{printable(self.comm, limit=32)} (pid {self.pid})"


Number = TypeVar("Number", int, float)

#: Parents of processes, those of a parent before those of its children.
Lineage: TypeAlias = dict[Process, Process | None]


class Tree:
    """The living processes of one host. ``evicted`` had to be given up for the bound."""

    def __init__(self, limit: int = MAX_PROCESSES) -> None:
        self._limit = limit
        self._live: dict[int, Process] = {}
        #: Start and parent of those that ended, and of those before; the older go at once.
        self._ended: dict[int, tuple[int | None, Process | None]] = {}
        self._ended_before: dict[int, tuple[int | None, Process | None]] = {}
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._live)

    def fork(self, event: ProcessEvent) -> Process:
        """Add a child; it knows who forked it, and the origin of the tree that grew by this.

        A process that forks while it is young acts for the tree that it was born into: so
        a fork bomb is one tree and a build is one, and the shells of a terminal are many.
        """
        live, pid, start_ns, ts_ns = self._live, event.pid, event.start_ns, event.ts_ns
        boot_id, parent_ns = event.boot_id, event.parent_start_ns
        parent = live.get(event.ppid)  # type: ignore[arg-type]  # None is no pid
        if (
            parent is None
            or parent_ns is None
            or parent.start_ns != parent_ns
            or parent_ns > start_ns
            or parent.pid == pid
            or parent.boot_id != boot_id
        ):
            parent = self._find_parent(event)
        comm, exe, cgroup = event.comm, event.exe, event.cgroup
        uid, args = event.uid, event.args
        origin = above = parent
        if parent is not None:
            # A fork copies its parent: what the event does not say is known from there.
            comm = comm or parent.comm
            exe = exe or parent.exe
            cgroup = cgroup or parent.cgroup
            uid = parent.uid if uid is None else uid
            args = parent.args if args is None else args
            parent.active = True
            if (
                ts_ns - parent.born_ns < YOUNG_NS
                and parent.grown is not None
                and parent.parent is not None
            ):
                origin = parent.grown
            if parent.pid <= 2 and _apart(pid, parent):
                above = None
        if pid in live:
            child = self.find(event)
            if child is not None:
                child.born_ns, child.forker, child.grown = ts_ns, parent, origin
                self._fill(child, event, parent)
                return child
            self._bury(live.pop(pid))
        elif len(live) >= self._limit:
            self._make_room()
        child = live[pid] = Process(
            boot_id, pid, start_ns, above, comm, exe, cgroup, ts_ns, parent, origin,
            True, False, uid, args,
        )  # fmt: skip
        return child

    def learn(self, event: ProcessEvent) -> Process:
        """Take in a process that was already there."""
        process = self.find(event)
        if process is None:
            process = Process(event.boot_id, event.pid, event.start_ns, None, "", None, None)
            self._insert(process)
        if process.parent is None:
            self._fill(process, event, self._find_parent(event))
        return process

    def exec(self, event: ProcessEvent) -> Process:
        """Give a process, known or not, a new image."""
        process = self._live.get(event.pid)
        if (
            process is None
            or process.start_ns != event.start_ns
            or process.boot_id != event.boot_id
        ):
            process = self.find(event) or self.learn(event)
        process.comm, process.exe = event.comm or process.comm, event.exe
        process.cgroup = event.cgroup or process.cgroup
        process.uid = process.uid if event.uid is None else event.uid
        process.args = event.args
        process.again = process.exec_ns != 0
        process.exec_ns = event.ts_ns
        if process.parent is None:
            self._fill(process, event, self._find_parent(event))
        return process

    def exit(self, process: Process, now_ns: int) -> None:
        """Let a living process go."""
        del self._live[process.pid]
        parent = process.parent
        if parent is not None and (process.moved or process.inherits):
            amounts = parent.inherits, process.moved, process.inherits
            read, written = zip(*filter(None, amounts), strict=True)
            parent.inherits = sum(read), sum(written)
            parent.bereft_ns = now_ns
        self._bury(process)
        if len(self._ended) >= MAX_ENDED // 2:
            self._ended_before, self._ended = self._ended, {}
        self._ended[process.pid] = process.start_ns, process.parent

    def find(self, record: ProcessEvent | ProcessSample) -> Process | None:
        """The living process that a record is about."""
        process = self._live.get(record.pid)
        if process is None or process.boot_id != record.boot_id:
            return None
        if process.start_ns is None:
            process.start_ns = record.start_ns
        return process if process.start_ns == record.start_ns else None

    def sampled(self, sample: ProcessSample) -> Process:
        """The process that was measured."""
        process = self.find(sample)
        if process is None:
            process = Process(sample.boot_id, sample.pid, sample.start_ns, None, "", None, None)
            start_ns, parent = (
                self._ended.get(sample.pid) or self._ended_before.get(sample.pid) or (None, None)
            )
            if sample.state == "Z" or start_ns == sample.start_ns:
                # Dead, and not waited for: it is not among the living.
                process.parent = parent if start_ns == sample.start_ns else None
                process.alive = False
            else:
                self._insert(process)
        process.comm = sample.comm or process.comm
        process.cgroup = sample.cgroup or process.cgroup
        process.active = True
        read, written = sample.read_bytes or 0, sample.write_bytes or 0
        if read or written:
            before = process.moved or (0, 0)
            process.moved = before[0] + read, before[1] + written
        return process

    def _find_parent(self, event: ProcessEvent) -> Process | None:
        """Who forked it, made up from what the event says if it was never heard of."""
        pid, start_ns = event.ppid, event.parent_start_ns
        if not pid or pid == event.pid or (start_ns is not None and start_ns > event.start_ns):
            return None
        holder = self._live.get(pid)
        if holder is not None and holder.boot_id == event.boot_id:
            if holder.start_ns == start_ns:
                return holder
            if holder.start_ns is None:
                holder.start_ns = start_ns
                return holder
            if start_ns is None and holder.start_ns <= event.start_ns:
                return holder
            if start_ns is None or holder.start_ns > start_ns:
                return None  # The pid has a new owner: the parent is dead and forgotten.
        parent = Process(event.boot_id, pid, start_ns, None, "", None, None)
        if event.kind == "fork":
            # A fork copies its parent, so its first image tells of both.
            parent.comm, parent.exe, parent.cgroup = event.comm, event.exe, event.cgroup
            parent.uid, parent.args = event.uid, event.args
        self._insert(parent)
        return parent

    @staticmethod
    def _fill(process: Process, event: ProcessEvent, parent: Process | None) -> None:
        process.comm = process.comm or event.comm
        process.exe = process.exe or event.exe
        process.cgroup = process.cgroup or event.cgroup
        process.uid = event.uid if process.uid is None else process.uid
        process.args = event.args if process.args is None else process.args
        if process.parent is None and parent is not None and not _apart(process.pid, parent):
            above: Process | None = parent
            while above is not None and above is not process:
                above = above.parent
            if above is None:
                process.parent = parent

    def _insert(self, process: Process) -> None:
        live, pid = self._live, process.pid
        if pid in live:
            self._bury(live.pop(pid))  # The pid is in use again: its exit was lost.
        elif len(live) >= self._limit:
            self._make_room()
        live[pid] = process

    def _make_room(self) -> None:
        """Give up a quarter at once, which costs each new process no more than one at a time."""
        living = list(self._live.values())
        idle = [process for process in living if not process.active]
        for process in living:
            process.active = False
        for process in (idle or living)[: self._limit // 4 + 1]:
            del self._live[process.pid]
            self._bury(process)
            self.evicted += 1

    @staticmethod
    def _bury(process: Process) -> None:
        process.alive = False
        process.forker = process.grown = None
        for entry in process.counted:
            entry.take_back("exit")
        process.counted = ()
        # A relay of processes that each fork and exit must not leave an endless chain of the
        # dead. The first of them stays: it is the one to name.
        parent = process.parent
        if parent is not None and not parent.alive and parent.parent is not None:
            process.parent = parent.parent


def lineage(processes: Iterable[Process]) -> Lineage:
    """The parent of each of these and of all their ancestors, parents before children."""
    parents: Lineage = {}
    for process in processes:
        if process in parents:
            continue
        above = process.parent
        if above is not None and above not in parents:
            path: list[Process] = []
            while above is not None and above not in parents:
                path.append(above)
                above = above.parent
            for each in reversed(path):
                parents[each] = each.parent
        parents[process] = process.parent
    return parents


def subtree_sums(own: Mapping[Process, Number], parents: Lineage) -> dict[Process, Number]:
    """What each process and its descendants have together; ``parents`` is their `lineage`."""
    sums: dict[Process, Any] = dict.fromkeys(parents, 0)
    sums.update(own)
    for process, above in reversed(parents.items()):
        if above is not None:
            sums[above] += sums[process]
    return sums


def subtree_most(own: Mapping[Process, Number], parents: Lineage) -> dict[Process, Number]:
    """The most that any of a process and its descendants has: of what they share."""
    most: dict[Process, Any] = dict.fromkeys(parents, 0)
    most.update(own)
    for process, above in reversed(parents.items()):
        if above is not None and most[process] > most[above]:
            most[above] = most[process]
    return most


@attrs.frozen
class Subtree:
    """What a tree did, and the deepest process whose descendants and itself did nearly all.

    For a shell loop that is the shell, for a fork bomb the process at its root.
    """

    total: float
    offender: Process
    by_offender: float


def heaviest(own: Mapping[Process, Number]) -> Subtree | None:
    """The tree below init that did most of what each of these did; None if there is none."""
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
    return Subtree(sums[top], offender, sums[offender])


def deepest(among: Mapping[Process, object]) -> list[Process]:
    """Those that have no descendant among them."""
    ancestors: set[Process] = set()
    for process in among:
        above = process.parent
        while above is not None and above not in ancestors:
            ancestors.add(above)
            above = above.parent
    return [process for process in among if process not in ancestors]


def _apart(pid: int, parent: Process) -> bool:
    """Whether the parent is init or kthreadd, which is pid 2 unless that has a parent.

    So in a container pid 2 keeps its parent, and is a process like any other.
    """
    return parent.pid <= 2 and pid != 2 and (parent.pid == 1 or parent.parent is None)
