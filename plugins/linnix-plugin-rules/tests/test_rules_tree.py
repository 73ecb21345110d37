"""The tree that rules look at: what is known of a process, and what is forgotten."""

import gc
import weakref

import pytest

from linnix_core import ProcessEvent, ProcessSample
from linnix_plugin_rules.tree import Child, Image, Process, Tree, deepest, lineage, subtree_sums


@pytest.fixture
def tree():
    return Tree()


def event(kind, pid, start_ns=5, ppid=None, parent_start_ns=None, **more):
    return ProcessEvent(
        kind, pid=pid, start_ns=start_ns, ppid=ppid, parent_start_ns=parent_start_ns, **more
    )


def fork(tree, event):
    return tree.fork(event, event.ts_ns)


def exec_of(tree, event):
    tree.exec(event, event.ts_ns)
    return tree.find(event)


def forked_by(tree, event):
    child = fork(tree, event)
    return child.forker, child.origin


def exit_of(tree, *args):
    ended = tree.exit(event("exit", *args), 0)
    if isinstance(ended, Process):
        ended.birth = None


def sampled(tree, pid, start_ns=5, **more):
    return tree.sampled(ProcessSample(pid=pid, start_ns=start_ns, interval_ns=1, **more))


def test_a_fork_is_credited_to_its_parent(tree):
    tree.learn(event("seen", 10, comm="bash"))
    child = fork(tree, event("fork", 11, 6, 10, 5))
    assert str(child.forker) == "bash (pid 10)"


def test_a_child_inherits_what_its_fork_does_not_say(tree):
    tree.learn(event("seen", 10, comm="bash", exe="/bin/bash", cgroup="/a"))
    fork(tree, event("fork", 11, 6, 10, 5))
    child = sampled(tree, 11, 6)
    assert (child.comm, child.exe, child.cgroup) == ("bash", "/bin/bash", "/a")


def test_an_exec_makes_the_image_new(tree):
    tree.learn(event("seen", 10, comm="bash", exe="/bin/bash", cgroup="/a"))
    exec_of(tree, event("exec", 10, comm="ls", cgroup="/b"))
    process = sampled(tree, 10)
    assert (process.comm, process.exe, process.cgroup) == ("ls", None, "/b")


def test_a_sample_tells_the_latest_name(tree):
    tree.learn(event("seen", 10, comm="old"))
    assert sampled(tree, 10, comm="new", cgroup="/c").comm == "new"


def test_a_process_may_be_seen_before_its_parent(tree):
    tree.learn(event("seen", 12, 7, 11, 6, comm="child"))
    tree.learn(event("seen", 11, 6, 10, 5, comm="parent"))
    tree.learn(event("seen", 10, 5, comm="grandparent"))
    child = sampled(tree, 12, 7)
    assert [str(process) for process in lineage([child])] == [
        "grandparent (pid 10)",
        "parent (pid 11)",
        "child (pid 12)",
    ]


def test_a_fork_may_come_after_the_exec(tree):
    exec_of(tree, event("exec", 11, 6, comm="ls"))
    tree.learn(event("seen", 10, 5, comm="bash"))
    assert fork(tree, event("fork", 11, 6, 10, 5, comm="bash", ts_ns=9)).forker.pid == 10
    child = sampled(tree, 11, 6)
    assert (child.comm, child.parent.pid, child.birth.event.ts_ns) == ("ls", 10, 9)


def test_a_parent_that_is_younger_than_its_child_is_none(tree):
    tree.learn(event("seen", 10, 50))
    assert forked_by(tree, event("fork", 11, 6, 10, 50)) == (None, None)
    assert forked_by(tree, event("fork", 12, 6, 10)) == (None, None)


def test_a_parent_whose_pid_has_a_new_owner_is_none(tree):
    tree.learn(event("seen", 10, 50))
    assert forked_by(tree, event("fork", 11, 60, 10, 5)) == (None, None)


def test_a_process_is_not_its_own_parent(tree):
    assert forked_by(tree, event("fork", 10, 5, 10, 5)) == (None, None)
    exec_of(tree, event("exec", 10, 5, 10, 5))
    assert sampled(tree, 10).parent is None


def test_parents_never_go_round_in_circles(tree):
    tree.learn(event("seen", 10, 5, 11, 5))
    tree.learn(event("seen", 11, 5, 10, 5))
    exec_of(tree, event("exec", 10, 5, 11, 5))
    assert len(lineage([sampled(tree, 10), sampled(tree, 11)])) == 2


def test_the_start_of_a_process_may_become_known_later(tree):
    nameless = fork(tree, event("fork", 11, 6, 10)).forker
    assert nameless.key is None
    exec_of(tree, event("exec", 10, 5, comm="bash"))
    assert nameless.key == ("", 10, 5)
    assert str(nameless) == "bash (pid 10)"


def test_processes_of_another_boot_are_others(tree):
    tree.learn(event("seen", 10, comm="old", boot_id="a"))
    child = fork(tree, event("fork", 11, 6, 10, 5, boot_id="b"))
    assert child.forker.boot_id == "b"


# --- origins --------------------------------------------------------------------------


def origins(tree, *, ages):
    """The origins of forks by a process, by its child and so on, each at some age in seconds."""
    tree.learn(event("seen", 100, 100))
    now = 0
    for pid, age in enumerate(ages, 100):
        now += int(age * 1e9)
        child = event("fork", pid + 1, pid + 1, ppid=pid, parent_start_ns=pid, ts_ns=now)
        yield fork(tree, child).origin.pid


def test_the_young_act_for_the_tree_that_they_were_born_into(tree):
    assert list(origins(tree, ages=[99, 1, 9.9, 2])) == [100, 100, 100, 100]


