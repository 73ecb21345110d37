"""From records of the ring to events: the one loop that every event goes through."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from linnix_core import ProcessEvent, Record, start_time_ns
from linnix_plugin_ebpf import wire
from linnix_plugin_ebpf.cgroups import CgroupPaths
from linnix_plugin_ebpf.wire import CGROUP, EXEC, EXIT, FORK

__all__ = ["Decoder", "boot_offset_ns", "comm_of"]

#: Names and paths that are remembered decoded; there are few, again and again.
_MAX_TEXTS = 4096

_EVENT_BYTES = wire.EVENT.size
_EXEC_BYTES = _EVENT_BYTES + wire.EXEC_PART.size
_CUT = wire.ARGS_CUT | wire.ARGS_UNREADABLE | wire.EXE_CUT | wire.CWD_CUT


def boot_offset_ns() -> int:
    """What to add to a time of CLOCK_BOOTTIME to get one since the epoch."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def comm_of(raw: bytes) -> str:
    """The name of a process from the kernel's 16 bytes."""
    return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")


class Decoder:
    """Makes events of records; keeps who is alive, as the ring tells it.

    ``alive`` maps each pid to the start time of its process, exact to the nanosecond.
    ``unidentified`` counts victims of the OOM killer of which the kernel told the pid only,
    and that had not been heard of.
    """

    def __init__(self, cgroups: CgroupPaths) -> None:
        self._cgroups = cgroups
        self._comms: dict[bytes, str] = {}
        self._texts: dict[bytes, str] = {}
        self.alive: dict[int, int] = {}
        self.unidentified = 0

    def decode(self, data: Any, offsets: Iterable[int], offset_ns: int) -> list[Record]:
        """The events at these places of the ring, in their order.

        ``offset_ns`` is that of `boot_offset_ns`. A record that only tells of a cgroup
        makes no event.
        """
        unpack, exit_part = wire.EVENT.unpack_from, wire.EXIT_PART.unpack_from
        comms, paths, alive = self._comms, self._cgroups.paths, self.alive
        start_time, event_bytes, page_bytes = start_time_ns, _EVENT_BYTES, wire.PAGE_BYTES
        parent_raw_ns = parent_start_ns = 0
        events: list[Record] = []
        for offset in offsets:
            (
                time_ns, raw_ns, former_ns, group,
                pid, ppid, uid, gid, comm_bytes, kind, flags, status,
            ) = unpack(data, offset)  # fmt: skip
            comm = comms.get(comm_bytes)
            if comm is None:
                comm = self._new_comm(comm_bytes)
            cgroup = paths.get(group)
            if cgroup is None and kind != CGROUP:
                cgroup = self._cgroups.find(group)
            if former_ns != parent_raw_ns:  # often it is the parent of the event before
                parent_raw_ns, parent_start_ns = former_ns, start_time(former_ns)
            start_ns, ts_ns = start_time(raw_ns), time_ns + offset_ns
            if kind == FORK:
                alive[pid] = raw_ns
                event = ProcessEvent(
                    "fork", pid, start_ns, ppid, parent_start_ns, uid, gid, comm,
                    None, None, None, cgroup, "kernel", False,
                    None, None, None, None, None, None, ts_ns,
                )  # fmt: skip
            elif kind == EXIT:
                cpu_ns, pages = exit_part(data, offset + event_bytes)
                # As wait(2) packs it: bit 7 of the low byte says that core was dumped.
                signal = status & 0x7F
                event = ProcessEvent(
                    "exit", pid, start_ns, ppid, parent_start_ns, uid, gid, comm,
                    None, None, None, cgroup, "kernel", False,
                    None if signal else status >> 8 & 0xFF, signal or None,
                    time_ns - raw_ns, cpu_ns, pages * page_bytes, None, ts_ns,
                )  # fmt: skip
                if alive.get(pid) == raw_ns:
                    del alive[pid]
            elif kind == CGROUP:
                self._new_cgroup(data, offset, group)
                continue
            else:
                event = ProcessEvent(
                    "exec" if kind == EXEC else "oom",
                    pid, start_ns, ppid, parent_start_ns, uid, gid, comm,
                    None, None, None, cgroup, "kernel", bool(flags & _CUT),
                    None, None, None, None, None, None, ts_ns,
                )  # fmt: skip
                if kind == EXEC:
                    alive[pid] = raw_ns
                    self._image(event, data, offset, flags)
                elif not raw_ns and not self._victim(event):
                    self.unidentified += 1
                    continue
            events.append(event)
        return events

    def _path(self, parts: bytes) -> str:
        path = self._texts.get(parts)
        if path is None:
            if len(self._texts) >= _MAX_TEXTS:
                self._texts.clear()
            path = self._texts[parts] = wire.path_of(parts)
        return path

    def _new_comm(self, raw: bytes) -> str:
        if len(self._comms) >= _MAX_TEXTS:
            self._comms.clear()
        comm = self._comms[raw] = comm_of(raw)
        return comm

    def _new_cgroup(self, data: Any, offset: int, cgroup: int) -> None:
        begin = offset + _EVENT_BYTES
        (length,) = wire.CGROUP_PART.unpack_from(data, begin)
        begin += wire.CGROUP_PART.size
        self._cgroups.add(cgroup, bytes(data[begin : begin + length]).rstrip(b"\0"))

    def _image(self, event: ProcessEvent, data: Any, offset: int, flags: int) -> None:
        exe, cwd, args = wire.EXEC_PART.unpack_from(data, offset + _EVENT_BYTES)
        begin = offset + _EXEC_BYTES
        text = bytes(data[begin : begin + exe + cwd + args])
        event.exe = self._path(text[:exe]) if exe else None
        if event.exe is not None and flags & wire.EXE_CUT:
            # Only its end is known, which must not pass for a whole path.
            event.exe = event.exe.removeprefix("/")
        if not flags & wire.CWD_CUT:
            event.cwd = self._path(text[exe : exe + cwd])
        if not flags & wire.ARGS_UNREADABLE:
            event.args = wire.split_args(text[exe + cwd :])

    def _victim(self, event: ProcessEvent) -> bool:
        """Fill in what an old kernel does not tell; whether that process is known."""
        start_ns = self.alive.get(event.pid)
        if start_ns is None:
            return False
        event.start_ns = start_time_ns(start_ns)
        event.ppid = event.parent_start_ns = event.uid = event.gid = event.cgroup = None
        event.comm = ""
        return True
