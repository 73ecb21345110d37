"""Samples of processes: two snapshots of the kernel, and what was used between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from linnix_core import ProcessSample, start_time_ns
from linnix_plugin_ebpf import wire
from linnix_plugin_ebpf.wire import Thread, comm_of, state_of

__all__ = ["Sampler", "processes_of"]

_use_of = wire.THREAD_USE.unpack
_leader_of = wire.THREAD_LEADER.unpack

#: As much as the kernel wrote of a leader and of a pid's other threads, undecoded.
_Leader: TypeAlias = tuple[int, bytes, bytes]
_Others: TypeAlias = dict[int, list[bytes]]


def processes_of(snapshot: bytes | bytearray) -> dict[int, Thread]:
    """One entry for each process, with the use of all its threads added up.

    A leader that has ended before the others keeps its entry; the memory is that of any
    thread that still has some.
    """
    leaders, others = _by_process(snapshot)
    return {
        pid: Thread._make((*_use_of_all(use, others.get(pid)), pid, pid, *_leader_of(rest)))
        for pid, use, rest in leaders
    }


def _by_process(snapshot: bytes | bytearray) -> tuple[list[_Leader], _Others]:
    leaders: list[_Leader] = []
    others: _Others = {}
    for use, pid, tid, rest in wire.THREAD_PARTS.iter_unpack(snapshot):
        if pid == tid:
            leaders.append((pid, use, rest))
        elif (known := others.get(pid)) is None:
            others[pid] = [use]
        else:
            known.append(use)
    return leaders, others


def _use_of_all(leader: bytes, others: list[bytes] | None) -> tuple[int, ...]:
    """What the threads of a process used together, and the memory of any."""
    whole = _use_of(leader)
    if others is None:
        return whole
    columns = list(zip(whole, *map(_use_of, others), strict=True))
    return (*whole[:3], *map(sum, columns[3:7]), *map(max, columns[7:]))


class _Known(NamedTuple):
    """A process as it was in the snapshot before."""

    use: bytes
    rest: bytes
    others: list[bytes] | None
    #: The start time, which tells it from others with its pid, and its counters.
    start_ns: int
    cgroup: int
    cpu_ns: int
    read_bytes: int
    write_bytes: int
    delay_ns: int
    read_offset: int
    sample: ProcessSample


_NOTHING = _Known(b"", b"", None, 0, 0, 0, 0, 0, 0, 0, ProcessSample(0, 0, 0))


class Sampler:
    """Compares each snapshot with the one before.

    ``start_of`` makes the start time in records of an exact one. ``io`` and ``delay`` say
    whether this kernel counts the storage I/O of processes, and how long they wait for a CPU;
    else it is not known.
    """

    def __init__(
        self,
        cgroup_path: Callable[[int], str | None],
        start_of: Callable[[int], int] = start_time_ns,
        *,
        io: bool = True,
        delay: bool = True,
    ) -> None:
        self._cgroup_path = cgroup_path
        self._start_of = start_of
        self._io = io
        self._delay = delay
        self._before: dict[int, _Known] = {}
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
        known, samples, path, io, delay = self._before, [], self._cgroup_path, self._io, self._delay
        page_bytes, start_time = wire.PAGE_BYTES, self._start_of
        nothing, no_delay = 0 if io else None, 0.0 if delay else None
        for pid, use, rest in leaders:
            more = others.get(pid)
            former = before.get(pid)
            if (
                former is not None
                and former.use == use
                and former.rest == rest
                and former.others == more
            ):
                # Most processes sleep most of the time.
                known[pid] = former
                was = former.sample
                samples.append(
                    ProcessSample(
                        pid, was.start_ns, interval_ns, was.comm, 0.0, no_delay,
                        was.rss_bytes, was.rss_anon_bytes, was.rss_shmem_bytes,
                        was.threads, was.fds, was.state, nothing, nothing,
                        0 if former.read_offset >= 0 else None, path(former.cgroup), None, ts_ns,
                    )
                )  # fmt: skip
                continue
            (
                start_ns, _, cgroup, cpu_ns, read_bytes, write_bytes, delay_ns, rss, anon, shmem,
                offset,
            ) = _use_of_all(use, more)  # fmt: skip
            _, _, _, threads, fds, state, _, comm = _leader_of(rest)
            sample = ProcessSample(
                pid, start_time(start_ns), interval_ns, comm_of(comm), None, None,
                rss * page_bytes if rss > 0 else 0, anon * page_bytes, shmem * page_bytes,
                threads, None if fds < 0 else fds, state_of(state), None, None, None,
                path(cgroup), None, ts_ns,
            )  # fmt: skip
            if former is None or former.start_ns != start_ns:
                # Of one that began since, everything; of any other, nobody knows since when.
                former = _NOTHING if start_ns > last_ns else None
            if former is not None:
                # Threads that end between two reads may take a little out of the sums.
                sample.cpu_percent = max(cpu_ns - former.cpu_ns, 0) * per_ns
                if delay:
                    sample.cpu_delay_percent = max(delay_ns - former.delay_ns, 0) * per_ns
                if io:
                    sample.read_bytes = max(read_bytes - former.read_bytes, 0)
                    sample.write_bytes = max(write_bytes - former.write_bytes, 0)
                if offset < 0:
                    # Who does not run gets no further.
                    offset = former.read_offset
                if offset >= 0 <= former.read_offset:
                    sample.read_offset_bytes = abs(offset - former.read_offset)
            known[pid] = _Known(
                use, rest, more, start_ns, cgroup, cpu_ns, read_bytes, write_bytes, delay_ns,
                offset, sample,
            )  # fmt: skip
            samples.append(sample)
        return samples
