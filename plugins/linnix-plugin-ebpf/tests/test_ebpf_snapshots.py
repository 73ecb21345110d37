"""What is measured of every process is what /proc shows of it."""

import itertools
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import start_time_ns
from linnix_core.testing.waiting import eventually
from linnix_plugin_ebpf import collector as module
from linnix_plugin_ebpf import wire
from linnix_plugin_ebpf.cgroups import CgroupPaths
from linnix_plugin_ebpf.samples import Sampler, processes_of
from linnix_plugin_ebpf.snapshots import seen_now
from linnix_plugin_ebpf.wire import Thread
from linnix_plugin_psutil import LinuxReader

TICK_NS = 10_000_000

#: What the kernel holds back of the counters of memory for each processor, and a bit more.
RSS_SLACK = (os.cpu_count() or 1) * (1 << 20)


@pytest.fixture
def seen(start_collector):
    """What a collector tells that measures all the time."""
    return start_collector(sample_interval=0.02).begin()


@pytest.fixture
def sample(seen):
    """The next sample of a process that nothing before this moment has gone into."""

    def look(pid):
        began = len(seen.samples(pid))
        return seen.wait(lambda: seen.samples(pid)[began + 1 :])[0]

    return look


def test_a_sample_says_what_proc_shows(sample, start_python, in_proc):
    script = """
import os, threading
fill = bytearray(50 << 20)
for _ in range(3):
    threading.Thread(target=os.read, args=(0, 1)).start()
print("ready", flush=True)
os.read(0, 1)
"""
    child = start_python(script)
    measured = sample(child.pid)
    reading, image = in_proc(child.pid)
    assert (measured.pid, measured.start_ns, measured.comm) == (
        reading.pid,
        reading.start_ns,
        reading.comm,
    )
    assert (measured.state, measured.threads, measured.cgroup) == ("S", 4, image.cgroup)
    assert measured.fds == LinuxReader().descriptors(child.pid)
    assert abs(measured.rss_bytes - reading.rss_bytes) <= RSS_SLACK
    assert measured.rss_bytes > 50 << 20
    assert measured.interval_ns > 0


def test_open_descriptors_are_counted_wherever_they_are(sample, start_python):
    script = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
before = len(os.listdir("/proc/self/fd")) - 1
for number in (*range(10, 100), 1000, 2047, 4095):
    os.dup2(0, number)
