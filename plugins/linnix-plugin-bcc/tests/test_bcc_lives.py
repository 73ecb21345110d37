"""Messages of the kernel become events about processes that are known, whatever is lost."""

from collections import Counter

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linnix_core import ProcessTable, start_time_ns
from linnix_plugin_bcc import lives
from linnix_plugin_bcc.lives import TICK_NS, Lives
from linnix_plugin_bcc.wire import EXEC, EXIT, FORK, OOM, Message
from linnix_plugin_psutil import ProcessTree
from linnix_plugin_psutil.reading import Image, Reading

EPOCH_NS = 1_700_000_000_000_000_000
BEGIN_NS = 100 * 10**9


@attrs.define
class World:
    """Processes that live and die, as /proc shows them and as the kernel tells it."""

    now_ns: int = BEGIN_NS
    #: Who was forked while the kernel was asked: it tells the start of these.
    followed: set = attrs.field(factory=set)
    living: dict = attrs.field(factory=dict)
    messages: list = attrs.field(factory=list)

    def __attrs_post_init__(self):
        self.living[1] = Reading(1, 0, 0, "init", "S", 0, 0, 1, True, 1)

    def pass_time(self, ns=25_000_000):
        self.now_ns += ns

    def fork(self, pid, ppid=1, late_ns=0):
        start_ns = start_time_ns(self.now_ns)
        self.living[pid] = Reading(pid, start_ns, ppid, "child", "S", 0, 0, 1, False, 1)
        self.now_ns += late_ns
        self.followed.add(pid)
        self.tell(FORK, pid, ppid=ppid)

    def exec(self, pid):
        before = self.living[pid]
        self.living[pid] = attrs.evolve(before, comm="program", execed=True, stack=self.now_ns)
        self.tell(EXEC, pid, start_ns=self.start_of(pid))

    def exit(self, pid):
        self.tell(EXIT, pid, start_ns=self.start_of(pid))
        del self.living[pid]

    def start_of(self, pid):
        return self.living[pid].start_ns if pid in self.followed else 0

    def tell(self, kind, pid, **fields):
        self.messages.append(message(kind, pid, time_ns=self.now_ns, **fields))

    # What a Reader does.

    def since_boot_ns(self):
        return self.now_ns

    def pids(self):
        return list(self.living)

    def read(self, pid):
        reading = self.living.get(pid)
        return reading and attrs.evolve(reading)

    def describe(self, reading):
        return Image(exe=f"/bin/{reading.comm}", args=(reading.comm,))

    def io_bytes(self, pid):
        return None

    def descriptors(self, pid):
        return None


def message(kind, pid, **fields):
    known = dict.fromkeys(Message._fields, 0) | {"name": b"x\0", "text": b""}
    return Message(**(known | {"kind": kind, "pid": pid} | fields))


@pytest.fixture
def world():
    return World()


@pytest.fixture
def known(world, tmp_path):
    return Lives(world, costs=False, proc=str(tmp_path))


def test_the_tick_is_that_of_the_core():
    assert start_time_ns(TICK_NS) == TICK_NS
    assert start_time_ns(TICK_NS - 1) == 0


def told(known, world):
    events = [known.event(message, EPOCH_NS) for message in world.messages]
    world.messages.clear()
    return events


def test_a_start_at_the_end_of_a_tick_is_that_of_proc(world, known):
    world.now_ns = BEGIN_NS + TICK_NS - 1000
    world.fork(7, late_ns=3000)
    (fork,) = told(known, world)
    assert fork.start_ns == BEGIN_NS
    world.pass_time()
    world.exit(7)
    (exited,) = told(known, world)
    assert exited.start_ns == BEGIN_NS


def test_who_is_gone_by_then_has_the_start_of_the_message(world, known):
    world.now_ns = BEGIN_NS + TICK_NS - 1000
    world.fork(7, late_ns=3000)
    world.exit(7)
    fork, exited = told(known, world)
    assert fork.start_ns == exited.start_ns == BEGIN_NS + TICK_NS


def test_a_reused_pid_does_not_change_a_start(world, known):
    world.now_ns = BEGIN_NS + TICK_NS + 3000
    world.tell(FORK, 7)
    world.living[7] = Reading(7, BEGIN_NS + 9 * TICK_NS)
    (fork,) = told(known, world)
    assert fork.start_ns == BEGIN_NS + TICK_NS


def test_no_child_is_older_than_its_parent(world, known):
    world.now_ns = BEGIN_NS + TICK_NS + 1000
    world.tell(FORK, 7, ppid=1)
    world.living[8] = Reading(8, BEGIN_NS)
    world.tell(FORK, 8, ppid=7)
    parent, child = told(known, world)
    assert child.parent_key == parent.key
    assert child.start_ns >= child.parent_start_ns


def test_an_unknown_process_is_looked_up(world, known):
    world.living[7] = Reading(7, BEGIN_NS, 1)
    world.pass_time()
    world.tell(EXEC, 7)
    (execed,) = told(known, world)
    assert (execed.start_ns, execed.ppid) == (BEGIN_NS, 1)
    assert known.unidentified == 0


