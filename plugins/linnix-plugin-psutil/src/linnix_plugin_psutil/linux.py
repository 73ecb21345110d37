"""Processes as Linux shows them in /proc: one small read per process and poll.

The layout of the files is described in proc(5). ``start_ns`` is field 22 of stat, which no
change of the clock moves.
"""

from __future__ import annotations

import os
import re
import time

from linnix_core import start_time_ns
from linnix_plugin_psutil.reading import MAX_ARGS_BYTES, Image, Reading

__all__ = ["LinuxReader", "cgroup_path", "parse_stat"]

# Flags of the kernel's include/linux/sched.h, field 9 of stat.
PF_FORKNOEXEC = 0x0000_0040
PF_KTHREAD = 0x0020_0000

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_IDS = re.compile(rb"\n[UG]id:\t(\d+)")
_DELETED = b" (deleted)"


class LinuxReader:
    """Reads ``/proc/PID/stat`` of every process, and the rest only of those that changed.

    ``controller`` is that of `cgroup_path`.
    """

    def __init__(self, proc: str = "/proc", *, controller: str | None = None) -> None:
        self._proc = proc
        self._controller = controller

    def since_boot_ns(self) -> int:
        """The time that field 22 of stat counts in: it goes on while the machine sleeps."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def pids(self) -> list[int]:
        """The numbers among the names in /proc."""
        return [int(name) for name in os.listdir(self._proc) if name.isdecimal()]  # noqa: PTH208

    def read(self, pid: int) -> Reading | None:
        """One read of stat."""
        try:
            stat = _read(f"{self._proc}/{pid}/stat")
        except (FileNotFoundError, ProcessLookupError):
            return None
        return parse_stat(pid, stat)

    def describe(self, reading: Reading) -> Image:
        """Reads cmdline, exe, cwd, status and cgroup."""
        folder = f"{self._proc}/{reading.pid}"
        args: tuple[str, ...] | None = ()
        exe = cwd = None
        truncated = False
        if not reading.kernel:
            args, truncated = _args(f"{folder}/cmdline")
            exe = _link(f"{folder}/exe")
            cwd = _link(f"{folder}/cwd")
            if not args and reading.state == "Z":
                args = None  # a zombie had some, and shows none
        ids = _IDS.findall(_read_or_nothing(f"{folder}/status"))
        uid, gid = map(int, ids) if len(ids) == 2 else (None, None)
        groups = _text(_read_or_nothing(f"{folder}/cgroup", 65_536))
        cgroup = cgroup_path(groups, self._controller)
        return Image(exe, args, uid, gid, cwd, cgroup, truncated)

    def io_bytes(self, pid: int) -> tuple[int, int] | None:
        """``read_bytes`` and ``write_bytes`` of io: what reached the storage layer."""
        fields = _read(f"{self._proc}/{pid}/io").split()
        return int(fields[9]), int(fields[11])

    def descriptors(self, pid: int) -> int | None:
        """Counts the entries of fd."""
        return len(os.listdir(f"{self._proc}/{pid}/fd"))  # noqa: PTH208


def parse_stat(pid: int, stat: bytes) -> Reading:
    """A line of ``/proc/PID/stat``; ``ValueError`` or ``IndexError`` if it is not whole.

    The name stands in parentheses and may hold any byte but NUL, parentheses too, so the
    fields begin after the last one. They are numbered from 0 here and from 3 in proc(5).
    """
    end = stat.rindex(b")")
    fields = stat[end + 2 :].split()
    flags = int(fields[6])
    return Reading(
        pid=pid,
        start_ns=start_time_ns(int(fields[19]) * _TICK_NS),
        ppid=int(fields[1]),
        comm=_text(stat[stat.index(b"(") + 1 : end]),
        state=fields[0].decode("ascii"),
        cpu_ns=(int(fields[11]) + int(fields[12])) * _TICK_NS,
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
        threads=int(fields[17]),
        execed=not flags & PF_FORKNOEXEC,
        stack=int(fields[25]),
        kernel=bool(flags & PF_KTHREAD),
    )


def cgroup_path(text: str, controller: str | None = None) -> str | None:
    """The cgroup in the text of ``/proc/PID/cgroup`` (cgroups(7)).

    Version 2 has one line, ``0::/path``. Beside controllers of version 1 it is often the
    root and says nothing; then it is that of this ``controller``, or else the longest path.

    >>> cgroup_path("4:memory:/job/7\\n1:cpu:/\\n0::/\\n")
    '/job/7'
    >>> cgroup_path("4:memory:/job/7\\n1:cpu,cpuacct:/\\n0::/\\n", "cpu")
    '/'
    """
    unified, others, chosen = None, [], None
    for line in text.split("\n"):  # a name may hold every other kind of line break
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0":
            unified = path
        elif path:
            others.append(path)
            if controller in names.split(","):
                chosen = path
    if others and unified in {None, "", "/"}:
        return chosen or max(others, key=len)
    return unified or None


def _args(path: str) -> tuple[tuple[str, ...] | None, bool]:
    try:
        text = _read(path, MAX_ARGS_BYTES + 1)
    except OSError:
        return None, False
    truncated = len(text) > MAX_ARGS_BYTES
    # A program that rewrote its arguments may have left out the NUL at the end.
    text = text[:MAX_ARGS_BYTES].removesuffix(b"\0")
    return tuple(map(_text, text.split(b"\0"))) if text else (), truncated


def _link(path: str) -> str | None:
    try:
        target = os.readlink(path.encode())  # noqa: PTH115 - pathlib knows no paths that are bytes
    except OSError:
        return None
    if target.endswith(_DELETED) and not os.path.lexists(target):
        target = target.removesuffix(_DELETED)
    return _text(target)


def _read_or_nothing(path: str, size: int = 4096) -> bytes:
    try:
        return _read(path, size)
    except OSError:
        return b""


def _read(path: str, size: int = 4096) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
