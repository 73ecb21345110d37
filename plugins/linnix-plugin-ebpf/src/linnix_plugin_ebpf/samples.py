"""From two snapshots to samples: what each process used between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from linnix_core import ProcessSample, start_time_ns
from linnix_plugin_ebpf import wire
from linnix_plugin_ebpf.wire import Thread, comm_of, state_of

__all__ = ["Sampler", "processes_of"]


class _Usage(NamedTuple):
    """The counters of one process; ``start_ns`` tells it from another of its pid."""

    start_ns: int
    cpu_ns: int
    read_bytes: int
    write_bytes: int


def processes_of(snapshot: bytes | bytearray) -> dict[int, Thread]:
    """One entry for each process, with the use of all its threads added up.

    A leader that has ended before the others keeps its entry; the memory is that of any
    thread that still has some.
    """
    processes: dict[int, Thread] = {}
    followers: list[Thread] = []
    make = Thread._make
    for fields in wire.THREAD.iter_unpack(snapshot):
        if fields[7] == fields[8]:  # pid == tid
            processes[fields[7]] = make(fields)
        else:
            followers.append(make(fields))
    for thread in followers:
        leader = processes.get(thread.pid)
        if leader is not None:
            processes[thread.pid] = leader._replace(
                cpu_ns=leader.cpu_ns + thread.cpu_ns,
                read_bytes=leader.read_bytes + thread.read_bytes,
                write_bytes=leader.write_bytes + thread.write_bytes,
                rss_pages=max(leader.rss_pages, thread.rss_pages),
            )
    return processes


class Sampler:
    """Compares each snapshot with the one before."""

    def __init__(self, cgroup_path: Callable[[int], str | None]) -> None:
        self._cgroup_path = cgroup_path
        self._before: dict[int, _Usage] = {}
        self._taken_ns: int | None = None

    def samples(
        self, processes: Iterable[Thread], ts_ns: int, taken_ns: int
    ) -> list[ProcessSample]:
        """A sample of each process; ``taken_ns`` is the time of the snapshot since boot.

        The first time, and for a process that nobody could measure before, what it used
        has no interval: those fields are None. A process that began since the last
        snapshot has used everything since.
        """
        before, self._before = self._before, {}
        last_ns, self._taken_ns = self._taken_ns, taken_ns
        interval_ns = 0 if last_ns is None else taken_ns - last_ns
        samples = []
        for thread in processes:
            sample = ProcessSample(
                thread.pid,
                start_time_ns(thread.start_ns),
                interval_ns,
                comm_of(thread.comm),
                None,
                max(thread.rss_pages, 0) * wire.PAGE_BYTES,
                thread.threads,
                None if thread.fds < 0 else thread.fds,
                state_of(thread.state),
                None,
                None,
                self._cgroup_path(thread.cgroup),
            )
            sample.ts_ns = ts_ns
            usage = _Usage(thread.start_ns, thread.cpu_ns, thread.read_bytes, thread.write_bytes)
            self._before[thread.pid] = usage
            if last_ns is not None and interval_ns > 0:
                former = before.get(thread.pid)
                if former is None or former.start_ns != thread.start_ns:
                    former = _Usage(thread.start_ns, 0, 0, 0) if thread.start_ns > last_ns else None
                if former is not None:
                    # Threads that end between two reads may take a little out of the sums.
                    sample.cpu_percent = max(usage.cpu_ns - former.cpu_ns, 0) * 100.0 / interval_ns
                    sample.read_bytes = max(usage.read_bytes - former.read_bytes, 0)
                    sample.write_bytes = max(usage.write_bytes - former.write_bytes, 0)
            samples.append(sample)
        return samples