print("ready", flush=True)
os.read(0, 1)
"""
    child = start_python(script)
    assert sample(child.pid).fds == LinuxReader().descriptors(child.pid) == 3 + 93


def test_states_are_those_of_proc(sample, start, start_python):
    running = start_python("print('ready', flush=True)\nwhile True: pass")
    sleeping, stopped, ended = (start("cat") for _ in range(3))
    stopped.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
    ended.stdin.close()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert sample(running.pid).state == "R"
    assert sample(sleeping.pid).state == "S"
    assert sample(stopped.pid).state == "T"
    assert sample(ended.pid).state == "Z"


def test_a_frozen_process_waits(sample, start, in_proc):
    child = start("cat")
    first = Path("/sys/fs/cgroup/freezer")
    if first.is_dir():
        group = first / f"linnix-test-{child.pid}"
        switch, on, off = group / "freezer.state", "FROZEN", "THAWED"
        done, frozen, state = switch, "FROZEN", "D"
    else:
        group = Path("/sys/fs/cgroup") / f"linnix-test-{child.pid}"
        switch, on, off = group / "cgroup.freeze", "1", "0"
        done, frozen, state = group / "cgroup.events", "frozen 1", "S"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(child.pid))
        switch.write_text(on)
        eventually(lambda: frozen in done.read_text().splitlines())
        assert sample(child.pid).state == in_proc(child.pid)[0].state == state
    finally:
        switch.write_text(off)
        child.kill()
        child.wait()
        group.rmdir()


def test_the_kernels_own_threads_are_measured_as_proc_shows_them(seen, in_proc):
    seen.wait(lambda: seen.samples(2))
    sample, (reading, _) = seen.samples(2)[-1], in_proc(2)
    assert (sample.comm, sample.state, sample.threads) == ("kthreadd", reading.state, 1)
    assert (sample.rss_bytes, sample.start_ns) == (0, reading.start_ns)


def test_every_process_is_in_a_snapshot(seen, start):
    child = start("cat")
    seen.wait(lambda: seen.samples(child.pid))
    # The first one may be hidden from programs by a security module of the kernel.
    pids = set(LinuxReader().pids()) - {1}
    moment = seen.samples(child.pid)[-1].ts_ns
    seen.catch_up()
    came_or_went = {e.pid for e in seen.events("fork", "exit")}
    together = {r.pid for r in seen.records if r.type == "sample" and r.ts_ns == moment}
    assert pids - came_or_went <= together
    assert {os.getpid(), child.pid} <= together


def test_one_sample_of_the_machine_comes_with_each_snapshot(seen):
    def complete():
        systems = [r for r in seen.records if r.type == "system"]
        return systems if len(systems) >= 2 else None

    second = seen.wait(complete)[1]
    samples = [r for r in seen.records if r.type == "sample" and r.ts_ns == second.ts_ns]
    assert (second.processes, second.cpus) == (len(samples), os.cpu_count())
    assert second.memory_available_bytes < second.memory_total_bytes
    assert len({sample.interval_ns for sample in samples}) == 1


def test_the_first_snapshot_has_nothing_to_compare_with(start_collector):
    seen = start_collector().begin()
    seen.wait(lambda: seen.samples(os.getpid()))
    first = seen.samples(os.getpid())[0]
    assert (first.interval_ns, first.cpu_percent) == (0, None)
    assert (first.read_bytes, first.write_bytes) == (None, None)
    assert first.rss_bytes > 0


def used(seen, pid, field):
    """What the samples of a process say altogether."""
    return sum(getattr(sample, field) or 0 for sample in seen.samples(pid))


def test_storage_is_counted_as_the_kernel_does(seen, sample, start_python, tmp_path):
    script = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
for _ in range(8):
    os.write(file, bytes(1 << 20))
    os.fsync(file)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
os.lseek(file, 0, 0)
while os.read(file, 1 << 20):
    pass
print("ready", flush=True)
os.read(0, 1)
"""
    seen.wait(lambda: seen.samples(os.getpid()))
    child = start_python(script, str(tmp_path / "file"))
    sample(child.pid)
    read, written = LinuxReader().io_bytes(child.pid)
    assert used(seen, child.pid, "read_bytes") == read
    assert used(seen, child.pid, "write_bytes") == written
    if os.statvfs(tmp_path).f_fsid:  # a file system in memory writes nothing
        assert written >= 8 << 20


SPIN = """
import hashlib, os, sys, threading, time
def spin():
    while time.thread_time() < 0.3:
        hashlib.sha256(bytes(100_000)).digest()
threads = [threading.Thread(target=spin) for _ in range(int(sys.argv[1]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(time.process_time_ns(), flush=True)
os.read(0, 1)
"""


@pytest.mark.parametrize("threads", [1, 4])
def test_percentages_add_up_to_the_cpu_time_of_all_threads(seen, sample, start, threads):
    seen.wait(lambda: seen.samples(os.getpid()))
    child = start(sys.executable, "-I", "-S", "-c", SPIN, str(threads))
    used_ns = int(child.stdout.readline())
    sample(child.pid)
    told_ns = sum(s.cpu_percent / 100 * s.interval_ns for s in seen.samples(child.pid))
    assert abs(told_ns - used_ns) < TICK_NS
    assert sample(child.pid).cpu_percent == 0


MAPPED = """
import mmap, os, sys
own = bytearray(30 << 20)
shared = mmap.mmap(-1, 20 << 20)
shared.write(bytes(20 << 20))
with open(sys.argv[1], "wb") as file:
    file.write(bytes(10 << 20))
with open(sys.argv[1], "rb") as file:
    of_file = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
for page in range(0, 10 << 20, 4096):
    of_file[page]
print("ready", flush=True)
os.read(0, 1)
"""


def test_resident_memory_is_told_apart_as_proc_does(sample, start_python, tmp_path):
    child = start_python(MAPPED, str(tmp_path / "file"))
    measured = sample(child.pid)
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines()
    )
    for found, name, least in (
        (measured.rss_anon_bytes, "RssAnon", 30 << 20),
        (measured.rss_shmem_bytes, "RssShmem", 20 << 20),
        (measured.rss_bytes, "VmRSS", 60 << 20),
    ):
        assert abs(found - int(status[name].split()[0]) * 1024) <= RSS_SLACK, name
        assert found >= least - RSS_SLACK, name


