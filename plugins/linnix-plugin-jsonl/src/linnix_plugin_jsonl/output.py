"""What the handler writes to, and how it learns that lines did not get there."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Protocol

__all__ = ["DISK_FULL", "NotWritten", "Output", "because"]

#: Errors that go away when somebody makes room.
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class NotWritten(Exception):
    """Some lines are missing: the first ``written`` are whole in the output, no other is."""

    def __init__(self, written: int, why: str, message: str) -> None:
        super().__init__(message)
        self.written = written
        self.why = why


class Output(Protocol):
    """Takes lines, each of them whole or not at all."""

    bytes_written: int
    rotations: int

    @property
    def troubles(self) -> tuple[str, ...]:
        """What does not work although lines are being written, in words."""
        ...

    def open(self) -> None:
        """Get ready. Raises `PluginUnavailable`, or ``OSError`` for what may pass."""
        ...

    def append(self, lines: Sequence[bytes]) -> None:
        """Write the lines in their order, ending each. Raises `NotWritten`."""
        ...

    def sync(self) -> None:
        """Force what was written to disk, as far as the policy says so."""
        ...

    def close(self) -> None:
        """Sync and let go; doing it twice is not an error."""
        ...


def because(error: OSError, name: str, written: int = 0) -> NotWritten:
    """What a failed write stands for: a word for the counters and a sentence for people."""
    code = error.errno or 0
    why = "disk_full" if code in DISK_FULL else "io_error"
    if code == errno.EFBIG:
        why = "file_limit"
    return NotWritten(
        written, why, f"cannot write to {name}: {error.strerror or os.strerror(code)}"
    )
