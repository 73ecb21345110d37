"""What a poll reads of one process, and what every reader of processes can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ParamSpec, Protocol, TypeVar

import attrs
import psutil

__all__ = ["MAX_ARGS_BYTES", "READ_ERRORS", "Image", "Reader", "Reading", "attempt"]

#: Arguments are read up to here. It is several times what the core keeps, so that a secret
#: is still whole when the core looks for it.
MAX_ARGS_BYTES = 16_384

#: What reading a process can raise: it vanished, it is not ours, its files are half written.
READ_ERRORS = (psutil.Error, OSError, ValueError, LookupError, RuntimeError)

P = ParamSpec("P")
T = TypeVar("T")


@attrs.define(eq=False)
class Reading:
    """One look at one process: what may differ from poll to poll. None is *not known*.

    ``cpu_ns`` is user plus system time since its start. ``execed`` tells whether it has
    replaced the image that it was forked with, and ``stack`` is the address where the
    stack of its image begins (0: not known); only Linux shows these two.
    """

    pid: int
    start_ns: int
    ppid: int | None = None
    comm: str = ""
    state: str | None = None
    cpu_ns: int | None = None
    rss_bytes: int | None = None
    threads: int | None = None
    execed: bool | None = None
    stack: int = 0
    kernel: bool = False


@attrs.frozen
class Image:
    """What a process runs and as whom: read when it is new and when its image changes."""

    exe: str | None = None
    args: tuple[str, ...] | None = None
    uid: int | None = None
    gid: int | None = None
    cwd: str | None = None
    cgroup: str | None = None
    truncated: bool = False


class Reader(Protocol):
    """A way to read processes; used from one thread."""

    def since_boot_ns(self) -> int:
        """The time now on the clock of ``Reading.start_ns``; it tells how long a process lived."""
        ...

    def pids(self) -> Iterable[int]:
        """Every process that exists now; called once per poll, before all of them are read."""
        ...

    def read(self, pid: int) -> Reading | None:
        """Look at one process. None means that it is gone; raises one of `READ_ERRORS`."""
        ...

    def describe(self, reading: Reading) -> Image:
        """The image of a process that was just read; fields that cannot be read are None."""
        ...

    def io_bytes(self, pid: int) -> tuple[int, int] | None:
        """Bytes read from and written to storage since its start; raises `READ_ERRORS`."""
        ...

    def descriptors(self, pid: int) -> int | None:
        """How many file descriptors it has open; raises one of `READ_ERRORS`."""
        ...


def attempt(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What ``function`` returns, or None where it cannot be read."""
    try:
        return function(*args, **kwargs)
    except READ_ERRORS:
        return None