def test_the_old_begin_a_tree_of_their_own(tree):
    assert list(origins(tree, ages=[99, 10, 1, 11, 0])) == [100, 101, 101, 103, 103]


def test_children_of_init_begin_a_tree_of_their_own(tree):
    fork(tree, event("fork", 10, 5, 1, 1))
    assert fork(tree, event("fork", 11, 6, 10, 5)).origin.pid == 10


def test_an_exit_of_a_stranger_leaves_nothing_behind(tree):
    exit_of(tree, 10)
    assert len(tree) == 0


def test_an_exit_of_an_earlier_owner_of_the_pid_changes_nothing(tree):
    tree.learn(event("seen", 10, 50))
    exit_of(tree, 10, 5)
    assert len(tree) == 1


def test_a_child_takes_after_what_its_parent_was_at_the_fork(tree):
    tree.learn(event("seen", 10, 5, comm="sh", exe="/bin/sh", cgroup="/a", args=("sh", "-c")))
    fork(tree, event("fork", 11, 6, 10, 5))
    exec_of(tree, event("exec", 10, comm="ls", exe="/bin/ls", cgroup="/b", args=("ls",)))
    child = sampled(tree, 11, 6)
    assert (child.comm, child.exe, child.cgroup) == ("sh", "/bin/sh", "/a")
    assert child.args == ("sh", "-c")


def test_a_process_is_made_only_of_who_does_something(tree):
    tree.learn(event("seen", 10, 5, comm="sh"))
    for pid in (11, 12, 13):
        fork(tree, event("fork", pid, 6, 10, 5))
    tree.exec(event("exec", 11, 6, comm="ls"), 1)
    assert isinstance(tree.exit(event("exit", 11, 6), 2), Child)
    assert tree.exit(event("exit", 12, 7), 2) is None
    fork(tree, event("fork", 14, 7, 13, 6))
    assert [isinstance(tree.exit(event("exit", n, 6), 2), Child) for n in (12, 13)] == [True, False]


def test_what_an_orphan_did_is_its_parents_though_it_hangs_below_the_grandparent(tree):
    tree.learn(event("seen", 9, 4))
    tree.learn(event("seen", 10, 5, 9, 4))
    tree.learn(event("seen", 11, 6, 10, 5))
    exit_of(tree, 10, 5)
    orphan = tree.exit(event("exit", 11, 6), 0)
    assert (orphan.forker.pid, orphan.parent.pid) == (10, 9)


# --- memory ---------------------------------------------------------------------------


def test_endless_new_pids_without_an_exit_stay_within_the_bound():
    tree = Tree(limit=100)
    for pid in range(3, 5000):
        fork(tree, event("fork", pid, pid, ppid=10**6 + pid, parent_start_ns=pid - 1))
        assert len(tree) <= 100
    assert tree.evicted > 4000


def test_processes_that_are_sampled_outlive_those_that_are_not():
    tree = Tree(limit=100)
    known = [sampled(tree, pid) for pid in range(10, 30)]
    for pid in range(1000, 3000):
        exec_of(tree, event("exec", pid, pid))
        for process in known:
            assert sampled(tree, process.pid) is process


def test_when_all_are_active_the_oldest_go():
    tree = Tree(limit=8)
    processes = [sampled(tree, pid) for pid in range(10, 19)]
    assert [process.alive for process in processes] == [False] * 3 + [True] * 6


class Watched(str):
    """A name that lives as long as the process that has it."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("seen", [True, False])
def test_a_relay_leaves_no_chain_of_the_dead(tree, seen):
    runner = first = tree.learn(event("seen", 10, 10))
    dead = []
    for pid in range(11, 200):
        above = {"ppid": runner.pid, "parent_start_ns": runner.start_ns}
        if seen:
            fork(tree, event("fork", pid, pid, **above))
            child = tree.find(event("seen", pid, pid))
        else:
            child = tree.learn(event("seen", pid, pid, **above))
        runner.image = Image(Watched("runner"))
        exit_of(tree, runner.pid, runner.start_ns)
        dead.append((runner.pid, weakref.ref(runner.comm)))
        runner = child
    del child
    gc.disable()
    try:
        # The latest is the parent of who runs on, and the first is the parent of that.
        assert [pid for pid, ref in dead if ref() is not None] == [10, 198]
    finally:
        gc.enable()
    assert runner.parent.parent is first


# --- sums -----------------------------------------------------------------------------


def test_sums_go_up_to_the_top():
    top = Process("", 10, 1, None)
    left, right = (Process("", pid, 1, top) for pid in (11, 12))
    leaf = Process("", 13, 1, left)
    own = {leaf: 1, right: 2, top: 4}
    assert subtree_sums(own, lineage(own)) == {top: 7, left: 1, right: 2, leaf: 1}
    assert deepest(dict.fromkeys([top, left, right])) == [left, right]
    assert deepest(dict.fromkeys([top, leaf])) == [leaf]


def test_a_very_deep_tree_is_no_problem():
    process = None
    for pid in range(10, 20_010):
        process = Process("", pid, pid, process)
    parents = lineage([process])
    assert max(subtree_sums({process: 3}, parents).values()) == 3
    assert len(deepest(parents)) == 1


def test_pid_2_has_a_parent_in_a_container_however_late_that_is_known(tree):
    sampled(tree, 2)
    tree.learn(event("seen", 2, 5, 1, 4))
    tree.learn(event("seen", 3, 6, 2, 5))
    assert [process.pid for process in lineage([sampled(tree, 3, 6)])] == [1, 2, 3]
