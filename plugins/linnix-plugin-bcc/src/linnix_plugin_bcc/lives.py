"""Who lives, by what the kernel tells: it makes events of its messages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from linnix_core import ProcessEvent, ProcessSample, Record, start_time_ns
from linnix_plugin_bcc.wire import EXEC, EXIT, FORK, Message
from linnix_plugin_psutil import LinuxReader, cgroup_path

__all__ = ["Lives"]

#: Between the moment that /proc shows as the start of a process and the event of its fork
#: lie microseconds. Where a tick of the clock may have come between, /proc is asked.
FORK_NS = 1_000_000

#: Start times are whole ticks; two that are one tick apart name the same process.
TICK_NS = 10_000_000

#: Paths of cgroups that are remembered.
MAX_CGROUPS = 4096

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Life(NamedTuple):
    """One that lives. ``born_ns`` is its start as exactly as it is known."""

    start_ns: int
    born_ns: int
    ppid: int | None = None
    parent_start_ns: int | None = None


class Lives:
    """Follows every process from its fork to its exit, and so knows who an event is about.

    ``reader`` reads what the kernel's messages leave open; ``costs`` tells whether the
    messages of exits hold what only matching headers can tell. Messages about a process
    that began unseen, and is gone from /proc too, cannot be events: they are counted in
    ``unidentified``.
    """

    def __init__(self, reader: LinuxReader, *, costs: bool, proc: str = "/proc") -> None:
        self._reader = reader
        self._costs = costs
        self._proc = proc
        self._cgroups = _Cgroups(proc)
        self._living: dict[int, Life] = {}
        #: When those who have exec'd since the last poll did so.
        self._execed: dict[int, int] = {}
        self.unidentified = 0

    def event(self, message: Message, epoch_ns: int) -> ProcessEvent | None:
        """What the message tells; ``epoch_ns`` is the time since 1970 of the boot."""
        event: ProcessEvent | None
        if message.kind == FORK:
            event = self._fork(message)
        elif message.kind == EXEC:
            event = self._exec(message)
        elif message.kind == EXIT:
            event = self._exit(message)
        else:
            event = self._oom(message)
        if event is None:
            self.unidentified += 1
        else:
            event.ts_ns = message.time_ns + epoch_ns
        return event

    def first(self, polled: Iterable[Record], attached_ns: int) -> list[Record]:
        """Of the first poll, all but what began after ``attached_ns``: the kernel tells that."""
        kept: list[Record] = []
        for record in polled:
            if isinstance(record, ProcessEvent):
                if record.start_ns > attached_ns:
                    continue
                self._meet(record)
            kept.append(record)
        return kept

    def later(
        self, polled: Sequence[Record], *, lost: bool, ts_ns: int, since_boot_ns: int
    ) -> list[Record]:
        """Of a later poll, the samples, and what only the poll knows if messages were ``lost``.

        Everything that the kernel told before ``since_boot_ns``, when the poll began, must
        have been given to `event`.
        """
        samples = [record for record in polled if isinstance(record, ProcessSample)]
        records: list[Record] = []
        if lost:
            records += self._ended(samples, ts_ns, since_boot_ns)
        for record in polled:
            if not isinstance(record, ProcessEvent):
                continue
            if (lost or record.kind == "seen") and self._is_news(record):
                records.append(record)
        self._execed = {
            pid: time_ns for pid, time_ns in self._execed.items() if time_ns >= since_boot_ns
        }
        return records + samples

    # --- what the kernel tells --------------------------------------------------------

    def _fork(self, message: Message) -> ProcessEvent:
        start_ns = start_time_ns(message.time_ns)
        if message.time_ns - start_ns < FORK_NS:
            reading = self._read(message.pid)
            if reading is not None and reading.start_ns == start_ns - TICK_NS:
                start_ns = reading.start_ns
        parent = self._living.get(message.ppid)
        parent_start_ns = None
        if parent is not None:
            parent_start_ns = parent.start_ns
            start_ns = max(start_ns, parent_start_ns)
        life = Life(start_ns, message.time_ns, message.ppid or None, parent_start_ns)
        self._living[message.pid] = life
        return _event("fork", message, life)

    def _exec(self, message: Message) -> ProcessEvent | None:
        life = self._identify(message)
        if life is None:
            return None
        self._living[message.pid] = life
        self._execed[message.pid] = message.time_ns
        event = _event("exec", message, life)
        event.exe, event.args, event.truncated = message.exe, message.args, message.args_cut
        event.cgroup = self._cgroups.of(message.pid, message.cgroup)
        return event

    def _exit(self, message: Message) -> ProcessEvent | None:
        life = self._identify(message)
        if life is None:
            return None
        self._living.pop(message.pid, None)
        event = _event("exit", message, life)
        event.duration_ns = max(message.time_ns - life.born_ns, 0)
        if self._costs:
            # As wait(2) has it: a signal, or the low eight bits of what was given to exit().
            if number := message.exit_status & 0x7F:
                event.signal = number
            else:
                event.exit_code = message.exit_status >> 8 & 0xFF
            event.cpu_ns = message.cpu_ns
            event.max_rss_bytes = message.max_rss_pages * _PAGE_BYTES
        return event

    def _oom(self, message: Message) -> ProcessEvent | None:
        # The kernel may name a thread, and says nothing more of the victim.
        pid = message.pid if message.pid in self._living else self._process_of(message.pid)
        life = self._living.get(pid)
        if life is None:
            return None
        return ProcessEvent("oom", pid, life.start_ns, life.ppid, life.parent_start_ns)

    def _identify(self, message: Message) -> Life | None:
        life = self._living.get(message.pid)
        if message.start_ns:
            start_ns = start_time_ns(message.start_ns)
            if life is None or not _same(life.start_ns, start_ns):
                return Life(start_ns, message.start_ns)
        elif life is None:
            reading = self._read(message.pid)
            # One that is younger than the message has only got the pid of whom it is about.
            if reading is not None and reading.start_ns <= message.time_ns:
                return Life(reading.start_ns, reading.start_ns, reading.ppid)
        return life

    # --- what only a poll knows -------------------------------------------------------

    def _meet(self, event: ProcessEvent) -> None:
        self._living[event.pid] = Life(
            event.start_ns, event.start_ns, event.ppid, event.parent_start_ns
        )

    def _is_news(self, event: ProcessEvent) -> bool:
        """Whether the kernel did not tell it; gives it the start by which it is known."""
        life = self._living.get(event.pid)
        known = life is not None and _same(life.start_ns, event.start_ns)
        if event.kind == "exec":
            if life is None or not known or event.pid in self._execed:
                return False
            event.start_ns = life.start_ns
            return True
        if event.kind == "exit" or known or not self._lives(event.pid, event.start_ns):
            return False
        self._meet(event)
        return True

    def _ended(
        self, samples: Sequence[ProcessSample], ts_ns: int, since_boot_ns: int
    ) -> list[Record]:
        """Exits of those who are gone, and of whose exit the kernel's word was lost."""
        present = {sample.pid: sample.start_ns for sample in samples if sample.state != "Z"}
        exits: list[Record] = []
        for pid, life in list(self._living.items()):
            if life.born_ns >= since_boot_ns:
                continue  # the poll could not know it
            start_ns = present.get(pid)
            if start_ns is not None and _same(life.start_ns, start_ns):
                continue
            if start_ns is None and self._lives(pid, life.start_ns):
                continue  # it could not be read by the poll
            del self._living[pid]
            exits.append(
                ProcessEvent(
                    "exit",
                    pid,
                    life.start_ns,
                    life.ppid,
                    life.parent_start_ns,
                    source="polled",
                    duration_ns=max(since_boot_ns - life.born_ns, 0),
                    ts_ns=ts_ns,
                )
            )
        return exits

    # --- what /proc knows -------------------------------------------------------------

    def _read(self, pid: int) -> Any:
        try:
            return self._reader.read(pid)
        except (OSError, ValueError, LookupError):
            return None

    def _lives(self, pid: int, start_ns: int) -> bool:
        reading = self._read(pid)
        return reading is not None and reading.state != "Z" and _same(reading.start_ns, start_ns)

    def _process_of(self, thread: int) -> int:
        try:
            status = Path(self._proc, str(thread), "status").read_text("utf-8", "replace")
        except OSError:
            return 0
        found = re.search(r"^Tgid:\s*(\d+)", status, re.MULTILINE)
        return int(found[1]) if found else 0


