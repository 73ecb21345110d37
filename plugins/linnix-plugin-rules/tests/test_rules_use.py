"""Rules about what processes use: descriptors, threads, zombies, storage, memory that grows."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import CgroupSample, Evidence, ProcessKey, SystemSample
from linnix_plugin_rules.engine import Engine
from linnix_plugin_rules.memory import slope
from linnix_plugin_rules.rulefile import parse_rules

MB = 1_000_000


def rule(detector, **keys):
    more = ", ".join(f"{key}: {value}" for key, value in keys.items())
    return f"- {{name: r, detector: {detector}, {more}}}"


def who(alerts):
    return [alert.subject.comm for alert in alerts]


def each_second(host, times, **use):
    """One round of samples a second; what is used is given by the name of the process."""
    procs = {name: host.seen(name) for name in use}
    for _ in range(times):
        host.wait(1)
        for name, amounts in use.items():
            host.sample(procs[name], interval=1, **amounts)


# --- threads and descriptors ----------------------------------------------------------


@pytest.mark.parametrize(
    ("detector", "field", "unit"),
    [("thread_count", "threads", "threads"), ("fd_count", "fds", "descriptors")],
)
def test_a_process_may_have_too_many(host, alerts_of, detector, field, unit):
    each_second(host, 1, few={field: 100}, many={field: 101}, unknown={field: None})
    (alert,) = alerts_of(rule(detector, threshold=100), host.records)
    assert (alert.subject.comm, alert.class_) == ("many", None)
    assert alert.evidence[:2] == (Evidence(field, 101, unit), Evidence("threshold", 100, unit))


@pytest.mark.parametrize(("duration", "fires"), [(3, True), (5, False)])
def test_they_may_have_to_last(host, alerts_of, duration, fires):
    each_second(host, 5, many={"fds": 200})
    found = alerts_of(rule("fd_count", threshold=100, duration=duration), host.records)
    assert bool(found) is fires


# --- zombies --------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False], ids=["kernel", "polled"])
def test_the_parent_of_zombies_is_to_blame(host, alerts_of, told):
    parent, other = host.seen("careless"), host.seen("other")
    zombies = [host.fork(parent) for _ in range(6)] + [host.fork(other)]
    if told:
        for zombie in zombies:
            host.exit(zombie)
    host.wait(1)
    for process in (parent, other):
        host.sample(process, interval=1, state="S")
    for zombie in zombies:
        host.sample(zombie, interval=1, state="Z")
    (alert,) = alerts_of(rule("zombie_count", threshold=6), host.records)
    assert alert.subject.key == parent.key
    assert alert.evidence[0] == Evidence("zombies", 7, "zombies")
    assert alerts_of(rule("zombie_count", threshold=7), host.records) == []
    scoped = rule("zombie_count", threshold=5, scope="process")
    assert [alert.evidence[0].value for alert in alerts_of(scoped, host.records)] == [6]


def test_zombies_do_not_come_back_to_life(host):
    engine = Engine(parse_rules(rule("zombie_count", threshold=5), "x").rules)
    parent = host.seen("careless")
    for _ in range(50):
        zombie = host.fork(parent)
        host.exit(zombie)
        host.sample(zombie, interval=1, state="Z")
        host.wait(1)
    engine.handle(host.records)
    assert len(engine.tree) == 1


# --- storage --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "reads", "writes", "fires"),
    [
        ("both", 60, 50, True),
        ("both", 50, 50, False),
        ("read", 110, 0, True),
        ("read", 0, 110, False),
        ("write", 0, 110, True),
        ("write", 110, 0, False),
    ],
)
def test_storage_is_measured_in_a_direction(host, alerts_of, direction, reads, writes, fires):
    each_second(host, 4, dd={"read_bytes": reads * MB, "write_bytes": writes * MB})
    text = rule("io_rate", threshold=100, duration=3, direction=direction)
    alerts = alerts_of(text, host.records)
    assert bool(alerts) is fires
    if fires:
        assert (alerts[0].class_, alerts[0].subject.comm) == ("io_saturation", "dd")
        assert alerts[0].evidence[0] == Evidence("io", 110 * MB, "By/s")


def test_what_a_parent_inherits_from_a_child_is_not_its_own(host, alerts_of):
    bash = host.seen("bash")
    for _ in range(4):
        writer = host.fork(bash, "dd")
        host.wait(1)
        host.exit(writer)
        host.sample(bash, interval=1, write_bytes=500 * MB)
    assert alerts_of(rule("io_rate", threshold=100, duration=2), host.records) == []


# --- steady ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grows", "writes", "fires"), [(0, 0, True), (2 * MB, 0, False), (0, 1, False)]
)
def test_steady_leaves_out_who_gets_something_done(host, alerts_of, grows, writes, fires):
    loop = host.seen("loop")
    for n in range(8):
        host.wait(1)
        host.sample(loop, cpu=99, rss=50 * MB + n * grows, interval=1, write_bytes=writes)
    text = rule("subtree_cpu_pct", threshold=80, duration=5, steady="true")
    assert bool(alerts_of(text, host.records)) is fires
    assert alerts_of(text.replace("true", "false"), host.records)


# --- leaks ----------------------------------------------------------------------------

LEAK = {"threshold": 60, "window_seconds": 20}


def grow(host, comm, amounts, cgroup=None):
    process = host.seen(comm)
    for megabytes in amounts:
        host.wait(1)
        host.sample(process, rss=int(megabytes * MB), interval=1, cgroup=cgroup)


def limit(host, cgroup, megabytes):
    sample = CgroupSample(cgroup, 1, memory_limit_bytes=megabytes * MB, ts_ns=host.ts_ns)
    host.records.append(sample)


def evidence(alert):
    return {each.name: each.value for each in alert.evidence}


def test_a_leak_is_reported_with_its_slope_and_the_time_that_is_left(host, alerts_of):
    limit(host, "/app", 300)
    grow(host, "leaky", [100 + 2 * n for n in range(19)], "/app/web")
    (alert,) = alerts_of(rule("rss_growth", **LEAK), host.records)
    assert (alert.class_, alert.subject.comm) == ("oom_risk", "leaky")
    found = evidence(alert)
    assert [each.name for each in alert.evidence[:2]] == ["rss_growth", "threshold"]
    assert (found["rss_growth"], found["threshold"]) == (2 * MB, MB)
    assert found["limit"] == 300 * MB
    assert found["time_until_limit"] == pytest.approx((300 * MB - found["rss"]) / (2 * MB), abs=1)


@pytest.mark.parametrize(
    ("amounts", "fires"),
    [
        ([100 + 1.5 * n for n in range(40)], True),
        ([100 + 0.5 * n for n in range(40)], False),  # too slow
        ([100 + 6 * (n // 4) for n in range(40)], True),  # in steps
        ([100] * 15 + [400] * 25, False),  # one jump
        ([100 + 30 * (n % 5) for n in range(40)], False),  # up and down
        ([100 + 9 * math.log(1 + n) for n in range(40)], False),  # less and less
        ([100 + 2 * n for n in range(12)], False),  # not long enough
    ],
)
def test_growth_has_to_last_through_the_window(host, alerts_of, amounts, fires):
    grow(host, "java", amounts)
    assert bool(alerts_of(rule("rss_growth", **LEAK), host.records)) is fires


@pytest.mark.parametrize(("within", "fires"), [(90, True), (30, False)])
def test_within_seconds_is_when_the_limit_is_reached(host, alerts_of, within, fires):
    grow(host, "java", [100 + 2 * n for n in range(20)])
    text = rule("rss_growth", **LEAK, limit_mb=300, within_seconds=within)
    assert bool(alerts_of(text, host.records)) is fires


def test_without_a_limit_there_is_no_time_until_it(host, alerts_of):
    grow(host, "java", [100 + 2 * n for n in range(20)])
    assert alerts_of(rule("rss_growth", **LEAK, within_seconds=9999), host.records) == []


def test_what_is_available_on_the_machine_is_a_limit(host, alerts_of):
    machine = SystemSample(1, memory_total_bytes=800 * MB, memory_available_bytes=100 * MB)
    machine.ts_ns = host.ts_ns
    host.records.append(machine)
    grow(host, "java", [100 + 2 * n for n in range(20)])
    (alert,) = alerts_of(rule("rss_growth", **LEAK, within_seconds=60), host.records)
    assert (evidence(alert)["limit"], evidence(alert)["time_until_limit"]) == (800 * MB, 50)


def test_confidence_says_how_sure_it_has_to_be(host, alerts_of):
    noisy = [100 + 1.6 * n + (10 if n % 2 else -10) for n in range(18)]
    grow(host, "java", noisy)
    assert alerts_of(rule("rss_growth", **LEAK, confidence=0.5), host.records)
    assert alerts_of(rule("rss_growth", **LEAK, confidence=0.999), host.records) == []


@given(
    begin=st.floats(0, 1e9),
    growth=st.floats(-1e6, 1e6),
    noise=st.lists(st.floats(-1, 1), min_size=5, max_size=20),
)
@settings(deadline=None)
def test_a_slope_is_that_of_the_line_whatever_one_point_does(begin, growth, noise):
    points = [(float(n), begin + growth * n) for n in range(len(noise))]
    exact = slope(points, 0.95)
    tolerance = 1e-6 * (abs(begin) + abs(growth) * 20 + 1)
    assert exact.median == pytest.approx(growth, abs=tolerance)
    points[len(points) // 2] = (len(points) // 2, 1e12)
    moved = slope(points, 0.95)
    assert moved.least <= moved.median
    if len(points) >= 9:
        assert moved.median == pytest.approx(growth, abs=tolerance)


def test_memory_is_bounded_when_everybody_grows(host, monkeypatch):
    from linnix_plugin_rules import memory

    monkeypatch.setattr(memory, "MAX_FOLLOWED", 10)
    engine = Engine(parse_rules(rule("rss_growth", **LEAK), "x").rules)
    for n in range(30):
        host.wait(1)
        for _ in range(20):
            host.sample(host.seen("new"), rss=(100 + n) * MB, interval=1)
    engine.handle(host.records)
    assert len(engine._rules[0].detector._points) <= 10


# --- key ------------------------------------------------------------------------------


def test_a_finding_about_the_host_names_who_uses_most(host, alerts_of):
    each_second(host, 4, a={"fds": 60}, b={"fds": 70})
    (alert,) = alerts_of(rule("fd_count", threshold=100, scope="host"), host.records)
    assert alert.subject.comm == "b"
    assert isinstance(alert.subject.key, ProcessKey)
