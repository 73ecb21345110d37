"""Processes as psutil shows them, on every system that it knows."""

from __future__ import annotations

import time

import psutil

from linnix_core import start_time_ns
from linnix_plugin_psutil.reading import MAX_ARGS_BYTES, Image, Reading, attempt

__all__ = ["PortableReader"]

#: The letters of /proc/PID/stat for psutil's words.
_STATES = {
    psutil.STATUS_RUNNING: "R",
    psutil.STATUS_SLEEPING: "S",
    psutil.STATUS_DISK_SLEEP: "D",
    psutil.STATUS_STOPPED: "T",
    psutil.STATUS_TRACING_STOP: "t",
    psutil.STATUS_ZOMBIE: "Z",
    psutil.STATUS_DEAD: "X",
    psutil.STATUS_IDLE: "I",
}


class _Process(psutil.Process):
    """Where psutil is refused the executable, it takes the first argument for it, which can be
    anything; so this one has none."""

    def arguments(self) -> list[str]:
        return super().cmdline()

    def cmdline(self) -> list[str]:
        return []


class PortableReader:
    """Reads processes through psutil.

    psutil tells processes with the same pid apart by a start time that does not move when
    the clock is set, but shows only one that does. So ``start_ns`` is computed when a
    process is first met and kept as long as psutil says that it is the same.
    """

    def __init__(self) -> None:
        self._met: dict[int, tuple[psutil.Process, int]] = {}

    def since_boot_ns(self) -> int:
        """The clock of the wall less the time of the boot, which move together."""
        return round((time.time() - psutil.boot_time()) * 1e9)

    def pids(self) -> list[int]:
        """psutil's list; processes that are no longer on it are forgotten."""
        # macOS shows its kernel as pid 0.
        pids = [pid for pid in psutil.pids() if pid > 0]
        self._met = {pid: self._met[pid] for pid in pids if pid in self._met}
        return pids

    def read(self, pid: int) -> Reading | None:
        """Ask for each field by itself, so that one that is refused does not hide the rest."""
        try:
            process = psutil.Process(pid)
            start_ns = self._start_ns(process)
        except psutil.ZombieProcess:
            raise
        except psutil.NoSuchProcess:
            return None
        with process.oneshot():
            times = attempt(process.cpu_times)
            memory = attempt(process.memory_info)
            status = attempt(process.status)
            return Reading(
                pid=pid,
                start_ns=start_ns,
                ppid=attempt(process.ppid),
                comm=_valid(attempt(process.name) or ""),
                state=None if status is None else _STATES.get(status),
                cpu_ns=None if times is None else round((times.user + times.system) * 1e9),
                rss_bytes=None if memory is None else memory.rss,
                threads=attempt(process.num_threads),
            )

    def _start_ns(self, process: psutil.Process) -> int:
        met = self._met.get(process.pid)
        if met is None or met[0] != process:
            since_boot_s = max(process.create_time() - psutil.boot_time(), 0.0)
            # Seconds since 1970 as a float are exact to a quarter of a microsecond.
            met = process, start_time_ns(round(since_boot_s * 1e6) * 1000)
            self._met[process.pid] = met
        return met[1]

    def describe(self, reading: Reading) -> Image:
        """Ask a new object: psutil remembers the executable of an old one."""
        process = attempt(_Process, reading.pid)
        if process is None:
            return Image()
        args = attempt(process.arguments)
        uids = attempt(process.uids)
        gids = attempt(process.gids)
        truncated = False
        if args is not None:
            text = _valid("\0".join(args))
            truncated = len(text) > MAX_ARGS_BYTES
            args = text[:MAX_ARGS_BYTES].split("\0") if args else []
        return Image(
            exe=_valid(attempt(process.exe) or "") or None,
            args=None if args is None else tuple(args),
            uid=None if uids is None else uids.real,
            gid=None if gids is None else gids.real,
            cwd=_valid(attempt(process.cwd) or "") or None,
            truncated=truncated,
        )

    def io_bytes(self, pid: int) -> tuple[int, int] | None:
        """psutil counts the I/O of a process on Linux and the BSDs, not on macOS."""
        if not hasattr(psutil.Process, "io_counters"):
            return None
        counters = self._met[pid][0].io_counters()
        return counters.read_bytes, counters.write_bytes

    def descriptors(self, pid: int) -> int | None:
        """psutil's ``num_fds``."""
        return self._met[pid][0].num_fds()


def _valid(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
