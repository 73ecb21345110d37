"""Standard output as a place for whole lines, which may stop having a reader."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterable
from typing import TextIO

__all__ = ["LineWriter"]


class LineWriter:
    """Writes and flushes whole lines, from any thread; falls silent once that fails."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        #: Why nothing is written any more, or nothing.
        self.problem = ""
        self._encoding = stream.encoding or "utf-8"
        self._lock = threading.Lock()

    def write(self, lines: Iterable[str], *, wait_s: float = -1) -> None:
        """Write each line with a line break after it.

        Waits ``wait_s`` seconds at most for another thread that writes; -1 is for ever.
        """
        text = "".join(f"{line}\n" for line in lines)
        if not text or self.problem or not self._lock.acquire(timeout=wait_s):
            return
        try:
            # A reader's locale may lack letters that a process has in its name.
            text = text.encode(self._encoding, "backslashreplace").decode(self._encoding)
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError) as error:
            self.fail(error)
        finally:
            self._lock.release()

    def fail(self, error: Exception) -> None:
        """Write nothing more, for this reason."""
        if isinstance(error, BrokenPipeError):
            self.problem = "nobody reads standard output any more"
        else:
            self.problem = f"standard output cannot be written: {error}"
        atexit.register(_discard, self.stream)


def _discard(stream: TextIO) -> None:
    """Let the interpreter's last flush succeed: the stream still holds what nobody took.

    Only at the very end, so that whoever else writes there is told of the loss until then.
    """
    with contextlib.suppress(OSError, ValueError):
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