@pytest.mark.parametrize("kind", [EXEC, EXIT, OOM])
def test_a_process_that_nobody_knows_is_counted(world, known, kind):
    world.tell(kind, 7)
    assert told(known, world) == [None]
    assert known.unidentified == 1


def test_a_younger_process_of_the_same_pid_is_not_taken_for_it(world, known):
    world.tell(EXIT, 7)
    world.pass_time()
    world.living[7] = Reading(7, start_time_ns(world.now_ns))
    assert told(known, world) == [None]


def test_what_cannot_be_read_is_not_known(world, known, monkeypatch):
    def refuse(self, pid):
        raise PermissionError

    monkeypatch.setattr(World, "read", refuse)
    world.tell(EXIT, 7)
    assert told(known, world) == [None]


def test_the_kernel_knows_the_start_if_it_tells_it(world, known):
    world.fork(7)
    world.messages.clear()
    world.pass_time()
    world.exit(7)
    (exited,) = told(known, world)
    assert exited.start_ns == BEGIN_NS
    assert exited.duration_ns == 25_000_000


def test_a_start_that_the_kernel_tells_shows_that_a_pid_is_in_use_again(world, known):
    world.fork(7)
    told(known, world)
    world.pass_time(10**9)
    second_ns = world.now_ns
    world.tell(EXEC, 7, start_ns=second_ns)  # exit and fork between were lost
    (execed,) = told(known, world)
    assert execed.start_ns == start_time_ns(second_ns)


def test_a_thread_that_is_chosen_stands_for_its_process(world, known, tmp_path):
    world.fork(7)
    (tmp_path / "8").mkdir()
    (tmp_path / "8/status").write_text("Name:\tx\nTgid:\t7\n")
    world.tell(OOM, 8)
    fork, oom = told(known, world)
    assert (oom.kind, oom.key) == ("oom", fork.key)


@pytest.mark.parametrize(
    ("status", "code", "number"), [(0, 0, None), (3 << 8, 3, None), (9, None, 9), (0x8B, None, 11)]
)
def test_a_status_is_a_code_or_a_signal(world, status, code, number):
    known = Lives(world, costs=True)
    world.fork(7)
    world.tell(EXIT, 7, exit_status=status, cpu_ns=5, max_rss_pages=2)
    _, exited = told(known, world)
    assert (exited.exit_code, exited.signal) == (code, number)
    assert exited.cpu_ns == 5
    assert exited.max_rss_bytes == 2 * lives._PAGE_BYTES


# --- cgroups ------------------------------------------------------------------------------


def put_cgroup(proc, pid, text):
    (proc / str(pid)).mkdir(exist_ok=True)
    (proc / str(pid) / "cgroup").write_text(text)


def exec_in(known, world, pid, cgroup):
    world.tell(EXEC, pid, cgroup=cgroup)
    return told(known, world)[0].cgroup


def test_a_cgroup_is_read_once_where_its_id_says_all(world, tmp_path):
    put_cgroup(tmp_path, "self", "0::/agent\n")
    known = Lives(world, costs=False, proc=str(tmp_path))
    for pid in 7, 8, 9:
        world.fork(pid)
    told(known, world)
    put_cgroup(tmp_path, 7, "0::/job\n")
    assert exec_in(known, world, 7, cgroup=42) == "/job"
    assert exec_in(known, world, 8, cgroup=42) == "/job"
    assert exec_in(known, world, 9, cgroup=43) is None


def test_a_cgroup_is_read_anew_where_there_are_others(world, tmp_path):
    put_cgroup(tmp_path, "self", "4:memory:/agent\n0::/\n")
    known = Lives(world, costs=False, proc=str(tmp_path))
    for pid in 7, 8:
        world.fork(pid)
        put_cgroup(tmp_path, pid, f"4:memory:/job/{pid}\n0::/\n")
    told(known, world)
    assert exec_in(known, world, 7, cgroup=1) == "/job/7"
    assert exec_in(known, world, 8, cgroup=1) == "/job/8"


def test_remembered_cgroups_are_bounded(world, tmp_path, monkeypatch):
    monkeypatch.setattr(lives, "MAX_CGROUPS", 3)
    put_cgroup(tmp_path, "self", "0::/agent\n")
    known = Lives(world, costs=False, proc=str(tmp_path))
    world.fork(7)
    told(known, world)
    for cgroup in range(10):
        put_cgroup(tmp_path, 7, f"0::/job/{cgroup}\n")
        assert exec_in(known, world, 7, cgroup=cgroup) == f"/job/{cgroup}"
        assert len(known._cgroups._paths) <= 3


# --- polls --------------------------------------------------------------------------------


