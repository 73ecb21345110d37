"""Which process it was, and how to end that one and never a stranger.

A pid is used again, a pid with the moment of its start and the boot is not. A pidfd keeps
pointing to one process: what is checked through it cannot become another one before the
signal arrives.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

TERM_S = 5.0
KILL_S = 5.0


def start_identity(pid: int) -> str | None:
    """Boot and start of the process that has this pid; None if none runs under it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything; after it come field 3 (state) and so on.
    fields = stat.rpartition(b")")[2].split()
    if fields[0] in {b"Z", b"X"}:
        return None
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot_id}/{int(fields[19])}"


def can_hold_processes() -> bool:
    """Whether this kernel has pidfds, and lets us use them."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def end(pid: int, identity: str) -> None:
    """End the process and wait until it is gone; nothing happens if it is gone already.

    Raises `TimeoutError` for a process that outlives SIGKILL, and `PermissionError`.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if start_identity(pid) != identity:
            return
        for number, seconds in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                return
            if _ended(pidfd, seconds):
                return
    finally:
        os.close(pidfd)
    raise TimeoutError(f"process {pid} does not end")


def _ended(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
