"""From records of the ring to events: the one loop that every event goes through."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TypeAlias, TypeVar

from linnix_core import ProcessEvent, Record, start_time_ns
from linnix_plugin_ebpf import wire
from linnix_plugin_ebpf.cgroups import CgroupPaths
from linnix_plugin_ebpf.wire import (
    ARGS_CUT,
    ARGS_UNREADABLE,
    CGROUP,
    CWD_CUT,
    EXE_CUT,
    EXEC,
    EXIT,
    FORK,
    comm_of,
    path_of,
    split_args,
)

__all__ = ["Decoder", "boot_offset_ns"]

_EVENT_BYTES = wire.EVENT.size
_EXEC_BYTES = _EVENT_BYTES + wire.EXEC_PART.size
_CUT = ARGS_CUT | ARGS_UNREADABLE | EXE_CUT | CWD_CUT

#: Bytes of paths and of arguments up to which they are remembered.
_REMEMBERED_BYTES = 256

_K = TypeVar("_K")
_T = TypeVar("_T")

#: A pid may be used again within the tick that a start time is known to.
_TICK_NS = 10_000_000

#: Start times that are remembered as told later than they were.
_MOVED = 4096

#: Executable and folder.
_Paths: TypeAlias = tuple[str | None, str | None]


def boot_offset_ns() -> int:
    """What to add to a time of CLOCK_BOOTTIME to get one since the epoch."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Decoder:
    """Makes events of records; keeps who is alive, as the ring tells it.

    ``alive`` maps each pid to the start time of its process, exact to the nanosecond;
    `start_of` tells what that is in records.
    ``unidentified`` counts victims of the OOM killer of which the kernel told the pid only,
    and that had not been heard of.
    """

    def __init__(self, cgroups: CgroupPaths) -> None:
        self._cgroups = cgroups
        self._names: dict[bytes, str] = {}
        # The same programs are run in the same folders, and the same commands come again.
        self._paths: dict[tuple[int, bytes], _Paths] = {}
        self._args: dict[bytes, tuple[str, ...]] = {}
        self.alive: dict[int, int] = {}
        #: By the exact time, what is told as the start of who began in the tick in which another
        #: of the same pid had begun and ended: the next tick, so that they are not taken for one.
        self.moved: dict[int, int] = {}
        #: Start of the last that ended in the tick in which it began, by pid.
        self._brief: dict[int, int] = {}
        self.unidentified = 0

    def decode(self, data: Any, offsets: Iterable[int], offset_ns: int) -> list[Record]:
        """The events at these places of the ring, in their order.

        ``data`` is a map or bytes: what is cut out of it is a copy. ``offset_ns`` is that of
        `boot_offset_ns`. A record that only tells of a cgroup makes no event.
        """
        unpack, exit_part = wire.EVENT.unpack_from, wire.EXIT_PART.unpack_from
        exec_part, known_paths, known_args = wire.EXEC_PART.unpack_from, self._paths, self._args
        cgroups, alive, names = self._cgroups.paths, self.alive, self._names
        event_bytes, page_bytes = _EVENT_BYTES, wire.PAGE_BYTES
        brief, moved = self._brief, self.moved
        if len(brief) > wire.REMEMBERED:
            # Only those of the last tick matter.
            last_ns = max(brief.values()) - _TICK_NS
            brief = self._brief = {pid: ns for pid, ns in brief.items() if ns >= last_ns}
        # Often the process or the parent is that of the event before.
        process_ns = start_ns = parent_ns = parent_start_ns = 0
        events: list[Record] = []
        for offset in offsets:
            (
                time_ns, raw_ns, former_ns, group,
                pid, ppid, uid, gid, comm_bytes, kind, flags, status,
            ) = unpack(data, offset)  # fmt: skip
            if kind == CGROUP:
                self._new_cgroup(data, offset, group)
                continue
            comm = names.get(comm_bytes)
            if comm is None:
                comm = _remember(names, comm_bytes, comm_of(comm_bytes))
            cgroup = cgroups.get(group)
            if cgroup is None:
                cgroup = self._cgroups.find(group)
            if raw_ns != process_ns:
                process_ns, start_ns = raw_ns, start_time_ns(raw_ns)
                if moved:
                    start_ns = moved.get(raw_ns, start_ns)
            if former_ns != parent_ns:
                parent_ns, parent_start_ns = former_ns, start_time_ns(former_ns)
                if moved:
                    parent_start_ns = moved.get(former_ns, parent_start_ns)
            if kind == FORK:
                alive[pid] = raw_ns
                if moved or pid in brief:
                    start_ns = self._apart(pid, raw_ns, start_ns, parent_start_ns)
                event = ProcessEvent(
                    "fork", pid, start_ns, ppid, parent_start_ns, uid, gid, comm,
                    None, None, None, cgroup, "kernel", False,
                    None, None, None, None, None, None, time_ns + offset_ns,
                )  # fmt: skip
            elif kind == EXIT:
                cpu_ns, pages = exit_part(data, offset + event_bytes)
                # As wait(2) packs it: bit 7 of the low byte says that core was dumped.
                signal = status & 0x7F
                event = ProcessEvent(
                    "exit", pid, start_ns, ppid, parent_start_ns, uid, gid, comm,
                    None, None, None, cgroup, "kernel", False,
                    None if signal else status >> 8 & 0xFF, signal or None,
                    time_ns - raw_ns, cpu_ns, pages * page_bytes, None, time_ns + offset_ns,
                )  # fmt: skip
                if alive.get(pid) == raw_ns:
                    del alive[pid]
                if time_ns - start_ns < _TICK_NS:
                    brief[pid] = start_ns
            elif kind == EXEC:
                alive[pid] = raw_ns
                exe_bytes, cwd_bytes, args_bytes = exec_part(data, offset + event_bytes)
                begin = offset + _EXEC_BYTES
                end = begin + exe_bytes + cwd_bytes
                # The bytes of both paths alone do not tell where the second begins.
                walked = exe_bytes, data[begin:end]
                exe, cwd = known_paths.get(walked) or self._read_paths(walked)
                said = data[end : end + args_bytes]
                args: tuple[str, ...] | None = known_args.get(said) or self._read_args(said)
                cut = flags & _CUT
                if cut:
                    exe, args, cwd = _without_cut(exe, args, cwd, flags)
                event = ProcessEvent(
                    "exec", pid, start_ns, ppid, parent_start_ns, uid, gid, comm,
                    exe, args, cwd, cgroup, "kernel", cut != 0,
                    None, None, None, None, None, None, time_ns + offset_ns,
                )  # fmt: skip
            else:
                event = ProcessEvent(
                    "oom", pid, start_ns, ppid, parent_start_ns, uid, gid, comm, cgroup=cgroup,
                    ts_ns=time_ns + offset_ns,
                )  # fmt: skip
                if not raw_ns and not self._victim(event):
                    self.unidentified += 1
                    continue
            events.append(event)
        return events

    def start_of(self, exact_ns: int) -> int:
        """The ``start_ns`` in records of a process, by its exact start time."""
        return self.moved.get(exact_ns) or start_time_ns(exact_ns)

    def _apart(self, pid: int, raw_ns: int, start_ns: int, parent_start_ns: int) -> int:
        """A start by which a process is no other, and not older than its parent."""
        earliest = max(self._brief.get(pid, -_TICK_NS) + _TICK_NS, parent_start_ns)
        if start_ns >= earliest:
            return start_ns
        if len(self.moved) >= _MOVED:
            del self.moved[next(iter(self.moved))]
        self.moved[raw_ns] = earliest
        return earliest

    def _read_paths(self, walked: tuple[int, bytes]) -> _Paths:
        exe_bytes, raw = walked
        exe = path_of(raw[:exe_bytes]) if exe_bytes else None
        paths = exe, path_of(raw[exe_bytes:])
        if len(raw) > _REMEMBERED_BYTES:
            return paths
        return _remember(self._paths, walked, paths)

    def _read_args(self, raw: bytes) -> tuple[str, ...]:
        args = split_args(raw)
        return args if len(raw) > _REMEMBERED_BYTES else _remember(self._args, raw, args)

    def _new_cgroup(self, data: Any, offset: int, cgroup: int) -> None:
        begin = offset + _EVENT_BYTES
        (length,) = wire.CGROUP_PART.unpack_from(data, begin)
        begin += wire.CGROUP_PART.size
        self._cgroups.add(cgroup, data[begin : begin + length].rstrip(b"\0"))

    def _victim(self, event: ProcessEvent) -> bool:
        """Fill in what an old kernel does not tell; whether that process is known."""
        start_ns = self.alive.get(event.pid)
        if start_ns is None:
            return False
        event.start_ns = start_time_ns(start_ns)
        event.ppid = event.parent_start_ns = event.uid = event.gid = event.cgroup = None
        event.comm = ""
        return True


def _remember(known: dict[_K, _T], raw: _K, found: _T) -> _T:
    if len(known) >= wire.REMEMBERED:
        known.clear()
    known[raw] = found
    return found


def _without_cut(
    exe: str | None, args: tuple[str, ...] | None, cwd: str | None, flags: int
) -> tuple[str | None, tuple[str, ...] | None, str | None]:
    """The same without what the programs could not read."""
    if exe is not None and flags & EXE_CUT:
        # Only its end is known, which must not pass for a whole path.
        exe = exe.removeprefix("/")
    return exe, None if flags & ARGS_UNREADABLE else args, None if flags & CWD_CUT else cwd
