"""What the tests of this plugin share: recordings, and collectors that play them."""

import json
import logging
import signal
import subprocess
import sys
import threading

import attrs
import pytest

from linnix_core import ProcessEvent, ProcessSample, SystemSample, encode
from linnix_core.testing.trial import Sink
from linnix_plugin_replay import ReplayCollector, ReplayConfig

SECOND = 10**9
BEGAN_NS = 1_767_225_600 * SECOND

#: Seconds after which something that a test waits for will not happen any more.
HANG_S = 60


@pytest.fixture
def event():
    """``event(seconds)``: a fork so many seconds after the beginning, by a pid of its own."""
    numbers = iter(range(1, 10**9))

    def make(seconds=None, **parts):
        number = next(numbers)
        parts = {
            "pid": number,
            "start_ns": number * 10**7,
            "ts_ns": BEGAN_NS + round((number if seconds is None else seconds) * SECOND),
            "seq": number,
            "run_id": "a-run",
            "boot_id": "a-boot",
        } | parts
        return ProcessEvent("fork", **parts)

    return make


@pytest.fixture
def lines_of():
    """Records as the bytes of a file."""
    return lambda records: b"".join(encode(record) + b"\n" for record in records)


@pytest.fixture
def write(tmp_path, lines_of):
    """``write("name", records)``: a recorded file in the folder of the test."""

    def write(name, records, *, pack=bytes):
        file = tmp_path / name
        file.write_bytes(pack(lines_of(records)))
        return file

    return write


@pytest.fixture
def make_collector(linnix_context):
    """Collectors that are built but not started."""
    made = []

    def make(path, *, context=None, **options):
        config = ReplayConfig(path=path, **options)
        collector = ReplayCollector(config, context or linnix_context("collectors.replay"))
        made.append(collector)
        return collector

    yield make
    for collector in made:
        collector.linnix_stop()


@pytest.fixture
def play(make_collector):
    """Play a recording to its end, in this thread, into a sink that keeps everything."""

    def play(path, *, stop=None, **options):
        collector, sink = make_collector(path, **options), Sink()
        collector.linnix_start()
        collector.linnix_collect(sink, stop or threading.Event())
        sink.limits = collector.linnix_health().limits
        return sink

    return play


@pytest.fixture
def playing(make_collector):
    """Play in a thread: sink, stop, and a call that waits for the end; stopped with the test."""
    started = []

    def begin(path, **options):
        collector, sink, stop = make_collector(path, **options), Sink(), threading.Event()
        collector.linnix_start()
        thread = threading.Thread(target=collector.linnix_collect, args=(sink, stop), daemon=True)
        thread.start()
        started.append((thread, stop))

        def ended():
            thread.join(HANG_S)
            return not thread.is_alive()

        return sink, stop, ended

    yield begin
    for thread, stop in started:
        stop.set()
        thread.join(HANG_S)


@pytest.fixture
def logged():
    """What the component logs, whether or not a run in this process set up the log."""

    class Listed(logging.Handler):
        def emit(self, record):
            records.append((record.levelname, record.getMessage()))

    records = []
    logger, listed = logging.getLogger("linnix.collectors.replay"), Listed()
    before = logger.level
    logger.addHandler(listed)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(listed)
    logger.setLevel(before)


@pytest.fixture
def linnix(tmp_path):
    """``linnix(…)`` with these arguments, in a process of its own and in the test's folder."""

    def run(*arguments, **parts):
        parts = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | parts
        return subprocess.Popen(
            [sys.executable, "-m", "linnix_core", *map(str, arguments)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            **parts,
        )

    started = []

    def begin(*arguments, **parts):
        started.append(run(*arguments, **parts))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def finish():
    """Wait for a process; what it printed and logged. It must have ended well."""

    def finish(process, *, interrupt=False):
        if interrupt:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG_S)
        assert process.returncode == 0, err.decode()
        return out, err.decode()

    return finish


@pytest.fixture
def alerts_in():
    """The alerts that a file holds, without what belongs to the run."""

    def read(file):
        found = [json.loads(line) for line in file.read_bytes().splitlines()]
        return [
            {key: value for key, value in line.items() if key not in OF_THE_RUN}
            for line in found
            if line["type"] == "alert"
        ]

    return read


#: The keys of an alert in which a replay differs from the run that was recorded.
OF_THE_RUN = frozenset({"id", "seq", "host", "run_id"})


@attrs.define
class Host:
    """Writes down what processes do; time passes only when it is told to."""

    ts_ns: int = BEGAN_NS
    records: list = attrs.field(factory=list)
    pids: int = 100

    def wait(self, seconds):
        self.ts_ns += round(seconds * SECOND)

    def event(self, kind, pid, parent=1, **more):
        self.records.append(
            ProcessEvent(
                kind,
                pid,
                self.start_ns(pid),
                ppid=parent,
                parent_start_ns=self.start_ns(parent),
                ts_ns=self.ts_ns,
                boot_id="yesterday",
                **{"comm": "sh", "exe": "/bin/sh", "cgroup": "/test.slice"} | more,
            )
        )
        return pid

    @staticmethod
    def start_ns(pid):
        return pid * 10**7

    def new(self, kind, parent=1, **more):
        self.pids += 1
        return self.event(kind, self.pids, parent, **more)

    def forks(self, parent, count, every):
        for _ in range(count):
            self.event("exit", self.new("fork", parent), parent, exit_code=0)
            self.wait(every)

    def sample(self, *pids, system=False, **used):
        """One round of samples, all with the same use."""
        for pid in pids:
            self.records.append(
                ProcessSample(
                    pid,
                    self.start_ns(pid),
                    5 * SECOND,
                    ts_ns=self.ts_ns,
                    boot_id="yesterday",
                    **used,
                )
            )
        if system:
            self.records.append(SystemSample(5 * SECOND, ts_ns=self.ts_ns, boot_id="yesterday"))


@pytest.fixture
def host():
    return Host()
