"""Many records of one type as one compressed row that grows until it is full."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

__all__ = ["Chunk", "lines_of", "packed"]

#: A chunk is read as a whole: so this is what a look at one moment costs at least.
MAX_RAW_BYTES = 512 * 1024

#: The time that one chunk covers at most, and so how exactly old ones can be deleted.
MAX_SPAN_NS = 60 * 10**9

#: Of zlib: the smallest at no more time than level 1; level 6 takes twice as long for a
#: quarter less (README, Figures).
_LEVEL = 3

#: No chunk that was written here is larger; a file that was tampered with may claim so.
_MAX_UNPACKED = 256 * 2**20


class Chunk:
    """Lines of records of one type, compressed as they come.

    What `pack` returns can be unpacked at any time: it ends at a boundary between lines.
    ``part`` counts the chunks of one type, ``stored`` says how many of the ``count`` records
    are in the database already.
    """

    def __init__(self, number: int, type_: str, part: int) -> None:
        self.number = number
        self.type = type_
        self.part = part
        self.count = 0
        self.stored = 0
        self.since_ns = self.until_ns = 0
        self.first_seq = self.last_seq = 0
        self.raw_bytes = 0
        self._waiting: list[bytes] = []
        self._packed = bytearray()
        self._compressor = zlib.compressobj(_LEVEL)

    def add(self, record: Any, line: bytes) -> None:
        """Take in one record, as one line without its newline."""
        ts_ns = record.ts_ns
        if not self.count:
            self.since_ns = self.until_ns = ts_ns
            self.first_seq = record.seq
        elif ts_ns > self.until_ns:
            self.until_ns = ts_ns
        elif ts_ns < self.since_ns:
            self.since_ns = ts_ns
        self.last_seq = record.seq
        self.count += 1
        self.raw_bytes += len(line) + 1
        self._waiting.append(line)

    @property
    def unstored(self) -> int:
        """Records that are in memory only."""
        return self.count - self.stored

    def takes(self, ts_ns: int) -> bool:
        """Whether a record of that time still belongs in here; none after a clock was set back."""
        return self.raw_bytes < MAX_RAW_BYTES and abs(ts_ns - self.since_ns) < MAX_SPAN_NS

    def pack(self) -> bytes:
        """All records so far, compressed."""
        if self._waiting:
            self._packed += self._compressor.compress(b"\n".join(self._waiting) + b"\n")
            self._packed += self._compressor.flush(zlib.Z_SYNC_FLUSH)
            self._waiting.clear()
        return bytes(self._packed)


def packed(lines: Sequence[bytes]) -> bytes:
    """Lines that are complete already, compressed likewise."""
    return zlib.compress(b"\n".join(lines) + b"\n", _LEVEL)


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a chunk. Raises ``ValueError`` for what is no chunk."""
    try:
        raw = zlib.decompressobj().decompress(data, _MAX_UNPACKED)
    except zlib.error as error:
        raise ValueError(f"a damaged chunk: {error}") from None
    return raw.splitlines()
