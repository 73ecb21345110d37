"""Rules about what processes use: descriptors, threads, zombies, storage, memory that grows."""

import math

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import (
    CgroupSample,
    Evidence,
    Pressure,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    SystemSample,
)
from linnix_plugin_rules.engine import Engine
from linnix_plugin_rules.memory import slope
from linnix_plugin_rules.rounds import Machine, Round
from linnix_plugin_rules.rulefile import parse_rules
from linnix_plugin_rules.tree import Tree

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


def test_what_nobody_saw_a_child_move_counts_for_its_parent(host, alerts_of):
    bash = host.seen("bash")
    for _ in range(4):
        writer = host.fork(bash, "dd")
        host.wait(1)
        host.exit(writer)
        host.sample(bash, interval=1, write_bytes=500 * MB)
    (alert,) = alerts_of(rule("io_rate", threshold=100, duration=2), host.records)
    assert alert.subject.comm == "bash"


@pytest.mark.parametrize("late", [0.05, 0.95])
def test_what_a_child_was_seen_to_move_counts_once(host, alerts_of, late):
    """The kernel adds it to the parent's once more, when that has waited for the child."""
    bash = host.seen("bash")
    writer = host.fork(bash, "dd")
    host.wait(1)
    host.sample(writer, cpu=0, interval=1, write_bytes=500 * MB)
    host.wait(late)
    host.exit(writer)
    host.wait(1 - late)
    waits = late < 0.5
    host.sample(bash, cpu=0, interval=1, write_bytes=550 * MB if waits else 0)
    host.wait(1)
    host.sample(bash, cpu=0, interval=1, write_bytes=0 if waits else 550 * MB)
    text = rule("io_rate", threshold=60, duration=1, scope="process")
    assert who(alerts_of(text, host.records)) == ["dd"]
    text = rule("io_rate", threshold=40, duration=1, scope="process")
    assert who(alerts_of(text, host.records)) == ["dd", "bash"]


def test_what_was_seen_to_move_counts_once_for_all_ancestors(host, alerts_of):
    """Those between end at once: what they inherit was never measured of them."""
    bash = host.seen("bash")
    driver = host.fork(bash, "timeout")
    writer = host.fork(driver, "dd")
    for _ in range(3):
        host.wait(1)
        host.sample(writer, cpu=0, interval=1, write_bytes=500 * MB)
    host.exit(writer)
    host.exit(driver)
    host.wait(1)
    host.sample(bash, cpu=0, interval=1, write_bytes=1510 * MB)
    text = rule("io_rate", threshold=20, duration=1, scope="process")
    assert who(alerts_of(text, host.records)) == ["dd"]


def test_nobody_answers_for_a_descendant_that_has_just_ended(host, alerts_of):
    bash = host.seen("bash")
    writer = host.fork(bash, "dd")
    for _ in range(5):
        host.wait(1)
        host.sample(writer, cpu=0, interval=1, write_bytes=500 * MB)
    host.wait(0.9)
    host.exit(writer)
    for moved in (2900, 400, 0):
        host.wait(0.1 if moved == 2900 else 1)
        host.sample(bash, cpu=0, interval=1, write_bytes=moved * MB)
    found = alerts_of(rule("io_rate", threshold=100, duration=3), host.records)
    assert who(found) == ["dd"]


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=30))
def test_no_byte_counts_twice(seconds):
    """A child writes; in some seconds it ends, is waited for, and there is another one."""
    tree, machine, counted, of_child = Tree(), Machine(), 0.0, 0
    bash = tree.learn(ProcessEvent("seen", pid=100, start_ns=1, comm="bash"))
    for second, (amount, ends) in enumerate(seconds, 1):
        now_ns, pid = second * 10**9, 100 + second
        if not of_child:
            event = ProcessEvent("seen", pid=pid, start_ns=pid, ppid=100, parent_start_ns=1)
            child = tree.learn(event)
        of_child += amount
        moved = {bash: 7}
        if ends:
            tree.exit(attrs.evolve(event, kind="exit"), now_ns - 1)
            moved[bash], of_child = 7 + of_child, 0
        else:
            moved[child] = amount
        samples = {
            process: ProcessSample(
                process.pid, process.start_ns, 10**9, write_bytes=written, ts_ns=now_ns
            )
            for process, written in moved.items()
        }
        for sample in samples.values():
            tree.sampled(sample)
        counted += sum(Round(now_ns, samples, machine).own("written").values())
    assert counted == 7 * len(seconds) + sum(amount for amount, _ in seconds)


