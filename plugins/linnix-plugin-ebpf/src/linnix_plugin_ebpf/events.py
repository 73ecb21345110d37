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
_EXEC_BYTES = wire.EXEC_PART.size
_CUT = ARGS_CUT | ARGS_UNREADABLE | EXE_CUT | CWD_CUT

#: Bytes of an image up to which it is remembered.
_REMEMBERED_BYTES = 256

_exec_part = wire.EXEC_PART.unpack_from

_T = TypeVar("_T")

#: Executable, arguments and folder.
_Image: TypeAlias = tuple[str | None, tuple[str, ...] | None, str | None]


def boot_offset_ns() -> int:
    """What to add to a time of CLOCK_BOOTTIME to get one since the epoch."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Decoder:
    """Makes events of records; keeps who is alive, as the ring tells it.

    ``alive`` maps each pid to the start time of its process, exact to the nanosecond.
    ``unidentified`` counts victims of the OOM killer of which the kernel told the pid only,
    and that had not been heard of.
    """

    def __init__(self, cgroups: CgroupPaths) -> None:
        self._cgroups = cgroups
        self._names: dict[bytes, str] = {}
        self._images: dict[bytes, _Image] = {}
        self.alive: dict[int, int] = {}
        self.unidentified = 0

    def decode(self, data: Any, offsets: Iterable[int], offset_ns: int) -> list[Record]:
        """The events at these places of the ring, in their order.

        ``offset_ns`` is that of `boot_offset_ns`. A record that only tells of a cgroup
        makes no event.
        """
        unpack, exit_part = wire.EVENT.unpack_from, wire.EXIT_PART.unpack_from
        paths, alive, names = self._cgroups.paths, self.alive, self._names
        event_bytes, page_bytes = _EVENT_BYTES, wire.PAGE_BYTES
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
            cgroup = paths.get(group)
            if cgroup is None:
                cgroup = self._cgroups.find(group)
            if raw_ns != process_ns:
                process_ns, start_ns = raw_ns, start_time_ns(raw_ns)
            if former_ns != parent_ns:
                parent_ns, parent_start_ns = former_ns, start_time_ns(former_ns)
            if kind == FORK:
                alive[pid] = raw_ns
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
            elif kind == EXEC:
                alive[pid] = raw_ns
                exe, args, cwd = self._image(data, offset + event_bytes, flags)
                event = ProcessEvent(
                    "exec", pid, start_ns, ppid, parent_start_ns, uid, gid, comm,
                    exe, args, cwd, cgroup, "kernel", flags & _CUT != 0,
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

    def _image(self, data: Any, begin: int, flags: int) -> _Image:
        """The executable, the arguments and the folder that an exec's record has after its event.

        The same commands come again and again.
        """
        exe_bytes, cwd_bytes, args_bytes = _exec_part(data, begin)
        end = begin + _EXEC_BYTES + exe_bytes + cwd_bytes + args_bytes
        raw = bytes(data[begin:end])
        if flags & _CUT:
            return _read_image(raw, exe_bytes, cwd_bytes, flags)
        image = self._images.get(raw)
        if image is None:
            image = _read_image(raw, exe_bytes, cwd_bytes, flags)
            if len(raw) <= _REMEMBERED_BYTES:
                _remember(self._images, raw, image)
        return image

    def _new_cgroup(self, data: Any, offset: int, cgroup: int) -> None:
        begin = offset + _EVENT_BYTES
        (length,) = wire.CGROUP_PART.unpack_from(data, begin)
        begin += wire.CGROUP_PART.size
        self._cgroups.add(cgroup, bytes(data[begin : begin + length]).rstrip(b"\0"))

    def _victim(self, event: ProcessEvent) -> bool:
        """Fill in what an old kernel does not tell; whether that process is known."""
        start_ns = self.alive.get(event.pid)
        if start_ns is None:
            return False
        event.start_ns = start_time_ns(start_ns)
        event.ppid = event.parent_start_ns = event.uid = event.gid = event.cgroup = None
        event.comm = ""
        return True


def _remember(known: dict[bytes, _T], raw: bytes, found: _T) -> _T:
    if len(known) >= wire.REMEMBERED:
        known.clear()
    known[raw] = found
    return found


def _read_image(raw: bytes, exe_bytes: int, cwd_bytes: int, flags: int) -> _Image:
    cwd_begin = _EXEC_BYTES + exe_bytes
    args_begin = cwd_begin + cwd_bytes
    exe = path_of(raw[_EXEC_BYTES:cwd_begin]) if exe_bytes else None
    if exe is not None and flags & EXE_CUT:
        # Only its end is known, which must not pass for a whole path.
        exe = exe.removeprefix("/")
    args = None if flags & ARGS_UNREADABLE else split_args(raw[args_begin:])
    return exe, args, None if flags & CWD_CUT else path_of(raw[cwd_begin:args_begin])
