"""What a real collector tells of real processes, with headers of either kind."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from linnix_core.testing.waiting import eventually
from linnix_plugin_bcc.host import Host
from linnix_plugin_bcc.lives import TICK_NS
from linnix_plugin_psutil import LinuxReader

HOSTILE = {
    "no text": [b"\xff\xfe\x80", b"caf\xe9"],
    "escapes": [b"\x1b[2J\x1b]0;title\x07", b"\r\n\n"],
    "directions": ["\u202egnp.exe\u2066".encode()],
    "empty ones": [b"", b"", b"x", b""],
    "a long one": [b"a" * 4096, b"b" * 4095, b"c" * 2047, b"d" * 2048, b"e" * 2049],
    "many": [b"%d" % number for number in range(300)],
}


def python(script, *args, **options):
    """Run a script in a fresh interpreter, without the site's packages; its process."""
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", script, *args], **options)
    child.wait(60)
    return child


def decoded(args):
    return tuple(arg.decode("utf-8", "backslashreplace") for arg in args)


@pytest.mark.usefixtures("any_headers")
def test_a_command_is_told_from_fork_to_exit(open_stream):
    stream = open_stream()
    stream.begin()
    child = subprocess.Popen(["/bin/echo", "two words", ""], stdout=subprocess.DEVNULL)
    fork, execed, exited = stream.life(child.pid)
    child.wait()
    assert (fork.kind, execed.kind, exited.kind) == ("fork", "exec", "exit")
    assert execed.exe == "/bin/echo"
    assert execed.args == ("/bin/echo", "two words", "")
    assert not execed.truncated
    assert (execed.comm, exited.comm) == ("echo", "echo")
    for event in fork, execed, exited:
        assert event.source == "kernel"
        assert event.ppid == os.getpid()
        assert (event.uid, event.gid) == (os.getuid(), os.getgid())
        assert event.key == fork.key
        assert event.parent_key == fork.parent_key
        assert 0 <= time.time_ns() - event.ts_ns < 60 * 10**9
    assert fork.ts_ns < execed.ts_ns < exited.ts_ns
    assert exited.duration_ns == pytest.approx(exited.ts_ns - fork.ts_ns, abs=10**7)


@pytest.mark.usefixtures("any_headers")
def test_arguments_are_whole_whatever_they_hold(open_stream):
    stream = open_stream()
    stream.begin()
    for args in HOSTILE.values():
        child = subprocess.Popen([b"/bin/true", *args])
        child.wait()
        _, execed, _ = stream.life(child.pid)
        assert execed.args == decoded([b"/bin/true", *args])
        assert not execed.truncated


@pytest.mark.usefixtures("any_headers")
def test_too_many_arguments_are_cut_and_marked(open_stream):
    stream = open_stream()
    stream.begin()
    for args in [b"x" * 100_000], [b"%04d" % number for number in range(5000)]:
        child = subprocess.Popen([b"/bin/true", *args])
        child.wait()
        _, execed, _ = stream.life(child.pid)
        assert execed.truncated
        whole = b"\0".join([b"/bin/true", *args]).decode()
        told = "\0".join(execed.args)
        assert whole.startswith(told)
        assert len(told) > 2000


@pytest.mark.usefixtures("any_headers")
def test_execs_that_fail_leave_no_arguments(open_stream, tmp_path):
    stream = open_stream()
    stream.begin()
    script = f"""import os
try:
    os.execv({str(tmp_path / "none")!r}, ["wrong"])
except FileNotFoundError:
    os.execv("/bin/true", ["right", "one"])
"""
    child = python(script)
    *_, execed, _ = stream.life(child.pid)
    assert execed.args == ("right", "one")


@pytest.mark.usefixtures("any_headers")
def test_an_exec_by_another_thread_is_one_of_the_process(open_stream):
    stream = open_stream()
    stream.begin()
    script = """import os, threading
threading.Thread(target=os.execv, args=("/bin/true", ["true", "from a thread"])).start()
"""
    child = python(script)
    assert [event.kind for event in stream.life(child.pid)] == ["fork", "exec", "exec", "exit"]
    assert stream.events("exec", pid=child.pid)[-1].args == ("true", "from a thread")


@pytest.mark.usefixtures("any_headers")
def test_threads_are_not_processes(open_stream):
    stream = open_stream()
    stream.begin()
    script = """import threading
for _ in range(5):
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()
"""
    child = python(script, stdout=subprocess.DEVNULL)
    assert [event.kind for event in stream.life(child.pid)] == ["fork", "exec", "exit"]
    assert not stream.events("fork", "exit", ppid=child.pid)


