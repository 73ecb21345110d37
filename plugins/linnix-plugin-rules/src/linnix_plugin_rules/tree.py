"""Who descends from whom, as far as the rules need to know it.

The tree is kept from the records alone and in their order, so that a replay sees the
same one. Its memory has a hard bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import attrs
import msgspec

from linnix_core import ProcessEvent, ProcessKey, ProcessSample, Subject, printable

__all__ = [
    "MAX_PROCESSES",
    "Child",
    "Image",
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


class Image(msgspec.Struct, frozen=True, gc=False):
    """What a process runs, where and as whom, as far as that is known."""

    comm: str = ""
    exe: str | None = None
    cgroup: str | None = None
    uid: int | None = None
    args: tuple[str, ...] | None = None


#: Of a process of which only its pid has been heard.
UNKNOWN = Image()


class Child(msgspec.Struct, eq=False):
    """A process since its fork, until anything but its own end depends on it.

    Most processes run one program at most and are gone after a moment. A whole `Process`, which
    costs as much again, is made of those only that fork, are measured, or start a second program.
    """

    event: ProcessEvent
    now_ns: int
    #: Who forked it, and the origin of the tree that grew by this.
    forker: Process | None
    origin: Process | None
    #: That of its program; until it starts one that of who forked it, at that moment.
    image: Image
    #: When it started a program; 0 is not yet.
    exec_ns: int = 0
    ended: bool = False
    #: Where its fork was counted (`EventWindow.entry`), until it ends.
    counted: tuple[Any, ...] = ()
    again: ClassVar[bool] = False

    def take_back(self, why: Literal["exec", "exit"]) -> None:
        """Uncount its fork, where this is a reason to."""
        for entry in self.counted:
            entry.take_back(why)
        if why == "exit":
            self.counted = ()


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
    image: Image = UNKNOWN
    #: What it was at its fork, if that was seen, until it ends.
    birth: Child | None = None
    #: When it last started another program, and whether it had done so before.
    exec_ns: int = 0
    again: bool = False
    alive: bool = True
    #: Whether it has forked or been sampled since room was last made.
    active: bool = False
    #: What it was measured to read and write. Whoever waits for it inherits all that it moved.
    moved: tuple[int, int] | None = None
    #: The same of children that ended and are being waited for, and when the last one ended.
    inherits: tuple[int, int] | None = None
    bereft_ns: int = 0
    #: How many that it forked started a program in this span and in the one before.
    starts: int = 0
    starts_before: int = 0
    starts_ns: int = 0

    @property
    def forker(self) -> Process | None:
        """Who forked it, init and kthreadd too; or its parent, where the fork was not seen."""
        birth = self.birth
        return self.parent if birth is None or birth.forker is None else birth.forker

    @property
    def origin(self) -> Process | None:
        """The origin of the tree that grew by its fork, if that was seen, until it ends."""
        return None if self.birth is None else self.birth.origin

    @property
    def comm(self) -> str:
        """Its name, of at most 15 bytes."""
        return self.image.comm

    @property
    def exe(self) -> str | None:
        """The path of its executable."""
        return self.image.exe

    @property
    def cgroup(self) -> str | None:
        """The path of its cgroup."""
        return self.image.cgroup

    @property
    def uid(self) -> int | None:
        """The number of its user."""
        return self.image.uid

    @property
    def args(self) -> tuple[str, ...] | None:
        """Its command line."""
        return self.image.args

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
        self._live: dict[int | None, Process | Child] = {}
        #: Start and parent of those that ended, and of those before; the older go at once.
        self._ended: dict[int, tuple[int | None, Process | None]] = {}
        self._ended_before: dict[int, tuple[int | None, Process | None]] = {}
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._live)

    def fork(self, event: ProcessEvent, now_ns: int) -> Child:
        """Add a child; it knows who forked it, and the origin of the tree that grew by this.

        A process that forks while it is young acts for the tree that it was born into: so
        a fork bomb is one tree and a build is one, and the shells of a terminal are many.
        """
        live, pid, parent_ns = self._live, event.pid, event.parent_start_ns
        parent = live.get(event.ppid)
        known = pid in live
        if (
            type(parent) is not Process
            or parent_ns is None
            or parent.start_ns != parent_ns
            or parent_ns > event.start_ns
            or parent.boot_id != event.boot_id
            or known
        ):
            parent = self._find_parent(event)
            known = pid in live
        origin, image = parent, UNKNOWN
        if parent is not None:
            image, birth = parent.image, parent.birth
            if not parent.active:
                parent.active = True
            if (
                birth is not None
                and birth.origin is not None
                and event.ts_ns - birth.event.ts_ns < YOUNG_NS
                and parent.parent is not None
            ):
                origin = birth.origin
        child = Child(event, now_ns, parent, origin, image)
        if known:
            process = self.find(event)
            if process is not None:
                self._bear(process, child)
                return child
            self._bury(live.pop(pid))
        elif len(live) >= self._limit:
            self._make_room()
        live[pid] = child
        return child

    def _bear(self, process: Process, child: Child) -> None:
        """Take in the fork of a process that was already known."""
        before, process.birth = process.birth, child
        child.exec_ns = process.exec_ns
        if before is not None:
            # Told twice: where the first one is not counted yet, it will not be.
            child.counted, before.counted = before.counted, ()
            before.exec_ns = before.exec_ns or child.event.ts_ns
            before.ended = True
        self._fill(process, child.event, child.forker)

    def learn(self, event: ProcessEvent) -> Process:
        """Take in a process that was already there."""
        process = self.find(event)
        if process is None:
            process = Process(event.boot_id, event.pid, event.start_ns, None)
            self._insert(process)
        if process.parent is None:
            self._fill(process, event, self._find_parent(event))
        return process

    def exec(self, event: ProcessEvent, now_ns: int) -> None:
        """Give a process, known or not, a new image."""
        child = self._live.get(event.pid)
        if (
            type(child) is not Child
            or child.exec_ns
            or (forker := child.forker) is None
            or forker.pid <= 2
            or (fork := child.event).start_ns != event.start_ns
            or fork.boot_id != event.boot_id
        ):
            self._exec_again(event, now_ns)
            return
        before = child.image
        child.image = Image(
            event.comm or fork.comm or before.comm,
            event.exe,
            event.cgroup or fork.cgroup or before.cgroup,
            event.uid if event.uid is not None else before.uid if fork.uid is None else fork.uid,
            event.args,
        )
        child.exec_ns = event.ts_ns
        if child.counted:
            child.take_back("exec")
        forker.child_started(now_ns)

    def _exec_again(self, event: ProcessEvent, now_ns: int) -> None:
        """The same for a process that did something before, or of which not so much is known."""
        process = self.living(event)
        before, birth = process.image, process.birth
        process.image = Image(
            event.comm or before.comm,
            event.exe,
            event.cgroup or before.cgroup,
            before.uid if event.uid is None else event.uid,
            event.args,
        )
        process.again = process.exec_ns != 0
        process.exec_ns = event.ts_ns
        if birth is not None and not process.again:
            birth.exec_ns = event.ts_ns
            birth.take_back("exec")
            if birth.forker is not None:
                birth.forker.child_started(now_ns)
        if process.parent is None:
            self._fill(process, event, self._find_parent(event))

    def exit(self, event: ProcessEvent, now_ns: int) -> Process | Child | None:
        """Let a living process go, and say which it was; None if it is not known.

        Who forked it, its ``birth``, is left to the caller to forget.
        """
        live, pid, start_ns = self._live, event.pid, event.start_ns
        one = live.get(pid)
        parent: Process | None
        if type(one) is Child:
            fork, parent = one.event, one.forker
            if fork.start_ns != start_ns or fork.boot_id != event.boot_id:
                return None
            del live[pid]
            one.ended = True
            if one.counted:
                one.take_back("exit")
            if parent is not None and (parent.pid <= 2 or not parent.alive):
                parent = _above(pid, parent)
        else:
            one = self.find(event)
            if one is None:
                return None
            del live[pid]
            parent, birth = one.parent, one.birth
            if parent is not None and (one.moved or one.inherits):
                amounts = parent.inherits, one.moved, one.inherits
                read, written = zip(*filter(None, amounts), strict=True)
                parent.inherits = sum(read), sum(written)
                parent.bereft_ns = now_ns
            self._bury(one)
            if one.parent is not parent and (birth is None or birth.forker is None):
                # It is with its grandparent from now on, and what it did is its parent's.
                birth = Child(event, now_ns, parent, None, one.image)
            one.birth, parent = birth, one.parent
        ended = self._ended
        if len(ended) >= MAX_ENDED // 2:
            self._ended_before = ended
            ended = self._ended = {}
        ended[pid] = start_ns, parent
        return one

    def find(self, record: ProcessEvent | ProcessSample) -> Process | None:
        """The living process that a record is about."""
        one = self._live.get(record.pid)
        if type(one) is Child:
            fork = one.event
            if fork.start_ns != record.start_ns or fork.boot_id != record.boot_id:
                return None
            process = self._live[record.pid] = self.whole(one)
            return process
        if type(one) is not Process or one.boot_id != record.boot_id:
            return None
        if one.start_ns is None:
            one.start_ns = record.start_ns
        return one if one.start_ns == record.start_ns else None

    def living(self, event: ProcessEvent) -> Process:
        """The same; one that is not known is from now on."""
        return self.find(event) or self.learn(event)

    def sampled(self, sample: ProcessSample) -> Process:
        """The process that was measured."""
        one = self._live.get(sample.pid)
        if (
            type(one) is Process
            and one.start_ns == sample.start_ns
            and one.boot_id == sample.boot_id
        ):
            process: Process | None = one
        else:
            process = self.find(sample)
        if process is None:
            process = Process(sample.boot_id, sample.pid, sample.start_ns, None)
            start_ns, parent = (
                self._ended.get(sample.pid) or self._ended_before.get(sample.pid) or (None, None)
            )
            if sample.state == "Z" or start_ns == sample.start_ns:
                # Dead, and not waited for: it is not among the living.
                process.parent = parent if start_ns == sample.start_ns else None
                process.alive = False
            else:
                self._insert(process)
        image = process.image
        if sample.comm != image.comm or sample.cgroup != image.cgroup:
            comm, cgroup = sample.comm or image.comm, sample.cgroup or image.cgroup
            process.image = Image(comm, image.exe, cgroup, image.uid, image.args)
        if not process.active:
            process.active = True
        if sample.read_bytes or sample.write_bytes:
            read, written = process.moved or (0, 0)
            process.moved = read + (sample.read_bytes or 0), written + (sample.write_bytes or 0)
        return process

    @staticmethod
    def whole(child: Child) -> Process:
        """Make a process of a child: it is what its parent was, where the fork does not say."""
        event, image, parent = child.event, child.image, child.forker
        if not child.exec_ns:
            image = Image(
                event.comm or image.comm,
                event.exe or image.exe,
                event.cgroup or image.cgroup,
                image.uid if event.uid is None else event.uid,
                image.args if event.args is None else event.args,
            )
        if parent is not None and (parent.pid <= 2 or child.ended):
            parent = _above(event.pid, parent)
        return Process(
            event.boot_id, event.pid, event.start_ns, parent, image, child, child.exec_ns,
            alive=not child.ended,
        )  # fmt: skip

    def _find_parent(self, event: ProcessEvent) -> Process | None:
        """Who forked it, made up from what the event says if it was never heard of."""
        pid, start_ns = event.ppid, event.parent_start_ns
        if not pid or pid == event.pid or (start_ns is not None and start_ns > event.start_ns):
            return None
        live = self._live
        holder = live.get(pid)
        if type(holder) is Child:
            holder = live[pid] = self.whole(holder)
        if type(holder) is Process and holder.boot_id == event.boot_id:
            if holder.start_ns == start_ns:
                return holder
            if holder.start_ns is None:
                holder.start_ns = start_ns
                return holder
            if start_ns is None and holder.start_ns <= event.start_ns:
                return holder
            if start_ns is None or holder.start_ns > start_ns:
                return None  # The pid has a new owner: the parent is dead and forgotten.
        parent = Process(event.boot_id, pid, start_ns, None)
        if event.kind == "fork":
            # A fork copies its parent, so its first image tells of both.
            parent.image = Image(event.comm, event.exe, event.cgroup, event.uid, event.args)
        self._insert(parent)
        return parent

    @staticmethod
    def _fill(process: Process, event: ProcessEvent, parent: Process | None) -> None:
        image = process.image
        process.image = Image(
            image.comm or event.comm,
            image.exe or event.exe,
            image.cgroup or event.cgroup,
            event.uid if image.uid is None else image.uid,
            event.args if image.args is None else image.args,
        )
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
        living = list(self._live.items())
        idle = [pid for pid, one in living if not (type(one) is Process and one.active)]
        for _, one in living:
            if type(one) is Process:
                one.active = False
        for pid in (idle or [pid for pid, _ in living])[: self._limit // 4 + 1]:
            self._bury(self._live.pop(pid))
            self.evicted += 1

    @staticmethod
    def _bury(one: Process | Child) -> None:
        child = one if type(one) is Child else None
        if type(one) is Process:
            one.alive = False
            child, one.birth = one.birth, None
            if one.parent is not None and not one.parent.alive:
                one.parent = _nearest(one.parent)
        if child is not None:
            child.ended = True
            child.take_back("exit")


def _nearest(parent: Process) -> Process:
    """The parent of one that has ended, or the grandparent.

    A relay of processes that each fork and exit must not leave an endless chain of the
    dead. The first of them stays: it is the one to name.
    """
    return parent if parent.alive or parent.parent is None else parent.parent


def _above(pid: int, forker: Process) -> Process | None:
    """The parent of a process, by who forked it."""
    return None if _apart(pid, forker) else _nearest(forker)


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
