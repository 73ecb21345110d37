"""Who is alive after a sequence of events: what a moment of the past is made of."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeAlias

from linnix_core import Process, ProcessEvent, ProcessKey, decode, encode

__all__ = ["Living", "as_seen"]

#: boot_id, pid, start_ns: equal to a `ProcessKey`, and ten times cheaper to make.
_Key: TypeAlias = tuple[str, int, int]

MAX_LIVING = 131_072

#: Those that ended are remembered for a while, because records overtake each other: a fork
#: that comes after its exit must not bring anyone back to life.
MAX_ENDED = 8_192
ENDED_NS = 5 * 10**9

#: Events come nearly in order; one that is older than this shows that the clock was set back.
CLOCK_SET_BACK_NS = 60 * 10**9


class Living:
    """The processes that are alive after the events that were applied, in their order.

    The same events make the same state, whether from the beginning or from a snapshot
    on. Memory is bounded: of more than `MAX_LIVING` processes the oldest go.

    >>> living = Living()
    >>> living.apply(ProcessEvent("fork", pid=7, start_ns=0, comm="sh", ts_ns=1))
    >>> [process.comm for process in living]
    ['sh']
    """

    def __init__(self) -> None:
        self._processes: dict[_Key, Process] = {}
        self._by_pid: dict[int, _Key] = {}
        self._ended: OrderedDict[_Key, tuple[int, str | None]] = OrderedDict()
        #: The latest time of an event that was applied, since the clock was set back.
        self.latest_ns = 0

    def __len__(self) -> int:
        return len(self._processes)

    def __iter__(self) -> Iterator[Process]:
        """Copies, oldest first."""
        for process in self._processes.values():
            copied = copy.copy(process)
            copied.key = ProcessKey(*process.key)
            copied.parent = None if process.parent is None else ProcessKey(*process.parent)
            yield copied

    def parent_of(self, key: _Key) -> _Key | None:
        """Who forked a living process."""
        process = self._processes.get(key)
        return None if process is None else process.parent

    def exe_of(self, key: _Key | None) -> str | None:
        """The executable of a process that lives or ended lately, where it is known."""
        if key is None:
            return None
        process = self._processes.get(key)
        if process is not None:
            return process.exe
        ended = self._ended.get(key)
        return None if ended is None else ended[1]

    def apply(self, event: ProcessEvent) -> None:
        """Take in one event."""
        ts_ns = event.ts_ns
        if ts_ns > self.latest_ns or ts_ns < self.latest_ns - CLOCK_SET_BACK_NS:
            self.latest_ns = ts_ns
        key = (event.boot_id, event.pid, event.start_ns)
        process = self._processes.get(key)
        if event.kind == "exit":
            self._end(key, event.exe if process is None else process.exe, event.ts_ns)
        elif process is None:
            if key not in self._ended:
                self._begin(key, event)
        elif event.kind == "exec":
            _replace_image(process, event)
        else:
            _fill(process, event)

    def _begin(self, key: _Key, event: ProcessEvent) -> None:
        former = self._by_pid.get(event.pid)
        if former is not None:
            if former[0] == key[0] and former[2] > key[2]:
                return  # its pid has had another owner since
            self._end(former, self._processes[former].exe, event.ts_ns)
        parent_key: Any = _parent_key(event)
        # In here a key is a plain tuple; whoever asks gets copies with ProcessKeys.
        owned: Any = key
        process = Process(
            owned,
            parent_key,
            event.comm,
            event.exe,
            event.args,
            event.uid,
            event.gid,
            event.cwd,
            event.cgroup,
            event.labels,
            event.ts_ns,
        )
        if event.kind == "fork" and parent_key is not None:
            parent = self._processes.get(parent_key)
            if parent is not None:
                # A fork copies its parent; what the event did not say is as in the parent.
                _complete(process, parent)
        self._processes[key] = process
        self._by_pid[event.pid] = key
        if len(self._processes) > MAX_LIVING:
            # Several at once: finding the first of a dictionary takes as long as entries
            # were deleted before it.
            for oldest in list(islice(self._processes, 1 + MAX_LIVING // 64)):
                self._remove(oldest)

    def _remove(self, key: _Key) -> None:
        if self._processes.pop(key, None) is not None:
            del self._by_pid[key[1]]

    def _end(self, key: _Key, exe: str | None, ts_ns: int) -> None:
        self._remove(key)
        ended = self._ended
        ended[key] = (ts_ns, exe)
        ended.move_to_end(key)
        forgotten_ns = self.latest_ns - ENDED_NS
        while len(ended) > MAX_ENDED or next(iter(ended.values()))[0] < forgotten_ns:
            ended.popitem(last=False)
            if not ended:
                return

    # --- snapshots --------------------------------------------------------------------

    def snapshot(self) -> list[bytes]:
        """Lines from which `restored` makes the same state again."""
        ended = [(*key, ts_ns) for key, (ts_ns, _) in self._ended.items()]
        head = {"latest_ns": self.latest_ns, "ended": ended}
        return [json.dumps(head).encode(), *map(encode, map(as_seen, self))]

    @classmethod
    def restored(cls, lines: Iterable[bytes]) -> Living:
        """The state of a snapshot. Raises ``ValueError`` where it is none."""
        living = cls()
        head, *processes = lines
        document = json.loads(head)
        for line in processes:
            event = decode(line)
            if isinstance(event, ProcessEvent):
                living.apply(event)
        living.latest_ns = document["latest_ns"]
        for boot_id, pid, start_ns, ts_ns in document["ended"]:
            living._ended[boot_id, pid, start_ns] = (ts_ns, None)
        return living


def _parent_key(event: ProcessEvent) -> _Key | None:
    if event.ppid is None or event.parent_start_ns is None:
        return None
    return (event.boot_id, event.ppid, event.parent_start_ns)


def _complete(process: Process, source: Process | ProcessEvent) -> None:
    """Take over what is not known yet."""
    if not process.comm:
        process.comm = source.comm
    if process.exe is None:
        process.exe = source.exe
    if process.args is None:
        process.args = source.args
    if process.uid is None:
        process.uid = source.uid
    if process.gid is None:
        process.gid = source.gid
    if process.cwd is None:
        process.cwd = source.cwd
    if process.cgroup is None:
        process.cgroup = source.cgroup


def _fill(process: Process, event: ProcessEvent) -> None:
    _complete(process, event)
    _adopt(process, event)
    if process.labels is None:
        process.labels = event.labels


def _replace_image(process: Process, event: ProcessEvent) -> None:
    """An exec makes the image new: of what it does not mention, exe and args are unknown."""
    _adopt(process, event)
    process.comm = event.comm or process.comm
    process.exe, process.args = event.exe, event.args
    if event.uid is not None:
        process.uid = event.uid
    if event.gid is not None:
        process.gid = event.gid
    if event.cwd is not None:
        process.cwd = event.cwd
    if event.cgroup is not None:
        process.cgroup = event.cgroup
    if event.labels is not None:
        process.labels = event.labels


def _adopt(process: Process, event: ProcessEvent) -> None:
    if process.parent is None:
        parent: Any = _parent_key(event)
        process.parent = parent


def as_seen(process: Process) -> ProcessEvent:
    """The event that tells of a process which is already there."""
    known: dict[str, Any] = {
        name: getattr(process, name)
        for name in ("comm", "exe", "args", "uid", "gid", "cwd", "cgroup", "labels")
    }
    boot_id, pid, start_ns = process.key
    parent = process.parent
    return ProcessEvent(
        "seen",
        pid,
        start_ns,
        ppid=None if parent is None else parent.pid,
        parent_start_ns=None if parent is None else parent.start_ns,
        ts_ns=process.first_ns,
        boot_id=boot_id,
        **known,
    )
