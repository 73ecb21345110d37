"""What is told of real processes is what /proc shows of them and what wait(2) returns."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linnix_core import ProcessTable
from linnix_plugin_ebpf import programs

TICK_NS = 10_000_000

CAT = os.path.realpath(shutil.which("cat"))


@pytest.fixture
def agrees(seen, in_proc):
    """That the last exec of a living process says what /proc shows; that exec."""

    def compare(child):
        seen.event("exec", pid=child.pid)
        seen.catch_up()
        exec_ = seen.events("exec", pid=child.pid)[-1]
        reading, image = in_proc(child.pid)
        assert (exec_.start_ns, exec_.ppid, exec_.comm) == (
            reading.start_ns,
            reading.ppid,
            reading.comm,
        )
        assert (exec_.uid, exec_.gid, exec_.cgroup) == (image.uid, image.gid, image.cgroup)
        assert exec_.args == image.args
        assert (exec_.exe, exec_.cwd) == (image.exe, image.cwd)
        assert exec_.truncated == image.truncated
        return exec_

    return compare


@pytest.fixture
def mount(tmp_path):
    """Mount something; it is unmounted after the test."""
    mounted = []

    def mount(*options, on):
        on.mkdir(exist_ok=True)
        subprocess.run(["mount", *options, str(on)], check=True)
        mounted.append(on)
        return on

    yield mount
    for on in reversed(mounted):
        subprocess.run(["umount", "-l", str(on)], check=True)


def copy_of_cat(folder, name="copy"):
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.copy(CAT, os.path.join(os.fsencode(folder), os.fsencode(name)))


# --- the life of a process ----------------------------------------------------------------


def test_a_life_is_a_fork_an_exec_and_an_exit(seen, finish):
    child = finish("true")
    fork, exec_, exit_ = seen.life(child.pid)
    assert (fork.kind, exec_.kind, exit_.kind) == ("fork", "exec", "exit")
    assert len({event.key for event in (fork, exec_, exit_)}) == 1
    assert (fork.args, exec_.args, exit_.args) == (None, ("true",), None)
    assert (exec_.comm, exit_.comm) == ("true", "true")
    assert (exit_.exit_code, exit_.signal) == (0, None)
    assert {event.source for event in (fork, exec_, exit_)} == {"kernel"}
    assert fork.ts_ns <= exec_.ts_ns <= exit_.ts_ns


def test_who_forked_it_is_told_with_its_start_time(seen, finish, in_proc):
    fork = seen.life(finish("true").pid)[0]
    mine, image = in_proc(os.getpid())
    assert (fork.ppid, fork.parent_start_ns) == (os.getpid(), mine.start_ns)
    assert (fork.uid, fork.gid, fork.cgroup) == (image.uid, image.gid, image.cgroup)
    assert fork.comm == mine.comm


def test_the_parent_is_known_to_the_process_table(seen, finish):
    table = ProcessTable()
    table.update(seen.life(finish("true").pid))
    (process,) = (p for p in map(table.view.get, table._dead) if p.comm == "true")
    assert process.parent.pid == os.getpid()


def test_an_exec_says_what_proc_shows(agrees, start):
    exec_ = agrees(start("cat"))
    assert (exec_.exe, exec_.args, exec_.cwd) == (CAT, ("cat",), os.getcwd())


def test_another_user_is_told(agrees, start):
    exec_ = agrees(start("cat", user=65534, group=65533, extra_groups=[], cwd="/"))
    assert (exec_.uid, exec_.gid) == (65534, 65533)


def test_the_name_is_that_of_the_program_and_cut_as_the_kernel_does(agrees, start, tmp_path):
    exec_ = agrees(start(copy_of_cat(tmp_path, "a-name-of-more-than-sixteen-bytes")))
    assert exec_.comm == "a-name-of-more-"


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", b"\x1b[2J", "\u202eevil".encode(), b") R"])
def test_a_hostile_name_is_told_as_proc_shows_it(agrees, start, tmp_path, name):
    exec_ = agrees(start(copy_of_cat(tmp_path, name)))
    assert exec_.comm == name.decode("utf-8", "backslashreplace")


# --- the executable -----------------------------------------------------------------------


def test_a_link_is_followed(agrees, start, tmp_path):
    (tmp_path / "link").symlink_to(CAT)
    assert agrees(start(tmp_path / "link")).exe == CAT


def test_a_relative_path_is_completed(agrees, start, tmp_path):
    copy_of_cat(tmp_path / "folder")
    exec_ = agrees(start("./folder/../folder/copy", cwd=tmp_path))
    assert exec_.exe == str(tmp_path / "folder" / "copy")
    assert exec_.cwd == str(tmp_path)


def test_of_a_script_the_interpreter_is_told(agrees, start, tmp_path):
    script = tmp_path / "script"
    script.write_text(f"#!{CAT} -\n")
    script.chmod(0o700)
    exec_ = agrees(start(script, "more"))
    assert (exec_.exe, exec_.comm) == (CAT, "script")
    assert exec_.args == (CAT, "-", str(script), "more")


def test_a_deleted_executable_keeps_its_path(agrees, start, tmp_path):
    copy = copy_of_cat(tmp_path)
    child = start(copy)
    os.unlink(copy)
    assert agrees(child).exe == os.fsdecode(copy)


def test_an_executable_in_memory_has_the_name_that_it_was_given(agrees, start):
    descriptor = os.memfd_create("from memory", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as memory, open(CAT, "rb") as cat:
        shutil.copyfileobj(cat, memory)
        memory.flush()
        child = start(f"/proc/self/fd/{descriptor}", pass_fds=[descriptor])
        assert agrees(child).exe == "/memfd:from memory"


def test_an_open_file_can_be_run(agrees, start, tmp_path):
    with open(copy_of_cat(tmp_path), "rb") as file:
        child = start(f"/proc/self/fd/{file.fileno()}", pass_fds=[file.fileno()])
        assert agrees(child).exe == str(tmp_path / "copy")


def test_names_may_be_as_long_as_they_can_be_and_of_any_bytes(agrees, start, tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"\xff\n" + b"d" * 253)
    os.mkdir(folder)
    name = b"\x1b" + b"n" * 254
    shutil.copy(CAT, os.path.join(folder, name))
    exec_ = agrees(start(os.path.join(folder, name), cwd=folder))
    assert exec_.exe == f"{tmp_path}/\\xff\n{'d' * 253}/\x1b{'n' * 254}"


def test_a_path_within_a_mount_goes_on_outside_of_it(agrees, start, mount, tmp_path):
    outer = mount("-t", "tmpfs", "none", on=tmp_path / "outer")
    inner = mount("-t", "tmpfs", "none", on=outer / "inner")
    copy = copy_of_cat(inner / "bin")
    exec_ = agrees(start(copy, cwd=inner))
    assert (exec_.exe, exec_.cwd) == (str(inner / "bin" / "copy"), str(inner))


def test_a_part_of_another_file_system_is_told_where_it_is_mounted(agrees, start, mount, tmp_path):
    copy_of_cat(tmp_path / "real" / "bin")
    bound = mount("--bind", str(tmp_path / "real"), on=tmp_path / "bound")
    exec_ = agrees(start(bound / "bin" / "copy", cwd=bound / "bin"))
    assert (exec_.exe, exec_.cwd) == (str(bound / "bin" / "copy"), str(bound / "bin"))


def test_layers_of_folders_are_one(agrees, start, mount, tmp_path):
    room = mount("-t", "tmpfs", "none", on=tmp_path / "room")
    copy_of_cat(room / "lower")
    for name in ("upper", "work"):
        (room / name).mkdir()
    layers = f"lowerdir={room}/lower,upperdir={room}/upper,workdir={room}/work"
    merged = mount("-t", "overlay", "overlay", "-o", layers, on=tmp_path / "merged")
    exec_ = agrees(start(merged / "copy", cwd=merged))
    assert (exec_.exe, exec_.cwd) == (str(merged / "copy"), str(merged))


def test_in_another_mount_namespace_the_path_is_that_of_there(agrees, start, tmp_path):
    script = f'mount -t tmpfs none "$0" && cp {CAT} "$0/copy" && exec "$0/copy"'
    child = start("unshare", "--mount", "sh", "-c", script, str(tmp_path))
    child.stdin.write(b"it runs\n")
    child.stdout.read(1)
    exec_ = agrees(child)
    assert exec_.exe == str(tmp_path / "copy")


def test_in_another_root_the_path_is_that_of_the_machine(agrees, start, mount, tmp_path):
    root = mount("--rbind", "/", on=tmp_path / "root")
    exec_ = agrees(start("chroot", str(root), CAT))
    assert exec_.exe == f"{root}{CAT}"


def test_a_path_of_too_many_parts_is_marked_as_cut(seen, start, tmp_path):
    deep = tmp_path.joinpath(*["d"] * 80)
    copy = copy_of_cat(deep)
    child = start(copy, cwd="/")
    exec_ = seen.event("exec", pid=child.pid)
    assert exec_.truncated
    # What is left is the end, and does not look like a whole path.
    assert exec_.exe == "d/" * 63 + "copy"
    assert (exec_.comm, exec_.cwd, len(exec_.args)) == ("copy", "/", 1)


def test_a_working_directory_that_is_too_deep_is_not_told(seen, start, tmp_path):
    deep = tmp_path.joinpath(*["d"] * 80)
    deep.mkdir(parents=True)
    exec_ = seen.event("exec", pid=start("cat", cwd=deep).pid)
    assert (exec_.cwd, exec_.truncated, exec_.exe) == (None, True, CAT)


def test_a_path_longer_than_any_that_can_be_named_is_marked_as_cut(seen, start, tmp_path):
    script = """
