"""A host whose processes do what a test says, and whose records an engine can judge."""

from __future__ import annotations

import itertools

import attrs
import pytest

from linnix_core import ProcessEvent, ProcessKey, ProcessSample
from linnix_plugin_rules.engine import Engine
from linnix_plugin_rules.rulefile import parse_rules

SECOND = 10**9
BEGAN_NS = 1_767_225_600 * SECOND
BOOT = "a-boot"


@attrs.frozen
class Proc:
    pid: int
    start_ns: int
    comm: str = "sh"
    parent: Proc | None = None

    @property
    def key(self):
        return ProcessKey(BOOT, self.pid, self.start_ns)


class Host:
    """Writes down records; ``ts_ns`` is now, which moves only when told to."""

    def __init__(self):
        self.ts_ns = BEGAN_NS
        self.records = []
        self._pids = itertools.count(100)

    def wait(self, seconds):
        self.ts_ns += round(seconds * SECOND)

    def event(self, kind, proc, **more):
        parent = proc.parent
        self.records.append(
            ProcessEvent(
                kind,
                pid=proc.pid,
                start_ns=proc.start_ns,
                ppid=parent.pid if parent else 0,
                parent_start_ns=parent.start_ns if parent else None,
                ts_ns=self.ts_ns,
                boot_id=BOOT,
                **{"comm": proc.comm} | more,
            )
        )

    def seen(self, comm, parent=None, pid=None):
        """A process that was there before."""
        number = next(self._pids)
        proc = Proc(pid or number, SECOND // 2 + number * 10**7, comm, parent)
        self.event("seen", proc, exe=f"/usr/bin/{comm}", cgroup="/test.slice")
        return proc

    def fork(self, parent, comm=None):
        start_ns = (self.ts_ns - BEGAN_NS) // 10**7 * 10**7 + 1000 * SECOND
        proc = Proc(next(self._pids), start_ns, comm or parent.comm, parent)
        self.event("fork", proc)
        return proc

    def forks(self, parent, count, *, every=0.0):
        """Children that each live for no time at all."""
        for _ in range(count):
            self.exit(self.fork(parent))
            self.wait(every)

    def exec(self, proc, comm, *args, **more):
        self.event("exec", proc, comm=comm, exe=f"/usr/bin/{comm}", args=(comm, *args), **more)

    def exit(self, proc, **more):
        self.event("exit", proc, **more)

    def jobs(self, parent, count, comm="true", *, lives=0.001, every=0.01, **ending):
        """Children that start a program and end."""
        for _ in range(count):
            job = self.fork(parent)
            self.exec(job, comm)
            self.wait(lives)
            self.exit(job, **ending)
            self.wait(every)

    def sample(self, proc, *, cpu=None, rss=None, interval=5.0, **more):
        self.records.append(
            ProcessSample(
                pid=proc.pid,
                start_ns=proc.start_ns,
                interval_ns=round(interval * SECOND),
                cpu_percent=cpu,
                rss_bytes=rss,
                ts_ns=self.ts_ns,
                boot_id=BOOT,
                **more,
            )
        )

    def cpu(self, used, *, interval=5.0):
        """One round of samples, ``interval`` after the last."""
        self.wait(interval)
        for proc, percent in used.items():
            self.sample(proc, cpu=percent, interval=interval)

    def rss(self, used, *, interval=5.0):
        self.wait(interval)
        for proc, megabytes in used.items():
            self.sample(proc, rss=megabytes * 1_000_000, interval=interval)


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def make_host():
    return Host


@pytest.fixture
def alerts_of():
    """The alerts that a text of rules raises on records; the last round is complete."""

    def judge(rules, records):
        engine = Engine(parse_rules(rules, "rules.yaml").rules)
        later = ProcessEvent("seen", pid=1, start_ns=0, ts_ns=records[-1].ts_ns + SECOND)
        return engine.handle([*records, later])

    return judge
