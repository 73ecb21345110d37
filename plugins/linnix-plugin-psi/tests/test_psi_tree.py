"""One sample of each group, from machines of every layout, made of files."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import Pressure
from linnix_plugin_psi.hierarchies import Hierarchy
from linnix_plugin_psi.tree import CgroupTree

UNLIMITED = 2**63 - 4096


@pytest.fixture
def machine_v2(machine):
    """Version 2 alone, with one service that has every controller."""
    machine.offer_pressure(some=7)
    root = machine.mount("cgroup2", controllers="cpu io memory")
    group = root / "system.slice"
    machine.write(root / "cpu.stat", "usage_usec 5000000\nuser_usec 1\nsystem_usec 1\n")
    machine.write(
        group / "cpu.stat", "usage_usec 2000000\nuser_usec 0\nsystem_usec 0\nthrottled_usec 10\n"
    )
    machine.write(group / "memory.current", 4096)
    machine.write(group / "memory.max", "max\n")
    machine.write(group / "memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n")
    for number, resource in enumerate(("cpu", "memory", "io")):
        machine.write(
            group / f"{resource}.pressure",
            f"some avg10=1.50 avg60=0.00 avg300=0.00 total={number}\n"
            "full avg10=0.25 avg60=0.00 avg300=0.00 total=9\n",
        )
    machine.group = group
    return machine


@pytest.fixture
def machine_v1(machine):
    """Version 1 alone, with one container."""
    machine.offer_pressure(some=7)
    cpu = machine.mount("cgroup", "rw,cpu,cpuacct") / "docker"
    memory = machine.mount("cgroup", "rw,memory") / "docker"
    machine.write(cpu / "cpuacct.usage", 2_000_000_000)
    machine.write(cpu / "cpu.stat", "nr_periods 5\nnr_throttled 2\nthrottled_time 10000\n")
    machine.write(memory / "memory.usage_in_bytes", 4096)
    machine.write(memory / "memory.limit_in_bytes", UNLIMITED)
    machine.write(memory / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    machine.write(memory / "memory.failcnt", 2)
    machine.cpu, machine.memory = cpu, memory
    return machine


def poll(collector):
    return {sample.cgroup: sample for sample in collector.linnix_poll()}


# --- version 2 ------------------------------------------------------------------------------


def test_version_2_tells_everything(machine_v2, make_collector):
    sample = poll(make_collector(machine_v2.proc))["/system.slice"]
    assert sample.memory_bytes == 4096
    assert sample.memory_limit_bytes is None
    assert sample.memory_events == {"low": 0, "high": 1, "max": 2, "oom": 3, "oom_kill": 4}
    assert sample.psi_cpu == Pressure(1.5, 0, 0.25, 9)
    assert sample.psi_memory == Pressure(1.5, 1, 0.25, 9)
    assert sample.psi_io == Pressure(1.5, 2, 0.25, 9)


def test_a_limit_of_version_2_is_told(machine_v2, make_collector):
    machine_v2.write(machine_v2.group / "memory.max", 65_536)
    sample = poll(make_collector(machine_v2.proc))["/system.slice"]
    assert sample.memory_limit_bytes == 65_536


def test_the_first_poll_has_no_differences(machine_v2, make_collector):
    for sample in poll(make_collector(machine_v2.proc)).values():
        assert (sample.interval_ns, sample.cpu_percent, sample.throttled_ns) == (0, None, None)


def test_cpu_and_throttling_are_what_was_added_since(machine_v2, make_collector, clock):
    collector = make_collector(machine_v2.proc, clock)
    poll(collector)
    clock.now += 2
    machine_v2.write(machine_v2.group / "cpu.stat", "usage_usec 5000000\nthrottled_usec 30\n")
    sample = poll(collector)["/system.slice"]
    assert sample.interval_ns == 2 * 10**9
    assert sample.cpu_percent == pytest.approx(150.0)
    assert sample.throttled_ns == 20_000
    assert sample.ts_ns == clock.time_ns()


def test_without_the_cpu_controller_throttling_is_not_known(machine_v2, make_collector, clock):
    collector = make_collector(machine_v2.proc, clock)
    poll(collector)
    clock.now += 1
    root = poll(collector)["/"]
    assert (root.cpu_percent, root.throttled_ns) == (0.0, None)


def test_a_counter_that_shrank_is_not_known_and_never_negative(machine_v2, make_collector, clock):
    collector = make_collector(machine_v2.proc, clock)
    poll(collector)
    clock.now += 1
    machine_v2.write(machine_v2.group / "cpu.stat", "usage_usec 1\nthrottled_usec 11\n")
    sample = poll(collector)["/system.slice"]
    assert sample.cpu_percent is None
    assert sample.throttled_ns == 1000


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=8))
def test_cpu_is_the_difference_of_two_readings_or_not_known(make_machine, readings):
    with tempfile.TemporaryDirectory() as folder:
        root = make_machine(Path(folder)).mount("cgroup2")
        tree = CgroupTree(
            [Hierarchy(2, os.fsencode(root), b"", frozenset())],
            machine=None,
            max_groups=1,
            wanted=lambda path: True,
            monotonic=iter(range(1000)).__next__,
        )
        told = []
        for usage in readings:
            (root / "cpu.stat").write_text(f"usage_usec {usage}\n")
            told += [sample.cpu_percent for sample in tree.poll(1)]
    assert told[0] is None
    for percent, before, now in zip(told[1:], readings, readings[1:], strict=False):
        assert percent == (None if now < before else pytest.approx((now - before) / 10_000))


def test_a_new_group_of_the_same_name_does_not_go_on_with_the_old_counter(
    machine_v2, make_collector, clock
):
    collector = make_collector(machine_v2.proc, clock)
    poll(collector)
    clock.now += 1
    old = machine_v2.group.rename(machine_v2.group.with_name("old"))
    machine_v2.write(machine_v2.group / "cpu.stat", "usage_usec 9000000\n")
    samples = poll(collector)
    assert samples["/system.slice"].cpu_percent is None
    assert samples[f"/{old.name}"].cpu_percent is None  # first seen under this name


def test_a_group_that_is_gone_has_no_sample(machine_v2, make_collector):
    collector = make_collector(machine_v2.proc)
    assert "/system.slice" in poll(collector)
    machine_v2.group.rename(machine_v2.proc / "elsewhere")
    assert "/system.slice" not in poll(collector)


def test_a_group_of_which_nothing_can_be_read_has_no_sample(machine_v2, make_collector):
    (machine_v2.group.parent / "empty").mkdir()
    assert "/empty" not in poll(make_collector(machine_v2.proc))


def test_a_group_that_goes_between_being_listed_and_opened_is_nothing_special(machine):
    root = machine.mount("cgroup2")
    machine.write(root / "cpu.stat", "usage_usec 0\n")
    (root / "brief").mkdir()

    def wanted(path):
        if path == "/brief":
            (root / "brief").rmdir()
        return True

    tree = CgroupTree(
        [Hierarchy(2, os.fsencode(root), b"", frozenset())],
        machine=None,
        max_groups=9,
        wanted=wanted,
        monotonic=lambda: 1.0,
    )
    assert [sample.cgroup for sample in tree.poll(1)] == ["/"]
    assert tree.unreadable == 0


def test_groups_made_later_are_found_below_any_group(machine_v2, make_collector):
    collector = make_collector(machine_v2.proc)
    poll(collector)
    machine_v2.write(machine_v2.group / "a" / "b" / "cpu.stat", "usage_usec 0\n")
    assert "/system.slice/a/b" in poll(collector)


# --- version 1 ------------------------------------------------------------------------------


def test_version_1_tells_what_it_can(machine_v1, make_collector, clock):
    collector = make_collector(machine_v1.proc, clock)
    poll(collector)
    clock.now += 1
    machine_v1.write(machine_v1.cpu / "cpuacct.usage", 2_250_000_000)
    machine_v1.write(machine_v1.cpu / "cpu.stat", "nr_throttled 3\nthrottled_time 15000\n")
    sample = poll(collector)["/docker"]
    assert sample.cpu_percent == pytest.approx(25.0)
    assert sample.throttled_ns == 5000
    assert (sample.memory_bytes, sample.memory_limit_bytes) == (4096, None)
    assert sample.memory_events == {"oom_kill": 4, "failcnt": 2}
    assert (sample.psi_cpu, sample.psi_memory, sample.psi_io) == (None, None, None)


def test_a_limit_of_version_1_is_told(machine_v1, make_collector):
    machine_v1.write(machine_v1.memory / "memory.limit_in_bytes", 65_536)
    assert poll(make_collector(machine_v1.proc))["/docker"].memory_limit_bytes == 65_536


def test_kernels_before_4_13_do_not_count_kills(machine_v1, make_collector):
    machine_v1.write(machine_v1.memory / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")
    assert poll(make_collector(machine_v1.proc))["/docker"].memory_events == {"failcnt": 2}


def test_the_pressure_of_the_machine_is_that_of_its_root(machine_v1, make_collector):
    samples = poll(make_collector(machine_v1.proc))
    assert samples["/"].psi_cpu == Pressure(7.0, 0, 0.0, 0)
    assert samples["/"].psi_io is not None


def test_the_root_of_a_namespace_has_not_the_pressure_of_the_machine(machine_v1, make_collector):
    machine_v1.write(machine_v1.proc / "self/ns/cgroup", "")  # an inode that is not the machine's
    samples = poll(make_collector(machine_v1.proc))
    assert list(samples) == ["/docker"]


def test_pressure_alone_makes_a_sample_of_the_root(machine, make_collector):
    machine.offer_pressure(some=3)
    (sample,) = make_collector(machine.proc).linnix_poll()
    assert sample.cgroup == "/"
    assert sample.psi_cpu == Pressure(3.0, 0, 0.0, 0)


# --- both -----------------------------------------------------------------------------------


@pytest.fixture
def mixed(machine_v1):
    unified = machine_v1.mount("cgroup2", at="unified")
    machine_v1.write(unified / "docker" / "cpu.stat", "usage_usec 2000000\n")
    for resource in ("cpu", "memory", "io"):
        machine_v1.write(
            unified / "docker" / f"{resource}.pressure",
            "some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n",
        )
    machine_v1.unified = unified
    return machine_v1


def test_a_path_in_several_hierarchies_is_one_sample_of_all_they_know(mixed, make_collector):
    samples = make_collector(mixed.proc).linnix_poll()
    assert sorted(sample.cgroup for sample in samples) == ["/", "/docker"]
    sample = {sample.cgroup: sample for sample in samples}["/docker"]
    assert sample.memory_bytes == 4096
    assert sample.psi_memory == Pressure(1.0, 1)


def test_where_two_hierarchies_count_cpu_the_busier_one_is_believed(mixed, make_collector, clock):
    collector = make_collector(mixed.proc, clock)
    poll(collector)
    clock.now += 1
    mixed.write(mixed.cpu / "cpuacct.usage", 2_500_000_000)
    assert poll(collector)["/docker"].cpu_percent == pytest.approx(50.0)
    clock.now += 1
    mixed.write(mixed.cpu / "cpuacct.usage", 2_600_000_000)
    mixed.write(mixed.unified / "docker" / "cpu.stat", "usage_usec 3000000\n")
    assert poll(collector)["/docker"].cpu_percent == pytest.approx(100.0)


def test_hierarchies_mounted_from_different_groups_meet_in_their_paths(machine, make_collector):
    machine.offer_pressure()
    whole = machine.mount("cgroup2")
    machine.write(whole / "a" / "b" / "cpu.stat", "usage_usec 0\n")
    part = machine.mount("cgroup", "rw,memory", root="/a/b")
    machine.write(part / "memory.usage_in_bytes", 5)
    machine.write(part / "c" / "memory.usage_in_bytes", 4)
    collector = make_collector(machine.proc)
    samples = collector.linnix_poll()
    assert [sample.cgroup for sample in samples] == ["/", "/a/b", "/a/b/c"]
    assert [sample.memory_bytes for sample in samples] == [None, 5, 4]


# --- how many -------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
trees = st.sets(paths, max_size=12)


def with_parents(tree):
    return {path.rsplit("/", cut)[0] for path in tree for cut in range(path.count("/"))}


@settings(max_examples=40, deadline=None)
@given(unified=trees, memory=trees, max_groups=st.integers(1, 15))
def test_of_too_many_groups_those_nearest_to_the_root_are_sampled(
    make_machine, unified, memory, max_groups
):
    with tempfile.TemporaryDirectory() as folder:
        machine = make_machine(Path(folder))
        first = machine.mount("cgroup2", at="unified")
        second = machine.mount("cgroup", "rw,memory", at="memory")
        for path in with_parents(unified):
            machine.write(first / path[1:] / "cpu.stat", "usage_usec 0\n")
        for path in with_parents(memory):
            machine.write(second / path[1:] / "memory.usage_in_bytes", 7)
        tree = CgroupTree(
            [
                Hierarchy(2, os.fsencode(first), b"", frozenset()),
                Hierarchy(1, os.fsencode(second), b"", frozenset({"memory"})),
            ],
            machine=None,
            max_groups=max_groups,
            wanted=lambda path: True,
            monotonic=lambda: 1.0,
        )
        samples = tree.poll(1)
    there = with_parents(unified) | with_parents(memory)
    sampled = [sample.cgroup for sample in samples]
    assert len(sampled) == len(set(sampled)) == min(len(there), max_groups)
    depths = sorted(path.count("/") for path in there)
    assert sorted(path.count("/") for path in sampled) == depths[:max_groups]
    for sample in samples:
        # Whole, even at the edge: everything that each hierarchy knows is in it.
        assert (sample.memory_bytes is not None) == (sample.cgroup in with_parents(memory))
    assert (tree.left_out > 0) == (len(there) > max_groups)
    assert tree.left_out <= len(there) - len(sampled)