import os, sys
for _ in range(30):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
os.symlink(sys.argv[1], "link")
with open(sys.argv[1], "rb") as cat, open("copy", "wb") as copy:
    copy.write(cat.read())
os.chmod("copy", 0o700)
os.execv("./copy", ["./copy"])
"""
    child = start(sys.executable, "-c", script, CAT, cwd=tmp_path)
    seen.wait(lambda: len(seen.events("exec", pid=child.pid)) == 2)
    exec_ = seen.events("exec", pid=child.pid)[-1]
    assert exec_.truncated
    assert exec_.exe.startswith("d" * 250)
    assert exec_.exe.endswith("/copy")
    assert (exec_.cwd, exec_.args) == (None, ("./copy",))


# --- the arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        [""],
        ["", "", ""],
        ["two words", "  "],
        ["line\nbreaks\r\n", "\n"],
        ["\x1b[31mred\x1b[0m\x07", "\x1b]0;title\x07"],
        [b"\xff\xfe\x80", "naïve".encode("latin-1")],
        ["\u202eright to left", "\u05d0\u05d1", "日本語", "\U0001f525"],
        ["x" * 4096],
        ["x" * 40] * 200,
        ["--option=" + "y" * 1000] * 16,
    ],
    ids=[
        "empty", "empties", "spaces", "lines", "ansi", "bytes", "scripts", "4 KB", "many", "16 KB",
    ],
)  # fmt: skip
def test_arguments_are_told_as_they_were_given(agrees, start, args):
    exec_ = agrees(start("sh", "-c", "read line", *args))
    given = [arg.encode() if isinstance(arg, str) else arg for arg in args]
    told = [arg.decode("utf-8", "backslashreplace") for arg in given]
    assert exec_.args == ("sh", "-c", "read line", *told)
    assert not exec_.truncated


def test_arguments_are_cut_after_16_kib(agrees, start):
    exec_ = agrees(start("sh", "-c", "read line", *["argument"] * 3000))
    assert exec_.truncated
    assert len("\0".join(exec_.args)) == 16_384
    assert exec_.args[:4] == ("sh", "-c", "read line", "argument")
    assert exec_.exe == os.path.realpath(shutil.which("sh"))


def test_no_arguments_at_all(seen, start):
    script = """
