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


class Process(msgspec.Struct, gc=False):
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
        # A pid finds its latest owner, alive or dead, in the time that the hash of a small
        # number takes; only whoever died before that one is looked for by the whole key. In
        # here a key is a plain tuple: it is equal to a ProcessKey, and making one costs a
        # tenth. Whoever asks gets copies with ProcessKeys. Why a Struct and not an attrs class:
        # it is made in half the time, and copied in a tenth of it.
        self._latest: dict[int, Process] = {}
        self._live: dict[int, Process] = {}
        self._dead: dict[_Key, Process] = {}
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
            apply, live = self._apply, self._live
            for record in records:
                kind = type(record)
                if kind is ProcessEvent:
                    apply(record)
                elif kind is ProcessSample:
                    pid = record.pid
                    process = live.get(pid)
                    if process is not None and process.key == (
                        record.boot_id,
                        pid,
                        record.start_ns,
                    ):
                        process.sample = record

    def take_labels(self, records: Iterable[Any]) -> None:
        """Keep the labels that records of processes got after `update` had seen them."""
        with self._lock:
            for record in records:
                if type(record) in (ProcessEvent, ProcessSample) and record.labels:
                    process = self._find(_key_of(record))
                    if process is not None:
                        process.labels = record.labels

    def _find(self, key: _Key) -> Process | None:
        """The entry of this key, alive or dead."""
        process = self._latest.get(key[1])
        if process is not None and process.key == key:
            return process
        return self._dead.get(key)

    def _apply(self, event: ProcessEvent) -> None:
        kind, pid, start_ns = event.kind, event.pid, event.start_ns
        parent_start_ns = event.parent_start_ns
        if parent_start_ns is None or parent_start_ns > start_ns:
            self._resolve_parent(event)
        key = (event.boot_id, pid, start_ns)
        latest = process = self._latest.get(pid)
        if latest is None or latest.key != key:
            # An exit that overtook its fork left a tombstone: later words fill it in, and
            # never revive it.
            process = self._dead.get(key)
        if process is None:
            process = self._insert(event, key, latest)
        elif kind == "exec" and process.ended_ns is None:
            self._replace_image(process, event)
        elif (
            kind != "exit"
            or process.parent is None
            or process.uid is None
            or process.cgroup is None
            or not process.comm
        ):
            self._fill(process, event)
        if event.exe is None and process.exe is not None:
            event.exe = process.exe
        if event.cgroup is None:
            event.cgroup = process.cgroup
        if event.uid is None:
            event.uid = process.uid
        if not event.comm:
            event.comm = process.comm
        if kind == "exit":
            process.exit_code = event.exit_code
            if event.signal != process.signal:
                process.signal = event.signal
            process.duration_ns = event.duration_ns
            process.cpu_ns = event.cpu_ns
            process.max_rss_bytes = event.max_rss_bytes
            if process.ended_ns is None:
                del self._live[pid]
                self._remember(process, event.ts_ns)

    def _resolve_parent(self, event: ProcessEvent) -> None:
        if event.parent_start_ns is None:
            if event.ppid is None:
                return
            parent = self._latest.get(event.ppid)
            if parent is not None:
                boot_id, _, start_ns = parent.key
                if boot_id == event.boot_id and start_ns <= event.start_ns:
                    event.parent_start_ns = start_ns
        elif event.parent_start_ns > event.start_ns:
            event.parent_start_ns = None

    def _insert(self, event: ProcessEvent, key: Any, former: Process | None) -> Process:
        """Add a process; ``former`` is the latest owner of its pid until now, if there is one."""
        kind, ts_ns = event.kind, event.ts_ns
        comm, exe, args, uid, gid = event.comm, event.exe, event.args, event.uid, event.gid
        cwd, cgroup = event.cwd, event.cgroup
        parent_key: Any = _parent_key_of(event)
        parent = None if parent_key is None else self._find(parent_key)
        if parent is not None:
            # The parent's own key object serves all its children.
            parent_key = parent.key
            if kind == "fork":
                # A fork copies its parent; what the event did not say is as in the parent.
                comm = comm or parent.comm
                exe = parent.exe if exe is None else exe
                args = parent.args if args is None else args
                uid = parent.uid if uid is None else uid
                gid = parent.gid if gid is None else gid
                cwd = parent.cwd if cwd is None else cwd
                cgroup = parent.cgroup if cgroup is None else cgroup
        elif parent_key == key:
            parent_key = None
        process = Process(
            key, parent_key, comm, exe, args, uid, gid, cwd, cgroup, event.labels, ts_ns
        )
        if former is not None:
            if former.key[2] > event.start_ns and former.key[0] == event.boot_id:
                # Dead by the time of this first word: its pid has had another owner since.
                self._remember(process, ts_ns)
                return process
            if former.ended_ns is None:
                # The pid is in use again, so its former owner died without an exit record.
                del self._live[event.pid]
                self._remember(former, ts_ns)
        self._latest[event.pid] = process
        if kind == "exit":
            self._remember(process, ts_ns)
            return process
        self._live[event.pid] = process
        if len(self._live) > self._max_live:
            self._evict(ts_ns)
        return process

    def _evict(self, ts_ns: int) -> None:
        # Several at once: finding the first of a dictionary takes as long as entries were
        # deleted before it.
        oldest = list(itertools.islice(self._live.values(), 1 + self._max_live // 64))
        for process in oldest:
            del self._live[process.key[1]]
            self._remember(process, ts_ns)
        self.evicted += len(oldest)

    def _fill(self, process: Process, event: ProcessEvent) -> None:
        self._adopt(process, event)
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
        self._adopt(process, event)
        process.comm = event.comm or process.comm
        process.exe = event.exe
        process.args = event.args
        # These are seldom other than before, and to look costs a quarter of setting them.
        if (uid := event.uid) is not None and uid != process.uid:
            process.uid = uid
        if (gid := event.gid) is not None and gid != process.gid:
            process.gid = gid
        if (cwd := event.cwd) is not None and cwd != process.cwd:
            process.cwd = cwd
        if (cgroup := event.cgroup) is not None and cgroup != process.cgroup:
            process.cgroup = cgroup

    def _adopt(self, process: Process, event: ProcessEvent) -> None:
        """Note the parent, if it was not known."""
        if process.parent is None and (key := _parent_key_of(event)) != process.key:
            process.parent = key  # type: ignore[assignment]

    def _remember(self, process: Process, ts_ns: int) -> None:
        """Keep one that is dead, and forget who has been dead for the longest time."""
        process.ended_ns = ts_ns
        dead = self._dead
        dead[process.key] = process
        if len(dead) > self._max_dead:
            # Several at once, as with the living. Their children keep their keys; there is
            # nothing to look them up in.
            latest = self._latest
            for key in list(itertools.islice(dead, 1 + self._max_dead // 64)):
                if latest.get(key[1]) is dead.pop(key):
                    del latest[key[1]]


def _key_of(record: ProcessEvent | ProcessSample) -> _Key:
    return record.boot_id, record.pid, record.start_ns


def _parent_key_of(event: ProcessEvent) -> _Key | None:
    if event.ppid is None or event.parent_start_ns is None:
        return None
    return event.boot_id, event.ppid, event.parent_start_ns


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
            process = self._table._find(key)
            return None if process is None else _copy(process)

    def find(self, pid: int) -> Process | None:
        """The living process that has this pid now."""
        with self._table._lock:
            process = self._table._live.get(pid)
            return None if process is None else _copy(process)

    def children(self, key: ProcessKey) -> list[Process]:
        """The living processes that this one forked."""
        with self._table._lock:
            return [_copy(child) for child in self._table._live.values() if child.parent == key]

    def descendants(
        self, key: ProcessKey, limit: int | None = None, *, ended: bool = False
    ) -> list[Process]:
        """The living processes below this one, nearest first, without itself.

        With ``ended`` also those that are remembered and live no more.
        """
        with self._table._lock:
            # Asked for now and then, and not worth to be kept up with every fork.
            children: dict[_Key, list[Process]] = {}
            everyone = itertools.chain(self._table._live.values(), self._table._dead.values())
            for process in everyone:
                if process.parent is not None:
                    children.setdefault(process.parent, []).append(process)
            found: list[Process] = []
            seen: set[_Key] = {key}
            level: list[_Key] = [key]
            while level:
                below: list[_Key] = []
                for parent in level:
                    for child in children.get(parent, ()):
                        if child.key in seen:
                            continue
                        seen.add(child.key)
                        # Through the dead as well: their children are still descendants.
                        below.append(child.key)
                        if ended or child.alive:
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
            process = self._table._find(key)
            while process is not None and process.parent is not None:
                if process.parent in seen:
                    break
                seen.add(process.parent)
                process = self._table._find(process.parent)
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
