"""Which groups are neighbours: the tree of cgroups, and groups that come and go."""

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import Batch, CgroupSample, Pressure, ProcessEvent, ProcessSample
from linnix_plugin_attribution.groups import above, deepest, nearest
from linnix_plugin_attribution.rounds import MAX_GROUPS, Rounds
from linnix_plugin_attribution.stalls import MAX_VICTIMS, stalls

SECOND_NS = 10**9
BEGAN_NS = 1_767_225_600 * SECOND_NS


@pytest.fixture
def measure(host):
    """One interval of a host whose groups are known: the CPU stalls in it, by path."""

    def measure(stalls_us=None, *, resource="cpu", **passed):
        rounds = Rounds()
        for record in host.first_look():
            rounds.add(record)
        records = [*host.pass_time(stalls=stalls_us, **passed), *host.settle()]
        (*_, last) = filter(None, map(rounds.add, records))
        return {s.cgroup: s.split for s in stalls(last) if s.resource == resource}

    return measure


def parts(split):
    return {unit.name: share.attributed_us for unit, share in split.shares.items()}


# --- parents and children -------------------------------------------------------------------


def test_a_group_above_answers_only_for_what_was_not_used_below_it(host, measure):
    host.group("/", cpu_percent=100.0)
    host.group("/a", cpu_percent=90.0)
    host.group("/a/hog", cpu_percent=60.0)
    host.group("/victim")
    split = measure({"/victim": 1_000_000})["/victim"]
    assert parts(split) == {"/a/hog": 600_000, "/a": 300_000, "/": 100_000}


def test_only_the_deepest_groups_wait(host, measure):
    """The pressure of a group includes that of the groups below it."""
    for path in ("/", "/a", "/a/victim", "/other"):
        host.group(path, cpu_percent=10.0)
    waits = {"/": 1_000_000, "/a": 1_000_000, "/a/victim": 1_000_000}
    assert measure(waits).keys() == {"/a/victim"}


def test_a_group_without_a_pressure_of_its_own_is_part_of_the_one_above(host, measure):
    host.group("/a", cpu_percent=80.0)
    host.group("/a/b", psi=(), cpu_percent=70.0)
    host.group("/other", cpu_percent=20.0)
    split = measure({"/a": 1_000_000})["/a"]
    assert parts(split) == {"/other": 1_000_000}


def test_the_root_is_no_victim(host, measure):
    host.group("/", cpu_percent=50.0)
    host.group("/a", psi=(), cpu_percent=40.0)
    assert measure({"/": 1_000_000}) == {}


def test_a_single_group_has_nobody_to_blame(host, measure):
    host.group("/only", cpu_percent=90.0)
    split = measure({"/only": 1_000_000})["/only"]
    assert (parts(split), split.unexplained_us) == ({}, 1_000_000)


def test_what_ended_within_the_interval_counts_for_the_group_above(host, measure):
    host.group("/", cpu_percent=60.0)
    host.group("/victim", cpu_percent=10.0)
    host.fork("/gone/long/ago", 10)
    split = measure({"/victim": 100_000})["/victim"]
    assert parts(split) == {"/": 100_000}


def test_containers_of_one_pod_do_not_accuse_each_other(host, measure):
    pod = {"namespace": "prod", "pod": "api"}
    host.group("/p/one", pod, cpu_percent=90.0)
    host.group("/p/two", pod, cpu_percent=5.0)
    host.group("/other", cpu_percent=5.0)
    split = measure({"/p/two": 100_000})["/p/two"]
    assert parts(split) == {"/other": 100_000}


# --- the victim itself ----------------------------------------------------------------------


def test_throttling_is_the_victims_own_doing(host, measure):
    host.group("/victim", cpu_percent=20.0, throttled_ns=900_000_000)
    host.group("/other", cpu_percent=100.0)
    split = measure({"/victim": 1_000_000})["/victim"]
    assert (split.by_limit_us, parts(split)) == (900_000, {"/other": 100_000})


