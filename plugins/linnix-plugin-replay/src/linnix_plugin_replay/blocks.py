"""Lines of a file or pipe, plain or gzipped, in bounded memory, until somebody says stop."""

from __future__ import annotations

import gzip
import io
import os
import select
from collections.abc import Iterator
from threading import Event
from typing import Any

from linnix_plugin_replay.parts import Part

__all__ = ["MAX_LINE_BYTES", "read_lines"]

#: Larger than any record, whose texts the core bounds.
MAX_LINE_BYTES = 2**20

#: How much is read at once, and so how many lines come at once.
_BLOCK_BYTES = 2**18

#: Milliseconds between two looks at ``stop`` while a pipe is silent.
_LOOK_EVERY_MS = 100

_GZIP = b"\x1f\x8b"


def read_lines(part: Part, stop: Event) -> Iterator[list[bytes]]:
    """Lines without their ends, as many at once as there are; at the end, what is left of one.

    Of a line longer than `MAX_LINE_BYTES` comes a part that is longer than that. Raises
    ``OSError``, ``EOFError`` and ``zlib.error``. Whoever reads looks at ``stop``, too: when
    it is set, what comes may be less than there is.
    """
    buffered = io.BufferedReader(_Stoppable(part, stop), _BLOCK_BYTES)
    packed = buffered.peek(len(_GZIP)).startswith(_GZIP)
    read = gzip.GzipFile(fileobj=buffered).read1 if packed else buffered.read1
    rest = b""
    while block := read(_BLOCK_BYTES):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()[: MAX_LINE_BYTES + 1]
        yield lines
    if rest:
        yield [rest]


class _Stoppable(io.RawIOBase):
    """A part as a stream that ends where its size says, and when ``stop`` is set."""

    def __init__(self, part: Part, stop: Event) -> None:
        self._descriptor = part.descriptor
        self._left = part.size
        self._stop = stop
        self._ready = select.poll()
        self._ready.register(part.descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        while not self._stop.is_set():
            if self._left is not None or self._ready.poll(_LOOK_EVERY_MS):
                try:
                    count = os.readv(self._descriptor, [view])
                except BlockingIOError:
                    continue  # somebody else was faster at the same pipe
                if self._left is not None:
                    self._left -= count
                return count
        return 0
