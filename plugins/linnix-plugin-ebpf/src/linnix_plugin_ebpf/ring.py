"""The kernel's ring buffer, mapped and read without a system call for each record.

The layout is the kernel's ABI (Documentation/bpf/ringbuf.rst): a page with the position
of the consumer, a page with that of the producer, then the data, mapped twice in a row so
that no record is ever split. Each record has a header of 8 bytes whose first word is its
length with two flags, and takes a multiple of 8 bytes.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Callable

__all__ = ["Ring", "ring_bytes"]

_BUSY = 1 << 31
_DISCARDED = 1 << 30
_LENGTH = _DISCARDED - 1
_HEADER_BYTES = 8


def ring_bytes(wanted: int) -> int:
    """The size of a ring of at least so many bytes: a power of two, and whole pages.

    >>> ring_bytes(5_000_000)
    8388608
    """
    return max(1 << (wanted - 1).bit_length(), mmap.PAGESIZE)


class Ring:
    """One ring buffer of ``size`` bytes behind a descriptor, read from one thread.

    ``data`` is the readable memory; `next_records` tells where in it records are, and
    `release` gives their room back to the kernel.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        page = mmap.PAGESIZE
        self.size = size
        self._mask = size - 1
        self._consumer_page = mmap.mmap(descriptor, page)
        self._pages = mmap.mmap(
            descriptor, page + 2 * size, prot=mmap.PROT_READ, offset=page, flags=mmap.MAP_SHARED
        )
        # One word is one load or store of the processor.
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._producer = memoryview(self._pages)[:page].cast("Q")
        # Not a view: a part of a map is copied in half the time that a part of a view takes.
        self.data = self._pages
        self._words = memoryview(self._pages).cast("I")
        self._fence = _fence()

    @property
    def consumed(self) -> int:
        """The position up to which records were released."""
        return self._consumer[0]

    @property
    def produced(self) -> int:
        """The position up to which the kernel has given out room."""
        return self._producer[0]

    def next_records(self, limit: int, until: int | None = None) -> tuple[list[int], int]:
        """Where in ``data`` the next finished records begin, and the position after them.

        Of at most ``limit`` records, up to the first that the kernel still writes or to the
        position ``until``; discarded ones are passed over. They stay valid until they are
        released.
        """
        position = self._consumer[0]
        end = self._producer[0] if until is None else until
        self._fence()
        words = self._words
        # The data lies there twice, so what is to be read is in one piece.
        first = offset = mmap.PAGESIZE + (position & self._mask)
        last = first + end - position
        offsets: list[int] = []
        for _ in range(limit):
            if offset >= last:
                break
            length = words[offset >> 2]
            if length < _DISCARDED:
                offsets.append(offset + _HEADER_BYTES)
            elif length & _BUSY:
                break
            else:
                length &= _LENGTH
            offset += length + _HEADER_BYTES + 7 & ~7
        # What the records hold may be read only after their headers.
        self._fence()
        return offsets, position + offset - first

    def release(self, position: int) -> None:
        """Let the kernel write where everything before ``position`` was."""
        self._fence()
        self._consumer[0] = position

    def close(self) -> None:
        """Unmap everything."""
        for view in (self._words, self._producer, self._consumer):
            view.release()
        self._pages.close()
        self._consumer_page.close()


def _nothing() -> None:
    pass


def _fence() -> Callable[[], object]:
    """What keeps reads in their order.

    x86 does that by itself. Elsewhere membarrier(2) is a full barrier, and one for each
    few hundred records.
    """
    if platform.machine() in {"x86_64", "i386", "i686", "AMD64"}:
        return _nothing
    libc = ctypes.CDLL(None, use_errno=True)
    number = 283  # of membarrier in the system calls that newer architectures share
    register, expedited = 16, 8
    if libc.syscall(number, register, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "membarrier(2) is needed to read a ring buffer")
    return lambda: libc.syscall(number, expedited, 0, 0)