READS = """
import os, sys, time
source = os.open(sys.argv[1], os.O_RDONLY)
other = os.open(sys.argv[1], os.O_RDWR)  # an offset of a file that is written says nothing
zeros = os.open("/dev/zero", os.O_RDONLY)
if sys.argv[2] == "reads":
    os.read(source, 5_000_000)
os.lseek(other, 7_000_000, os.SEEK_SET)
print("ready", flush=True)
while True:
    os.read(zeros, 1)
"""


@pytest.mark.parametrize(("how", "read"), [("reads", 5_000_000), ("spins", 0)])
def test_how_far_a_process_got_in_its_files_is_told(
    seen, sample, start_python, tmp_path, how, read
):
    """Also of what comes from memory, which the counters of storage do not tell."""
    file = tmp_path / "file"
    file.write_bytes(bytes(8 << 20))
    child = start_python(READS, str(file), how)
    sample(child.pid)
    told = [s.read_offset_bytes for s in seen.samples(child.pid)]
    assert told[-1] == 0
    assert sum(each or 0 for each in told) >= read * 0.9
    assert used(seen, child.pid, "read_offset_bytes") < 7_000_000


CROWD = """
import hashlib, os, threading, time
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
def spin():
    while time.thread_time() < 0.2:
        hashlib.sha256(bytes(100_000)).digest()
    spun.wait()
    os.read(0, 1)
spun = threading.Barrier(4)
threads = [threading.Thread(target=spin) for _ in range(3)]
for thread in threads:
    thread.start()
spun.wait()
print("ready", flush=True)
os.read(0, 1)
"""


def test_waiting_for_a_cpu_is_counted_as_the_kernel_does(seen, sample, start_python):
    """Three threads on one processor wait for each other twice as long as they run."""
    seen.wait(lambda: seen.samples(os.getpid()))
    child = start_python(CROWD)
    sample(child.pid)
    waited_ns = sum(
        int(file.read_text().split()[1])
        for file in Path(f"/proc/{child.pid}/task").glob("*/schedstat")
    )
    told_ns = sum(s.cpu_delay_percent / 100 * s.interval_ns for s in seen.samples(child.pid))
    assert waited_ns > 0.8e9
    assert abs(told_ns - waited_ns) < TICK_NS


def test_a_process_goes_on_being_measured_after_its_first_thread(seen, sample, start_python):
    script = """
import ctypes, os, platform, threading
fill = bytearray(50 << 20)
def wait():
    print("ready", flush=True)
    os.read(0, 1)
    os._exit(0)
threading.Thread(target=wait).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0)
"""
    child = start_python(script)
    seen.wait(lambda: [s for s in seen.samples(child.pid) if s.state == "Z"])
    measured = sample(child.pid)
    assert (measured.state, measured.threads) == ("Z", 2)
    assert measured.rss_bytes > 50 << 20


def test_without_an_interval_nothing_is_measured(start_collector):
    seen = start_collector(sample_interval=0.0).begin()
    seen.catch_up()
    assert {record.type for record in seen.records} == {"event"}


# --- who is there at the start ------------------------------------------------------------


def test_everyone_who_was_there_before_is_told_as_seen(start, start_collector, in_proc):
    child = start("cat", "-u", "-")
    seen = start_collector().begin()
    event = seen.event("seen", pid=child.pid)
    reading, image = in_proc(child.pid)
    assert (event.start_ns, event.ppid, event.comm) == (reading.start_ns, os.getpid(), "cat")
    assert (event.exe, event.args, event.cwd) == (image.exe, ("cat", "-u", "-"), image.cwd)
    assert (event.uid, event.cgroup, event.source) == (image.uid, image.cgroup, "polled")


def test_the_dead_are_not_told_as_seen(start, start_collector):
    """Of one that has only to be waited for, no exit would ever be told."""
    child = start("cat")
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    seen = start_collector().begin()
    seen.event("seen", pid=os.getpid())
    assert seen.events("seen", pid=child.pid) == []
    child.wait()
    seen.catch_up()
    assert seen.events("exit", pid=child.pid) == []


def test_one_whose_first_thread_is_dead_is_told_as_seen(start_python):
    script = """
import ctypes, os, platform, threading
def wait():
    while open(f"/proc/self/task/{os.getpid()}/stat").read().rpartition(")")[2][1] != "Z":
        pass
    print("ready", flush=True)
    os.read(0, 1)
threading.Thread(target=wait).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0)
"""
    child = start_python(script)
    assert [event for event in seen_now(CgroupPaths({})) if event.pid == child.pid]


