"""The collector: its configuration, its stream, and what it says of itself."""

from __future__ import annotations

import mmap
import os
import threading
import time

import attrs

from linnix_core import Context, Duration, Health, PluginUnavailable, Record, Sink, Size, hookimpl
from linnix_plugin_bcc.bindings import load_bcc
from linnix_plugin_bcc.host import Host
from linnix_plugin_bcc.lives import Lives
from linnix_plugin_bcc.program import BATCH, Program
from linnix_plugin_psutil import LinuxReader, LinuxSystemReader, ProcessTree

__all__ = ["BccCollector", "BccConfig"]

#: Seconds between two looks into the ring; most of what an idle host costs.
READ_EVERY_S = 0.05

#: The smallest event, with the header that the ring gives it.
_SMALLEST_BYTES = 96


def _positive(instance: object, attribute: attrs.Attribute[Duration], value: Duration) -> None:
    if value <= 0:
        raise ValueError(f"{attribute.name} must be longer than 0 s")


def _ring_size(instance: object, attribute: attrs.Attribute[Size], value: Size) -> None:
    if value < mmap.PAGESIZE or value & (value - 1):
        raise ValueError(f"{attribute.name} must be a power of two, {mmap.PAGESIZE} or more")


@attrs.frozen
class BccConfig:
    """How often processes are measured, and how much the kernel may hold back."""

    sample_interval: Duration = attrs.field(
        default=Duration(5.0),
        validator=_positive,
        metadata={"help": "time between two samples of every process and of the machine"},
    )
    ring_size: Size = attrs.field(
        default=Size(8 * 2**20),
        validator=_ring_size,
        metadata={"help": "size of the buffer for events in the kernel, a power of two"},
    )


class BccCollector:
    """Follow every process from its fork to its exit, through BCC.

    ``host`` is where it looks for what BCC needs.
    """

    Config = BccConfig

    def __init__(self, config: BccConfig, context: Context, *, host: Host | None = None) -> None:
        self._config = config
        self._clock = context.clock
        self._logger = context.logger
        self._host = host or Host()
        self._reader = LinuxReader()
        self._tree = ProcessTree(self._reader, io=True, fds=False)
        self._system = LinuxSystemReader()
        self._program: Program | None = None
        self._in_use = threading.Lock()
        self._first: list[Record] = []
        #: Losses that were passed on, and how many of the kernel's were known when the last
        #: poll began: what was lost since may be in the next one only.
        self._lost = self._lost_before_poll = 0
        self._unidentified = 0
        self._limits: tuple[str, ...] = ()

    @hookimpl
    def linnix_start(self) -> None:
        """Compile and attach the programs, then look once at everything that lives.

        Nothing needs privileges after this.
        """
        self._host.check()
        bcc = load_bcc()
        self._program, costs = self._open(bcc)
        self._limits = _limits(self._host, costs)
        self._lives = Lives(self._reader, costs=costs)
        attached_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._first = self._lives.first(self._poll(), attached_ns)

    def _open(self, bcc: object) -> tuple[Program, bool]:
        flags = ["-DLINNIX_GROUP_DEAD"] if self._host.tells_last_thread else []
        if self._host.headers_match:
            try:
                matching = ["-DLINNIX_TASKS", *flags]
                return Program(bcc, ring_bytes=self._config.ring_size, flags=matching), True
            except PluginUnavailable as error:
                self._logger.warning("without the kernel's structures: %s", error)
        return Program(bcc, ring_bytes=self._config.ring_size, flags=flags), False

    @hookimpl
    def linnix_collect(self, sink: Sink, stop: threading.Event) -> None:
        """Everything that lives, then every event, and samples now and then."""
        first, self._first = self._first, []
        if first:
            sink.emit_many(first)
        due = time.monotonic() + self._config.sample_interval
        while not stop.wait(READ_EVERY_S):
            self._drain(sink)
            if time.monotonic() >= due:
                sink.emit_many(self._sampled(sink))
                due = time.monotonic() + self._config.sample_interval
        self._drain(sink)

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """Detach the programs."""
        if self._in_use.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            program, self._program = self._program, None
            self._in_use.release()
            self._system.close()
            if program is not None:
                program.close()

    @hookimpl
    def linnix_health(self) -> Health:
        """Always ok; the limits are those of the headers, of the kernel and of the rights."""
        limits = self._limits
        if os.geteuid() != 0:
            limits += ("the storage I/O of other users' processes is not readable without root",)
        return Health(limits=limits)

    def _drain(self, sink: Sink) -> None:
        """Pass on what is in the ring, and count what did not fit into it."""
        # At most as many batches as it can hold, so that a storm cannot keep us here.
        for _ in range(1 + self._config.ring_size // _SMALLEST_BYTES // BATCH):
            with self._in_use:
                if self._program is None:
                    return
                messages = self._program.read()
                lost = self._program.counts.lost
            epoch_ns = self._clock.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            events = [self._lives.event(message, epoch_ns) for message in messages]
            sink.emit_many([event for event in events if event is not None])
            sink.lost("ring_full", lost - self._lost)
            sink.lost("unidentified", self._lives.unidentified - self._unidentified)
            self._lost, self._unidentified = lost, self._lives.unidentified
            if len(messages) < BATCH:
                return

    def _poll(self) -> list[Record]:
        ts_ns, moment = self._clock.time_ns(), self._clock.monotonic()
        records = self._tree.poll(ts_ns, moment)
        records.append(self._system.sample(ts_ns, moment, self._tree.count))
        return records

    def _sampled(self, sink: Sink) -> list[Record]:
        """The samples of a poll, and its events only where the kernel's were lost."""
        ts_ns, since_boot_ns = self._clock.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        before = self._lost
        *polled, system = self._poll()
        self._drain(sink)  # what the poll saw, the kernel has told by now, unless it was lost
        lost = self._lost != self._lost_before_poll
        self._lost_before_poll = before
        records = self._lives.later(polled, lost=lost, ts_ns=ts_ns, since_boot_ns=since_boot_ns)
        return [*records, system]


def _limits(host: Host, costs: bool) -> tuple[str, ...]:
    limits = [
        "the executable is the path that was given to exec; the working directory is not known",
        "the start of a process that ended at once can differ from that in /proc by 10 ms",
    ]
    if not costs:
        theirs = host.headers_release or "an unknown version"
        limits.append(
            "exit codes, signals, CPU time and peak memory of a whole life are not known: the "
            f"kernel's headers are of {theirs}, and the kernel is {host.release}"
        )
        limits.append(
            "arguments are those given to exec: without the interpreter of a script, and none of "
            "32-bit programs or of memory that was not paged in"
        )
        if not host.tells_last_thread:
            limits.append("a process whose first thread ends before the others counts as ended")
    return tuple(limits)