def polled_pressure(host, share):
    """One second of a machine on which some work waits for storage so much of the time (%)."""
    host.stalled_us = getattr(host, "stalled_us", 0) + int(share * 10_000)
    nothing = Pressure(0.0, 0)
    stalled = Pressure(0.0, host.stalled_us)
    host.records.append(
        SystemSample(
            10**9, cpus=2, psi_cpu=nothing, psi_memory=nothing, psi_io=stalled,
            ts_ns=host.ts_ns, boot_id="a-boot",
        )
    )  # fmt: skip


@pytest.mark.parametrize(("share", "fires"), [(40, True), (10, False)])
def test_storage_may_have_to_be_waited_for(host, alerts_of, share, fires):
    writer = host.seen("writer")
    for _ in range(8):
        host.wait(1)
        host.sample(writer, interval=1, write_bytes=5 * MB)
        polled_pressure(host, share)
    text = rule("io_rate", threshold=4, duration=4, waiting_pct=20)
    assert bool(alerts_of(text, host.records)) is fires


def test_it_is_the_waiting_of_the_whole_duration_that_counts(host, alerts_of):
    writer = host.seen("writer")
    for n in range(9):
        host.wait(1)
        host.sample(writer, interval=1, write_bytes=5 * MB)
        polled_pressure(host, 0 if n % 2 else 50)
    assert alerts_of(rule("io_rate", threshold=4, duration=4, waiting_pct=20), host.records)
    assert not alerts_of(rule("io_rate", threshold=4, duration=4, waiting_pct=40), host.records)


@pytest.mark.parametrize(("others", "fires"), [(0, True), (40, True), (60, False)])
def test_who_moves_too_small_a_share_is_not_to_blame(host, alerts_of, others, fires):
    writer, busier = host.seen("writer"), host.seen("busier")
    for _ in range(8):
        host.wait(1)
        host.sample(writer, interval=1, write_bytes=5 * MB)
        host.sample(busier, interval=1, write_bytes=others * MB)
    found = alerts_of(rule("io_rate", threshold=4, duration=4, share_pct=10), host.records)
    assert ("writer" in who(found)) is fires


# --- steady ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grows", "more", "fires"),
    [
        (0, {}, True),
        (2**18, {}, False),
        (2**12, {}, True),
        (0, {"write_bytes": 1}, False),
        (0, {"read_offset_bytes": 1}, False),
    ],
)
def test_steady_leaves_out_who_gets_something_done(host, alerts_of, grows, more, fires):
    loop = host.seen("loop")
    for n in range(8):
        host.wait(1)
        host.sample(loop, cpu=99, rss=50 * MB + n * grows, interval=1, **more)
    text = rule("subtree_cpu_pct", threshold=80, duration=5, steady="true")
    assert bool(alerts_of(text, host.records)) is fires
    assert alerts_of(text.replace("true", "false"), host.records)


