"""Real processes: what polls tell of their lives, through each reader."""

import json
import os
import shutil
import subprocess
import sys

import psutil
import pytest

from linnix_core import ProcessEvent, ProcessSample, ProcessTable, decode, encode
from linnix_core.testing.waiting import eventually
from linnix_plugin_psutil.linux import LinuxReader
from linnix_plugin_psutil.portable import PortableReader

WAIT = "print('ready', flush=True); input()"
FORK = "import os; child = os.fork(); child or {body}; child and print(child, flush=True); input()"

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def collector(make_collector, make_reader):
    return make_collector(make_reader(), system=False)


def events_of(records, pid):
    return [r for r in records if isinstance(r, ProcessEvent) and r.pid == pid]


def kinds_of(records, pid):
    return [event.kind for event in events_of(records, pid)]


def sample_of(records, pid):
    (sample,) = [r for r in records if isinstance(r, ProcessSample) and r.pid == pid]
    return sample


def test_the_first_poll_has_seen_everything_and_measures_no_interval(collector):
    records = collector.linnix_poll()

    events = [r for r in records if isinstance(r, ProcessEvent)]
    samples = [r for r in records if isinstance(r, ProcessSample)]
    assert {event.kind for event in events} == {"seen"}
    assert {event.source for event in events} == {"polled"}
    assert [type(r) for r in records] == [ProcessEvent] * len(events) + [ProcessSample] * len(
        samples
    )
    assert all(s.cpu_percent is None and s.interval_ns == 0 for s in samples)

    (own,) = events_of(records, os.getpid())
    assert own.ppid == os.getppid()
    assert (own.uid, own.gid) == (os.getuid(), os.getgid())
    assert own.exe == os.path.realpath(sys.executable)
    assert own.args == tuple(psutil.Process().cmdline())
    assert own.cwd == os.getcwd()
    measured = sample_of(records, os.getpid())
    assert measured.rss_bytes > 1_000_000
    assert measured.threads >= 1
    assert measured.state in {"R", "S"}


def test_all_records_of_a_poll_have_one_time(make_collector, make_reader):
    class Clock:
        def time_ns(self):
            return 1_700_000_000_123_456_789

        def monotonic(self):
            return 7.0

    records = make_collector(make_reader(), clock=Clock()).linnix_poll()
    assert {record.ts_ns for record in records} == {1_700_000_000_123_456_789}


def test_a_child_that_was_started_between_polls_has_forked_and_execed(collector, start_python):
    (own,) = events_of(collector.linnix_poll(), os.getpid())
    child = start_python(WAIT, "an argument")
    records = collector.linnix_poll()

    fork, exec_ = events_of(records, child.pid)
    assert (fork.kind, exec_.kind) == ("fork", "exec")
    assert fork.key == exec_.key
    assert (fork.ppid, fork.parent_start_ns) == (own.pid, own.start_ns)
    assert (fork.exe, fork.args) == (own.exe, own.args)  # a fork is still its parent
    assert exec_.args == (sys.executable, "-I", "-S", "-c", WAIT, "an argument")
    assert exec_.exe == os.path.realpath(sys.executable)
    assert exec_.uid == os.getuid()


def test_a_child_that_goes_is_an_exit_of_unknown_code(collector, start_python):
    child = start_python(WAIT)
    (seen,) = events_of(collector.linnix_poll(), child.pid)
    child.communicate("\n")

    (exit_,) = events_of(collector.linnix_poll(), child.pid)
    assert exit_.kind == "exit"
    assert exit_.key == seen.key
    assert (exit_.exit_code, exit_.signal) == (None, None)
    assert 0 <= exit_.duration_ns < 120 * 10**9
    assert events_of(collector.linnix_poll(), child.pid) == []


def test_a_fork_without_exec_is_a_fork_only(collector, start_python):
    collector.linnix_poll()
    parent = start_python(FORK.format(body="input()"), ready=False)
    child = int(parent.stdout.readline())
    records = collector.linnix_poll()

    assert kinds_of(records, parent.pid) == ["fork", "exec"]
    (fork,) = events_of(records, child)
    (_, exec_) = events_of(records, parent.pid)
    assert fork.kind == "fork"
    assert fork.parent_key == exec_.key
    assert fork.args == exec_.args
    assert records.index(exec_) < records.index(fork)


def test_an_exec_in_place_is_an_exec_of_the_same_process(collector, start):
    child = start("sh", "-c", "echo ready; read line; exec cat")
    (seen,) = events_of(collector.linnix_poll(), child.pid)
    child.stdin.write("go\nhello\n")
    assert child.stdout.readline() == "hello\n"

    (exec_,) = events_of(collector.linnix_poll(), child.pid)
    assert exec_.kind == "exec"
    assert exec_.key == seen.key
    assert (exec_.comm, exec_.args) == ("cat", ("cat",))
    assert events_of(collector.linnix_poll(), child.pid) == []


