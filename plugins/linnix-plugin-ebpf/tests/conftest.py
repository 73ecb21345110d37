"""Collectors at work on this machine, what they tell, and real processes to look at."""

import contextlib
import logging
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from linnix_core import Context, PluginUnavailable, ProcessView
from linnix_core.testing.waiting import eventually
from linnix_plugin_ebpf import EbpfCollector, EbpfConfig, requirements
from linnix_plugin_ebpf.libbpf import Libbpf, LibbpfMissing
from linnix_plugin_ebpf.programs import read_object
from linnix_plugin_psutil import LinuxReader

#: Seconds after which something that a test waits for will not happen any more.
HANG_S = 30.0

#: A fresh interpreter without the site's packages: it starts faster.
PYTHON = (sys.executable, "-I", "-S", "-c")


@pytest.fixture(scope="session")
def ebpf_missing():
    """Why programs cannot be loaded here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        requirements.check()
        Libbpf()
    except (PluginUnavailable, LibbpfMissing) as error:
        return f"eBPF cannot run here: {error}"
    return ""


@pytest.fixture(scope="session")
def ebpf(ebpf_missing):
    """Skips where programs cannot be loaded, with the reason."""
    if ebpf_missing:
        pytest.skip(ebpf_missing)


# --- what a collector tells -------------------------------------------------------------


class Seen:
    """A sink that keeps everything, and in which one can wait for something."""

    def __init__(self):
        self.records = []
        self.accounts = []
        self._changed = threading.Condition()

    def emit_many(self, records):
        with self._changed:
            self.records += records
            self._changed.notify_all()

    def balance(self, emitted, received, lost):
        with self._changed:
            self.accounts.append((emitted, received, dict(lost)))
            self._changed.notify_all()

    def clear(self):
        with self._changed:
            self.records.clear()

    def wait(self, look):
        """What ``look`` returns, as soon as that is something."""
        with self._changed:
            deadline = time.monotonic() + HANG_S
            while not (found := look()):
                if not self._changed.wait(deadline - time.monotonic()):
                    pytest.fail("what is waited for has not come")
            return found

    def events(self, *kinds, **wanted):
        """The events of these kinds with these attributes, so far."""
        with self._changed:
            return [
                record
                for record in self.records
                if record.type == "event"
                and record.kind in kinds
                and all(getattr(record, name) == value for name, value in wanted.items())
            ]

    def event(self, *kinds, **wanted):
        """The first such event; waits for it."""
        return self.wait(lambda: self.events(*kinds, **wanted))[0]

    def life(self, pid):
        """Everything that was told of a process, from its fork to its exit; waits for it."""
        self.event("exit", pid=pid)
        return self.events("seen", "fork", "exec", "exit", "oom", pid=pid)

    def samples(self, pid):
        """The samples of a process, so far."""
        with self._changed:
            return [r for r in self.records if r.type == "sample" and r.pid == pid]

    def catch_up(self):
        """Wait until all that has happened by now is here."""
        # The ring is read in its order, so whatever came before this is here before it.
        self.event("exit", pid=_finish("true").pid)


class Running:
    """A collector that has started; it collects between `begin` and `end`."""

    def __init__(self, collector):
        self.collector = collector
        self.seen = Seen()
        self.raised = []
        self._stop = threading.Event()
        self._thread = None

    def begin(self, sink=None):
        def run():
            try:
                self.collector.linnix_collect(sink or self.seen, self._stop)
            except BaseException as error:
                self.raised.append(error)

        self._stop.clear()
        self._thread = threading.Thread(target=run)
        self._thread.start()
        return self.seen

    def end(self):
        self._stop.set()
        self.join()

    def join(self):
        if self._thread is not None:
            self._thread.join(HANG_S)
            assert not self._thread.is_alive()

    @property
    def account(self):
        """The last account."""
        return self.seen.accounts[-1]


def _collector(folder, options):
    context = Context(
        component="collectors.ebpf",
        logger=logging.getLogger("linnix.collectors.ebpf"),
        processes=ProcessView(),
        incidents=None,  # nothing that a collector looks at
        data_dir=folder,
    )
    return EbpfCollector(EbpfConfig(**options), context)


@contextlib.contextmanager
def _started(folder, options):
    collector = _collector(folder, options)
    running = Running(collector)
    try:
        collector.linnix_start()
        yield running
    finally:
        running.end()
        collector.linnix_stop()


@pytest.fixture
def make_collector(tmp_path):
    """A collector that has not started."""
    return lambda **options: _collector(tmp_path, options)


@pytest.fixture
def start_collector(ebpf, tmp_path):
    """Start a collector with these options; it is stopped after the test."""
    with contextlib.ExitStack() as cleanup:
        yield lambda **options: cleanup.enter_context(_started(tmp_path, options))


@pytest.fixture(scope="module")
def _watching(ebpf, tmp_path_factory):
    with _started(tmp_path_factory.mktemp("ebpf"), {"sample_interval": 0.0}) as running:
        running.begin()
        yield running.seen
    assert running.raised == []


@pytest.fixture
def seen(_watching):
    """What a collector tells from here on; it serves all tests of a file."""
    _watching.clear()
    return _watching


# --- the programs -----------------------------------------------------------------------


@pytest.fixture
def spoil(ebpf):
    """The programs with those of one section changed so that no kernel takes them."""

    def change(section):
        image = bytearray(read_object())
        (table,) = struct.unpack_from("<Q", image, 40)
        size, count, names = struct.unpack_from("<HHH", image, 58)
        headers = [struct.unpack_from("<I4xQQQQ", image, table + i * size) for i in range(count)]
        strings = headers[names][3]
        for name, _, _, begin, _ in headers:
            found = image[strings + name :].split(b"\0", 1)[0].decode()
            if found == section:
                # The first instruction becomes exit, with nothing to return yet.
                image[begin : begin + 8] = b"\x95" + bytes(7)
                return bytes(image)
        pytest.fail(f"the object has no section {section}")

    return change


# --- real processes ---------------------------------------------------------------------


def _finish(*command, **options):
    child = subprocess.Popen(command, **options)
    try:
        child.wait(HANG_S)
    finally:
        child.kill()
        child.wait()
    return child


@pytest.fixture
def finish():
    """Run a command to its end; that process, with its pid and its status."""
    return _finish


@pytest.fixture
def finish_python():
    """Run a script to its end; that process, with its pid and its status."""
    return lambda script, *args, **options: _finish(*PYTHON, script, *args, **options)


def _state(pid):
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]


@pytest.fixture
def start():
    """Start a command with pipes to it; it is gone after the test.

    With ``ready`` it first says a line.
    """
    children = []

    def start(*command, ready=False, **options):
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, **options
        )
        children.append(child)
        if ready:
            assert child.stdout.readline()
        else:
            # Popen returns when exec has closed its pipe; the process gets its name after that.
            eventually(lambda: _state(child.pid) != b"R")
        return child

    yield start
    for child in children:
        child.stdin.close()
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.fixture
def start_python(start):
    """Start a script that says a line when it is ready."""
    return lambda script, *args, **options: start(*PYTHON, script, *args, ready=True, **options)


#: Forks children that do nothing, one after the other.
STORM = """
import os, sys
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
"""


def _storm(forks, *, group=None):
    command = (*PYTHON, STORM, str(forks))
    child = _finish(*(command if group is None else group.inside(*command)))
    assert child.returncode == 0
    return child


@pytest.fixture
def storm():
    """Fork so many children in one process, maybe in a cgroup; that process when it is over."""
    return _storm


@pytest.fixture
def in_proc():
    """What /proc shows of a process: its line of numbers, and what it runs."""
    reader = LinuxReader()

    def look(pid):
        reading = reader.read(pid)
        return reading, reader.describe(reading)

    return look


# --- cgroups ----------------------------------------------------------------------------


class Group:
    """A cgroup of a test."""

    def __init__(self, folder, root):
        self.folder = folder
        self._root = root

    @property
    def path(self):
        return "/" + os.path.relpath(os.fsencode(self.folder), os.fsencode(self._root)).decode(
            "utf-8", "backslashreplace"
        )

    def inside(self, *command):
        """A command that enters the group and then is this one."""
        script = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        return "sh", "-c", script, os.fsdecode(self.folder), *command

    def rename(self, name):
        self.folder = self.folder.rename(self.folder.with_name(name))

    def remove(self):
        # Until the last process has left, which nothing tells of.
        eventually(self._is_gone)

    def _is_gone(self):
        if self.folder.exists():
            for pid in (self.folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        return not self.folder.exists()


def _mounted(kind, option=None):
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        found, _, options = after.split()[:3]
        if found == kind and (option is None or option in options.split(",")):
            return Path(before.split()[4])
    return None


@pytest.fixture
def has_v1():
    """Whether groups are of version 1, which can be renamed."""
    return _mounted("cgroup", "memory") is not None


@pytest.fixture
def make_group(ebpf):
    """Make a cgroup: of a controller of version 1, or of version 2.

    Where one of the versions is not mounted, everything is in the other.
    """
    groups = []

    def make(version=None, name=None, inside=None, controller="memory"):
        if inside is not None:
            root, folder = inside._root, inside.folder
        else:
            first, second = _mounted("cgroup", controller), _mounted("cgroup2")
            root = folder = (second or first) if version == 2 else (first or second)
        group = Group(folder / (name or f"linnix-test-{uuid.uuid4().hex[:8]}"), root)
        group.folder.mkdir()
        groups.append(group)
        return group

    yield make
    for group in reversed(groups):
        group.remove()
