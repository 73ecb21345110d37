"""The process table: who lives, who died lately, and who is whose child.

One thread writes (`ProcessTable.update`); any thread reads through a `ProcessView`,
whose answers are copies. Memory has a hard bound in both directions.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from linnix_core.records import ProcessEvent, ProcessKey, ProcessSample

__all__ = ["Process", "ProcessTable", "ProcessView", "boot_id", "start_time_ns"]

#: The kernel shows start times in ticks of USER_HZ (100 a second) in /proc/PID/stat.
TICK_NS = 10_000_000


def start_time_ns(since_boot_ns: int) -> int:
    """The one way to make a ``start_ns``: floored to 10 ms.

    So the kernel's clock (``task_struct.start_boottime``) and /proc's ticks (proc(5),
    field 22 of stat, times 10 ms) name the same process alike. Without the floor they
    would differ by up to a tick.

    >>> start_time_ns(1_234_567_890)
    1230000000
    """
    return since_boot_ns - since_boot_ns % TICK_NS


def boot_id() -> str:
    """What tells this boot from any other: the kernel's random id, else made of the boot time."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{uuid.getnode()}:{_boot_time_s()}"))


def _boot_time_s() -> int:
    # Rounded to a minute, so that a clock that is set a little does not make a new boot.
    return round((time.time() - time.monotonic()) / 60) * 60


class Process(msgspec.Struct):
    """What is known about one process, alive or dead.

    ``parent`` is the process that forked it, also after that one has died.
    ``sample`` is the latest measurement. ``ended_ns`` is None while it lives.
    """

    key: ProcessKey
    parent: ProcessKey | None = None
    comm: str = ""
    exe: str | None = None
    args: tuple[str, ...] | None = None
    uid: int | None = None
    gid: int | None = None
    cwd: str | None = None
    cgroup: str | None = None
    labels: dict[str, str] | None = None
    first_ns: int = 0
    ended_ns: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    duration_ns: int | None = None
    cpu_ns: int | None = None
    max_rss_bytes: int | None = None
    sample: ProcessSample | None = None

    @property
    def pid(self) -> int:
        """The thread group id."""
        return self.key.pid

    @property
    def alive(self) -> bool:
        """Whether no exit has been seen."""
        return self.ended_ns is None


#: boot_id, pid, start_ns: see `ProcessKey`.
_Key: TypeAlias = tuple[str, int, int]