import ctypes, sys
ctypes.CDLL(None).execve(sys.argv[1].encode(), (ctypes.c_char_p * 1)(), (ctypes.c_char_p * 1)())
"""
    child = start(sys.executable, "-c", script, CAT)
    child.stdin.write(b"it runs\n")
    child.stdout.read(1)
    seen.catch_up()
    # Since 5.18 the kernel adds an empty one.
    assert seen.events("exec", pid=child.pid)[-1].args in {(), ("",)}


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(max_size=64).filter(lambda arg: b"\0" not in arg), max_size=8))
def test_any_arguments_come_through(seen, finish, args):
    exec_ = seen.life(finish("true", *args).pid)[1]
    assert exec_.args == ("true", *(arg.decode("utf-8", "backslashreplace") for arg in args))


def test_of_hundreds_at_once_every_argument_is_told(seen):
    given = {("true", f"job {n}", "x" * n) for n in range(400)}
    true = shutil.which("true")
    for pid in [os.posix_spawn(true, args, {}) for args in given]:
        assert os.waitpid(pid, 0)[1] == 0
    seen.catch_up()
    told = {event.args: event for event in seen.events("exec", exe=os.path.realpath(true))}
    assert given <= told.keys()
    for exec_ in map(told.get, given):
        assert (exec_.truncated, exec_.ppid) == (False, os.getpid())
        life = seen.events("fork", "exec", "exit", pid=exec_.pid, start_ns=exec_.start_ns)
        assert [event.kind for event in life] == ["fork", "exec", "exit"]


# --- the end of a process -----------------------------------------------------------------


@pytest.fixture(params=["as this kernel tells it", "as kernels before 6.16 do"])
def any_exit(request, start_collector, monkeypatch):
    """A collector for each way to find out which thread is the last of its process."""
    if "before" in request.param:
        # The program for those works with later ones as well.
        monkeypatch.setattr(programs, "EXIT", (programs.EXIT[1], programs.EXIT[1]))
    return start_collector(sample_interval=0.0).begin()


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_told(seen, finish, code):
    exit_ = seen.life(finish("sh", "-c", f"exit {code}").pid)[-1]
    assert (exit_.exit_code, exit_.signal) == (code, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, 34, 64])
def test_the_signal_is_told(seen, start, number):
    child = start("cat")
    child.send_signal(number)
    child.wait()
    exit_ = seen.life(child.pid)[-1]
    assert (exit_.exit_code, exit_.signal) == (None, number)


def test_a_core_dump_is_the_same_signal(seen, start, tmp_path):
    child = start("sh", "-c", "ulimit -c unlimited && exec cat", cwd=tmp_path)
    seen.wait(lambda: seen.events("exec", pid=child.pid, comm="cat"))
    child.send_signal(signal.SIGSEGV)
    _, status = os.waitpid(child.pid, 0)
    assert os.WCOREDUMP(status)
    exit_ = seen.life(child.pid)[-1]
    assert (exit_.exit_code, exit_.signal) == (None, signal.SIGSEGV)


def waited_for(seen, command):
    """The exit of a command, and what wait4(2) says that it has used."""
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0
    return seen.life(pid)[-1], usage


def test_the_memory_is_the_most_that_there_was(seen):
    script = "x = bytearray(50 << 20)"
    exit_, usage = waited_for(seen, [sys.executable, "-I", "-S", "-c", script])
    assert exit_.max_rss_bytes == usage.ru_maxrss * 1024
    assert exit_.max_rss_bytes > 50 << 20


BURN = """
import time
while time.process_time() < 0.2:
    pass