# --- where the kernel cannot tell of all at once ------------------------------------------


@pytest.fixture
def refused(monkeypatch, spoil):
    """The kernel refuses the program for snapshots."""
    image = spoil("iter/task")
    monkeypatch.setattr(module, "read_object", lambda: image)


def test_where_the_kernel_refuses_snapshots_proc_is_read(refused, start_collector, start_python):
    running = start_collector(sample_interval=0.02)
    seen = running.begin()
    child = start_python("import os\nprint('ready', flush=True)\nos.read(0, 1)")
    seen.wait(lambda: len(seen.samples(child.pid)) > 2)

    def as_read():
        last, reading = seen.samples(child.pid)[-1], LinuxReader().read(child.pid)
        said = (last.start_ns, last.rss_bytes, last.threads, last.cpu_percent >= 0)
        return said == (reading.start_ns, reading.rss_bytes, 1, True)

    seen.wait(as_read)  # once it waits to be told to go on, it does not grow any more
    assert [e.kind for e in seen.events("fork", "exec", "seen", pid=child.pid)] == ["fork", "exec"]
    health = running.collector.linnix_health()
    assert "processes are measured through /proc: the kernel refused the program" in health.limits


def test_a_snapshot_that_fails_later_is_replaced_by_proc(start_collector, monkeypatch):
    running = start_collector(sample_interval=0.02)
    seen = running.begin()
    seen.wait(lambda: seen.samples(os.getpid()))

    def fail():
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(running.collector._programs, "snapshot", fail)
    seen.clear()
    seen.wait(lambda: len(seen.samples(os.getpid())) > 3)
    (limit,) = (
        x for x in running.collector.linnix_health().limits if x.startswith("processes are")
    )
    assert limit.endswith("Operation not permitted")


# --- from threads to processes to samples -------------------------------------------------

counters = st.integers(0, 1 << 40)


def thread(pid, tid, **known):
    fields = dict.fromkeys(Thread._fields, 0)
    return Thread(**{**fields, "comm": b"name", "pid": pid, "tid": tid, **known})


def snapshot(*threads):
    """As the kernel writes it."""
    return b"".join(wire.THREAD.pack(*one) for one in threads)


@st.composite
def snapshots(draw):
    """Threads of some processes in any order, some without their leader."""
    threads = []
    for pid in draw(st.lists(st.integers(1, 50), unique=True, max_size=6)):
        tids = [pid, *range(pid * 100, pid * 100 + draw(st.integers(0, 4)))]
        if draw(st.booleans()) and len(tids) > 1:
            tids.remove(pid)
        threads += [
            thread(
                pid,
                tid,
                cpu_ns=draw(counters),
                read_bytes=draw(counters),
                write_bytes=draw(counters),
                delay_ns=draw(counters),
                rss_pages=draw(st.integers(-1, 100)),
                anon_pages=draw(st.integers(0, 100)),
                shmem_pages=draw(st.integers(0, 100)),
                read_offset=draw(st.integers(-1, 100)),
            )
            for tid in tids
        ]
    return draw(st.permutations(threads))


@given(snapshots())
def test_a_process_has_used_what_its_threads_have(threads):
    processes = processes_of(snapshot(*threads))
    leaders = {t.pid: t for t in threads if t.pid == t.tid}
    assert processes.keys() == leaders.keys()
    for pid, process in processes.items():
        own = [t for t in threads if t.pid == pid]
        for field in ("cpu_ns", "read_bytes", "write_bytes", "delay_ns"):
            assert getattr(process, field) == sum(getattr(t, field) for t in own)
        for field in ("rss_pages", "anon_pages", "shmem_pages", "read_offset"):
            assert getattr(process, field) == max(getattr(t, field) for t in own)
        assert process.comm[:4] == b"name"


