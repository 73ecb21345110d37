"""Machines to collect from: this one, with cgroups made for a test, and ones made of files."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from linnix_core.testing.waiting import eventually
from linnix_plugin_psi import PsiCollector, PsiConfig
from linnix_plugin_psi.hierarchies import find_hierarchies

PRESSURE = (
    "some avg10={:.2f} avg60=0.00 avg300=0.00 total=0\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
)


class Clock:
    """A clock that a test moves on."""

    def __init__(self):
        self.now = 1000.0

    def time_ns(self):
        return 1_700_000_000_000_000_000 + round(self.now * 1e9)

    def monotonic(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_collector(linnix_context):
    """A started collector of this machine, or of the one at ``proc``."""

    def make(proc=Path("/proc"), clock=None, **options):
        parts = {} if clock is None else {"clock": clock}
        context = linnix_context("collectors.psi", **parts)
        collector = PsiCollector(PsiConfig(**options), context, proc=proc)
        collector.linnix_start()
        return collector

    return make


class Machine:
    """A /proc and hierarchies made of files, laid out as the kernel does."""

    def __init__(self, folder):
        self.proc = folder / "proc"
        self._folder = folder
        (self.proc / "self").mkdir(parents=True)
        device = os.stat(folder).st_dev
        self.device = f"{os.major(device)}:{os.minor(device)}"
        self._lines = [f"22 1 {self.device} / /proc rw,relatime - proc proc rw"]
        self._write_mounts()

    def offer_pressure(self, some=0.0):
        for resource in ("cpu", "memory", "io"):
            self.write(self.proc / "pressure" / resource, PRESSURE.format(some))

    def mount(self, kind, options="rw", *, at=None, root="/", device=None, controllers=""):
        """Mount a hierarchy and return its folder."""
        folder = self._folder / (at or f"{kind}-{len(self._lines)}")
        folder.mkdir(parents=True, exist_ok=True)
        escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in str(folder))
        self._lines.append(
            f"{40 + len(self._lines)} 31 {device or self.device} {root} {escaped} rw shared:9 "
            f"master:1 - {kind} {kind} {options}"
        )
        self._write_mounts()
        if kind == "cgroup2":
            self.write(folder / "cgroup.controllers", controllers + "\n")
        return folder

    def write(self, file, text):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n" if isinstance(text, int) else text)

    def _write_mounts(self):
        (self.proc / "self" / "mountinfo").write_text("\n".join(self._lines) + "\n")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture(scope="session")
def make_machine():
    return Machine


class Group:
    """A real cgroup, in each hierarchy of this machine that the collector reads."""

    def __init__(self, name, hierarchies):
        self.path = b"/" + os.fsencode(name)
        self._folders = {hierarchy: hierarchy.folder + self.path for hierarchy in hierarchies}
        self.make()

    @property
    def text(self):
        """The path as records have it."""
        return self.path.decode("utf-8", "backslashreplace")

    def make(self):
        for folder in self._folders.values():
            os.mkdir(folder)

    def remove(self):
        for folder in self._folders.values():
            with contextlib.suppress(FileNotFoundError):
                with os.scandir(folder) as entries:
                    below = [entry.path for entry in entries if entry.is_dir()]
                for each in (*below, folder):
                    _remove(each)

    def admit(self, process):
        for folder in self._folders.values():
            Path(os.fsdecode(folder), "cgroup.procs").write_text(str(process.pid))

    def folder(self, controller):
        """Where the files of a controller are, and of which version."""
        for hierarchy, folder in self._folders.items():
            if controller in hierarchy.controllers:
                return Path(os.fsdecode(folder)), hierarchy.version
        pytest.skip(f"no hierarchy here has the {controller} controller")

    def unified(self):
        for hierarchy, folder in self._folders.items():
            if hierarchy.version == 2:
                return Path(os.fsdecode(folder))
        pytest.skip("cgroup version 2 is not mounted here")

    def cpu_ns(self):
        """What this group has used, from whichever hierarchy counts it."""
        for hierarchy, folder in self._folders.items():
            base = Path(os.fsdecode(folder))
            if hierarchy.version == 2:
                return int((base / "cpu.stat").read_text().split()[1]) * 1000
            if "cpuacct" in hierarchy.controllers:
                return int((base / "cpuacct.usage").read_text())
        return pytest.skip("no hierarchy here counts CPU")

    def limit_cpu(self, *, quota_us, period_us):
        folder, version = self.folder("cpu")
        if version == 2:
            (folder / "cpu.max").write_text(f"{quota_us} {period_us}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(period_us))
            (folder / "cpu.cfs_quota_us").write_text(str(quota_us))

    def limit_memory(self, size):
        folder, version = self.folder("memory")
        if version == 2:
            (folder / "memory.max").write_text(str(size))
            if (folder / "memory.swap.max").exists():
                (folder / "memory.swap.max").write_text("0")
        else:
            (folder / "memory.limit_in_bytes").write_text(str(size))


def _remove(folder):
    def is_gone():
        with contextlib.suppress(OSError):
            os.rmdir(folder)
        return not os.path.exists(folder)

    # What a killed process leaves behind keeps the group busy for a moment.
    eventually(is_gone)


@pytest.fixture(scope="session")
def hierarchies():
    """The hierarchies of this machine, with the controllers enabled for new groups."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("making cgroups needs Linux and root")
    found, _ = find_hierarchies(Path("/proc"))
    for hierarchy in found:
        if not os.access(hierarchy.folder, os.W_OK):
            pytest.skip("cgroups are mounted read-only here")
        if hierarchy.version == 2:
            control = Path(os.fsdecode(hierarchy.folder), "cgroup.subtree_control")
            for controller in hierarchy.controllers & {"cpu", "memory"}:
                control.write_text(f"+{controller}")
    return found


@pytest.fixture
def make_group(hierarchies):
    """Make a real cgroup; after the test it is gone, and so is who is in it."""
    with contextlib.ExitStack() as cleanup:

        def make(name=b""):
            group = Group(b"linnix-%d-%s" % (os.getpid(), os.fsencode(name)), hierarchies)
            cleanup.callback(group.remove)
            return group

        yield make


@pytest.fixture
def group(make_group):
    return make_group()


class Child:
    """A process that goes on when it is told to."""

    def __init__(self, script):
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", f"input()\n{script}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid

    def go_on(self):
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def wait(self):
        return self._process.wait(60)

    def end(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()


@pytest.fixture
def start(make_group):
    """Start a script that waits for its turn; it is gone before its group has to be."""
    with contextlib.ExitStack() as cleanup:

        def start(script):
            child = Child(script)
            cleanup.callback(child.end)
            return child

        yield start