LAST_THREAD = """import ctypes, os, sys, threading, time
def outlive():
    with open(f"/proc/self/task/{os.getpid()}/stat") as stat:
        while stat.seek(0) or stat.read().rpartition(") ")[2][0] != "Z":
            time.sleep(0.001)
    os.write(1, b"alone\\n")
    sys.stdin.readline()
    os._exit(3)
threading.Thread(target=outlive).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.usefixtures("matching_headers")
def test_a_process_ends_with_its_last_thread(open_stream, monkeypatch, tells):
    # Kernels since 6.16 tell it; what holds for earlier ones holds for all.
    monkeypatch.setattr(Host, "tells_last_thread", tells and Host().tells_last_thread)
    stream = open_stream()
    stream.begin()
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", LAST_THREAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout.readline() == b"alone\n"
        marker = python("")  # the first thread's end was before all of this one
        stream.life(marker.pid)
        assert not stream.events("exit", pid=child.pid)
        child.stdin.write(b"\n")
    exited = stream.life(child.pid)[-1]
    assert exited.exit_code == 3
    assert len(stream.events("exit", pid=child.pid)) == 1


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.usefixtures("matching_headers")
def test_threads_that_end_together_are_one_exit(open_stream, monkeypatch, tells):
    # Kernels since 6.16 tell it; what holds for earlier ones holds for all.
    monkeypatch.setattr(Host, "tells_last_thread", tells and Host().tells_last_thread)
    stream = open_stream()
    stream.begin()
    script = """import os, threading
for _ in range(16):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
os._exit(0)
"""
    pids = [python(script).pid for _ in range(20)]
    for pid in pids:
        stream.life(pid)
    marker = python("")
    stream.life(marker.pid)
    assert [len(stream.events("exit", pid=pid)) for pid in pids] == [1] * 20


@pytest.mark.usefixtures("matching_headers")
def test_matching_headers_tell_how_it_ended_and_what_it_cost(open_stream):
    stream = open_stream()
    stream.begin()
    failed = python("raise SystemExit(3)")
    killed = subprocess.Popen(["sleep", "600"])
    killed.kill()
    killed.wait()
    busy = python(
        "import time\nbig = b'x' * (50 << 20)\nwhile time.process_time() < 0.2: pass",
    )
    event = stream.life(failed.pid)[-1]
    assert (event.exit_code, event.signal) == (3, None)
    event = stream.life(killed.pid)[-1]
    assert (event.exit_code, event.signal) == (None, signal.SIGKILL)
    event = stream.life(busy.pid)[-1]
    assert (event.exit_code, event.signal) == (0, None)
    assert event.cpu_ns > 150_000_000
    assert event.max_rss_bytes > 50 << 20
    assert not any("exit codes" in limit for limit in stream.collector.linnix_health().limits)


@pytest.mark.usefixtures("matching_headers")
def test_matching_headers_show_the_interpreter_of_a_script(open_stream, tmp_path):
    stream = open_stream()
    stream.begin()
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\n:\n")
    script.chmod(0o700)
    child = subprocess.Popen([script, "argument"])
    child.wait()
    _, execed, _ = stream.life(child.pid)
    assert execed.args == ("/bin/sh", "-e", str(script), "argument")
    assert execed.exe == str(script)


def test_foreign_headers_leave_out_what_they_cannot_tell(open_stream, monkeypatch):
    monkeypatch.setattr(Host, "headers_match", False)
    stream = open_stream()
    stream.begin()
    child = python("raise SystemExit(3)")
    event = stream.life(child.pid)[-1]
    assert (event.exit_code, event.signal, event.cpu_ns, event.max_rss_bytes) == (None,) * 4
    (limit,) = [limit for limit in stream.collector.linnix_health().limits if "exit codes" in limit]
    assert os.uname().release in limit


CLONE_PARENT = """import ctypes, os, sys
child = ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0)
if not child:
    os._exit(0)
print(child)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the system call has another number")
def test_a_sibling_has_no_parent_that_is_known(stream):
    child = python(CLONE_PARENT, stdout=subprocess.PIPE)
    with child.stdout:
        sibling = int(child.stdout.read())
    fork, _ = stream.life(sibling)
    os.waitpid(sibling, 0)
    assert fork.ppid is None