"""

BURN_IN_THREADS = """
import hashlib, os, sys, threading, time
def burn():
    while time.thread_time() < 0.05:
        hashlib.sha256(bytes(100_000)).digest()
threads = [threading.Thread(target=burn) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("script", [BURN, BURN_IN_THREADS], ids=["one thread", "eight threads"])
def test_the_cpu_time_is_that_of_all_its_threads(seen, script):
    exit_, usage = waited_for(seen, [sys.executable, "-I", "-S", "-c", script])
    used_ns = (usage.ru_utime + usage.ru_stime) * 1e9
    # Less what is done after the exit is told, and since the last tick of the clock.
    assert used_ns - TICK_NS <= exit_.cpu_ns <= used_ns + TICK_NS


def cpu_times_of_brief_lives(seen):
    """Twenty lives of less than a tick: CPU time as told, and as wait4(2) has it."""
    for _ in range(20):
        pid = os.posix_spawn("/bin/true", ["true"], {})
        _, _, usage = os.wait4(pid, 0)
        told = seen.life(pid)[-1].cpu_ns
        yield told, (usage.ru_utime + usage.ru_stime) * 1e9


def test_the_cpu_time_of_a_life_of_less_than_a_tick_is_exact(seen):
    # What comes after the exit was told, the last steps of it, is missing: some microseconds.
    close = [0.7 * used <= told <= 1.3 * used for told, used in cpu_times_of_brief_lives(seen)]
    # A processor that is taken away from this machine meanwhile counts here and not there.
    assert sum(close) >= 15


def test_without_switches_it_is_that_of_the_last_tick(start_collector):
    running = start_collector(switches=False, sample_interval=0.0)
    short = [told < 0.7 * used for told, used in cpu_times_of_brief_lives(running.begin())]
    assert sum(short) >= 5


def test_the_duration_is_from_the_fork_to_the_exit(seen, finish):
    fork, _, exit_ = seen.life(finish("true").pid)
    # The start is the kernel's, a little before it tells of the fork.
    assert 0 < exit_.ts_ns - fork.ts_ns <= exit_.duration_ns
    assert abs(exit_.ts_ns - exit_.duration_ns - fork.ts_ns) < TICK_NS


# --- threads ------------------------------------------------------------------------------

# What only ends the calling thread: exit(2).
SYS_EXIT = {"x86_64": 60, "aarch64": 93, "riscv64": 93}.get(platform.machine())

needs_exit = pytest.mark.skipif(SYS_EXIT is None, reason="needs the number of exit(2)")


def test_threads_are_no_processes(any_exit, finish_python):
    script = """
import threading
gate = threading.Barrier(21)
threads = [threading.Thread(target=gate.wait) for _ in range(20)]
for thread in threads:
    thread.start()
gate.wait()
for thread in threads:
    thread.join()
"""
    child = finish_python(script)
    any_exit.catch_up()
    assert [event.kind for event in any_exit.life(child.pid)] == ["fork", "exec", "exit"]
    assert any_exit.events("fork", ppid=child.pid) == []


@needs_exit
def test_a_process_goes_on_after_its_first_thread(any_exit, start_python):
    script = f"""
import ctypes, os, threading
def wait():
    print("ready", flush=True)
    os.read(0, 1)
    os._exit(3)
threading.Thread(target=wait).start()
ctypes.CDLL(None).syscall({SYS_EXIT}, 7)
"""
    child = start_python(script)
    any_exit.catch_up()
    assert any_exit.events("exit", pid=child.pid) == []
    child.stdin.write(b"x")
    assert child.wait() == 3
    any_exit.catch_up()
    (exit_,) = any_exit.events("exit", pid=child.pid)
    assert (exit_.exit_code, exit_.comm) == (3, any_exit.events("exec", pid=child.pid)[0].comm)


MANY_ENDS = """
import ctypes, os, sys, threading
leave = eval(sys.argv[1])
for _ in range(40):
    pid = os.fork()
    if pid == 0:
        gate = threading.Barrier(9)
        def end():
            gate.wait()
            leave()
        for _ in range(8):
            threading.Thread(target=end).start()
        end()
    os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(
    "leave",
    [
        "lambda: os._exit(5)",
        pytest.param(f"lambda: ctypes.CDLL(None).syscall({SYS_EXIT}, 5)", marks=needs_exit),
    ],
    ids=["one ends all", "each ends itself"],
)
def test_threads_that_end_at_once_are_one_exit(any_exit, finish_python, leave):
    parent = finish_python(MANY_ENDS, leave)
    assert parent.returncode == 0
    any_exit.catch_up()
    ends = any_exit.events("exit", ppid=parent.pid)
    assert len(ends) == len({event.pid for event in ends}) == 40
    assert {event.exit_code for event in ends} == {5}


def test_an_exec_from_any_thread_is_one_of_the_process(agrees, seen, start):
    script = """
import os, sys, threading
threading.Thread(target=os.execv, args=(sys.argv[1], ["cat"])).start()
threading.Event().wait()
"""
    child = start(sys.executable, "-I", "-S", "-c", script, CAT)
    child.stdin.write(b"it runs\n")
    child.stdout.read(1)
    exec_ = agrees(child)
    assert exec_.exe == CAT
    child.stdin.close()
    child.wait()
    assert {event.key for event in seen.life(child.pid)} == {exec_.key}
    assert [event.kind for event in seen.life(child.pid)] == ["fork", "exec", "exec", "exit"]


# --- unusual families ---------------------------------------------------------------------


def test_a_vfork_is_a_fork(seen):
    pid = os.posix_spawn(CAT, ["cat", "/dev/null"], {})
    os.waitpid(pid, 0)
    fork, exec_, exit_ = seen.life(pid)
    assert (fork.ppid, exec_.ppid, exit_.ppid) == (os.getpid(),) * 3


# Of x86-64, and of all that have the newer numbers.
SYS_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220}.get(platform.machine())


@pytest.mark.skipif(SYS_CLONE is None, reason="needs the number of clone(2)")
def test_a_child_may_be_given_to_the_parent_of_who_forks_it(seen, start_python):
    script = f"""
import ctypes, os, signal
CLONE_PARENT = 0x8000
pid = ctypes.CDLL(None).syscall({SYS_CLONE}, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
if pid == 0:
    os._exit(9)
print(pid, flush=True)
os.read(0, 1)
"""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        pid = int(child.stdout.readline())
        assert os.waitpid(pid, 0)[0] == pid  # it is a child of this process
    fork, exit_ = seen.life(pid)
    assert (fork.ppid, exit_.ppid, exit_.exit_code) == (os.getpid(), os.getpid(), 9)


def test_an_orphan_is_told_of_with_who_takes_care_of_it(seen, start_python, in_proc):
    script = """
import os
if os.fork() == 0:
    middle = os.getpid()
    if os.fork() == 0:
        while os.getppid() == middle:
            pass
        print("ready", flush=True)
        os.read(0, 1)
    os._exit(0)
os.wait()
os.read(0, 1)
"""
    child = start_python(script)
    seen.catch_up()
    (middle,) = seen.events("fork", ppid=child.pid)
    (orphan,) = seen.events("fork", ppid=middle.pid)
    reading, _ = in_proc(orphan.pid)
    assert orphan.parent_key == middle.key
    assert reading.ppid != middle.pid
    child.stdin.write(b"xx")
    child.wait()
    assert seen.event("exit", pid=orphan.pid).ppid == reading.ppid


# --- pids that are used again -------------------------------------------------------------


@pytest.fixture
def reuse(start):
    """Start a process with a pid that another has just had."""

    def again(pid, *command):
        for _ in range(200):
            # Anybody on this machine may fork in between and get it.
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(pid - 1))
            child = start(*command)
            if child.pid == pid:
                return child
            child.stdin.close()
            child.wait()
        pytest.fail(f"pid {pid} was never free")

    return again


def test_a_pid_that_is_used_again_is_another_process(seen, start, reuse, in_proc):
    first = start("cat")
    pid = first.pid
    begun_ns = in_proc(pid)[0].start_ns
    first.stdin.close()
    first.wait()
    while time.clock_gettime_ns(time.CLOCK_BOOTTIME) < begun_ns + TICK_NS:
        pass  # two within one tick have the same key
    second = reuse(pid, "cat", "-")
    seen.wait(lambda: len(seen.events("exec", pid=pid)) >= 2)
    events = seen.events("fork", "exec", "exit", pid=pid)
    assert [event.kind for event in events] == ["fork", "exec", "exit", "fork", "exec"]
    keys = [event.key for event in events]
    assert keys == [keys[0]] * 3 + [keys[-1]] * 2
    assert keys[0] != keys[-1]
    assert keys[-1].start_ns == in_proc(second.pid)[0].start_ns
    table = ProcessTable()
    table.update(events)
    assert (table.view.get(keys[0]).alive, table.view.get(keys[0]).args) == (False, ("cat",))
    assert (table.view.get(keys[-1]).alive, table.view.get(keys[-1]).args) == (True, ("cat", "-"))


# Forks and ends with the same pid as fast as it can; says how often the pid was the same.
REUSE = """
import os, sys
same = 0
while same < 20:
    pids = []
    for code in (1, 2, 3):
        if pids:
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(pids[0] - 1))
        pid = os.fork()
        if pid == 0:
            os._exit(code)
        os.waitpid(pid, 0)
        pids.append(pid)
    same += len({*pids}) == 1
"""


def test_a_pid_that_is_used_again_at_once_is_another_process(seen, finish_python):
    """Within the ten milliseconds to which a start time is known."""
    parent = finish_python(REUSE)
    seen.catch_up()
    lives = {}
    for event in seen.events("fork", "exit", ppid=parent.pid):
        lives.setdefault(event.key, []).append(event.kind)
    assert len(lives) >= 60
    assert {tuple(kinds) for kinds in lives.values()} == {("fork", "exit")}
    table = ProcessTable()
    table.update(seen.events("fork", "exit", ppid=parent.pid))
    assert len(table._dead) == len(lives)
    assert {table.view.get(key).alive for key in lives} == {False}


# --- the OOM killer -----------------------------------------------------------------------


def test_a_victim_of_the_oom_killer_is_told_before_its_end(seen, finish, make_group):
    group = make_group()
    if (limit := group.folder / "memory.max").exists():
        (group.folder / "memory.swap.max").write_text("0")
    else:
        limit = group.folder / "memory.limit_in_bytes"
    if not limit.exists():
        pytest.skip("needs the memory controller")
    limit.write_text(str(32 << 20))
    child = finish(*group.inside(sys.executable, "-I", "-S", "-c", "x = bytearray(1 << 30)"))
    assert child.returncode == -signal.SIGKILL
    *_, oom, exit_ = seen.life(child.pid)
    assert (oom.kind, exit_.kind, exit_.signal) == ("oom", "exit", signal.SIGKILL)
    assert oom.key == exit_.key
    assert (oom.comm, oom.cgroup, oom.ppid) == (exit_.comm, group.path, os.getpid())
