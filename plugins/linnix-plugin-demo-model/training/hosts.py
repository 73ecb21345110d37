"""A made-up machine of which the core makes a request, as it does of a real one."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

import attrs

from linnix_core import (
    CgroupSample,
    Evidence,
    Incident,
    IncidentClass,
    Pressure,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    ProcessTable,
    ReasonRequest,
    Subject,
    SystemSample,
    build_request,
)
from linnix_core.surroundings import Surroundings

__all__ = ["Host", "Running", "made_up_name"]

BOOT = "00000000-0000-4000-8000-000000000000"
SECOND_NS = 10**9
MIB = 2**20
NOW_NS = 5_000 * SECOND_NS

_COMMON = (  # noqa: SIM905 - a list of words
    "bash sh dash zsh python3.11 python3 python perl ruby node java php go cargo rustc gcc cc1 "
    "ld make ninja cmake git tar gzip xz zstd rsync cp dd find grep sed awk sort xargs ssh "
    "sshd systemd cron nginx httpd postgres mysqld redis-server mongod sqlite3 dockerd "
    "containerd runc kubelet envoy prometheus grafana telegraf fluentd logrotate journald "
    "rsyslogd stress-ng worker server leak forks spin kworker ksoftirqd celery gunicorn uwsgi "
    "puma sidekiq beam.smp erl dotnet mono chrome firefox"
).split()


def made_up_name(draw: random.Random) -> str:
    """A name of a process: a known one, or one that nobody has seen, whatever it says."""
    if draw.random() < 0.35:
        return draw.choice(_COMMON)
    letters = string.ascii_lowercase + ("-_.+@" + string.digits + string.ascii_uppercase)
    weights = [6] * 26 + [1] * (len(letters) - 26)
    return "".join(draw.choices(letters, weights, k=draw.randint(1, 15)))


@attrs.define
class Running:
    """One process of the machine."""

    pid: int
    start_ns: int
    comm: str
    exe: str | None

    @property
    def key(self) -> ProcessKey:
        """What the core knows it by."""
        return ProcessKey(BOOT, self.pid, self.start_ns)


class Host:
    """Processes, pressure and a cgroup; `request` has the core number what it sees of them."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.table = ProcessTable()
        self.surroundings = Surroundings()
        self._pid = draw.randrange(10, draw.choice((400, 5_000, 40_000, 3_000_000)))
        self._at_ns = NOW_NS - 100 * SECOND_NS

    def process(
        self,
        name: str | None = None,
        *,
        parent: Running | None = None,
        cgroup: str | None = None,
    ) -> Running:
        """Somebody who runs already."""
        name = name or made_up_name(self.draw)
        found = self._new(name, f"/usr/bin/{name}")
        self.table.update([self._event("seen", found, parent, cgroup=cgroup)])
        return found

    def sample(
        self,
        process: Running,
        *,
        cpu: float | None = None,
        rss: float | None = None,
        reads: float = 0.0,
        writes: float = 0.0,
    ) -> None:
        """What it uses: percent of a core, MiB, and MiB in a second."""
        self.table.update(
            [
                ProcessSample(
                    process.pid, process.start_ns, SECOND_NS, comm=process.comm,
                    cpu_percent=cpu, rss_bytes=None if rss is None else int(rss * MIB),
                    read_bytes=int(reads * MIB), write_bytes=int(writes * MIB),
                    ts_ns=NOW_NS, boot_id=BOOT,
                )
            ]
        )  # fmt: skip

    def children(
        self,
        parent: Running,
        *,
        ended: int = 0,
        alive: int = 0,
        life_s: float = 0.0,
        executed: float = 0.0,
        programs: int = 1,
    ) -> None:
        """Forks below a process, of which a share starts one of some programs."""
        draw = self.draw
        names = [made_up_name(draw) for _ in range(max(programs, 1))]
        events: list[ProcessEvent] = []
        for number in range(ended + alive):
            ends = number < ended
            child = self._new(parent.comm, parent.exe)
            events.append(self._event("fork", child, parent))
            if draw.random() < executed:
                name = names[number % len(names)]
                child.comm, child.exe = name, f"/usr/bin/{name}"
                events.append(self._event("exec", child, parent))
            if ends:
                event = self._event("exit", child, parent)
                event.duration_ns = int(life_s * draw.uniform(0.6, 1.5) * 1e9)
                events.append(event)
        self.table.update(events)

    def others(self, count: int, *, busy: bool, cgroup: str | None = None) -> list[Running]:
        """Who else runs: most are idle, and if ``busy`` some are busier than the culprit."""
        draw, found = self.draw, []
        for _ in range(count):
            other = self.process(cgroup=cgroup)
            found.append(other)
            cpu = draw.choice((0.0, round(draw.expovariate(0.5), 1), draw.uniform(0, 30)))
            if busy and draw.random() < 0.35:
                cpu = draw.uniform(20, 130)
            moved = busy and draw.random() < 0.2
            self.sample(
                other,
                cpu=None if draw.random() < 0.03 else cpu,
                rss=2 ** draw.uniform(0, 9),
                reads=2 ** draw.uniform(-4, 6) if moved and draw.random() < 0.4 else 0.0,
                writes=2 ** draw.uniform(-4, 6) if moved else 0.0,
            )
        return found

    def machine(
        self,
        *,
        cpu: float,
        stalls: tuple[float, float, float],
        available: float,
        swap: float | None = None,
        disk: tuple[float, float] = (0.0, 0.0),
        full_io: float | None = None,
    ) -> None:
        """The whole machine: percent busy, PSI of CPU, memory and I/O, memory left."""
        draw = self.draw
        total = 2 ** draw.randint(30, 38)
        cpu_stall, memory_stall, io_stall = stalls
        self.surroundings.update(
            [
                SystemSample(
                    SECOND_NS, cpus=draw.choice((1, 2, 2, 2, 4, 8, 16, 32, 64)),
                    cpu_percent=min(cpu, 100.0), memory_total_bytes=total,
                    memory_available_bytes=int(total * available / 100),
                    swap_total_bytes=None if swap is None else 2**31,
                    swap_used_bytes=None if swap is None else int(2**31 * swap / 100),
                    disk_read_bytes_per_s=disk[0] * MIB, disk_write_bytes_per_s=disk[1] * MIB,
                    psi_cpu=Pressure(cpu_stall, 0), psi_memory=Pressure(memory_stall, 0),
                    psi_io=Pressure(io_stall, 0, full_io), ts_ns=NOW_NS, boot_id=BOOT,
                )
            ]
        )  # fmt: skip

    def cgroup(
        self, name: str, *, used: float | None = None, limit: float | None = None,
        killed: int = 0, stalls: tuple[float, float] | None = None,
    ) -> None:  # fmt: skip
        """The cgroup of the subject: MiB used and allowed, processes killed, stalls."""
        self.surroundings.update(
            [
                CgroupSample(
                    name, SECOND_NS,
                    memory_bytes=None if used is None else int(used * MIB),
                    memory_limit_bytes=None if limit is None else int(limit * MIB),
                    memory_events={"oom_kill": killed} if killed else None,
                    psi_memory=None if stalls is None else Pressure(stalls[0], 0),
                    psi_io=None if stalls is None else Pressure(stalls[1], 0),
                    ts_ns=NOW_NS, boot_id=BOOT,
                )
            ]
        )  # fmt: skip

    def request(
        self,
        detected: IncidentClass | None,
        subject: Running | None,
        evidence: Sequence[Evidence],
        *,
        alerts: int = 1,
        cgroup: str | None = None,
    ) -> ReasonRequest:
        """What a reasoner would be asked."""
        incident = Incident(
            fingerprint="0" * 16,
            severity="medium",
            summary="",
            class_=detected,
            subject=Subject()
            if subject is None
            else Subject(subject.key, subject.exe, subject.comm, cgroup),
            evidence=tuple(evidence),
            alerts=alerts,
            opened_ns=NOW_NS,
            updated_ns=NOW_NS,
            id="incident",
        )
        return build_request(incident, self.table.view, surroundings=self.surroundings)

    def _new(self, comm: str, exe: str | None) -> Running:
        self._pid += self.draw.choice((1, 1, 1, 2, 7))
        self._at_ns += 10_000_000
        return Running(self._pid, self._at_ns, comm, exe)

    def _event(
        self, kind: str, of: Running, parent: Running | None, cgroup: str | None = None
    ) -> ProcessEvent:
        return ProcessEvent(
            kind, of.pid, of.start_ns, None if parent is None else parent.pid,
            None if parent is None else parent.start_ns, comm=of.comm[:15], exe=of.exe,
            cgroup=cgroup, ts_ns=NOW_NS - 2 * SECOND_NS, boot_id=BOOT,
        )  # type: ignore[arg-type]  # fmt: skip
