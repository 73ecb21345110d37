"""The process table: who lives, who died, whose child one is, within bounds.

Architecture, section 5 (`ProcessKey`, `ProcessEvent`) and section 6. The table is held
against a model that is too simple to be wrong and too slow to be used.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import ProcessEvent, ProcessKey, ProcessSample, ProcessTable, start_time_ns
from linnix_core.processes import TICK_NS, boot_id

BOOT = "boot"


def key(pid: int, start: int) -> ProcessKey:
    return ProcessKey(BOOT, pid, start)


def event(kind: str, pid: int, start: int, **parts) -> ProcessEvent:
    """One event, stamped as the agent does."""
    return ProcessEvent(kind, pid, start, boot_id=BOOT, **parts)


def table_of(*events: ProcessEvent, **bounds: int) -> ProcessTable:
    table = ProcessTable(**bounds)
    table.update(events)
    return table


def pids(processes: Iterable) -> list[int]:
    return [process.pid for process in processes]


# --- against a model ----------------------------------------------------------------------


class Model:
    """All that was ever said, and answers found by looking through all of it."""

    def __init__(self) -> None:
        self.parents: dict[ProcessKey, ProcessKey | None] = {}
        self.exited: set[ProcessKey] = set()

    def hear(self, said: ProcessEvent) -> None:
        parent = None
        if said.ppid is not None and said.parent_start_ns is not None:
            parent = key(said.ppid, said.parent_start_ns)
        elif said.ppid is not None:
            parent = self.latest(said.ppid)
        if parent is not None and (parent.start_ns > said.start_ns or parent == said.key):
            parent = None
        self.parents[said.key] = self.parents.get(said.key) or parent
        if said.kind == "exit":
            self.exited.add(said.key)

    def latest(self, pid: int) -> ProcessKey | None:
        return max((known for known in self.parents if known.pid == pid), default=None)

    def alive(self) -> set[ProcessKey]:
        # Without an exit, one is dead all the same when its pid was seen in use later.
        return {k for k in self.parents if k not in self.exited and k == self.latest(k.pid)}

    def children(self, parent: ProcessKey) -> set[ProcessKey]:
        return {child for child in self.alive() if self.parents[child] == parent}

    def ancestors(self, child: ProcessKey) -> list[ProcessKey]:
        found: list[ProcessKey] = []
        above = self.parents[child]
        while above is not None and above in self.parents and above not in (child, *found):
            found.append(above)
            above = self.parents[above]
        return found


TIMES = st.integers(0, 3).map(lambda tick: tick * TICK_NS)
events = st.builds(
    event,
    kind=st.sampled_from(["seen", "fork", "exec", "exit", "oom"]),
    pid=st.integers(1, 5),
    start=TIMES,
    ppid=st.none() | st.integers(1, 5),
    parent_start_ns=st.none() | TIMES,
)
histories = st.lists(events, max_size=30)


def both(history: Sequence[ProcessEvent]) -> tuple[ProcessTable, Model]:
    table, model = ProcessTable(), Model()
    for said in history:
        model.hear(attrs.evolve(said))
        table.update([attrs.evolve(said)])
    return table, model


@settings(deadline=None, max_examples=400)
@given(history=histories)
def test_the_living_are_those_of_the_model(history):
    table, model = both(history)
    assert {process.key for process in table.view} == model.alive()
    assert len(table.view) == len(model.alive())
    for pid in range(1, 6):
        found = table.view.find(pid)
        assert (found and found.key) == next((k for k in model.alive() if k.pid == pid), None)


@settings(deadline=None, max_examples=300)
@given(history=histories)
def test_families_are_those_of_the_model(history):
    table, model = both(history)
    for known in model.parents:
        assert table.view.get(known).parent == model.parents[known]
        assert {c.key for c in table.view.children(known)} == model.children(known)
        assert [a.key for a in table.view.ancestors(known)] == model.ancestors(known)
        below = {k for k in model.alive() if known in model.ancestors(k)} - {known}
        assert {d.key for d in table.view.descendants(known)} == below


@settings(deadline=None, max_examples=300)
@given(history=histories, order=st.randoms(use_true_random=False))
def test_who_lives_does_not_depend_on_the_order_of_the_words(history, order):
    shuffled = history.copy()
    order.shuffle(shuffled)
    assert {p.key for p in both(history)[0].view} == {p.key for p in both(shuffled)[0].view}


@settings(deadline=None, max_examples=300)
@given(history=histories)
def test_nobody_is_younger_than_the_parent_neither_in_the_table_nor_in_the_event(history):
    table = ProcessTable()
    table.update(history)
    for said in history:
        assert said.parent_start_ns is None or said.parent_start_ns <= said.start_ns
        process = table.view.get(said.key)
        assert process.parent is None or process.parent.start_ns <= process.key.start_ns


@settings(deadline=None, max_examples=300)
@given(before=histories, after=histories)
def test_the_dead_stay_dead_whatever_is_said_of_them(before, after):
    table, _ = both(before)
    dead = {said.key for said in before if not table.view.get(said.key).alive}
    table.update(after)
    assert not any(table.view.get(known).alive for known in dead)
    assert not dead & {process.key for process in table.view}


# --- bounds -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(history=st.lists(events, max_size=60), live=st.integers(1, 3), dead=st.integers(0, 3))
def test_the_bounds_hold_after_every_word(history, live, dead):
    table = ProcessTable(max_live=live, max_dead=dead)
    for said in history:
        table.update([said])
        assert len(table._live) <= live
        assert len(table._dead) <= dead
        assert list(table._dead) == [process.key for process in table._dead.values()]
        living = {process.key for process in table._live.values()}
        assert {process.key for process in table._latest.values()} <= {*living, *table._dead}


@settings(deadline=None, max_examples=200)
@given(history=st.lists(events, max_size=60))
def test_nothing_stays_behind_once_everyone_is_forgotten(history):
    table = ProcessTable(max_dead=0)
    table.update(history)
    table.update([event("exit", *process.key[1:]) for process in table.view])
    assert [table._live, table._dead, table._latest] == [{}, {}, {}]


def test_the_longest_dead_are_forgotten_first():
    table = table_of(*(event("exit", pid, 0) for pid in range(1, 5)), max_dead=2)
    assert [table.view.get(key(pid, 0)) is None for pid in range(1, 5)] == [
        True,
        True,
        False,
        False,
    ]


def test_of_many_dead_the_last_ones_are_remembered():
    table = ProcessTable(max_dead=640)
    for pid in range(1, 1501):
        table.update([event("exit", pid, 0)])
        remembered = [known for _, known, _ in table._dead]
        assert remembered == list(range(pid + 1 - len(remembered), pid + 1))
        assert list(table._latest) == remembered
        assert min(pid, 640 - 640 // 64) <= len(remembered) <= 640


def test_the_living_that_are_too_many_are_counted_and_remembered_as_dead():
    table = table_of(*(event("seen", pid, 0) for pid in range(1, 6)), max_live=3)
    assert pids(table.view) == [3, 4, 5]
    assert table.view.evicted == 2
    assert not table.view.get(key(1, 0)).alive


def test_a_fork_bomb_leaves_no_more_than_the_bounds_allow():
    table = ProcessTable(max_live=100, max_dead=50)
    for pid in range(3000):
        table.update([event("fork", pid, 0, ppid=max(pid - 1, 0), parent_start_ns=0)])
    assert len(table.view) == 100
    assert len(table._dead) == 50
    assert len(table._latest) == 150
    assert len(table.view.ancestors(key(2999, 0))) == 149


# --- identity -----------------------------------------------------------------------------


@given(ticks=st.integers(0, 2**40), rest=st.integers(0, TICK_NS - 1))
def test_the_kernels_nanoseconds_and_the_ticks_of_proc_name_the_same_process(ticks, rest):
    # task_struct.start_boottime has nanoseconds; /proc shows nsec_to_clock_t of it, floored.
    assert start_time_ns(ticks * TICK_NS + rest) == start_time_ns(ticks * TICK_NS)
    assert start_time_ns(ticks * TICK_NS) == ticks * TICK_NS


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_real_process_began_between_its_parents_start_and_now():
    def start_ns(pid: int | str) -> int:
        after_comm = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(after_comm[22 - 3])
        return start_time_ns(ticks * 10**9 // os.sysconf("SC_CLK_TCK"))

    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            began = start_ns(child.pid)
        finally:
            child.kill()
    assert start_ns("self") <= began
    assert began % TICK_NS == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_boot_has_one_name():
    assert boot_id() == boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_pid_that_is_used_again_buries_its_former_owner():
    table = table_of(
        event("fork", 7, 10, comm="old"),
        event("fork", 7, 20, comm="new", ts_ns=5),
    )
    assert table.view.find(7).comm == "new"
    assert table.view.get(key(7, 10)).ended_ns == 5


def test_the_same_pid_in_another_boot_is_another_process():
    table = table_of(event("seen", 7, 90, comm="before"))
    table.update([ProcessEvent("seen", 7, 10, comm="after", boot_id="next")])
    assert table.view.find(7).comm == "after"
    assert table.view.get(ProcessKey("next", 7, 10)).alive


def test_an_exit_that_overtakes_its_fork_leaves_a_tombstone_that_the_fork_fills_in():
    table = table_of(
        event("exit", 7, 10, exit_code=3, ts_ns=50),
        event("fork", 7, 10, comm="late", ppid=1, parent_start_ns=0, ts_ns=40),
    )
    process = table.view.get(key(7, 10))
    assert not process.alive
    assert (process.exit_code, process.comm, process.parent) == (3, "late", key(1, 0))
    assert table.view.find(7) is None


def test_a_fork_that_arrives_after_the_whole_life_of_the_next_owner_is_no_ghost():
    table = table_of(event("fork", 7, 20), event("exit", 7, 20), event("fork", 7, 10))
    assert table.view.find(7) is None
    assert not table.view.get(key(7, 10)).alive


def test_an_exit_of_a_later_owner_buries_the_former_one_too():
    table = table_of(event("fork", 7, 10), event("exit", 7, 20))
    assert len(table.view) == 0


# --- what is known of a process -----------------------------------------------------------


def test_a_parent_that_is_named_by_its_pid_alone_is_looked_up():
    table = table_of(event("seen", 1, 0), said := event("fork", 7, 10, ppid=1))
    assert said.parent_start_ns == 0
    assert table.view.get(key(7, 10)).parent == key(1, 0)


def test_a_parent_that_is_not_known_or_younger_stays_unknown():
    said = [event("fork", 7, 10, ppid=99), event("fork", 8, 10, ppid=9)]
    table = table_of(event("seen", 9, 20), *said)
    assert [one.parent_start_ns for one in said] == [None, None]
    assert table.view.get(key(8, 10)).parent is None


def test_a_parent_younger_than_its_child_is_a_reused_pid_and_taken_out_of_the_event():
    table = table_of(said := event("fork", 7, 10, ppid=1, parent_start_ns=20))
    assert (said.ppid, said.parent_start_ns) == (1, None)
    assert table.view.get(key(7, 10)).parent is None


def test_nobody_is_the_own_parent():
    table = table_of(event("fork", 7, 10, ppid=7, parent_start_ns=10))
    assert table.view.get(key(7, 10)).parent is None
    assert table.view.descendants(key(7, 10)) == []


def test_the_parent_is_the_one_that_forked_also_after_its_death():
    table = table_of(
        event("seen", 1, 0),
        event("fork", 5, 10, ppid=1, parent_start_ns=0),
        event("fork", 7, 20, ppid=5, parent_start_ns=10),
        event("exit", 5, 10),
        event("exec", 7, 20, ppid=1, parent_start_ns=0),
    )
    assert table.view.get(key(7, 20)).parent == key(5, 10)
    assert pids(table.view.ancestors(key(7, 20))) == [5, 1]


def test_descendants_are_reached_through_the_dead():
    table = table_of(
        event("seen", 1, 0),
        event("fork", 5, 10, ppid=1, parent_start_ns=0),
        event("fork", 7, 20, ppid=5, parent_start_ns=10),
        event("exit", 5, 10),
    )
    assert pids(table.view.descendants(key(1, 0))) == [7]
    assert table.view.children(key(1, 0)) == []


def test_the_nearest_descendants_come_first():
    table = table_of(
        event("seen", 1, 0),
        event("fork", 2, 1, ppid=1, parent_start_ns=0),
        event("fork", 3, 2, ppid=2, parent_start_ns=1),
        event("fork", 4, 3, ppid=1, parent_start_ns=0),
    )
    assert pids(table.view.descendants(key(1, 0))) == [2, 4, 3]


def test_a_fork_copies_its_parent_where_the_event_says_nothing():
    table = table_of(
        event(
            "seen", 1, 0, comm="sh", exe="/bin/sh", args=("sh",), uid=7, gid=8, cwd="/", cgroup="/a"
        ),
        said := event("fork", 5, 10, ppid=1, parent_start_ns=0, cwd="/tmp"),
    )
    child = table.view.get(key(5, 10))
    assert (child.comm, child.exe, child.args) == ("sh", "/bin/sh", ("sh",))
    assert (child.uid, child.gid, child.cwd, child.cgroup) == (7, 8, "/tmp", "/a")
    # Who reads the event need not look it up.
    assert (said.comm, said.exe, said.uid, said.cgroup) == ("sh", "/bin/sh", 7, "/a")


def test_an_exec_tells_whose_and_where_the_process_is_by_now():
    """As a service does: forked by init, it moves to its cgroup, becomes its user, and execs."""
    table = table_of(
        event("fork", 5, 0, comm="init", uid=0, gid=0, cwd="/", cgroup="/init.scope"),
        event("exec", 5, 0, comm="web", exe="/bin/web", uid=33, gid=34, cwd="/srv", cgroup="/w"),
    )
    web = table.view.find(5)
    assert (web.uid, web.gid, web.cwd, web.cgroup) == (33, 34, "/srv", "/w")


def test_an_exec_makes_the_image_new_and_inherits_nothing_of_it():
    table = table_of(
        event("seen", 5, 0, comm="sh", exe="/bin/sh", args=("sh",), uid=7, cgroup="/a", cwd="/"),
        event("exec", 5, 0, comm="ls"),
    )
    process = table.view.find(5)
    assert (process.comm, process.exe, process.args) == ("ls", None, None)
    assert (process.uid, process.cgroup, process.cwd) == (7, "/a", "/")


def test_an_exit_says_how_it_ended_and_learns_what_was_known():
    table = table_of(
        event("seen", 5, 0, comm="sh", exe="/bin/sh", ts_ns=1),
        said := event(
            "exit", 5, 0, signal=9, duration_ns=3, cpu_ns=2, max_rss_bytes=1, ts_ns=9
        ),
    )  # fmt: skip
    process = table.view.get(key(5, 0))
    assert not process.alive
    assert (process.first_ns, process.ended_ns) == (1, 9)
    assert (process.signal, process.exit_code) == (9, None)
    assert (process.duration_ns, process.cpu_ns, process.max_rss_bytes) == (3, 2, 1)
    assert (said.comm, said.exe) == ("sh", "/bin/sh")


def test_a_second_exit_does_not_move_the_end():
    table = table_of(
        event("seen", 5, 0), event("exit", 5, 0, ts_ns=3), event("exit", 5, 0, ts_ns=9)
    )
    assert table.view.get(key(5, 0)).ended_ns == 3


def test_of_two_exits_the_latter_says_how_it_ended():
    table = table_of(event("exit", 5, 0, exit_code=3), event("exit", 5, 0, signal=9))
    process = table.view.get(key(5, 0))
    assert (process.exit_code, process.signal) == (None, 9)


def test_the_latest_sample_of_the_living_is_kept_and_others_are_passed_over():
    def sample(pid: int, cpu: float) -> ProcessSample:
        return ProcessSample(pid, 0, 10**9, cpu_percent=cpu, boot_id=BOOT)

    table = table_of(event("seen", 5, 0), event("exit", 6, 0))
    table.update([sample(5, 1.0), sample(5, 2.0), sample(6, 3.0), sample(7, 4.0), object()])
    assert table.view.find(5).sample.cpu_percent == 2.0
    assert table.view.get(key(6, 0)).sample is None
    assert table.view.get(key(7, 0)) is None


def test_the_top_is_sorted_by_what_was_asked_for_and_leaves_out_what_was_not_measured():
    table = table_of(*(event("seen", pid, 0) for pid in range(1, 6)))
    table.update(
        ProcessSample(pid, 0, 10**9, cpu_percent=cpu, boot_id=BOOT)
        for pid, cpu in ((1, 5.0), (2, None), (3, 250.0), (4, 7.0))
    )
    assert pids(table.view.top(2, by=lambda sample: sample.cpu_percent)) == [3, 4]
    assert pids(table.view.top(9, by=lambda sample: sample.cpu_percent)) == [3, 4, 1]


# --- views --------------------------------------------------------------------------------


def test_what_a_view_returns_is_a_copy():
    table = table_of(
        event("seen", 1, 0, comm="init"), event("fork", 5, 10, ppid=1, parent_start_ns=0)
    )
    view = table.view
    table.update([ProcessSample(5, 10, 1, cpu_percent=9.0, boot_id=BOOT)])
    answers = [
        *view, view.find(5), view.get(key(5, 10)), *view.children(key(1, 0)),
        *view.descendants(key(1, 0)), *view.ancestors(key(5, 10)),
        *view.top(1, by=lambda sample: sample.cpu_percent),
    ]  # fmt: skip
    assert len(answers) == 8
    for process in answers:
        process.comm, process.ended_ns, process.parent = "changed", 99, None
    assert pids(view) == [1, 5]
    assert view.find(1).comm == "init"
    assert view.find(5).parent == key(1, 0)


def test_a_view_that_is_held_sees_what_comes_later():
    table = ProcessTable()
    view = table.view
    living = iter(view)
    table.update([event("seen", 1, 0)])
    assert list(living) == []
    assert pids(view) == [1]


def test_readers_see_whole_families_while_a_writer_runs():
    table = ProcessTable(max_live=500, max_dead=100)
    table.update([event("seen", 1, 0)])
    root, done, mistakes = key(1, 0), threading.Event(), []

    def read() -> None:
        view = table.view
        while not done.is_set():
            mistakes.extend(p for p in view if not p.alive or (p.parent or root) != root)
            mistakes.extend(c for c in view.children(root) if c.parent != root or not c.alive)
            mistakes.extend(d for d in view.descendants(root) if not d.alive)
            view.top(3, by=lambda sample: sample.cpu_percent)
            if (found := view.find(17)) is not None and found.pid != 17:
                mistakes.append(found)

    def guarded() -> None:
        try:
            read()
        except Exception as error:
            mistakes.append(error)

    readers = [threading.Thread(target=guarded) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(1, 400):
            table.update(
                event("fork", pid, turn * TICK_NS, ppid=1, parent_start_ns=0)
                for pid in range(2, 22)
            )
            table.update(event("exit", pid, turn * TICK_NS) for pid in range(2, 22) if pid % 3)
    finally:
        done.set()
        for reader in readers:
            reader.join(60)
    assert mistakes == []
