"""The layouts of ``bpf/records.h``, and what they mean in Linnix's own words."""

from __future__ import annotations

import functools
import os
import struct
from typing import NamedTuple

__all__ = [
    "CGROUP",
    "EXEC",
    "EXIT",
    "FORK",
    "OOM",
    "Thread",
    "comm_of",
    "path_of",
    "split_args",
    "state_of",
]

FORK, EXEC, EXIT, OOM, CGROUP = 1, 2, 3, 4, 5

ARGS_CUT, ARGS_UNREADABLE, EXE_CUT, CWD_CUT = 1, 2, 4, 8

CGROUP_V1 = 1 << 63

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

#: Names and paths that are remembered decoded: there are few, again and again.
REMEMBERED = 4096

#: ``struct event``: time, start, start of the parent, cgroup; pid, ppid, uid, gid; comm;
#: kind, flags, exit status.
EVENT = struct.Struct("=4Q4I16sHHI")

#: What follows it in ``struct exit_event``: CPU time, largest resident set.
EXIT_PART = struct.Struct("=2Q")

#: What follows it in ``struct exec_event``: bytes of exe, of cwd, of arguments.
EXEC_PART = struct.Struct("=HHI")

#: What follows it in ``struct cgroup_event``: bytes of the path.
CGROUP_PART = struct.Struct("=Q")

#: ``struct thread``: what each thread has; pid and tid; what only a leader has.
THREAD_USE = struct.Struct("=7Q4q")
THREAD_LEADER = struct.Struct("=4IiHH16s")
THREAD = struct.Struct("=7Q4q6IiHH16s")

#: The same in three parts, of which only pid and tid are looked at.
THREAD_PARTS = struct.Struct(f"={THREAD_USE.size}s2I{THREAD_LEADER.size}s")

#: ``struct counters``, one for each processor: words, and the index of each that is in use.
COUNTERS_BYTES = 64

#: ``struct control``.
CONTROL = struct.Struct("=IiiIQQ")

# The kernel's TASK_REPORT bits in the order of fs/proc/array.c.
_STATES = "RSDTtXZP"
_TASK_IDLE = 0x402
_TASK_FROZEN_OR_RTLOCK_WAIT = 0x9000


class Thread(NamedTuple):
    """``struct thread``: one thread of a snapshot."""

    start_ns: int
    parent_start_ns: int
    cgroup: int
    cpu_ns: int
    read_bytes: int
    write_bytes: int
    delay_ns: int
    rss_pages: int
    anon_pages: int
    shmem_pages: int
    read_offset: int
    pid: int
    tid: int
    ppid: int
    uid: int
    gid: int
    threads: int
    fds: int
    state: int
    kernel: int
    comm: bytes


@functools.lru_cache(maxsize=REMEMBERED)
def comm_of(raw: bytes) -> str:
    """The name of a process from the kernel's 16 bytes."""
    return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def path_of(parts: bytes) -> str:
    """A path from its parts as they were walked, the last one first.

    >>> path_of(b"sh\\0bin\\0usr\\0"), path_of(b"")
    ('/usr/bin/sh', '/')
    """
    if not parts:
        return "/"
    names = parts.split(b"\0")
    names.reverse()  # the empty one that the last NUL leaves becomes the root
    return b"/".join(names).decode("utf-8", "backslashreplace")


def split_args(text: bytes) -> tuple[str, ...]:
    """Arguments as they stand in memory, each ended by NUL.

    >>> split_args(b"echo\\0a b\\0\\0")
    ('echo', 'a b', '')
    """
    if not text:
        return ()
    return tuple(text.removesuffix(b"\0").decode("utf-8", "backslashreplace").split("\0"))


@functools.lru_cache(maxsize=REMEMBERED)
def state_of(state: int) -> str:
    """The letter of ``/proc/PID/stat`` for the state bits of a task.

    >>> state_of(0), state_of(1), state_of(0x402), state_of(0x20)
    ('R', 'S', 'I', 'Z')
    """
    if state & _TASK_IDLE == _TASK_IDLE:
        return "I"
    if state & _TASK_FROZEN_OR_RTLOCK_WAIT:
        return "D"
    return _STATES[(state & 0x7F).bit_length()]