class ProcessTable:
    """The live tree plus a bounded history of the dead.

    ``max_live`` and ``max_dead`` bound the number of entries; what has to go first is
    the oldest, and living ones that had to go are counted in ``evicted``.

    >>> table = ProcessTable()
    >>> table.update([ProcessEvent("fork", pid=7, start_ns=10_000_000, comm="sh")])
    >>> table.view.find(7).comm
    'sh'
    """

    def __init__(self, *, max_live: int = 131_072, max_dead: int = 8_192) -> None:
        self._max_live = max_live
        self._max_dead = max_dead
        # In here a key is a plain tuple: it is equal to a ProcessKey, and making one costs a
        # tenth. Whoever asks gets copies with ProcessKeys. Why a Struct and not an attrs class:
        # it is made in half the time, and copied in a tenth of it.
        self._live: dict[_Key, Process] = {}
        self._dead: OrderedDict[_Key, Process] = OrderedDict()
        # The latest owner of each pid, alive or dead.
        self._by_pid: dict[int, _Key] = {}
        self._children: dict[_Key, dict[_Key, None]] = {}
        self._lock = threading.Lock()
        self.evicted = 0
        self.view = ProcessView(self)

    def update(self, records: Iterable[Any]) -> None:
        """Apply events and samples in their order; other records are passed over.

        Fills in what the table knows and the event does not: the start time of the
        parent, comm, exe, uid and cgroup. A parent that would be younger than its child
        is a reused pid, and is forgotten.
        """
        with self._lock:
            for record in records:
                kind = type(record)
                if kind is ProcessEvent:
                    self._apply(record)
                elif kind is ProcessSample:
                    process = self._live.get((record.boot_id, record.pid, record.start_ns))
                    if process is not None:
                        process.sample = record

    def take_labels(self, records: Iterable[Any]) -> None:
        """Keep the labels that records of processes got after `update` had seen them."""
        with self._lock:
            for record in records:
                if type(record) in (ProcessEvent, ProcessSample) and record.labels:
                    key = (record.boot_id, record.pid, record.start_ns)
                    process = self._live.get(key) or self._dead.get(key)
                    if process is not None:
                        process.labels = record.labels

    def _apply(self, event: ProcessEvent) -> None:
        start_ns, parent_start_ns = event.start_ns, event.parent_start_ns
        if parent_start_ns is None or parent_start_ns > start_ns:
            self._resolve_parent(event)
        key = (event.boot_id, event.pid, start_ns)
        process = self._live.get(key)
        if process is None:
            # An exit that overtook its fork left a tombstone: later words fill it in, and
            # never revive it.
            process = self._dead.get(key)
        if process is None:
            process = self._insert(event, key)
        elif event.kind == "exec" and process.ended_ns is None:
            self._replace_image(process, event)
        elif (
            event.kind != "exit"
            or process.parent is None
            or process.uid is None
            or process.cgroup is None
            or not process.comm
        ):
            self._fill(process, event)
        if event.exe is None:
            event.exe = process.exe
        if event.cgroup is None:
            event.cgroup = process.cgroup
        if event.uid is None:
            event.uid = process.uid
        if not event.comm:
            event.comm = process.comm
        if event.kind == "exit":
            process.exit_code = event.exit_code
            process.signal = event.signal
            process.duration_ns = event.duration_ns
            process.cpu_ns = event.cpu_ns
            process.max_rss_bytes = event.max_rss_bytes
            if process.ended_ns is None:
                self._bury(process, event.ts_ns)

    def _resolve_parent(self, event: ProcessEvent) -> None:
        if event.parent_start_ns is None:
            if event.ppid is None:
                return
            parent = self._by_pid.get(event.ppid)
            if parent is not None and parent[0] == event.boot_id and parent[2] <= event.start_ns:
                event.parent_start_ns = parent[2]
        elif event.parent_start_ns > event.start_ns:
            event.parent_start_ns = None

    def _insert(self, event: ProcessEvent, key: Any) -> Process:
        parent = self._parent(event)
        comm, exe, args, uid, gid = event.comm, event.exe, event.args, event.uid, event.gid
        cwd, cgroup = event.cwd, event.cgroup
        if parent is not None and event.kind == "fork":
            # A fork copies its parent; what the event did not say is as in the parent.
            comm = comm or parent.comm
            exe = parent.exe if exe is None else exe
            args = parent.args if args is None else args
            uid = parent.uid if uid is None else uid
            gid = parent.gid if gid is None else gid
            cwd = parent.cwd if cwd is None else cwd
            cgroup = parent.cgroup if cgroup is None else cgroup
        process = Process(
            key, None, comm, exe, args, uid, gid, cwd, cgroup, event.labels, event.ts_ns
        )
        self._adopt(process, event, parent)
        latest = self._by_pid.get(event.pid)
        if latest is not None and latest[2] > event.start_ns and latest[0] == event.boot_id:
            # Dead by the time of this first word: its pid has had another owner since.
            self._remember(process, event.ts_ns)
            return process
        if latest is not None and (former := self._live.get(latest)) is not None:
            # The pid is in use again, so its former owner died without an exit record.
            self._bury(former, event.ts_ns)
        self._by_pid[event.pid] = key
        if event.kind == "exit":
            self._remember(process, event.ts_ns)
            return process
        self._live[key] = process
        if len(self._live) > self._max_live:
            self._evict(event.ts_ns)
        return process

    def _evict(self, ts_ns: int) -> None:
        # Several at once: finding the first of a dictionary takes as long as entries were
        # deleted before it.
        oldest = list(itertools.islice(self._live.values(), 1 + self._max_live // 64))
        for process in oldest:
            self._bury(process, ts_ns)
        self.evicted += len(oldest)

    def _parent(self, event: ProcessEvent) -> Process | None:
        """The entry of the parent that an event names, alive or dead."""
        if event.ppid is None or event.parent_start_ns is None:
            return None
        key = (event.boot_id, event.ppid, event.parent_start_ns)
        return self._live.get(key) or self._dead.get(key)

    def _adopt(self, process: Process, event: ProcessEvent, parent: Process | None) -> None:
        """Link a process to its parent, which may have no entry."""
        if parent is not None:
            # The parent's own key object serves all its children.
            key: Any = parent.key
        elif event.ppid is None or event.parent_start_ns is None:
            return
        else:
            key = (event.boot_id, event.ppid, event.parent_start_ns)
        if key == process.key:
            return
        process.parent = key
        siblings = self._children.get(key)
        if siblings is None:
            siblings = self._children[key] = {}
        siblings[process.key] = None

    def _fill(self, process: Process, event: ProcessEvent) -> None:
        if process.parent is None:
            self._adopt(process, event, self._parent(event))
        if not process.comm:
            process.comm = event.comm
        if process.exe is None:
            process.exe = event.exe
        if process.args is None:
            process.args = event.args
        if process.uid is None:
            process.uid = event.uid
            process.gid = event.gid
        if process.cwd is None:
            process.cwd = event.cwd
        if process.cgroup is None:
            process.cgroup = event.cgroup

    def _replace_image(self, process: Process, event: ProcessEvent) -> None:
        """An exec makes the image new; what it does not mention is unknown, not inherited."""
        if process.parent is None:
            self._adopt(process, event, self._parent(event))
        process.comm = event.comm or process.comm
        process.exe = event.exe
        process.args = event.args
        process.uid = process.uid if event.uid is None else event.uid
        process.gid = process.gid if event.gid is None else event.gid
        process.cwd = process.cwd if event.cwd is None else event.cwd
        process.cgroup = process.cgroup if event.cgroup is None else event.cgroup

    def _bury(self, process: Process, ts_ns: int) -> None:
        del self._live[process.key]
        self._remember(process, ts_ns)

    def _remember(self, process: Process, ts_ns: int) -> None:
        process.ended_ns = ts_ns
        self._dead[process.key] = process
        if len(self._dead) > self._max_dead:
            self._forget(self._dead.popitem(last=False)[1])

    def _forget(self, process: Process) -> None:
        if self._by_pid.get(process.key[1]) == process.key:
            del self._by_pid[process.key[1]]
        if process.parent is not None and (siblings := self._children.get(process.parent)):
            siblings.pop(process.key, None)
            if not siblings:
                del self._children[process.parent]
        # Children of a forgotten parent keep its key; there is nothing to look it up in.


def _copy(process: Any) -> Process:
    # Keys become what readers expect when they are first read, and stay it.
    if type(process.key) is tuple:
        process.key = tuple.__new__(ProcessKey, process.key)
    if type(process.parent) is tuple:
        process.parent = tuple.__new__(ProcessKey, process.parent)
    copied: Process = replace(process)  # in C; copy.copy searches for how to copy
    return copied


class ProcessView:
    """Reads a `ProcessTable` from any thread; every process it returns is a copy."""

    def __init__(self, table: ProcessTable | None = None) -> None:
        self._table = table if table is not None else ProcessTable()

    def __len__(self) -> int:
        """How many live."""
        return len(self._table._live)

    def __iter__(self) -> Iterator[Process]:
        """The living, in the order in which they were first noticed."""
        with self._table._lock:
            living = [_copy(process) for process in self._table._live.values()]
        return iter(living)

    @property
    def evicted(self) -> int:
        """How many living processes had to be given up for the bound on memory."""
        return self._table.evicted

    def get(self, key: ProcessKey) -> Process | None:
        """The process of this key, alive or lately dead."""
        with self._table._lock:
            process = self._lookup(key)
            return None if process is None else _copy(process)

    def find(self, pid: int) -> Process | None:
        """The living process that has this pid now."""
        with self._table._lock:
            key = self._table._by_pid.get(pid)
            process = None if key is None else self._table._live.get(key)
            return None if process is None else _copy(process)

    def children(self, key: ProcessKey) -> list[Process]:
        """The living processes that this one forked."""
        with self._table._lock:
            return [_copy(child) for child in self._living_children(key)]

    def descendants(
        self, key: ProcessKey, limit: int | None = None, *, ended: bool = False
    ) -> list[Process]:
        """The living processes below this one, nearest first, without itself.

        With ``ended`` also those that are remembered and live no more.
        """
        with self._table._lock:
            found: list[Process] = []
            seen: set[_Key] = {key}
            level: list[_Key] = [key]
            while level:
                below: list[_Key] = []
                for parent in level:
                    for child_key in self._table._children.get(parent, ()):
                        if child_key in seen:
                            continue
                        seen.add(child_key)
                        # Through the dead as well: their children are still descendants.
                        below.append(child_key)
                        child = self._table._live.get(child_key)
                        if child is None and ended:
                            child = self._table._dead.get(child_key)
                        if child is not None:
                            found.append(_copy(child))
                            if len(found) == limit:
                                return found
                level = below
            return found

    def ancestors(self, key: ProcessKey) -> list[Process]:
        """Parent, grandparent and so on as far as known, nearest first, the dead included."""
        with self._table._lock:
            found: list[Process] = []
            seen = {key}
            process = self._lookup(key)
            while process is not None and process.parent is not None:
                if process.parent in seen:
                    break
                seen.add(process.parent)
                process = self._lookup(process.parent)
                if process is not None:
                    found.append(_copy(process))
            return found

    def top(self, count: int, by: Callable[[ProcessSample], float | None]) -> list[Process]:
        """The ``count`` living processes whose latest sample has the most ``by``.

        context.processes.top(5, by=lambda sample: sample.cpu_percent)
        """
        with self._table._lock:
            measured = [
                (amount, process)
                for process in self._table._live.values()
                if process.sample is not None and (amount := by(process.sample)) is not None
            ]
            largest = heapq.nlargest(count, measured, key=lambda pair: pair[0])
            return [_copy(process) for _, process in largest]

    def _lookup(self, key: _Key) -> Process | None:
        return self._table._live.get(key) or self._table._dead.get(key)

    def _living_children(self, key: _Key) -> Iterator[Process]:
        for child in self._table._children.get(key, ()):
            if (process := self._table._live.get(child)) is not None:
                yield process