@pytest.mark.parametrize(
    ("used", "waited", "fires"),
    [
        (99, 0, True),
        (45, 55, True),  # another one wants the same core
        (25, 74, True),
        (40, 0, False),  # it could have more
        (30, 40, False),
        (14, 85, False),  # too little to be told of
        (45, None, False),  # how long it waits is not known
        (99, None, True),
    ],
)
def test_steady_counts_what_it_would_use_if_it_got_it(host, alerts_of, used, waited, fires):
    loop = host.seen("loop")
    for _ in range(8):
        host.wait(1)
        host.sample(loop, cpu=used, cpu_delay_percent=waited, rss=MB, interval=1)
    text = rule("subtree_cpu_pct", threshold=80, duration=5, steady="true")
    found = alerts_of(text, host.records)
    assert who(found) == ["loop"] * fires
    if fires:
        cpu, delay, *_ = found[0].evidence
        assert (cpu, delay) == (
            Evidence("cpu", used, "%"), Evidence("cpu_delay", waited or 0, "%")
        )  # fmt: skip


def test_what_waits_for_a_cpu_uses_none_unless_it_is_steady(host, alerts_of):
    loop = host.seen("loop")
    for _ in range(8):
        host.wait(1)
        host.sample(loop, cpu=45, cpu_delay_percent=55, rss=MB, interval=1)
    assert not alerts_of(rule("subtree_cpu_pct", threshold=80, duration=5), host.records)


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


@pytest.mark.parametrize(("used", "fires"), [(20, True), (40, True), (60, False)])
def test_used_pct_is_what_has_to_be_used_of_the_limit(host, alerts_of, used, fires):
    limit(host, "/app", 100)
    grow(host, "leaky", [20 + n for n in range(30)], "/app")
    text = rule("rss_growth", **LEAK, within_seconds=100, used_pct=used)
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


@pytest.mark.parametrize(
    ("anonymous", "shared", "of_files", "fires"),
    [(2, 0, 0, True), (0, 2, 0, True), (0, 0, 2, False), (0, 0.3, 0, False)],
)
def test_a_leak_is_of_what_the_kernel_cannot_have_back_and_counts_shared_memory_once(
    host, alerts_of, anonymous, shared, of_files, fires
):
    """Five processes of a database that map the same memory do not grow five times as fast."""
    server = host.seen("server")
    workers = [server, *(host.fork(server) for _ in range(4))]
    for n in range(20):
        host.wait(1)
        for worker in workers:
            own = int((50 + anonymous * n / 5) * MB)
            both, files = int((20 + shared * n) * MB), int((10 + of_files * n) * MB)
            rss = own + both + files
            host.sample(worker, rss=rss, rss_anon_bytes=own, rss_shmem_bytes=both, interval=1)
    assert bool(alerts_of(rule("rss_growth", **LEAK), host.records)) is fires


def test_shared_memory_takes_once_from_what_is_left(host, alerts_of):
    limit(host, "/db", 1000)
    server = host.seen("server")
    workers = [server, *(host.fork(server) for _ in range(4))]
    for n in range(19):
        host.wait(1)
        for worker in workers:
            more = {"rss_anon_bytes": (20 + 2 * n) * MB, "rss_shmem_bytes": 300 * MB}
            rss = sum(more.values())
            host.sample(worker, rss=rss, interval=1, cgroup="/db", **more)
    text = rule("rss_growth", **{**LEAK, "threshold": 300})
    (alert,) = alerts_of(text, host.records)
    assert alert.subject.comm == "server"
    found = evidence(alert)
    assert found["rss"] == pytest.approx(300 * MB + 5 * 20 * MB + 10 * MB * 17, rel=0.1)
    assert found["time_until_limit"] == pytest.approx((1000 * MB - found["rss"]) / (10 * MB), abs=1)


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
    assert len(engine._rules[0].detector._since_s) <= 10


# --- key ------------------------------------------------------------------------------


def test_a_finding_about_the_host_names_who_uses_most(host, alerts_of):
    each_second(host, 4, a={"fds": 60}, b={"fds": 70})
    (alert,) = alerts_of(rule("fd_count", threshold=100, scope="host"), host.records)
    assert alert.subject.comm == "b"
    assert isinstance(alert.subject.key, ProcessKey)