def test_what_runs_already_is_seen(open_stream):
    with subprocess.Popen(["sleep", "600"]) as child:
        stream = open_stream()
        stream.begin()
        (seen,) = stream.wait(lambda: stream.events("seen", pid=child.pid))
        child.kill()
    assert seen.args == ("sleep", "600")
    (exited,) = stream.wait(lambda: stream.events("exit", pid=child.pid))
    assert exited.key == seen.key
    assert exited.duration_ns > 0
    assert not stream.events("fork", "exec", pid=child.pid)


def test_everything_is_measured_at_its_interval(open_stream):
    stream = open_stream(sample_interval=0.2)
    stream.begin()
    with subprocess.Popen(["sleep", "600"]) as child:
        samples = stream.wait(
            lambda: (
                len(
                    found := [
                        r for r in stream.records if r.type == "sample" and r.pid == child.pid
                    ]
                )
                >= 3
                and found
            )
        )
        child.kill()
    (fork,) = stream.events("fork", pid=child.pid)
    assert {sample.key for sample in samples} == {fork.key}
    assert all(sample.interval_ns >= 199_000_000 for sample in samples)
    rounds = [r for r in stream.records if r.type in ("sample", "system")]
    for sample, after in itertools.pairwise(rounds):
        assert sample.type == "system" or sample.ts_ns == after.ts_ns
    # The polls saw it come; the kernel had told that.
    assert not [r for r in stream.events("fork", "exec", "exit") if r.source == "polled"]


def test_an_interval_can_be_so_long_that_nothing_is_measured(stream):
    child = python("")
    stream.life(child.pid)
    assert len({r.ts_ns for r in stream.records if r.type == "system"}) == 1


def test_starts_are_those_of_proc(stream):
    children = [subprocess.Popen(["sleep", "600"]) for _ in range(100)]
    reader = LinuxReader()
    starts = {child.pid: reader.read(child.pid).start_ns for child in children}
    for child in children:
        child.kill()
        child.wait()
    told = {pid: stream.life(pid)[0].start_ns for pid in starts}
    assert told == starts
    assert all(start_ns % TICK_NS == 0 for start_ns in told.values())


FORKS = """import os, sys
for _ in range(int(sys.argv[1])):
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_every_fork_is_told_and_the_counts_balance(stream):
    child = python(FORKS, "3000")
    stream.life(child.pid)
    told = stream.events("fork", ppid=child.pid)
    assert len(told) == len({event.pid for event in told}) == 3000
    assert len(stream.events("exit", ppid=child.pid)) == 3000
    assert "ring_full" not in stream.losses
    assert_balanced(stream)


def assert_balanced(stream):
    """Everything that the kernel emitted was told or counted as lost."""
    stream.end()
    kernel = [
        event for event in stream.events("fork", "exec", "exit", "oom") if event.source == "kernel"
    ]
    program = stream.collector._program
    waiting = 0
    # What has been emitted since the last look into the ring is still there, or lost.
    for _ in range(100):
        counts = program.counts
        waiting += len(program.read())
        if counts == program.counts:
            break
    told = len(kernel) + stream.losses.get("unidentified", 0)
    assert counts.emitted == told + waiting + counts.lost
    assert stream.losses.get("ring_full", 0) <= counts.lost


def test_what_a_full_ring_lost_is_counted_and_made_up_for(open_stream):
    old = subprocess.Popen(["sleep", "600"])
    stream = open_stream(ring_size=4096, sample_interval=0.2)
    # Nobody reads yet, so that the ring is full after some forty events.
    python(FORKS, "100")
    new = subprocess.Popen(["sleep", "601"])
    eventually(lambda: Path(f"/proc/{new.pid}/comm").read_text() == "sleep\n")
    old.kill()
    old.wait()
    stream.begin()
    (exited,) = stream.wait(lambda: stream.events("exit", pid=old.pid))
    (fork,) = stream.wait(lambda: stream.events("fork", pid=new.pid))
    (execed,) = stream.wait(lambda: stream.events("exec", pid=new.pid))
    assert {exited.source, fork.source, execed.source} == {"polled"}
    assert execed.args == ("sleep", "601")
    assert fork.key == execed.key
    assert stream.losses["ring_full"] > 100
    new.kill()
    new.wait()
    (exited,) = stream.wait(lambda: stream.events("exit", pid=new.pid))
    assert exited.key == fork.key
    assert exited.source == "kernel"
    assert_balanced(stream)


def test_the_ring_has_the_size_that_was_asked_for(open_stream):
    stream = open_stream(ring_size=2**20)
    python(FORKS, "1000")  # half a ring
    stream.begin()
    python("")
    assert_balanced(stream)
    assert stream.collector._program.counts.lost == 0


DROPPED = """import json, logging, os, pathlib, subprocess, sys, threading, time
from linnix_core import ProcessView
from linnix_core.context import Context
from linnix_core.testing.waiting import eventually
from linnix_plugin_bcc import BccCollector, BccConfig

