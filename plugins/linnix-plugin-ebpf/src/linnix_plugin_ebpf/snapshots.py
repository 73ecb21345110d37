"""All processes at once, every second: by the kernel in one read, or from /proc.

Both tell what each process used since the last time. After events were lost they also
find out who came and went unseen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from linnix_core import ProcessEvent, ProcessSample, Record
from linnix_plugin_ebpf import requirements
from linnix_plugin_ebpf.cgroups import CgroupPaths
from linnix_plugin_ebpf.events import Decoder
from linnix_plugin_ebpf.programs import Programs
from linnix_plugin_ebpf.samples import Sampler, processes_of
from linnix_plugin_ebpf.wire import Thread, comm_of
from linnix_plugin_psutil import LinuxReader, ProcessTree

__all__ = ["KernelSnapshots", "ProcSnapshots", "Snapshots", "seen_now"]

_ENDED = 0x30  # EXIT_DEAD and EXIT_ZOMBIE: its exit was told already


class Snapshots(Protocol):
    """A way to see every process at once."""

    #: How many processes there were the last time.
    count: int

    def take(self, lost: bool, drain: Callable[[], Collection[Record]]) -> list[Record]:
        """Samples, and after a loss the events that make up for it.

        ``drain`` reads the ring and returns what came since; it is called where the
        comparison needs it.
        """
        ...


class KernelSnapshots:
    """From the kernel's iterator over tasks. ``decoder`` knows who the ring says is alive."""

    def __init__(self, programs: Programs, cgroups: CgroupPaths, decoder: Decoder) -> None:
        self._programs = programs
        self._cgroups = cgroups
        self._alive = alive = decoder.alive
        self._start_of = decoder.start_of
        self._sampler = Sampler(
            cgroups.find,
            decoder.start_of,
            io=requirements.counts_io(),
            delay=requirements.counts_delay(),
        )
        self._reader = LinuxReader(controller=cgroups.controller)
        self.count = 0
        for thread in processes_of(programs.snapshot()).values():
            if not thread.state & _ENDED:
                alive.setdefault(thread.pid, thread.start_ns)

    def take(self, lost: bool, drain: Callable[[], Collection[Record]]) -> list[Record]:
        """See `Snapshots`."""
        known = dict(self._alive) if lost else {}
        ts_ns, taken_ns = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        snapshot = self._programs.snapshot()
        made: list[Record] = []
        if lost:
            processes = processes_of(snapshot)
            told = {
                (event.pid, event.start_ns)
                for event in drain()
                if isinstance(event, ProcessEvent) and event.kind in ("fork", "exit")
            }
            made += self._gone(known, processes, told, ts_ns, taken_ns)
            made += self._come(known, processes, told, ts_ns)
        samples = self._sampler.samples(snapshot, ts_ns, taken_ns)
        self.count = len(samples)
        return [*made, *samples]

    def _gone(
        self,
        known: dict[int, int],
        processes: dict[int, Thread],
        told: set[tuple[int, int]],
        ts_ns: int,
        taken_ns: int,
    ) -> Iterator[ProcessEvent]:
        """Exits that nobody told."""
        for pid, began_ns in known.items():
            thread = processes.get(pid)
            start_ns = self._start_of(began_ns)
            if (thread is not None and thread.start_ns == began_ns) or (pid, start_ns) in told:
                continue
            if self._alive.get(pid) == began_ns:
                del self._alive[pid]
            yield ProcessEvent(
                "exit",
                pid,
                start_ns,
                source="polled",
                duration_ns=max(taken_ns - began_ns, 0),
                ts_ns=ts_ns,
            )

    def _come(
        self,
        known: dict[int, int],
        processes: dict[int, Thread],
        told: set[tuple[int, int]],
        ts_ns: int,
    ) -> Iterator[ProcessEvent]:
        """Processes whose fork nobody told; what they run is read from /proc."""
        for pid, thread in processes.items():
            start_ns = self._start_of(thread.start_ns)
            if known.get(pid) == thread.start_ns or (pid, start_ns) in told:
                continue
            if thread.state & _ENDED:
                continue
            self._alive[pid] = thread.start_ns
            yield self._seen(thread, start_ns, ts_ns)

    def _seen(self, thread: Thread, start_ns: int, ts_ns: int) -> ProcessEvent:
        event = ProcessEvent(
            "seen",
            thread.pid,
            start_ns,
            thread.ppid,
            self._start_of(thread.parent_start_ns),
            thread.uid,
            thread.gid,
            comm_of(thread.comm),
            cgroup=self._cgroups.find(thread.cgroup),
            source="polled",
            ts_ns=ts_ns,
        )
        reading = self._reader.read(thread.pid)
        if reading is not None and reading.start_ns == start_ns:
            image = self._reader.describe(reading)
            event.exe, event.args, event.cwd = image.exe, image.args, image.cwd
            event.truncated = image.truncated
        return event


class ProcSnapshots:
    """From /proc, process by process: where the kernel's iterator cannot be used."""

    def __init__(self, cgroups: CgroupPaths) -> None:
        self._tree = ProcessTree(LinuxReader(controller=cgroups.controller), io=True, fds=False)
        self._tree.poll(time.time_ns(), time.monotonic())
        self.count = self._tree.count

    def take(self, lost: bool, drain: Callable[[], Collection[Record]]) -> list[Record]:
        """See `Snapshots`. What the kernel told as well is told twice after a loss."""
        found = self._tree.poll(time.time_ns(), time.monotonic())
        self.count = self._tree.count
        return [record for record in found if lost or record.type == "sample"]


def seen_now(cgroups: CgroupPaths) -> list[Record]:
    """Everyone who is running now, with what /proc tells while there is the right to read it."""
    reader = LinuxReader(controller=cgroups.controller)
    found = ProcessTree(reader, io=False, fds=False).poll(time.time_ns(), time.monotonic())
    # Those who only wait to be waited for: their exit has been, and will not be told.
    dead = {
        sample.pid
        for sample in found
        if isinstance(sample, ProcessSample)
        and sample.state in {"Z", "X"}
        and (sample.threads or 0) < 2
    }
    return [r for r in found if isinstance(r, ProcessEvent) and r.pid not in dead]
