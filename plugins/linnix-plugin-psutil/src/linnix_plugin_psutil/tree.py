"""The process tree as of the last poll, and what has changed since."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs

from linnix_core import ProcessEvent, ProcessSample, Record
from linnix_plugin_psutil.reading import READ_ERRORS, Image, Reader, Reading, attempt

__all__ = ["ProcessTree"]


@attrs.define(eq=False)
class _Usage:
    """Counters since the start of a process, read at the monotonic ``moment``."""

    moment: float
    cpu_ns: int | None
    read_bytes: int | None
    write_bytes: int | None


@attrs.define(eq=False)
class _Member:
    """A process as it was when it could last be read.

    ``parent_start_ns`` and ``ppid`` are those of its first poll: later it may have been
    handed over to another.
    """

    now: Reading
    image: Image
    ppid: int | None
    parent_start_ns: int | None
    used: _Usage | None


class ProcessTree:
    """Follows processes by comparing what is there with what was there.

    A pid with another start time is an exit and a fork. A process that cannot be read for
    now stays as it was. ``count`` is how many were there in the last poll, ``unreadable``
    how many of those could not be read.
    """

    def __init__(self, reader: Reader, *, io: bool, fds: bool) -> None:
        self._reader = reader
        self._io = io
        self._fds = fds
        self._members: dict[int, _Member] = {}
        #: When the youngest process of the first poll started; monotonic time of the last poll.
        self._first_ns: int | None = None
        self._last_moment: float | None = None
        self.count = 0
        self.unreadable = 0

    def poll(self, ts_ns: int, moment: float) -> list[Record]:
        """Events, then a sample of every process that could be read.

        Exits come first, then execs of processes that were known, then forks, a parent's
        before its child's.
        """
        since_boot_ns = self._reader.since_boot_ns()
        readings, unreadable = self._look()
        exits: list[Record] = []
        execs: list[Record] = []
        members: dict[int, _Member] = {}
        for pid, member in self._members.items():
            reading = readings.get(pid)
            if reading is None and pid in unreadable:
                members[pid] = member
            elif reading is None or reading.start_ns != member.now.start_ns:
                event = _event("exit", member, ts_ns)
                event.duration_ns = max(since_boot_ns - member.now.start_ns, 0)
                exits.append(event)
            else:
                del readings[pid]
                if self._follow(member, reading):
                    execs.append(_event("exec", member, ts_ns))
                members[pid] = member
        forks: list[Record] = []
        for reading in _parents_first(readings):
            parent = self._parent(reading, members)
            member = self._meet(reading, parent)
            members[reading.pid] = member
            forks += self._arrival(member, parent, ts_ns)
        self._members = members
        self.count = len(members) + len(unreadable - members.keys())
        self.unreadable = len(unreadable)
        self._last_moment = moment
        if self._first_ns is None:
            self._first_ns = max((member.now.start_ns for member in members.values()), default=0)
        samples: list[Record] = [
            self._sample(member, ts_ns, moment)
            for pid, member in members.items()
            if pid not in unreadable
        ]
        return exits + execs + forks + samples

    @property
    def partly_read(self) -> int:
        """How many processes did not show all of themselves; may be asked from any thread."""
        return sum(map(_is_partly_read, self._members.values()))

    def _look(self) -> tuple[dict[int, Reading], set[int]]:
        readings: dict[int, Reading] = {}
        unreadable: set[int] = set()
        for pid in self._reader.pids():
            try:
                reading = self._reader.read(pid)
            except READ_ERRORS:
                unreadable.add(pid)
            else:
                if reading is not None:
                    readings[pid] = reading
        return readings, unreadable

    def _follow(self, member: _Member, now: Reading) -> bool:
        """Bring a member up to date; whether it has exec'd since it was last read."""
        before, member.now = member.now, now
        if now.kernel:
            return False
        if not now.comm:
            now.comm = before.comm
        if before.execed is False and now.execed:
            replaced: bool | None = True
        elif before.stack and now.stack:
            # The kernel draws a new address at each exec, and a fork copies it.
            replaced = before.stack != now.stack
        else:
            replaced = None
        if not replaced and before.comm == now.comm:
            return False
        former, member.image = member.image, self._describe(now)
        return _differ(before, former, now, member.image) if replaced is None else replaced

    def _meet(self, now: Reading, parent: _Member | None) -> _Member:
        image = self._describe(now)
        if parent is not None and image == parent.image:
            image = parent.image  # thousands of children need not keep thousands of copies
        used = None
        if not self._was_there_before(now) and self._last_moment is not None:
            used = _Usage(self._last_moment, 0, 0, 0)
        parent_start_ns = None if parent is None else parent.now.start_ns
        return _Member(now, image, now.ppid, parent_start_ns, used)

    def _parent(self, reading: Reading, members: dict[int, _Member]) -> _Member | None:
        if reading.ppid is None or reading.ppid == reading.pid:
            return None
        # One that died while the others were read is among the former members.
        parent = members.get(reading.ppid) or self._members.get(reading.ppid)
        if parent is None or parent.now.start_ns > reading.start_ns:
            return None  # not there, or its pid is in use again
        return parent

    def _describe(self, now: Reading) -> Image:
        return attempt(self._reader.describe, now) or Image()

    def _was_there_before(self, now: Reading) -> bool:
        """Whether it is older than the first poll, though it could not be read then."""
        return self._first_ns is None or now.start_ns < self._first_ns

    def _arrival(self, member: _Member, parent: _Member | None, ts_ns: int) -> Iterator[Record]:
        now = member.now
        if self._was_there_before(now):
            yield _event("seen", member, ts_ns)
            return
        fork = _event("fork", member, ts_ns)
        execed = now.execed
        if execed is None:
            execed = parent is not None and _differ(parent.now, parent.image, now, member.image)
        if not execed:
            yield fork
            return
        # What it was forked with is known only as far as its parent is.
        former = Image() if parent is None else parent.image
        fork.comm = "" if parent is None else parent.now.comm
        fork.exe, fork.args, fork.truncated = former.exe, former.args, former.truncated
        yield fork
        yield _event("exec", member, ts_ns)

    def _sample(self, member: _Member, ts_ns: int, moment: float) -> ProcessSample:
        now = member.now
        read_bytes, write_bytes = None, None
        if self._io:
            read_bytes, write_bytes = attempt(self._reader.io_bytes, now.pid) or (None, None)
        before = member.used
        member.used = _Usage(moment, now.cpu_ns, read_bytes, write_bytes)
        sample = ProcessSample(
            pid=now.pid,
            start_ns=now.start_ns,
            interval_ns=0,
            comm=now.comm,
            rss_bytes=now.rss_bytes,
            threads=now.threads,
            fds=attempt(self._reader.descriptors, now.pid) if self._fds else None,
            state=now.state,
            cgroup=member.image.cgroup,
            ts_ns=ts_ns,
        )
        if before is not None and moment > before.moment:
            sample.interval_ns = round((moment - before.moment) * 1e9)
            cpu_ns = _grown(before.cpu_ns, now.cpu_ns)
            sample.cpu_percent = None if cpu_ns is None else 100.0 * cpu_ns / sample.interval_ns
            sample.read_bytes = _grown(before.read_bytes, read_bytes)
            sample.write_bytes = _grown(before.write_bytes, write_bytes)
        return sample