def test_of_the_first_poll_the_kernel_tells_what_came_later(world, known):
    tree = ProcessTree(world, io=False, fds=False)
    world.fork(7)
    attached_ns = world.now_ns
    world.pass_time()
    world.fork(8)
    kept = known.first(tree.poll(EPOCH_NS, 0.0), attached_ns)
    assert {record.pid for record in kept if record.type == "event"} == {1, 7}
    assert {record.pid for record in kept if record.type == "sample"} == {1, 7, 8}


def test_a_process_that_could_not_be_read_before_is_seen_later(world, known):
    tree = ProcessTree(world, io=False, fds=False)
    world.pass_time()
    known.first(tree.poll(EPOCH_NS, 0.0), world.now_ns)
    world.pass_time()
    world.living[7] = Reading(7, 0, 1, "hidden", "S")
    # ProcessTree says so of one that is older than everything it met.
    tree._first_ns = BEGIN_NS
    records = known.later(
        tree.poll(EPOCH_NS, 1.0), lost=False, ts_ns=EPOCH_NS, since_boot_ns=world.now_ns
    )
    assert [(r.kind, r.pid) for r in records if r.type == "event"] == [("seen", 7)]


def test_without_losses_a_poll_tells_nothing_twice(world, known):
    tree = ProcessTree(world, io=False, fds=False)
    known.first(tree.poll(EPOCH_NS, 0.0), world.now_ns)
    world.pass_time()
    world.fork(7)
    world.exec(7)
    told(known, world)
    polled = tree.poll(EPOCH_NS, 1.0)
    assert [record.kind for record in polled if record.type == "event"] == ["fork", "exec"]
    records = known.later(polled, lost=False, ts_ns=EPOCH_NS, since_boot_ns=world.now_ns)
    assert {record.type for record in records} == {"sample"}


STEP = st.tuples(st.sampled_from(["fork", "exec", "exit"]), st.integers(2, 6), st.booleans())
FEW = st.lists(STEP, max_size=2)
STEPS = st.lists(
    st.one_of(STEP, st.tuples(st.just("read")), st.tuples(st.just("poll"), FEW, FEW)), max_size=40
)


class Told:
    """What the events of a collector amount to, in the core's table and counted."""

    def __init__(self):
        self.table = ProcessTable()
        self.counts = Counter()

    def add(self, records):
        events = [record for record in records if record is not None and record.type == "event"]
        self.table.update(events)
        for event in events:
            kind = "fork" if event.kind == "seen" else event.kind
            self.counts[kind, event.pid, event.start_ns] += 1

    @property
    def living(self):
        return {(process.pid, process.key.start_ns) for process in self.table.view}


@settings(max_examples=300, deadline=None)
@given(steps=STEPS)
@example(steps=[("fork", 4, True), ("poll", [("exit", 4, False)], [])])
@example(steps=[("fork", 4, False), ("poll", [("exec", 4, False), ("fork", 5, True)], [])])
@example(steps=[("fork", 5, True), ("poll", [("fork", 4, False)], [("exit", 4, False)])])
@example(steps=[("poll", [("exit", 2, True)], [("fork", 2, True), ("exec", 2, False)])])
def test_after_any_loss_the_next_polls_bring_the_truth(steps):
    """Who is told to live does live, and nobody is born or dies twice."""
    world = World()
    for pid in 2, 3:
        world.living[pid] = Reading(pid, BEGIN_NS // 2, 1, "old", "S", 0, 0, 1, False, 1)
    known = Lives(world, costs=False, proc="/none")
    tree = ProcessTree(world, io=False, fds=False)
    sum_of = Told()
    losses = [0, 0]  # so far, and when the last poll began
    execs = Counter()

    def act(kind, pid, is_lost):
        world.pass_time()
        if (kind == "fork") == (pid in world.living):
            return
        if kind == "exec":
            execs[pid, world.living[pid].start_ns] += 1
        getattr(world, kind)(pid)
        if is_lost:
            world.messages.pop()
            losses[0] += 1

    def read():
        sum_of.add(told(known, world))

    def poll(meanwhile=(), afterwards=()):
        world.pass_time()
        before, since_boot_ns = losses[0], world.now_ns
        polled = tree.poll(EPOCH_NS, world.now_ns / 1e9)
        for step in meanwhile:
            act(*step)
        read()
        lost = losses[0] != losses[1]
        losses[1] = before
        for step in afterwards:
            act(*step)
        sum_of.add(known.later(polled, lost=lost, ts_ns=EPOCH_NS, since_boot_ns=since_boot_ns))

    sum_of.add(known.first(tree.poll(EPOCH_NS, world.now_ns / 1e9), world.now_ns))
    for kind, *arguments in steps:
        {"read": read, "poll": poll}.get(kind, lambda *step, kind=kind: act(kind, *step))(
            *arguments
        )
    poll()
    poll()
    assert sum_of.living == {(r.pid, r.start_ns) for r in world.living.values()}
    for (kind, *key), count in sum_of.counts.items():
        assert count <= (execs[*key] if kind == "exec" else 1)
    assert known._living.keys() == world.living.keys()
