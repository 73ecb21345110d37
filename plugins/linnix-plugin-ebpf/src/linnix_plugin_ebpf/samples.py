"""From two snapshots to samples: what each process used between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from linnix_core import ProcessSample, start_time_ns
from linnix_plugin_ebpf import wire
from linnix_plugin_ebpf.wire import Thread, comm_of, state_of

__all__ = ["Sampler", "processes_of"]


def processes_of(snapshot: bytes | bytearray) -> dict[int, Thread]:
    """One entry for each process, with the use of all its threads added up.

    A leader that has ended before the others keeps its entry; the memory is that of any
    thread that still has some.
    """
    leaders, others = _by_process(snapshot)
    processes = {leader.pid: leader for leader in map(Thread._make, leaders)}
    for pid, more in others.items():
        leader = processes.get(pid)
        if leader is not None:
            processes[pid] = leader._replace(
                cpu_ns=leader.cpu_ns + more.cpu_ns,
                read_bytes=leader.read_bytes + more.read_bytes,
                write_bytes=leader.write_bytes + more.write_bytes,
                delay_ns=leader.delay_ns + more.delay_ns,
                rss_pages=max(leader.rss_pages, more.rss_pages),
                anon_pages=max(leader.anon_pages, more.anon_pages),
                shmem_pages=max(leader.shmem_pages, more.shmem_pages),
                read_offset=max(leader.read_offset, more.read_offset),
            )
    return processes


class _Use(NamedTuple):
    """What the threads of a process used together, and the memory of any."""

    cpu_ns: int
    read_bytes: int
    write_bytes: int
    delay_ns: int
    rss_pages: int
    anon_pages: int
    shmem_pages: int
    read_offset: int

    def and_of(self, more: Sequence[int]) -> _Use:
        """With what another thread used."""
        return _Use(
            self[0] + more[0], self[1] + more[1], self[2] + more[2], self[3] + more[3],
            max(self[4], more[4]), max(self[5], more[5]), max(self[6], more[6]),
            max(self[7], more[7]),
        )  # fmt: skip


def _by_process(
    snapshot: bytes | bytearray,
) -> tuple[list[tuple[Any, ...]], dict[int, _Use]]:
    """The fields of every leader; and of the other threads of a pid, what they used together."""
    leaders: list[tuple[Any, ...]] = []
    others: dict[int, _Use] = {}
    for fields in wire.THREAD.iter_unpack(snapshot):
        _, _, _, *use, pid, tid, _, _, _, _, _, _, _, _ = fields
        if pid == tid:
            leaders.append(fields)
        elif (sums := others.get(pid)) is None:
            others[pid] = _Use(*use)
        else:
            others[pid] = sums.and_of(use)
    return leaders, others


class Sampler:
    """Compares each snapshot with the one before.

    ``io`` and ``delay`` say whether this kernel counts the storage I/O of processes, and how
    long they wait for a CPU; else it is not known.
    """

    def __init__(
        self, cgroup_path: Callable[[int], str | None], *, io: bool = True, delay: bool = True
    ) -> None:
        self._cgroup_path = cgroup_path
        self._io = io
        self._delay = delay
        #: Of each pid the start time, which tells it from others, and its counters.
        self._before: dict[int, tuple[int, int, int, int, int, int]] = {}
        self._taken_ns: int | None = None

    def samples(
        self, snapshot: bytes | bytearray, ts_ns: int, taken_ns: int
    ) -> list[ProcessSample]:
        """A sample of each process; ``taken_ns`` is the time of the snapshot since boot.

        The first time, and for a process that nobody could measure before, what it used
        has no interval: those fields are None. A process that began since the last
        snapshot has used everything since.
        """
        before, self._before = self._before, {}
        last_ns, self._taken_ns = self._taken_ns, taken_ns
        interval_ns = 0 if last_ns is None else taken_ns - last_ns
        if last_ns is None or interval_ns <= 0:
            before, last_ns, per_ns = {}, taken_ns, 0.0
        else:
            per_ns = 100.0 / interval_ns
        leaders, others = _by_process(snapshot)
        used, samples, io, delay = self._before, [], self._io, self._delay
        page_bytes, path, start_time = wire.PAGE_BYTES, self._cgroup_path, start_time_ns
        for (
            start_ns, _, cgroup, cpu_ns, read_bytes, write_bytes, delay_ns, rss, anon, shmem,
            offset, pid, _, _, _, _, threads, fds, state, _, comm,
        ) in leaders:  # fmt: skip
            if pid in others:
                cpu_ns, read_bytes, write_bytes, delay_ns, rss, anon, shmem, offset = (  # noqa: PLW2901
                    others[pid].and_of(
                        (cpu_ns, read_bytes, write_bytes, delay_ns, rss, anon, shmem, offset)
                    )
                )
            former = before.get(pid)
            if former is None or former[0] != start_ns:
                former = (start_ns, 0, 0, 0, 0, 0) if start_ns > last_ns else None
            # Who does not run gets no further.
            seen = offset if offset >= 0 or former is None else former[5]
            used[pid] = start_ns, cpu_ns, read_bytes, write_bytes, delay_ns, seen
            sample = ProcessSample(
                pid, start_time(start_ns), interval_ns, comm_of(comm), None, None,
                rss * page_bytes if rss > 0 else 0, anon * page_bytes, shmem * page_bytes,
                threads, None if fds < 0 else fds, state_of(state), None, None, None,
                path(cgroup), None, ts_ns,
            )  # fmt: skip
            if former is not None:
                # Threads that end between two reads may take a little out of the sums.
                sample.cpu_percent = max(cpu_ns - former[1], 0) * per_ns
                if delay:
                    sample.cpu_delay_percent = max(delay_ns - former[4], 0) * per_ns
                if io:
                    sample.read_bytes = max(read_bytes - former[2], 0)
                    sample.write_bytes = max(write_bytes - former[3], 0)
                if seen >= 0 <= former[5]:
                    sample.read_offset_bytes = abs(seen - former[5])
            samples.append(sample)
        return samples