class _Cgroups:
    """Paths of cgroups by their id, where all controllers are of version 2.

    Elsewhere the id is that of a hierarchy that nobody may use, and the file is read anew.
    """

    def __init__(self, proc: str) -> None:
        self._proc = proc
        own = self._read("self")
        self._unified = own.startswith("0::") and own.count("\n") == 1
        self._paths: dict[int, str] = {}

    def of(self, pid: int, cgroup: int) -> str | None:
        """Where this process is, if it is still there or another of its group was."""
        path = self._paths.get(cgroup)
        if path is None:
            path = cgroup_path(self._read(str(pid)))
            if path is not None and self._unified:
                if len(self._paths) >= MAX_CGROUPS:
                    self._paths.clear()
                self._paths[cgroup] = path
        return path

    def _read(self, pid: str) -> str:
        try:
            raw = Path(self._proc, pid, "cgroup").read_bytes()
        except OSError:
            return ""
        return raw.decode("utf-8", "backslashreplace")


def _event(kind: Literal["fork", "exec", "exit"], message: Message, life: Life) -> ProcessEvent:
    return ProcessEvent(
        kind,
        message.pid,
        life.start_ns,
        life.ppid,
        life.parent_start_ns,
        message.uid,
        message.gid,
        message.comm,
    )


def _same(one_ns: int, other_ns: int) -> bool:
    return abs(one_ns - other_ns) <= TICK_NS
