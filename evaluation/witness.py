"""What really happened, seen without Linnix: counts of a cgroup and of its processes."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import attrs

__all__ = ["Group", "Member", "Witness", "host_counts"]

_TICK_NS = 10_000_000
_PAGE = 4096

#: Processes looked at in one round, and remembered of one case.
MAX_LOOKED_AT, MAX_MEMBERS = 400, 600


class Group:
    """A cgroup of its own for one case: what is in it is the case, whoever its parents are."""

    def __init__(self, name: str, limit_bytes: int | None, total_bytes: int) -> None:
        first = Path("/sys/fs/cgroup/memory")
        self._v1 = first.is_dir()
        top = (first if self._v1 else Path("/sys/fs/cgroup")) / "linnix-evaluation"
        self._limit_file = "memory.limit_in_bytes" if self._v1 else "memory.max"
        top.mkdir(exist_ok=True)
        if not self._v1:
            for folder in (top.parent, top):
                (folder / "cgroup.subtree_control").write_text("+memory")
        (top / self._limit_file).write_text(str(total_bytes))
        self.folder = top / name
        self.folder.mkdir()
        self.path = f"/linnix-evaluation/{name}"
        self.procs = self.folder / "cgroup.procs"
        if limit_bytes is not None:
            (self.folder / self._limit_file).write_text(str(limit_bytes))

    def pids(self) -> list[int]:
        """The processes in it now."""
        return pids_in(self.procs)

    def peak_bytes(self) -> int:
        """The most memory that it had."""
        return self._number("memory.max_usage_in_bytes" if self._v1 else "memory.peak")

    def held_bytes(self) -> int:
        """What it has now that cannot be dropped: no files."""
        try:
            text = (self.folder / "memory.stat").read_text()
        except OSError:
            return 0
        found = re.search(r"^(?:rss|anon) (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else 0

    def kills(self) -> int:
        """How many of its processes the kernel killed for want of memory."""
        try:
            text = (
                self.folder / ("memory.oom_control" if self._v1 else "memory.events")
            ).read_text()
        except OSError:
            return 0
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else 0

    def remove(self) -> None:
        """Needs it to be empty."""
        for _ in range(50):
            try:
                self.folder.rmdir()
                return
            except OSError:
                time.sleep(0.1)

    def _number(self, name: str) -> int:
        try:
            return int((self.folder / name).read_text())
        except (OSError, ValueError):
            return 0


def pids_in(procs: Path) -> list[int]:
    """The processes that a ``cgroup.procs`` lists."""
    try:
        return [int(line) for line in procs.read_text().split()]
    except OSError:
        return []


def own_groups() -> list[Path]:
    """The ``cgroup.procs`` of all cases of this process that are not over."""
    name = f"linnix-evaluation/*-{os.getpid()}/cgroup.procs"
    tops = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    return [procs for top in tops for procs in top.glob(name)]


@attrs.define
class Member:
    """A process of the case that was there twice, with the most that it was seen to have used."""

    pid: int
    start_ns: int
    ppid: int
    comm: str
    first_s: float
    last_s: float
    cpu_s: float = 0
    rss_bytes: int = 0
    io_bytes: int = 0


@attrs.define
class Witness:
    """Looks at the processes of a group twice a second."""

    group: Group
    began_s: float = attrs.field(factory=time.monotonic)
    most_alive: int = 0
    _members: dict[tuple[int, int], Member] = attrs.field(factory=dict)

    def look(self) -> None:
        """Note what the processes have used by now."""
        pids = self.group.pids()
        self.most_alive = max(self.most_alive, len(pids))
        now = time.monotonic() - self.began_s
        for pid in pids[:MAX_LOOKED_AT]:
            try:
                before, _, after = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")
            except OSError:
                continue
            fields = after.split()
            key = pid, int(fields[19]) * _TICK_NS
            member = self._members.get(key)
            if member is None:
                if len(self._members) >= MAX_MEMBERS and not self._forget():
                    continue
                comm = before.partition(b"(")[2].decode(errors="replace")
                member = self._members[key] = Member(*key, int(fields[1]), comm, now, now)
            member.last_s = now
            member.cpu_s = (int(fields[11]) + int(fields[12])) / 100
            member.rss_bytes = max(member.rss_bytes, int(fields[21]) * _PAGE)
            member.io_bytes = max(member.io_bytes, _io_bytes(pid))

    def _forget(self) -> bool:
        """Make room: those that were there once only."""
        for key in [k for k, m in self._members.items() if m.first_s == m.last_s]:
            del self._members[key]
        return len(self._members) < MAX_MEMBERS

    def members(self) -> list[Member]:
        """Those that lived from one look to another."""
        return [member for member in self._members.values() if member.last_s > member.first_s]


def _io_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except OSError:
        return 0
    return sum(int(n) for n in re.findall(r"^(?:read|write)_bytes: (\d+)$", text, re.MULTILINE))


def host_counts() -> dict[str, int]:
    """Counters of the whole machine, to be subtracted: forks, stalls (µs), sectors of disks."""
    forks = re.search(r"^processes (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    counts = {"forks": int(forks[1]) if forks else 0}
    for what in ("cpu", "memory", "io"):
        try:
            text = Path(f"/proc/pressure/{what}").read_text()
        except OSError:
            continue
        for kind, total in re.findall(r"^(some|full) .*total=(\d+)$", text, re.MULTILINE):
            counts[f"{what}_{kind}_us"] = int(total)
    lines = [line.split() for line in Path("/proc/diskstats").read_text().splitlines()]
    disks = [line for line in lines if re.fullmatch(r"[hsv]d[a-z]|nvme\d+n\d+", line[2])]
    counts["disk_bytes"] = 512 * sum(int(line[5]) + int(line[9]) for line in disks)
    counts["disk_busy_ms"] = sum(int(line[12]) for line in disks)
    return counts


def own_count(output: str) -> float | None:
    """What the program says it did: its last line of JSON, or the bogo operations of stress-ng."""
    said = re.findall(r'^\{"count": (\d+)\}$', output, re.MULTILINE)
    if said:
        return float(said[-1])
    brief = re.findall(r"stress-ng: \S+ +\[\d+\] [a-z-]+ +(\d+) +[\d.]+ +[\d.]+ +[\d.]+", output)
    return float(sum(map(int, brief))) if brief else None


def described(member: Member) -> dict[str, object]:
    """For the file of truths."""
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in attrs.asdict(member).items()}


def dumps(document: object) -> str:
    """JSON as all files of truths have it."""
    return json.dumps(document, indent=1)