def test_what_the_victim_uses_beyond_one_core_competes_with_it(host, measure):
    host.group("/victim", cpu_percent=150.0)
    host.group("/other", cpu_percent=50.0)
    split = measure({"/victim": 1_000_000})["/victim"]
    assert (split.by_itself_us, parts(split)) == (500_000, {"/other": 500_000})


def test_up_to_one_core_the_victim_is_not_in_its_own_way(host, measure):
    host.group("/victim", cpu_percent=100.0)
    host.group("/other", cpu_percent=10.0)
    split = measure({"/victim": 1_000_000})["/victim"]
    assert (split.by_itself_us, parts(split)) == (0, {"/other": 1_000_000})


# --- other resources ------------------------------------------------------------------------


def test_waiting_for_io_is_split_by_bytes_the_victims_own_included(host, measure):
    host.group("/victim")
    host.group("/backup", cpu_percent=1.0)
    host.group("/spin", cpu_percent=100.0)
    host.process("/victim", read_bytes=1_000)
    host.process("/backup", read_bytes=1_000, write_bytes=2_000)
    split = measure(io={"/victim": 400_000}, resource="io")["/victim"]
    assert (parts(split), split.by_itself_us) == ({"/backup": 300_000}, 100_000)
    (share,) = split.shares.values()
    assert share.reason == "high_io_contention"


def grow(host, path, size):
    host.groups[path]["known"]["memory_bytes"] = size


@pytest.fixture
def memory_split(host):
    """Two groups grow, and one of them waits for memory; how that is split."""

    def run(**limit_events):
        rounds = Rounds()
        for path in ("/victim", "/cache", "/shrinks"):
            host.group(path, memory_bytes=1_000_000)
        for record in host.pass_time():
            rounds.add(record)
        grow(host, "/victim", 2_000_000)
        grow(host, "/cache", 4_000_000)
        grow(host, "/shrinks", 500_000)
        host.groups["/victim"]["known"]["memory_events"] = limit_events
        records = [*host.pass_time(memory={"/victim": 400_000}), *host.settle()]
        (*_, last) = filter(None, map(rounds.add, records))
        (stall,) = stalls(last)
        return stall.split

    return run


def test_waiting_for_memory_is_split_by_growth(memory_split):
    split = memory_split()
    assert (parts(split), split.by_itself_us) == ({"/cache": 300_000}, 100_000)
    (share,) = split.shares.values()
    assert share.reason == "memory_growth"


@pytest.mark.parametrize("event", ["high", "max", "oom", "failcnt"])
def test_at_its_own_memory_limit_a_group_waits_for_nobody_else(memory_split, event):
    split = memory_split(**{event: 1, "low": 7})
    assert (parts(split), split.by_limit_us) == ({}, 400_000)


# --- groups come, go and change -------------------------------------------------------------


def test_a_group_that_was_made_again_starts_anew(host, measure):
    host.group("/victim")
    host.group("/other", cpu_percent=100.0)
    rounds = Rounds()
    for record in host.pass_time(stalls={"/victim": 9_000_000}):
        rounds.add(record)
    host.remove("/victim")
    host.group("/victim")
    records = host.pass_time(stalls={"/victim": 5_000_000})
    records += [*host.pass_time(stalls={"/victim": 16_000}), *host.settle()]
    split = [[s.split.stall_us for s in stalls(r)] for r in filter(None, map(rounds.add, records))]
    assert split == [[], [], [16_000]]


def test_a_victim_that_was_away_for_a_while_is_compared_with_nothing_old(host):
    host.group("/victim")
    host.group("/other", cpu_percent=100.0)
    rounds = Rounds()
    records = host.pass_time()
    state = host.groups.pop("/victim")
    records += host.pass_time()
    host.groups["/victim"] = state
    records += [*host.pass_time(stalls={"/victim": 2_000_000}), *host.settle()]
    found = [len(list(stalls(r))) for r in filter(None, map(rounds.add, records))]
    assert found == [0, 0, 0]


