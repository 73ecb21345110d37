"""Real groups on this machine: one that takes the CPUs, and one that waits for them."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from linnix_core import Batch, SystemSample
from linnix_core.testing.waiting import eventually
from linnix_plugin_psi import PsiCollector, PsiConfig

SPIN = "input()\nwhile True: pass"


def hierarchies():
    """Where groups have a pressure, where their CPU is shared out, where it is counted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = line.split(" ")
        controllers = {"cpu", "cpuacct"} & set(options.split(","))
        if kind == "cgroup2" or (kind == "cgroup" and controllers):
            yield Path(folder)


class Group:
    """A cgroup of one name in all of these hierarchies."""

    def __init__(self, name, folders):
        self.path = f"/{name}"
        self._folders = [folder / name for folder in folders]
        for folder in self._folders:
            folder.mkdir()

    def start(self):
        """A process in the group that spins when it is told to."""
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", SPIN], stdin=subprocess.PIPE)
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(child.pid))
        return child

    def prefer(self):
        """Give it most of the CPUs, against whoever else runs on this machine."""
        self._write("cpu.shares", 16 * 1024)
        self._write("cpu.weight", 1600)

    def _write(self, file, value):
        found = [folder / file for folder in self._folders if (folder / file).exists()]
        for each in found:
            each.write_text(str(value))
        return bool(found)

    def limit(self):
        """Let it have a twentieth of one CPU; whether that is possible here."""
        return any([self._write("cpu.cfs_quota_us", 5000), self._write("cpu.max", "5000 100000")])

    def throttled(self):
        """How often that was in its way."""
        stats = [folder / "cpu.stat" for folder in self._folders]
        lines = [line for stat in stats if stat.exists() for line in stat.read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("nr_throttled "))

    def waited_us(self):
        for folder in self._folders:
            if (folder / "cpu.pressure").exists():
                return int((folder / "cpu.pressure").read_text().split()[4].partition("=")[2])
        return pytest.skip("groups have no pressure here")

    def remove(self):
        for folder in self._folders:
            eventually(lambda folder=folder: removed(folder))


def removed(folder):
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # the kernel is not done yet with who was in it
    return True


def end(child):
    child.kill()
    child.wait()
    child.stdin.close()


@pytest.fixture
def make_group():
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("making cgroups needs Linux and root")
    folders = list(hierarchies())
    if not folders or not all(os.access(folder, os.W_OK) for folder in folders):
        pytest.skip("cgroups cannot be made here")
    with contextlib.ExitStack() as cleanup:

        def make(name, children):
            group = Group(f"linnix-{name}-{os.getpid()}", folders)
            cleanup.callback(group.remove)
            started = []
            for _ in range(children):
                started.append(group.start())
                cleanup.callback(end, started[-1])
            return group, started

        yield make


def test_the_group_that_takes_the_cpus_is_named_first(make_group, make_handler, linnix_context):
    hog, spinners = make_group("hog", children=os.cpu_count())
    victim, (worker,) = make_group("victim", children=1)
    calm, _ = make_group("calm", children=1)
    hog.prefer()
    collector = PsiCollector(PsiConfig(), linnix_context("collectors.psi"))
    collector.linnix_start()
    handler = make_handler(alerts=True, sustained=0.0)
    handler.linnix_handle(Batch(collector.linnix_poll()))
    before_us = victim.waited_us()
    for child in (*spinners, worker):
        child.stdin.write(b"\n")
        child.stdin.flush()
    eventually(lambda: victim.waited_us() - before_us > 500_000)

    second = collector.linnix_poll()
    ended = SystemSample(10**9, ts_ns=second[0].ts_ns + 10**9)
    alerts = handler.linnix_handle(Batch([*second, ended]))

    rows = handler.attribution({"cgroup": victim.path})["attributions"]
    assert rows[0]["offender"] == hog.path
    assert rows[0]["reason"] == "high_cpu_contention"
    assert 500_000 < rows[0]["stall_us"] <= second[0].interval_ns / 1000
    assert sum(row["attributed_stall_us"] for row in rows) <= rows[0]["stall_us"]
    assert calm.path not in [row["offender"] for row in rows]
    accused = [
        alert.labels["offender"] for alert in alerts if alert.labels["victim"] == victim.path
    ]
    assert accused[0] == hog.path


def test_a_group_accuses_nobody_of_its_own_quota(make_group, make_handler, linnix_context):
    victim, (worker,) = make_group("bounded", children=1)
    if not victim.limit():
        pytest.skip("no hierarchy here shares out CPU")
    collector = PsiCollector(PsiConfig(include=["/", "/*"]), linnix_context("collectors.psi"))
    collector.linnix_start()
    handler = make_handler(threshold=0.001)
    first = collector.linnix_poll()
    handler.linnix_handle(Batch(first))
    worker.stdin.write(b"\n")
    worker.stdin.flush()
    eventually(lambda: victim.throttled() and victim.waited_us() > 400_000)

    second = collector.linnix_poll()
    ended = SystemSample(10**9, ts_ns=second[0].ts_ns + 10**9)
    handler.linnix_handle(Batch([*second, ended]))
    before, after = (
        next(sample for sample in poll if sample.cgroup == victim.path) for poll in (first, second)
    )
    stall_us = after.psi_cpu.some_total_us - before.psi_cpu.some_total_us
    rows = handler.attribution({"cgroup": victim.path})["attributions"]
    charged_us = sum(row["attributed_stall_us"] for row in rows)
    assert after.throttled_ns > 0
    assert charged_us <= max(stall_us - after.throttled_ns // 1000, 0)