@given(st.lists(st.lists(counters, max_size=5).map(sorted), min_size=1, max_size=5))
def test_what_the_samples_say_adds_up(lives):
    """Whenever a process comes, and however long it stays."""
    sampler = Sampler(lambda group: None)
    said = dict.fromkeys(range(len(lives)), 0.0)
    taken_ns = 10**9
    sampler.samples(b"", 0, taken_ns)
    for now in itertools.count():
        taken_ns += 10**9
        threads = [
            thread(
                pid,
                pid,
                start_ns=10**9 + 1,
                cpu_ns=uses[now],
                delay_ns=uses[now],
                read_bytes=uses[now],
            )
            for pid, uses in enumerate(lives)
            if now < len(uses)
        ]
        if not threads:
            break
        for sample in sampler.samples(snapshot(*threads), 0, taken_ns):
            assert sample.read_bytes is not None
            said[sample.pid] += sample.read_bytes
            assert sample.cpu_percent == pytest.approx(sample.read_bytes * 100 / 10**9)
            assert sample.cpu_delay_percent == sample.cpu_percent
    assert said == {pid: uses[-1] if uses else 0 for pid, uses in enumerate(lives)}


@given(
    st.lists(snapshots(), min_size=1, max_size=3).flatmap(
        lambda few: st.lists(st.sampled_from(few), min_size=2, max_size=6)
    ),
    st.booleans(),
)
def test_who_has_not_changed_is_told_of_as_everybody_else(seen, counts):
    """Snapshots that come again against such as differ in what no sample tells."""
    same, other = (Sampler(lambda group: "/a", io=counts, delay=counts) for _ in range(2))
    for now, threads in enumerate(seen, 1):
        differ = [one._replace(parent_start_ns=now) for one in threads]
        assert same.samples(snapshot(*threads), now, now * 10**9) == other.samples(
            snapshot(*differ), now, now * 10**9
        )


def test_who_has_not_changed_may_be_in_a_group_of_another_name():
    names = iter(["/before", "/after"])
    sampler = Sampler(lambda group: next(names))
    told = [sampler.samples(snapshot(thread(7, 7)), 0, now * 10**9) for now in (1, 2)]
    assert [sample.cgroup for (sample,) in told] == ["/before", "/after"]


def test_what_others_made_of_a_sample_is_not_in_the_next_one():
    sampler = Sampler(lambda group: None)
    (first,) = sampler.samples(snapshot(thread(7, 7)), 0, 10**9)
    first.labels, first.seq = {"pod": "web"}, 7
    (second,) = sampler.samples(snapshot(thread(7, 7)), 0, 2 * 10**9)
    assert (second.labels, second.seq) == (None, 0)


def test_an_old_process_that_was_not_measured_before_has_no_interval():
    """What it has used in all its life is not what it used since the last snapshot."""
    sampler = Sampler(lambda group: None)
    sampler.samples(b"", 0, 5 * 10**9)
    (first,) = sampler.samples(
        snapshot(thread(7, 7, start_ns=10**9, cpu_ns=4 * 10**9)), 0, 6 * 10**9
    )
    assert (first.cpu_percent, first.read_bytes, first.write_bytes) == (None, None, None)
    (second,) = sampler.samples(
        snapshot(thread(7, 7, start_ns=10**9, cpu_ns=5 * 10**9)), 0, 7 * 10**9
    )
    assert second.cpu_percent == 100


def test_a_new_process_with_the_pid_of_an_old_one_is_measured_from_its_start():
    sampler = Sampler(lambda group: None)
    sampler.samples(snapshot(thread(7, 7, start_ns=10**9, cpu_ns=4 * 10**9)), 0, 5 * 10**9)
    (sample,) = sampler.samples(
        snapshot(thread(7, 7, start_ns=5_500_000_000, cpu_ns=10**8)), 0, 6 * 10**9
    )
    assert (sample.cpu_percent, sample.start_ns) == (10, start_time_ns(5_500_000_000))


def test_sums_that_shrink_are_no_use_at_all():
    sampler = Sampler(lambda group: None)
    sampler.samples(snapshot(thread(7, 7, cpu_ns=100, read_bytes=100)), 0, 10**9)
    (sample,) = sampler.samples(snapshot(thread(7, 7, cpu_ns=90, read_bytes=90)), 0, 2 * 10**9)
    assert (sample.cpu_percent, sample.read_bytes) == (0, 0)


def test_what_a_kernel_does_not_count_is_unknown_and_not_nothing():
    sampler = Sampler(lambda group: None, io=False, delay=False)
    sampler.samples(snapshot(thread(7, 7, cpu_ns=100)), 0, 10**9)
    (sample,) = sampler.samples(snapshot(thread(7, 7, cpu_ns=200)), 0, 2 * 10**9)
    assert (sample.read_bytes, sample.write_bytes) == (None, None)
    assert sample.cpu_delay_percent is None
    assert sample.cpu_percent == pytest.approx(100 * 100 / 10**9)