def test_a_clock_that_was_set_back_begins_anew(host):
    host.group("/victim")
    host.group("/other", cpu_percent=100.0)
    rounds = Rounds()
    records = host.pass_time()
    host.now_ns -= 60 * SECOND_NS
    records += [*host.pass_time(stalls={"/victim": 2_000_000}), *host.settle()]
    assert [r.seconds for r in filter(None, map(rounds.add, records))] == [0.0, 0.0]


def test_less_than_a_thousandth_of_the_interval_is_noise(host, measure):
    for path in ("/calm", "/waits", "/other"):
        host.group(path, cpu_percent=10.0)
    assert measure({"/calm": 14_999, "/waits": 15_000}).keys() == {"/waits"}


def test_a_stall_is_never_longer_than_the_interval(host, measure):
    host.group("/victim")
    host.group("/other", cpu_percent=1e300)
    split = measure({"/victim": 2**62})["/victim"]
    assert split.stall_us == 15_000_000


@pytest.mark.parametrize("percent", [float("nan"), float("inf"), -1.0])
def test_what_is_no_amount_of_cpu_counts_for_nothing(host, measure, percent):
    host.group("/victim")
    host.group("/other", cpu_percent=percent)
    host.process("/other", percent)
    assert parts(measure({"/victim": 100_000})["/victim"]) == {}


def test_what_happens_after_the_samples_counts_for_the_next_interval(host):
    """And what comes late, for the one that it belongs to."""
    host.group("/bomb")
    rounds = Rounds()
    first, *_ = host.pass_time()
    fork = ProcessEvent("fork", 7, 0, cgroup="/bomb", ts_ns=first.ts_ns)
    for record in (first, fork, attrs.evolve(fork, ts_ns=first.ts_ns + 1)):
        assert rounds.add(record) is None
    found = [*filter(None, map(rounds.add, [*host.pass_time(), *host.settle()]))]
    assert [r.counts["/bomb"].forks for r in found] == [1, 1]


def test_only_forks_and_short_lives_count(host):
    host.group("/g")
    rounds = Rounds()
    host.fork("/g", 3)
    host.exit("/g", 5)
    host.exit("/g", 7, duration_ns=SECOND_NS)
    host.exit("/g", 9, duration_ns=None)
    others = [
        ProcessEvent(kind, 7, 0, cgroup="/g", ts_ns=host.now_ns) for kind in ("seen", "exec", "oom")
    ]
    records = [*others, *host.pass_time(), *host.settle()]
    (round_,) = filter(None, map(rounds.add, records))
    counts = round_.counts["/g"]
    assert (counts.forks, counts.short_jobs) == (3, 5)


# --- bounds ---------------------------------------------------------------------------------


def test_only_so_many_groups_are_followed():
    rounds = Rounds()
    for n in range(MAX_GROUPS + 7):
        rounds.add(CgroupSample(f"/g{n}", SECOND_NS, ts_ns=BEGAN_NS))
        rounds.add(ProcessSample(n, 0, SECOND_NS, cgroup=f"/p{n}", ts_ns=BEGAN_NS))
    assert rounds.left_out == 7
    found = rounds.add(CgroupSample("/", SECOND_NS, ts_ns=BEGAN_NS + SECOND_NS))
    assert (len(found.groups), len(found.counts)) == (MAX_GROUPS, MAX_GROUPS)


def test_only_so_many_victims_are_split_those_that_waited_longest(host, measure):
    host.group("/hog", cpu_percent=100.0)
    paths = [f"/v{n}" for n in range(MAX_VICTIMS + 5)]
    for path in paths:
        host.group(path)
    found = measure({path: 20_000 + n for n, path in enumerate(paths)})
    assert found.keys() == set(paths[5:])


