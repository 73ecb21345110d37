"""Rules about what a process and its living descendants use together."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linnix_core import Evidence, ProcessKey, ProcessSample, Subject, SystemSample
from linnix_plugin_rules.engine import Engine
from linnix_plugin_rules.rulefile import parse_rules

CPU = "- {name: spin, severity: medium, detector: subtree_cpu_pct, threshold: 90, duration: 10}"
RSS = "- {name: big, detector: subtree_rss_mb, threshold: 500, duration: 10}"


def who(alerts):
    return [alert.subject.comm for alert in alerts]


# --- CPU ------------------------------------------------------------------------------


def test_a_spinning_process_is_reported_with_its_numbers(host, alerts_of):
    java = host.seen("java")
    for _ in range(2):
        host.cpu({java: 187.46})
    (alert,) = alerts_of(CPU, host.records)
    assert (alert.rule, alert.severity, alert.class_) == ("spin", "medium", "cpu_spin")
    assert alert.message == (
        f"CPU: 187 % of one core, above 90 % for 10 s by java (pid {java.pid})"
    )
    assert alert.subject == Subject(java.key, "/usr/bin/java", "java", "/test.slice")
    assert alert.evidence == (
        Evidence("cpu", 187.5, "%"),
        Evidence("threshold", 90, "%"),
        Evidence("window", 10, "s"),
        Evidence("processes", 1, "processes"),
    )
    assert alert.ts_ns == host.ts_ns


def test_a_process_counts_with_its_descendants(host, alerts_of):
    make = host.seen("make", host.seen("bash"))
    jobs = [host.seen("cc1", make) for _ in range(4)]
    for _ in range(2):
        host.cpu({make: 1, **dict.fromkeys(jobs, 25)})
    (alert,) = alerts_of(CPU, host.records)
    assert alert.subject.key == make.key
    assert alert.message.endswith(f"by make (pid {make.pid}), 5 processes")
    assert alert.evidence[0] == Evidence("cpu", 101, "%")
    assert alert.evidence[3] == Evidence("processes", 5, "processes")


def test_descendants_count_through_a_parent_that_has_died(host, alerts_of):
    script = host.seen("script")
    helper = host.fork(script, "helper")
    jobs = [host.fork(helper, "job") for _ in range(4)]
    host.exit(helper)
    for _ in range(2):
        host.cpu(dict.fromkeys(jobs, 25))
    assert who(alerts_of(CPU, host.records)) == ["script"]


def test_only_the_deepest_is_named(host, alerts_of):
    outer = host.seen("outer")
    inner = host.seen("inner", outer)
    spinner, quiet = host.seen("spinner", inner), host.seen("quiet", inner)
    for _ in range(4):
        host.cpu({outer: 5, inner: 5, spinner: 99, quiet: 5})
    assert set(who(alerts_of(CPU, host.records))) == {"spinner"}


def test_the_tree_is_named_when_no_child_lasts_but_it_does(host, alerts_of):
    supervisor = host.seen("supervisor")
    for _ in range(3):
        child = host.fork(supervisor, "child")
        host.cpu({supervisor: 0, child: 99})
        host.exit(child)
    assert who(alerts_of(CPU, host.records)) == ["supervisor"]


def test_init_and_kthreadd_do_not_answer_for_their_descendants(host, alerts_of):
    init, kthreadd = host.seen("systemd", pid=1), host.seen("kthreadd", pid=2)
    daemons = [host.seen("daemon", parent) for parent in (init, kthreadd) for _ in range(4)]
    for _ in range(4):
        host.cpu({init: 1, kthreadd: 1, **dict.fromkeys(daemons, 80)})
    assert alerts_of(CPU, host.records) == []


def test_the_limit_itself_is_not_above_it(host, alerts_of):
    java = host.seen("java")
    for _ in range(4):
        host.cpu({java: 90})
    assert alerts_of(CPU, host.records) == []


def test_a_process_whose_use_is_not_known_counts_for_nothing(host, alerts_of):
    parent = host.seen("parent")
    child = host.seen("child", parent)
    for _ in range(2):
        host.wait(5)
        host.sample(parent, cpu=99)
        host.sample(child, interval=0)
    (alert,) = alerts_of(CPU, host.records)
    assert alert.subject.key == parent.key


# --- for how long ---------------------------------------------------------------------


def test_use_below_the_limit_starts_the_time_again(host, alerts_of):
    java = host.seen("java")
    for percent in (99, 50, 99, 50, 99):
        host.cpu({java: percent})
    assert alerts_of(CPU, host.records) == []


def test_each_process_has_a_timer_of_its_own(host, alerts_of):
    spinner, neighbour = host.seen("spinner"), host.seen("neighbour")
    for percent in (99, 1):
        host.cpu({neighbour: percent, spinner: 99})
    assert who(alerts_of(CPU, host.records)) == ["spinner"]


def test_the_first_round_counts_for_the_time_that_it_measured(host, alerts_of):
    java = host.seen("java")
    host.cpu({java: 99}, interval=12)
    assert who(alerts_of(CPU, host.records)) == ["java"]


def test_a_child_that_was_measured_for_a_moment_makes_the_tree_no_older(host, alerts_of):
    bash = host.seen("bash")
    host.wait(12)
    child = host.fork(bash, "child")
    host.sample(bash, cpu=0, interval=12)
    host.sample(child, cpu=99, interval=0.3)
    assert alerts_of(CPU, host.records) == []


def test_memory_is_measured_at_a_moment_so_it_takes_a_second_round(host, alerts_of):
    java = host.seen("java")
    host.rss({java: 800}, interval=12)
    assert alerts_of(RSS, host.records) == []
    host.rss({java: 800}, interval=12)
    assert who(alerts_of(RSS, host.records)) == ["java"]


@given(
    duration=st.integers(1, 30),
    loads=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=20),
    interval=st.integers(1, 10),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_timers_are_as_if_every_process_were_alone(make_host, duration, loads, interval):
    rules = CPU.replace("duration: 10", f"duration: {duration}, cooldown: 0")
    host = make_host()
    procs = [host.seen(f"p{n}") for n in range(3)]
    began, expected = [None] * 3, []
    for load in loads:
        host.cpu(
            {proc: 99 if busy else 1 for proc, busy in zip(procs, load, strict=True)},
            interval=interval,
        )
        now = host.ts_ns
        for n, busy in enumerate(load):
            if not busy:
                began[n] = None
                continue
            began[n] = now - interval * 10**9 if began[n] is None else began[n]
            if now - began[n] >= duration * 10**9:
                expected.append((now, procs[n].key))
    host.wait(60)
    host.seen("end")
    alerts = Engine(parse_rules(rules, "x").rules).handle(host.records)
    assert sorted((alert.ts_ns, alert.subject.key) for alert in alerts) == sorted(expected)


# --- memory ---------------------------------------------------------------------------


def test_memory_of_a_tree_is_reported_in_bytes(host, alerts_of):
    chrome = host.seen("chrome")
    tabs = [host.seen("tab", chrome) for _ in range(3)]
    for _ in range(3):
        host.rss({chrome: 200, **dict.fromkeys(tabs, 150)})
    (alert,) = alerts_of(RSS, host.records)
    assert alert.class_ == "oom_risk"
    assert alert.message == (
        f"memory: 650 MB resident, above 500 MB for 10 s by chrome (pid {chrome.pid}), 4 processes"
    )
    assert alert.evidence == (
        Evidence("rss", 650_000_000, "By"),
        Evidence("threshold", 500_000_000, "By"),
        Evidence("window", 10, "s"),
        Evidence("processes", 4, "processes"),
    )


def test_memory_of_a_process_that_died_is_gone(host, alerts_of):
    parent = host.seen("parent")
    child = host.fork(parent, "child")
    for _ in range(2):
        host.rss({parent: 300, child: 300})
    host.exit(child)
    for _ in range(3):
        host.rss({parent: 300})
    assert alerts_of(RSS, host.records) == []


# --- rounds ---------------------------------------------------------------------------


@pytest.fixture
def engine():
    return Engine(parse_rules(CPU.replace("10", "5"), "x").rules)


def test_a_round_is_judged_when_the_machine_has_been_measured(host, engine):
    java = host.seen("java")
    host.cpu({java: 99})
    assert engine.handle(host.records) == []
    assert who(engine.handle([SystemSample(interval_ns=5, ts_ns=host.ts_ns)])) == ["java"]


def test_a_round_is_judged_when_the_next_one_begins(host, engine):
    java = host.seen("java")
    host.cpu({java: 99})
    engine.handle(host.records)
    host.records.clear()
    host.wait(0.1)
    host.sample(host.seen("other"), cpu=1)
    assert who(engine.handle(host.records)) == ["java"]


def test_a_round_is_judged_half_a_second_later_at_the_latest(host, engine):
    java = host.seen("java")
    host.cpu({java: 99})
    host.wait(0.4)
    host.seen("early")
    assert engine.handle(host.records) == []
    host.records.clear()
    host.wait(0.1)
    host.seen("late")
    assert who(engine.handle(host.records)) == ["java"]


def test_a_sample_that_comes_when_its_round_is_over_is_passed_over(host, engine):
    java, late = host.seen("java"), host.seen("late")
    host.cpu({java: 99})
    host.records.append(SystemSample(interval_ns=5, ts_ns=host.ts_ns))
    host.sample(late, cpu=99)
    host.wait(60)
    host.seen("end")
    assert who(engine.handle(host.records)) == ["java"]


def test_a_process_that_is_first_known_from_a_sample_is_named_by_it(host, engine):
    sample = ProcessSample(
        pid=7,
        start_ns=9,
        interval_ns=5 * 10**9,
        comm="early",
        cpu_percent=99,
        cgroup="/a",
        boot_id="b",
        ts_ns=host.ts_ns,
    )
    (alert,) = engine.handle([sample, SystemSample(interval_ns=5, ts_ns=host.ts_ns)])
    assert alert.subject == Subject(ProcessKey("b", 7, 9), None, "early", "/a")
