"""What the programs in the kernel write: ``struct event`` of ``linnix.bcc.c``."""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["ARGS_CUT", "ARGS_UNREADABLE", "COUNTERS", "EXEC", "EXIT", "FORK", "OOM", "Message"]

FORK, EXEC, EXIT, OOM = 1, 2, 3, 4
ARGS_CUT, ARGS_UNREADABLE = 1, 2

#: The counters of one processor: emitted and, of these, lost because the ring was full.
COUNTERS = struct.Struct("=QQ48x")

_HEADER = struct.Struct("=5Q5I4H16s4x")


class Message(NamedTuple):
    """One event as the kernel tells it. Times are of CLOCK_BOOTTIME; 0 is *not known*."""

    time_ns: int
    start_ns: int
    cgroup: int
    cpu_ns: int
    max_rss_pages: int
    pid: int
    ppid: int
    uid: int
    gid: int
    exit_status: int
    kind: int
    flags: int
    args_bytes: int
    exe_bytes: int
    name: bytes
    text: bytes = b""

    @classmethod
    def decode(cls, raw: bytes) -> Message:
        """From the bytes of one record of the ring."""
        return cls._make((*_HEADER.unpack_from(raw), raw[_HEADER.size :]))

    @property
    def comm(self) -> str:
        """The name of the task."""
        return _text(self.name.partition(b"\0")[0])

    @property
    def args(self) -> tuple[str, ...] | None:
        """The arguments; None if nothing of them could be read."""
        text = self.text[: self.args_bytes]
        if not text:
            return None if self.flags & ARGS_UNREADABLE else ()
        return tuple(map(_text, text.removesuffix(b"\0").split(b"\0")))

    @property
    def args_cut(self) -> bool:
        """Whether there were more of them."""
        return bool(self.flags & ARGS_CUT or (self.flags & ARGS_UNREADABLE and self.args_bytes))

    @property
    def exe(self) -> str | None:
        """The path that was executed."""
        path = self.text[self.args_bytes : self.args_bytes + self.exe_bytes]
        return _text(path.removesuffix(b"\0")) or None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