class Sink:
    def emit_many(self, records):
        for record in records:
            if record.type == "event" and record.source == "kernel":
                said.append(record)
            elif record.type == "system":
                rounds.append(record)
    def lost(self, why, count=1):
        losses.append(count)

said, rounds, losses = [], [], []
context = Context(component="collectors.bcc", logger=logging.getLogger(), incidents=None,
                  processes=ProcessView(), data_dir=pathlib.Path("data"))
collector = BccCollector(BccConfig(sample_interval=0.1), context)
collector.linnix_start()
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
stop = threading.Event()
thread = threading.Thread(target=collector.linnix_collect, args=(Sink(), stop))
thread.start()
child = subprocess.run(["/bin/sh", "-c", "echo $$"], capture_output=True, text=True)
pid = int(child.stdout)
eventually(lambda: len(rounds) >= 3 and [e for e in said if e.kind == "exit" and e.pid == pid])
stop.set()
thread.join()
limits = collector.linnix_health().limits
collector.linnix_stop(time.monotonic() + 10)
kinds = [e.kind for e in said if e.pid == pid]
print(json.dumps({"uid": os.getuid(), "kinds": kinds, "limits": limits}))
"""


@pytest.mark.usefixtures("bcc")
def test_it_streams_on_without_privileges(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", DROPPED],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr

    said = json.loads(done.stdout)
    assert said["uid"] == 65534
    assert said["kinds"] == ["fork", "exec", "exit"]
    assert any("without root" in limit for limit in said["limits"])


def test_it_can_be_started_again_and_again(open_stream):
    for _ in range(2):
        stream = open_stream()
        stream.begin()
        child = python("")
        assert [event.kind for event in stream.life(child.pid)] == ["fork", "exec", "exit"]
        stream.end()
        stream.collector.linnix_stop(time.monotonic() + 30)


MEMORY = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_memory():
    """Members of a cgroup that may use 32 MB; the file to write their pids to."""
    for parent, limit in (
        (MEMORY, "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = parent / f"linnix-bcc-{os.getpid()}-{threading.get_ident()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limit).exists():
                (group / limit).write_text(str(32 << 20))
                yield group / "cgroup.procs"
                return
        finally:
            group.rmdir()
    pytest.skip("no cgroup with a limit of memory can be made here")


EATER = """import sys, threading
def eat():
    sys.stdin.readline()
    eaten = [bytearray(b"x" * (1 << 20)) for _ in range(200)]
thread = threading.Thread(target=eat)
thread.start()
"""


@pytest.mark.usefixtures("any_headers")
def test_a_victim_of_the_oom_killer_is_named(open_stream, small_memory):
    stream = open_stream()
    stream.begin()
    eater = subprocess.Popen([sys.executable, "-I", "-S", "-c", EATER], stdin=subprocess.PIPE)
    small_memory.write_text(str(eater.pid))
    eater.stdin.write(b"\n")
    eater.stdin.close()
    assert eater.wait(60) == -signal.SIGKILL
    fork = stream.life(eater.pid)[0]
    (oom,) = stream.events("oom", pid=eater.pid)
    assert oom.key == fork.key


@pytest.mark.usefixtures("bcc")
def test_what_the_compiler_refuses_is_unavailable(linnix_context, monkeypatch, capfd):
    from linnix_core import PluginUnavailable
    from linnix_plugin_bcc import BccCollector, BccConfig, collector

    program = collector.Program
    monkeypatch.setattr(
        collector,
        "Program",
        lambda bcc, **options: program(bcc, **{**options, "flags": ["-Dint=$"]}),
    )
    made = BccCollector(BccConfig(), linnix_context("collectors.bcc"))
    with pytest.raises(PluginUnavailable, match="cannot compile or attach") as caught:
        made.linnix_start()
    assert "headers" in caught.value.hint
    made.linnix_stop(time.monotonic() + 10)