def _is_partly_read(member: _Member) -> bool:
    if member.now.state == "Z":
        return False  # there is nothing more to it
    # Only the kernel's own threads have no arguments at all, and no executable either.
    hidden = member.image.exe is None and member.image.args != ()
    return hidden or member.now.cpu_ns is None


def _differ(before: Reading, former: Image, now: Reading, image: Image) -> bool:
    """Whether exe or arguments are others; the names decide where neither can be compared."""
    pairs = [
        (old, new)
        for old, new in ((former.exe, image.exe), (former.args, image.args))
        if old is not None and new is not None
    ]
    if not pairs:
        return before.comm != now.comm
    return any(old != new for old, new in pairs)


def _parents_first(readings: dict[int, Reading]) -> Iterator[Reading]:
    """The readings by their start; within a tick of the clock a parent before its child."""
    left = {reading.pid: reading for reading in sorted(readings.values(), key=_start)}
    while left:
        line = [left.pop(next(iter(left)))]
        while (ppid := line[-1].ppid) is not None and ppid in left:
            line.append(left.pop(ppid))
        yield from reversed(line)


def _start(reading: Reading) -> int:
    return reading.start_ns


def _grown(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else max(now - before, 0)


def _event(
    kind: Literal["seen", "fork", "exec", "exit"], member: _Member, ts_ns: int
) -> ProcessEvent:
    now, image = member.now, member.image
    return ProcessEvent(
        kind=kind,
        pid=now.pid,
        start_ns=now.start_ns,
        ppid=member.ppid,
        parent_start_ns=member.parent_start_ns,
        uid=image.uid,
        gid=image.gid,
        comm=now.comm,
        exe=image.exe,
        args=image.args,
        cwd=image.cwd,
        cgroup=image.cgroup,
        source="polled",
        truncated=image.truncated,
        ts_ns=ts_ns,
    )