@on_linux
def test_linux_notices_an_exec_of_the_same_program_with_the_same_arguments(
    make_collector, start, tmp_path
):
    script = tmp_path / "again"
    script.write_text("echo ready; read line; exec sh " + str(script))
    child = start("sh", str(script))
    collector = make_collector(LinuxReader())
    (seen,) = events_of(collector.linnix_poll(), child.pid)
    child.stdin.write("\n")
    assert child.stdout.readline() == "ready\n"

    (exec_,) = events_of(collector.linnix_poll(), child.pid)
    assert exec_.kind == "exec"
    assert (exec_.exe, exec_.args) == (seen.exe, seen.args)


@on_linux
def test_a_process_that_renames_itself_has_not_execed(collector, start_python):
    child = start_python(
        "print('ready', flush=True); input();"
        "open('/proc/self/comm', 'w').write('other'); print('renamed', flush=True); input()"
    )
    collector.linnix_poll()
    child.stdin.write("\n")
    child.stdout.readline()
    records = collector.linnix_poll()

    assert events_of(records, child.pid) == []
    assert sample_of(records, child.pid).comm == "other"


@on_linux
def test_an_executable_that_was_deleted_has_not_execed(make_collector, start, tmp_path):
    program = tmp_path / "program"
    shutil.copy("/bin/sh", program)
    child = start(str(program), "-c", "echo ready; read line")
    collector = make_collector(LinuxReader())
    collector.linnix_poll()
    program.unlink()
    assert events_of(collector.linnix_poll(), child.pid) == []

    (seen,) = events_of(make_collector(LinuxReader()).linnix_poll(), child.pid)
    assert seen.exe == str(program)


@on_linux
@pytest.mark.parametrize(
    ("name", "comm"),
    [
        (b"a b", "a b"),
        (b"x) R 1 (y", "x) R 1 (y"),
        (b"))) ((", "))) (("),
        (b"two\nlines", "two\nlines"),
        (b"back\\slash\\n", "back\\slash\\n"),
        (b"caf\xe9", "caf\\xe9"),
        ("naïve".encode(), "naïve"),
        (b"\x1b[2J\x07", "\x1b[2J\x07"),
        (b"", ""),
    ],
)
def test_any_name_is_read_whole(make_collector, start_python, name, comm):
    child = start_python(
        "import ctypes, sys; name = bytes.fromhex(sys.argv[1]);"
        "ctypes.CDLL(None).prctl(15, name);" + WAIT,
        name.hex(),
    )
    records = make_collector(LinuxReader()).linnix_poll()
    (seen,) = events_of(records, child.pid)
    assert seen.comm == comm
    assert (seen.ppid, seen.kind) == (os.getpid(), "seen")
    assert sample_of(records, child.pid).threads == 1


def test_arguments_that_are_no_text_can_still_be_encoded(collector, start):
    child = start("sh", "-c", "echo ready; read line", b"caf\xe9", b"two\nlines", b"")
    records = collector.linnix_poll()
    (seen,) = events_of(records, child.pid)
    assert seen.args[3:] == ("caf\\xe9", "two\nlines", "")
    assert decode(encode(seen)) == seen


def test_long_arguments_are_cut_and_said_to_be(collector, start):
    child = start("sh", "-c", "echo ready; read line", "x" * 50_000)
    short = start("sh", "-c", "echo ready; read line")
    records = collector.linnix_poll()
    (seen,) = events_of(records, child.pid)
    assert seen.truncated
    assert seen.args[3] == "x" * len(seen.args[3])
    assert 4096 < len(seen.args[3]) < 50_000
    assert not events_of(records, short.pid)[0].truncated


def test_a_zombie_lives_until_its_parent_takes_notice(collector):
    child = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        records = collector.linnix_poll()
        assert kinds_of(records, child.pid) == ["seen"]
        assert events_of(records, child.pid)[0].args is None
        assert sample_of(records, child.pid).state == "Z"
        assert kinds_of(collector.linnix_poll(), child.pid) == []
    finally:
        child.wait()
    assert kinds_of(collector.linnix_poll(), child.pid) == ["exit"]


@on_linux
@pytest.mark.skipif(
    not psutil.pid_exists(2) or psutil.Process(2).name() != "kthreadd",
    reason="shows no kernel threads",
)
def test_a_kernel_thread_has_no_arguments_and_no_executable(make_collector, make_reader):
    records = make_collector(make_reader()).linnix_poll()
    (seen,) = events_of(records, 2)
    assert (seen.comm, seen.args, seen.exe) == ("kthreadd", (), None)


