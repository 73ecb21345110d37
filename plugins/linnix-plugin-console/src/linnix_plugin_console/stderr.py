"""Standard error while the terminal is taken: kept, shown in the view, printed afterwards."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections import deque
from typing import TextIO

__all__ = ["HeldStderr"]

_MAX_LINES = 200
_MAX_LINE = 4096


class HeldStderr(io.TextIOBase):
    """Takes the place of ``sys.stderr``, if that is a terminal, between `hold` and `release`."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._held = False
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._written = 0
        self._partial = ""

    def hold(self) -> None:
        """Keep what is written from now on."""
        if self._stream is not None and self._stream.isatty():
            self._held = True
            sys.stderr = self

    def release(self) -> None:
        """Give ``sys.stderr`` back and print there what was kept; once."""
        with self._lock:
            if not self._held or self._stream is None:
                return
            self._held = False
            if sys.stderr is self:
                sys.stderr = self._stream
            if self._partial:
                self._keep(self._partial)
            lines = list(self._lines)
        if left_out := self._written - len(lines):
            lines.insert(0, f"({left_out} earlier lines left out)")
        with contextlib.suppress(OSError, ValueError):
            self._stream.write("".join(f"{line}\n" for line in lines))
            self._stream.flush()

    def latest(self) -> list[str]:
        """The kept lines, the newest last."""
        with self._lock:
            return list(self._lines)

    def write(self, text: str) -> int:
        """Keep whole lines; once released, for whoever still holds on to this, pass them on."""
        if not self._held and self._stream is not None:
            return self._stream.write(text)
        with self._lock:
            *lines, self._partial = (self._partial + text).split("\n")
            for line in lines:
                self._keep(line)
            self._partial = self._partial[-_MAX_LINE:]
        return len(text)

    def writable(self) -> bool:
        """Like the stream that it stands for."""
        return True

    def isatty(self) -> bool:
        """Nothing here understands colours or moves a cursor."""
        return False

    def fileno(self) -> int:
        """The real one's, for child processes and crash handlers."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The real one's."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def _keep(self, line: str) -> None:
        self._lines.append(line[:_MAX_LINE])
        self._written += 1