def test_a_deep_path_is_found_in_bounded_steps():
    deep = "/a" + "/b" * 2000
    assert nearest(deep, {"/a"}) is None
    assert nearest(deep, {"/a", "/"}) == "/"
    assert nearest(deep, {deep}) == deep


PATHS = st.lists(st.sampled_from(["a", "b", "", "..", "\x1b"]), max_size=5).map(
    lambda names: "/" + "/".join(names)
)


@given(PATHS | st.text(max_size=4), st.sets(PATHS | st.text(max_size=4)))
def test_what_is_above_is_always_known_and_shorter(path, known):
    found = above(path, known)
    assert found is None or (found in known and (len(found) < len(path) or found == "/" != path))


@given(st.sets(PATHS))
def test_some_group_is_always_the_deepest(known):
    found = deepest(known)
    assert found <= known
    assert bool(found) == bool(known)


# --- what always holds ----------------------------------------------------------------------

NODES = st.dictionaries(
    PATHS,
    st.tuples(
        st.none() | st.floats(0, 800),
        st.none() | st.integers(0, 15_000_000),
        st.none() | st.integers(0, 2**40),
        st.integers(0, 50),
    ),
    min_size=1,
    max_size=8,
)


def round_of(nodes, order):
    """The second of two rounds; ``order`` is that of all groups in it."""
    rounds = Rounds()
    for n, path in enumerate(order):
        _, stall, _, _ = nodes[path]
        psi = None if stall is None else Pressure(0, n)
        rounds.add(CgroupSample(path, SECOND_NS, None, 0, 5, psi_cpu=psi, ts_ns=BEGAN_NS))
    later_ns = BEGAN_NS + 15 * SECOND_NS
    for n, path in enumerate(order):
        percent, stall, memory, samples = nodes[path]
        for _ in range(samples):
            rounds.add(
                ProcessSample(1, 0, SECOND_NS, "", 33.3, cgroup=path, ts_ns=BEGAN_NS + SECOND_NS)
            )
        psi = None if stall is None else Pressure(0, n + stall)
        rounds.add(
            CgroupSample(
                path, SECOND_NS, percent, 0, memory, psi_cpu=psi, psi_memory=psi, ts_ns=later_ns
            )
        )
    return rounds.add(CgroupSample("/", SECOND_NS, ts_ns=later_ns + SECOND_NS))


@given(NODES, st.randoms())
def test_every_stall_adds_up_whatever_the_order_of_the_groups(nodes, shuffle):
    order = sorted(nodes)
    found = list(stalls(round_of(nodes, order)))
    for stall in found:
        split = stall.split
        told = sum(share.attributed_us for share in split.shares.values())
        assert told + split.by_limit_us + split.by_itself_us + split.unexplained_us == (
            split.stall_us
        )
        assert split.unexplained_us >= 0
        assert stall.victim not in split.shares
    shuffle.shuffle(order)
    assert list(stalls(round_of(nodes, order))) == found


@given(NODES)
def test_no_group_is_charged_for_what_another_one_used(nodes):
    """What is charged to all groups as their own use is at most what was counted at the top."""
    round_ = round_of(nodes, sorted(nodes))
    for stall in stalls(round_):
        for unit, share in stall.split.shares.items():
            counted = round_.groups[unit.cgroup].cpu_us
            if stall.resource == "cpu" and counted is not None:
                assert share.attributed_us <= counted


def test_batches_make_no_difference(linnix_records, make_handler, induced):
    records = [r for r in linnix_records(3000) if getattr(r, "cgroup", None) != "/"]
    assert any(record.type == "cgroup" for record in records)

    def metrics(size):
        handler = make_handler(threshold=0.001)
        for start in range(0, len(records), size):
            handler.linnix_handle(Batch(records[start : start + size]))
        return handler.linnix_metrics()

    whole = metrics(len(records))
    assert len(whole) > 1
    sizes = [1, 7, random.Random(5).randrange(20, 500)]
    assert all(metrics(size) == whole for size in sizes)
