"""What is told when two polls differ, with a reader that plays a script."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import ProcessEvent, ProcessKey, ProcessSample, ProcessTable
from linnix_plugin_psutil.reading import Image, Reading
from linnix_plugin_psutil.tree import ProcessTree

TICK = 10_000_000
SECOND = 1_000_000_000


class ScriptedReader:
    """Shows what a test puts there, as /proc does: pids, then each by itself.

    ``broken`` are pids whose files cannot be read just now; ``io`` and ``uptime_ns`` are
    counters that a test moves on.
    """

    def __init__(self):
        self.readings = {}
        self.images = {}
        self.io = {}
        self.broken = {}
        self.uptime_ns = 0

    def show(self, *readings):
        self.readings = {reading.pid: reading for reading in readings}

    def since_boot_ns(self):
        return self.uptime_ns

    def pids(self):
        return [*self.readings, *(pid for pid in self.broken if pid not in self.readings)]

    def read(self, pid):
        if pid in self.broken:
            raise self.broken[pid]
        return self.readings[pid]

    def describe(self, reading):
        return self.images.get(reading.pid, Image())

    def io_bytes(self, pid):
        return self.io[pid]

    def descriptors(self, pid):
        return 3


@pytest.fixture
def scripted():
    return ScriptedReader()


class Polls:
    """Polls of a tree, one second apart unless told otherwise."""

    def __init__(self, reader, **options):
        self.tree = ProcessTree(reader, **{"io": False, "fds": False} | options)
        self.moment = 100.0

    def __call__(self, after_s=1.0):
        self.moment += after_s
        self.records = self.tree.poll(round(self.moment * SECOND), self.moment)
        return [r for r in self.records if isinstance(r, ProcessEvent)]

    def sample(self, pid):
        (sample,) = [r for r in self.records if isinstance(r, ProcessSample) and r.pid == pid]
        return sample


@pytest.fixture
def polls(scripted):
    return Polls(scripted)


def told(events):
    return [(event.kind, event.pid) for event in events]


# --- identity -------------------------------------------------------------------------


def test_a_pid_with_another_start_is_an_exit_and_a_fork(scripted, polls):
    scripted.show(Reading(7, 1 * TICK, comm="old", cpu_ns=9 * SECOND, execed=False))
    polls()
    scripted.show(Reading(7, 2 * TICK, comm="new", cpu_ns=SECOND // 4, execed=False))
    exit_, fork = polls()
    assert (exit_.kind, exit_.start_ns, exit_.comm) == ("exit", 1 * TICK, "old")
    assert (fork.kind, fork.start_ns, fork.comm) == ("fork", 2 * TICK, "new")
    assert polls.sample(7).cpu_percent == 25.0


def test_an_exit_tells_how_long_it_lived(scripted, polls):
    scripted.show(Reading(7, 3 * TICK))
    polls()
    scripted.show()
    scripted.uptime_ns = 500 * TICK
    (exit_,) = polls()
    assert exit_.duration_ns == 497 * TICK


def test_a_process_that_cannot_be_read_for_now_has_not_exited(scripted, polls):
    scripted.show(Reading(7, TICK, cpu_ns=0))
    polls()
    scripted.broken = {7: ValueError("half a line")}
    assert polls() == []
    assert polls.records == []
    assert polls.tree.unreadable == 1
    assert polls.tree.count == 1

    scripted.broken = {}
    scripted.show(Reading(7, TICK, cpu_ns=SECOND))
    assert polls() == []
    # It was last read two seconds ago.
    assert polls.sample(7).cpu_percent == 50.0
    assert polls.sample(7).interval_ns == 2 * SECOND


def test_one_that_is_first_read_late_was_there_before(scripted, polls):
    scripted.show(Reading(7, 20 * TICK))
    scripted.broken = {8: PermissionError()}
    polls()
    scripted.broken = {}
    scripted.show(
        Reading(7, 20 * TICK), Reading(8, 10 * TICK, cpu_ns=5 * SECOND), Reading(9, 20 * TICK)
    )
    assert told(polls()) == [("seen", 8), ("fork", 9)]
    assert polls.sample(8).cpu_percent is None


# --- parents --------------------------------------------------------------------------


def test_a_parent_forks_before_its_child_even_within_a_tick(scripted, polls):
    scripted.show(Reading(1, 0))
    polls()
    scripted.show(
        Reading(1, 0),
        Reading(3, 5 * TICK, ppid=9),
        Reading(5, 5 * TICK, ppid=3),
        Reading(9, 5 * TICK, ppid=1),
        Reading(2, 4 * TICK, ppid=1),
    )
    events = polls()
    assert told(events) == [("fork", 2), ("fork", 9), ("fork", 3), ("fork", 5)]
    assert [event.parent_start_ns for event in events] == [0, 0, 5 * TICK, 5 * TICK]


def test_a_parent_that_is_younger_than_its_child_is_none(scripted, polls):
    scripted.show(Reading(1, 0), Reading(3, 9 * TICK), Reading(4, 8 * TICK, ppid=3))
    child = next(event for event in polls() if event.pid == 4)
    assert (child.pid, child.ppid, child.parent_start_ns) == (4, 3, None)


def test_a_parent_that_died_while_others_were_read_is_still_the_parent(scripted, polls):
    scripted.show(Reading(3, TICK, comm="sh"))
    polls()
    scripted.show(Reading(4, 2 * TICK, ppid=3, execed=False))
    exit_, fork = polls()
    assert (exit_.kind, exit_.pid) == ("exit", 3)
    assert fork.parent_key == exit_.key


def test_an_orphan_keeps_the_parent_that_forked_it(scripted, polls):
    scripted.show(Reading(1, 0), Reading(3, TICK, ppid=1), Reading(4, 2 * TICK, ppid=3))
    polls()
    scripted.show(Reading(1, 0), Reading(4, 2 * TICK, ppid=1))
    polls()
    scripted.show(Reading(1, 0))
    (exit_,) = polls()
    assert (exit_.ppid, exit_.parent_start_ns) == (3, TICK)


def test_parents_that_go_round_in_circles_are_no_error(scripted, polls):
    scripted.show(Reading(3, TICK, ppid=4), Reading(4, TICK, ppid=3), Reading(5, TICK, ppid=5))
    assert sorted(told(polls())) == [("seen", 3), ("seen", 4), ("seen", 5)]


# --- exec -----------------------------------------------------------------------------

SH = Image(exe="/bin/sh", args=("sh",))


def changes(scripted, polls, before, now, former=SH, image=SH):
    scripted.show(before)
    scripted.images = {before.pid: former}
    polls()
    scripted.show(now)
    scripted.images = {now.pid: image}
    return told(polls())


@pytest.mark.parametrize(
    ("name", "image", "execed"),
    [
        ("sh", SH, False),
        ("other", SH, False),
        ("sh", Image(exe="/bin/sh", args=("sh: idle",)), False),
        ("other", Image(exe="/bin/other", args=("sh",)), True),
        ("other", Image(exe="/bin/sh", args=("other",)), True),
        ("other", Image(exe=None, args=("other",)), True),
        ("other", Image(exe=None, args=("sh",)), False),
        ("other", Image(), True),
        ("", Image(), False),
    ],
)
def test_without_the_kernels_word_a_new_name_with_a_new_program_or_arguments_is_an_exec(
    scripted, polls, name, image, execed
):
    events = changes(
        scripted, polls, Reading(7, TICK, comm="sh"), Reading(7, TICK, comm=name), image=image
    )
    assert events == ([("exec", 7)] if execed else [])


def test_a_new_stack_is_an_exec_though_all_names_are_the_same(scripted, polls):
    before, now = (Reading(7, TICK, comm="sh", execed=True, stack=s) for s in (0x7FF0, 0x7FE0))
    assert changes(scripted, polls, before, now) == [("exec", 7)]


def test_a_title_that_a_program_gives_itself_is_no_exec_where_the_stack_is_the_same(
    scripted, polls
):
    before, now = (
        Reading(7, TICK, comm=comm, execed=True, stack=0x7FF0) for comm in ("postgres", "worker")
    )
    titled = Image(exe="/bin/sh", args=("postgres: worker",))
    assert changes(scripted, polls, before, now, image=titled) == []


def test_the_first_exec_since_the_fork_is_one_though_the_stack_cannot_be_seen(scripted, polls):
    before, now = (Reading(7, TICK, comm="sh", execed=execed) for execed in (False, True))
    assert changes(scripted, polls, before, now) == [("exec", 7)]


def test_the_names_of_kernel_workers_change_and_nothing_is_read_for_it(scripted, polls):
    before, now = (
        Reading(7, TICK, comm=comm, execed=False, kernel=True)
        for comm in ("kworker/0:1-events", "kworker/0:1-idle")
    )
    scripted.show(before)
    polls()
    scripted.describe = None
    scripted.show(now)
    assert polls() == []
    assert polls.sample(7).comm == "kworker/0:1-idle"


def test_a_name_that_cannot_be_read_for_now_stays(scripted, polls):
    changes(scripted, polls, Reading(7, TICK, comm="sh"), Reading(7, TICK, comm=""))
    assert polls.sample(7).comm == "sh"


@pytest.mark.parametrize(
    ("image", "execed"),
    [
        (SH, False),
        (Image(exe="/bin/sh", args=("sh", "-c")), True),
        (Image(exe="/bin/other", args=("sh",)), True),
        (Image(), False),
    ],
)
def test_a_child_whose_program_or_arguments_are_not_its_parents_has_execed(
    scripted, polls, image, execed
):
    parent = Reading(1, 0, comm="sh")
    scripted.show(parent)
    scripted.images = {1: SH, 7: image}
    polls()
    scripted.show(parent, Reading(7, TICK, ppid=1, comm="sh"))
    assert told(polls()) == [("fork", 7), ("exec", 7)][: 1 + execed]


def test_children_that_are_as_their_parent_share_its_arguments(scripted, polls):
    scripted.describe = lambda reading: Image(args=(*"sh", "-c"))
    scripted.show(Reading(1, 0), Reading(7, TICK, ppid=1))
    parent, child = polls()
    assert child.args is parent.args


def test_a_zombie_of_another_name_than_its_parent_has_execed(scripted, polls):
    parent = Reading(1, 0, comm="sh")
    scripted.show(parent)
    scripted.images = {1: SH}
    polls()
    scripted.show(parent, Reading(7, TICK, ppid=1, comm="true", state="Z"))
    assert told(polls()) == [("fork", 7), ("exec", 7)]


def test_a_fork_that_execed_since_is_told_with_what_it_was_forked_with(scripted, polls):
    parent = Reading(1, 0, comm="sh")
    image = Image("/bin/job", ("job", "-v"), uid=5, gid=6, cwd="/srv", cgroup="/jobs")
    scripted.show(parent)
    scripted.images = {1: SH, 7: image, 8: image}
    polls()
    scripted.show(
        parent,
        Reading(7, TICK, ppid=1, comm="job", execed=True),
        Reading(8, TICK, ppid=99, comm="job", execed=True),
    )
    fork, exec_, orphan, _ = polls()
    assert (fork.comm, fork.exe, fork.args) == ("sh", "/bin/sh", ("sh",))
    assert (exec_.comm, exec_.exe, exec_.args) == ("job", "/bin/job", ("job", "-v"))
    assert (orphan.kind, orphan.comm, orphan.exe, orphan.args) == ("fork", "", None, None)
    for event in fork, exec_, orphan:
        assert (event.uid, event.gid, event.cwd, event.cgroup) == (5, 6, "/srv", "/jobs")


def test_one_that_cannot_be_described_is_told_without_its_image(scripted, polls):
    def describe(reading):
        raise IndexError("half a file")

    scripted.describe = describe
    scripted.show(Reading(7, TICK, comm="sh"))
    (seen,) = polls()
    assert (seen.comm, seen.exe, seen.args, seen.uid) == ("sh", None, None, None)


def test_those_that_hide_something_are_counted(scripted, polls):
    scripted.images = {2: SH, 3: SH, 4: Image(args=()), 5: Image(args=("sh",)), 6: Image()}
    scripted.show(
        Reading(2, 0, cpu_ns=0),
        Reading(3, 0, cpu_ns=None),
        Reading(4, 0, cpu_ns=0, kernel=True),
        Reading(5, 0, cpu_ns=0),
        Reading(6, 0, cpu_ns=0, state="Z"),
    )
    polls()
    assert polls.tree.partly_read == 2  # the third hides its times, the fifth its program


# --- samples --------------------------------------------------------------------------


def test_cpu_is_of_one_core_over_the_time_that_really_passed(scripted, polls):
    scripted.show(Reading(7, TICK, cpu_ns=10 * SECOND))
    polls()
    assert polls.sample(7).cpu_percent is None
    scripted.show(Reading(7, TICK, cpu_ns=20 * SECOND))
    polls(after_s=4.0)
    assert polls.sample(7).cpu_percent == 250.0
    assert polls.sample(7).interval_ns == 4 * SECOND


def test_all_that_a_new_process_used_was_used_since_the_last_poll(scripted):
    polls = Polls(scripted, io=True)
    polls()
    scripted.show(Reading(7, TICK, cpu_ns=SECOND))
    scripted.io = {7: (10, 20)}
    polls(after_s=4.0)
    sample = polls.sample(7)
    assert (sample.cpu_percent, sample.read_bytes, sample.write_bytes) == (25.0, 10, 20)
    assert sample.interval_ns == 4 * SECOND


def test_what_is_not_known_before_or_after_is_not_known_between(scripted):
    polls = Polls(scripted, io=True)
    scripted.show(Reading(7, TICK, cpu_ns=None))
    polls()
    scripted.show(Reading(7, TICK, cpu_ns=SECOND))
    scripted.io = {7: (10, 20)}
    polls()
    sample = polls.sample(7)
    assert (sample.cpu_percent, sample.read_bytes, sample.write_bytes) == (None, None, None)


def test_polls_at_the_same_moment_measure_nothing(scripted, polls):
    scripted.show(Reading(7, TICK, cpu_ns=0))
    polls()
    polls(after_s=0.0)
    assert (polls.sample(7).cpu_percent, polls.sample(7).interval_ns) == (None, 0)


@settings(deadline=None)
@given(
    cpu=st.lists(st.integers(0, 10**12), min_size=2, max_size=8),
    io=st.lists(st.integers(0, 10**12), min_size=8, max_size=8),
)
def test_nothing_is_ever_negative_though_counters_run_back(cpu, io):
    reader = ScriptedReader()
    polls = Polls(reader, io=True)
    for cpu_ns, count in zip(cpu, io, strict=False):
        reader.show(Reading(7, TICK, cpu_ns=cpu_ns))
        reader.io = {7: (count, count)}
        polls()
        sample = polls.sample(7)
        assert sample.cpu_percent is None or sample.cpu_percent >= 0
        assert sample.read_bytes is None or sample.read_bytes >= 0
        assert sample.write_bytes is None or sample.write_bytes >= 0


# --- any sequence ---------------------------------------------------------------------

processes = st.builds(
    Reading,
    pid=st.integers(1, 12),
    start_ns=st.integers(0, 4).map(lambda ticks: ticks * TICK),
    ppid=st.none() | st.integers(0, 12),
    comm=st.sampled_from(["", "sh", "job"]),
    cpu_ns=st.none() | st.integers(0, 10**9),
    execed=st.none() | st.booleans(),
    stack=st.integers(0, 2),
    kernel=st.booleans(),
)
errors = st.sampled_from([OSError(5), ValueError(), IndexError(), PermissionError()])
images = st.builds(
    Image,
    exe=st.sampled_from([None, "/bin/sh", "/bin/job"]),
    args=st.sampled_from([None, (), ("sh",), ("job",)]),
)
snapshots = st.tuples(
    st.lists(processes, max_size=8, unique_by=lambda reading: reading.pid),
    st.dictionaries(st.integers(1, 12), errors, max_size=3),
    st.dictionaries(st.integers(1, 12), images, max_size=6),
)


@settings(deadline=None)
@given(st.lists(snapshots, min_size=1, max_size=8))
def test_events_rebuild_exactly_who_lives(sequence):
    reader = ScriptedReader()
    polls = Polls(reader)
    alive, expected = set(), {}
    for readings, broken, described in sequence:
        reader.show(*readings)
        reader.broken, reader.images = broken, described
        there = {reading.pid: reading.start_ns for reading in readings}
        # One that cannot be read stays who it was; one that is not there has gone.
        expected = {
            pid: expected[pid] if pid in broken else there[pid]
            for pid in there | broken
            if (pid in expected if pid in broken else True)
        }
        events = polls()
        for event in events:
            if event.kind == "exit":
                alive.remove(event.key)
            elif event.kind == "exec":
                assert event.key in alive
            else:
                assert event.key not in alive
                alive.add(event.key)
            assert event.parent_start_ns is None or event.parent_start_ns <= event.start_ns
        assert alive == {ProcessKey("", pid, start) for pid, start in expected.items()}
        assert {r.key for r in polls.records if isinstance(r, ProcessSample)} == {
            key for key in alive if key.pid not in broken
        }
        types = [r.type for r in polls.records]
        assert types == sorted(types)  # "event" before "sample"
        assert all(r.ts_ns == polls.records[0].ts_ns for r in polls.records)


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(st.integers(1, 6), st.tuples(st.booleans(), st.integers(0, 6))), max_size=10
    )
)
def test_the_process_table_of_the_core_follows_them(sequence):
    reader, table = ScriptedReader(), ProcessTable()
    polls = Polls(reader)
    alive = {}
    for step, there in enumerate(sequence):
        # Whoever is born anew, with a pid that was free or has changed hands, is the youngest.
        alive = {
            pid: step * TICK if anew or pid not in alive else alive[pid]
            for pid, (anew, _) in there.items()
        }
        reader.show(*(Reading(pid, alive[pid], ppid=there[pid][1]) for pid in there))
        table.update(polls())
        assert {process.key for process in table.view} == {
            ProcessKey("", pid, start_ns) for pid, start_ns in alive.items()
        }
        assert all(not parent_is_younger(process) for process in table.view)


def parent_is_younger(process):
    return process.parent is not None and process.parent.start_ns > process.key.start_ns
