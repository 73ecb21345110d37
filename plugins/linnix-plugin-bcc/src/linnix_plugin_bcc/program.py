"""The programs in the kernel, from their compilation to the batches of events they emit."""

from __future__ import annotations

import atexit
import ctypes
import mmap
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from linnix_core import PluginUnavailable
from linnix_plugin_bcc.wire import COUNTERS, Message

__all__ = ["BATCH", "Counts", "Program"]

#: Events in one batch at most: with a bound, a storm cannot keep the reader in the ring.
BATCH = 4096


class Counts(NamedTuple):
    """What the kernel had to tell so far, and how much of it did not fit into the ring."""

    emitted: int
    lost: int


class Program:
    """Compiled and attached programs; what can be opened only with privileges is open.

    ``flags`` are those of the compiler. Raises `PluginUnavailable` if the kernel or the
    compiler refuses the programs: each says why on standard error.
    """

    def __init__(self, bcc: Any, *, ring_bytes: int, flags: Sequence[str] = ()) -> None:
        cpus = max(bcc.utils.get_possible_cpus()) + 1
        text = files(__package__).joinpath("linnix.bcc.c").read_bytes()
        pages = ring_bytes // mmap.PAGESIZE
        options = ["-w", f"-DLINNIX_PAGES={pages}", f"-DLINNIX_CPUS={cpus}", *flags]
        # In two steps, because what fails half-way has to be cleaned up.
        self._bpf = bcc.BPF.__new__(bcc.BPF)
        self._batch: list[bytes] = []
        try:
            self._bpf.__init__(text=text, cflags=options)
            self._bpf[b"events"].open_ring_buffer(self._take)
            self._counters_bytes = cpus * COUNTERS.size
            self._counters = mmap.mmap(
                self._bpf[b"counted"].map_fd, self._counters_bytes, mmap.MAP_SHARED, mmap.PROT_READ
            )
        except Exception as error:
            self._clean_up()
            raise PluginUnavailable(
                f"BCC cannot compile or attach its programs: {error}",
                hint="see standard error, and have the headers of the running kernel installed",
            ) from error

    def read(self) -> list[Message]:
        """What has been emitted since, in its order, up to `BATCH` events."""
        self._bpf.ring_buffer_consume()
        batch, self._batch = self._batch, []
        return [Message.decode(raw) for raw in batch]

    @property
    def counts(self) -> Counts:
        """Exact whenever no program is just running."""
        cpus = list(COUNTERS.iter_unpack(self._counters[: self._counters_bytes]))
        return Counts(sum(emitted for emitted, _ in cpus), sum(lost for _, lost in cpus))

    def close(self) -> None:
        """Detach the programs and give everything back."""
        self._counters.close()
        self._clean_up()

    def _clean_up(self) -> None:
        self._bpf.cleanup()
        atexit.unregister(self._bpf.cleanup)  # it would keep everything until then

    def _take(self, context: Any, data: int, size: int) -> int:
        self._batch.append(ctypes.string_at(data, size))
        # The consumer ends its round when it is told of an error, after this event.
        return -1 if len(self._batch) >= BATCH else 0