def test_cpu_is_what_both_threads_used_in_the_time_between_polls(collector, start_python):
    child = start_python(
        "import hashlib, threading\n"
        "def spin(): hashlib.pbkdf2_hmac('sha256', b'', b'', 150_000)\n"
        "print('ready', flush=True); input()\n"
        "threads = [threading.Thread(target=spin) for _ in range(2)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print('done', flush=True); input()"
    )
    process = psutil.Process(child.pid)

    def used_s():
        times = process.cpu_times()
        return times.user + times.system

    before_first = used_s()
    collector.linnix_poll()
    after_first = used_s()
    child.stdin.write("\n")
    child.stdout.readline()
    before_second = used_s()
    sample = sample_of(collector.linnix_poll(), child.pid)
    after_second = used_s()

    seconds = sample.interval_ns / 1e9
    least, most = before_second - after_first, after_second - before_first
    assert least > 0
    assert least - 1e-6 <= sample.cpu_percent / 100 * seconds <= most + 1e-6


@pytest.mark.skipif(not hasattr(psutil.Process, "io_counters"), reason="no I/O of processes here")
def test_io_is_what_reached_storage_between_polls(collector, start_python, tmp_path):
    child = start_python(
        "import os, sys; print('ready', flush=True); input()\n"
        "file = open(sys.argv[1], 'wb'); file.write(bytes(1_000_000)); file.flush()\n"
        "os.fsync(file.fileno()); print('done', flush=True); input()",
        str(tmp_path / "file"),
    )
    first = sample_of(collector.linnix_poll(), child.pid)
    assert (first.read_bytes, first.write_bytes) == (None, None)
    before = psutil.Process(child.pid).io_counters()
    child.stdin.write("\n")
    child.stdout.readline()
    sample = sample_of(collector.linnix_poll(), child.pid)
    after = psutil.Process(child.pid).io_counters()
    # Nothing can be said of a file system in memory but that nothing was written.
    assert sample.write_bytes == after.write_bytes - before.write_bytes
    assert sample.read_bytes == after.read_bytes - before.read_bytes


def test_io_is_not_read_when_it_is_switched_off(make_collector, make_reader):
    collector = make_collector(make_reader(), io=False)
    collector.linnix_poll()
    sample = sample_of(collector.linnix_poll(), os.getpid())
    assert (sample.read_bytes, sample.write_bytes) == (None, None)


def test_descriptors_are_counted_when_that_is_switched_on(
    make_collector, make_reader, start_python
):
    child = start_python("files = [open('/dev/null') for _ in range(40)];" + WAIT)
    counted = make_collector(make_reader(), fds=True).linnix_poll()
    assert sample_of(counted, child.pid).fds == psutil.Process(child.pid).num_fds() > 40
    assert sample_of(make_collector(make_reader()).linnix_poll(), child.pid).fds is None


@on_linux
def test_both_readers_know_a_process_by_the_same_key(start_python):
    child = start_python(WAIT)
    # It has said that it is there, and goes to sleep only now.
    eventually(lambda: LinuxReader().read(child.pid).state == "S")
    keys = set()
    for reader in LinuxReader(), PortableReader():
        reader.pids()
        reading = reader.read(child.pid)
        keys.add((reading.pid, reading.start_ns, reading.ppid, reading.comm, reading.state))
    assert len(keys) == 1
    assert next(iter(keys))[1] % 10_000_000 == 0


@on_linux
def test_setting_the_clock_changes_no_key(make_collector, make_reader, monkeypatch):
    collector = make_collector(make_reader())
    (seen,) = events_of(collector.linnix_poll(), os.getpid())
    boot_time = psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: boot_time + 3600)
    records = collector.linnix_poll()
    assert events_of(records, os.getpid()) == []
    assert sample_of(records, os.getpid()).key == seen.key


def test_a_process_that_vanishes_after_it_was_listed_is_no_error(
    make_collector, make_reader, start_python
):
    known, unknown = start_python(WAIT), None
    reader = make_reader()
    collector = make_collector(reader)
    collector.linnix_poll()
    unknown = start_python(WAIT)
    listed = list(reader.pids())
    assert {known.pid, unknown.pid} <= set(listed)
    for child in known, unknown:
        child.communicate("\n")
    reader.pids = lambda: listed
    records = collector.linnix_poll()
    assert kinds_of(records, known.pid) == ["exit"]
    assert events_of(records, unknown.pid) == []


def test_a_process_that_vanishes_while_it_is_read_is_no_error(
    make_collector, make_reader, start_python
):
    reader = make_reader()
    collector = make_collector(reader, fds=True)
    collector.linnix_poll()
    child = start_python(WAIT)
    describe = reader.describe

    def describe_too_late(reading):
        if reading.pid == child.pid and child.returncode is None:
            child.communicate("\n")
        return describe(reading)

    reader.describe = describe_too_late
    records = collector.linnix_poll()
    assert kinds_of(records, child.pid)[0] == "fork"
    assert sample_of(records, child.pid).fds is None
    assert kinds_of(collector.linnix_poll(), child.pid) == ["exit"]


def test_three_thousand_children_come_and_go(make_collector, make_reader, start):
    collector = make_collector(make_reader())
    table = ProcessTable()
    table.update(collector.linnix_poll())
    parent = start(
        "sh",
        "-c",
        "exec 3<&0; n=0; while [ $n -lt 3000 ]; do read line <&3 & n=$((n+1)); done;"
        "echo ready; wait; echo over; read line",
    )
    records = collector.linnix_poll()
    (key,) = {event.key for event in events_of(records, parent.pid)}
    forks = [r for r in records if isinstance(r, ProcessEvent) and r.parent_key == key]
    assert [fork.kind for fork in forks] == ["fork"] * 3000
    table.update(records)
    assert len(table.view.children(key)) == 3000

    parent.stdin.close()
    assert parent.stdout.readline() == "over\n"
    parent.wait()
    records = collector.linnix_poll()
    exits = {r.key for r in records if isinstance(r, ProcessEvent) and r.kind == "exit"}
    assert {fork.key for fork in forks} | {key} <= exits
    table.update(records)
    assert table.view.children(key) == []


def test_events_tell_at_any_time_who_lives_however_fast_they_come_and_go(collector, start):
    start("sh", "-c", "while :; do true & true & true & wait; done", ready=False)
    alive = set()
    for _ in range(60):
        records = collector.linnix_poll()
        for event in (r for r in records if isinstance(r, ProcessEvent)):
            if event.kind == "exit":
                alive.remove(event.key)
            elif event.kind in {"seen", "fork"}:
                assert event.key not in alive
                alive.add(event.key)
            else:
                assert event.key in alive
        read = {r.key for r in records if isinstance(r, ProcessSample)}
        assert read <= alive


LAST_PID = "/proc/sys/kernel/ns_last_pid"


@on_linux
@as_root
@pytest.mark.skipif(not os.access(LAST_PID, os.W_OK), reason="the kernel lets nobody choose a pid")
def test_a_pid_that_is_used_again_is_an_exit_and_a_fork(collector):
    def child_with(pid=None):
        if pid is not None:
            with open(LAST_PID, "w") as file:
                file.write(str(pid - 1))
        return subprocess.Popen(["sleep", "60"])

    first = child_with()
    second = None
    try:
        (seen,) = events_of(collector.linnix_poll(), first.pid)
        # Start times are told apart by ticks of ten milliseconds.
        while LinuxReader().since_boot_ns() < seen.start_ns + 20_000_000:
            pass
        first.kill()
        first.wait()
        for _ in range(50):
            second = child_with(first.pid)
            if second.pid == first.pid:
                break
            second.kill()
            second.wait()
        else:
            pytest.skip("others took the pid")
        events = events_of(collector.linnix_poll(), first.pid)
        assert [event.kind for event in events] == ["exit", "fork", "exec"]
        assert events[0].key == seen.key
        assert events[1].key == events[2].key != seen.key
    finally:
        for child in first, second:
            if child is not None:
                child.kill()
                child.wait()


UNPRIVILEGED = """
import json, os, sys, time
from linnix_plugin_psutil import PsutilCollector, PsutilConfig
from linnix_plugin_psutil.linux import LinuxReader
from linnix_plugin_psutil.portable import PortableReader
class Context: clock = time
os.setgroups([]); os.setgid(65534); os.setuid(65534)
answer = {}
for reader in LinuxReader(), PortableReader():
    collector = PsutilCollector(PsutilConfig(fds=True), Context, reader=reader)
    collector.linnix_start()
    seen = {r.pid: r for r in collector.linnix_poll() if r.type == "event"}
    samples = {r.pid: r for r in collector.linnix_poll() if r.type == "sample"}
    event, sample = seen[int(sys.argv[1])], samples[int(sys.argv[1])]
    answer[type(reader).__name__] = {
        "event": [event.exe, event.cwd, event.uid, event.args[-1]],
        "sample": [sample.read_bytes, sample.fds, sample.threads, sample.rss_bytes > 0,
                   sample.cpu_percent is None],
        "limits": collector.linnix_health().limits,
    }
print(json.dumps(answer))
"""


@on_linux
@as_root
def test_without_privileges_the_fields_that_are_refused_are_none(start):
    # The first argument is for anybody to choose, so it is not taken for what is refused.
    other = start("/bin/true", "-c", "echo ready; read line", "last", executable="/bin/sh")
    finished = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(other.pid)], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    for answer in json.loads(finished.stdout).values():
        assert answer["event"] == [None, None, 0, "last"]
        assert answer["sample"] == [None, None, 1, True, False]
        assert any("other users' processes" in limit for limit in answer["limits"])
        assert any("only in part" in limit for limit in answer["limits"])
