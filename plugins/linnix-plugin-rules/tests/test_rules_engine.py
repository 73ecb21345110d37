"""Rules applied to records: cooldowns, clocks, batches and memory."""

from itertools import pairwise

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linnix_core import CgroupSample, Loss, Pressure, ProcessEvent, SystemSample
from linnix_plugin_rules import counting as forks_module
from linnix_plugin_rules import engine as engine_module
from linnix_plugin_rules import memory as memory_module
from linnix_plugin_rules import tree as tree_module
from linnix_plugin_rules.engine import Engine
from linnix_plugin_rules.rulefile import parse_rules, read_rules
from linnix_plugin_rules.tree import Tree
from linnix_plugin_rules.windows import TICKS

BURST = "- {name: burst, detector: fork_burst, threshold: 10, window_seconds: 2, cooldown: 30}"
BEGAN_NS = 1_767_225_600 * 10**9
CPU = "- {name: spin, detector: subtree_cpu_pct, threshold: 90, duration: 5, cooldown: 30}"
ALL = """
- {name: burst, detector: fork_burst, threshold: 8, window_seconds: 2, cooldown: 3}
- {name: rate, detector: forks_per_sec, threshold: 3, duration: 2, cooldown: 0}
- {name: tree, detector: runaway_tree, threshold: 6, window_seconds: 3, cooldown: 4}
- {name: spin, detector: subtree_cpu_pct, threshold: 90, duration: 2, cooldown: 2}
- {name: big, detector: subtree_rss_mb, threshold: 100, duration: 2, cooldown: 5}
- {name: bare, detector: fork_burst, counts: bare, threshold: 5, window_seconds: 2, cooldown: 3}
- {name: new, detector: runaway_tree, counts: living, threshold: 5, window_seconds: 3, cooldown: 3}
- {name: jobs, detector: short_job_flood, scope: exe, threshold: 2, window_seconds: 3, cooldown: 3}
- {name: execs, detector: exec_rate, regex: image, rate_per_min: 3, median_lifetime: 9, cooldown: 3}
- {name: crashes, detector: crash_loop, ended_by: any, threshold: 2, window_seconds: 9, cooldown: 3}
- {name: victims, detector: oom_kill, cooldown: 3}
- {name: leak, detector: rss_growth, threshold: 1, window_seconds: 3, cooldown: 3}
- {name: files, detector: fd_count, threshold: 7, cooldown: 3, except: {exe: image1}}
- {name: stalls, detector: cgroup_psi_io, threshold_pct: 3, duration: 2, cooldown: 3}
"""


def engine(rules, **options):
    return Engine(parse_rules(rules, "rules.yaml").rules, **options)


def seconds(alerts, host, start):
    return [round((alert.ts_ns - start) / 1e9, 3) for alert in alerts]


# --- cooldown -------------------------------------------------------------------------


def test_a_condition_that_lasts_is_reported_again_after_the_cooldown(host):
    bash = host.seen("bash")
    start = host.ts_ns
    host.forks(bash, 700, every=0.1)
    assert seconds(engine(BURST).handle(host.records), host, start) == [0.9, 30.9, 60.9]


def test_the_same_holds_for_samples(host):
    java = host.seen("java")
    start = host.ts_ns
    for _ in range(14):
        host.cpu({java: 99})
    host.seen("end")
    host.records[-1].ts_ns += 10**9
    assert seconds(engine(CPU).handle(host.records), host, start) == [5, 35, 65]


def test_a_cooldown_is_that_of_one_process(host):
    first, second = host.seen("first"), host.seen("second")
    host.forks(first, 10)
    host.wait(3)
    host.forks(second, 10)
    host.wait(3)
    host.forks(first, 10)
    alerts = engine(BURST).handle(host.records)
    assert [alert.subject.comm for alert in alerts] == ["first", "second"]


@pytest.mark.parametrize("detector", ["fork_burst", "runaway_tree"])
def test_a_second_storm_from_the_same_shell_has_an_offender_of_its_own(host, detector):
    shell = host.seen("bash")
    for name in ("first", "second"):
        script = host.fork(shell)
        host.exec(script, name)
        host.forks(script, 50, every=0.01)
        host.exit(script)
        host.wait(4)
    alerts = engine(BURST.replace("fork_burst", detector)).handle(host.records)
    assert [alert.subject.comm for alert in alerts] == ["first", "second"]


def test_a_storm_that_outgrows_another_is_reported_as_well(host):
    first, second = host.seen("first"), host.seen("second")
    host.forks(first, 200, every=0.1)
    for _ in range(300):
        host.forks(first, 1)
        host.forks(second, 9)
        host.wait(0.1)
    alerts = engine(BURST).handle(host.records)
    assert [alert.subject.comm for alert in alerts][:2] == ["first", "second"]


def test_what_a_rule_leaves_alone_is_bounded(host, monkeypatch):
    monkeypatch.setattr(forks_module, "MAX_RESTS", 5)
    judge = engine(BURST.replace("fork_burst", "runaway_tree"))
    for n in range(50):
        host.forks(host.seen(f"p{n}"), 10)
        host.wait(3)
    assert len(judge.handle(host.records)) == 50
    assert len(judge._rules[0].detector._rests) == 5


def test_a_cooldown_is_that_of_one_rule(host):
    host.forks(host.seen("bash"), 10)
    rules = f"{BURST}\n{BURST.replace('name: burst', 'name: other')}"
    assert [alert.rule for alert in engine(rules).handle(host.records)] == ["burst", "other"]


def test_no_cooldown_is_a_tenth_of_a_second(host):
    bash = host.seen("bash")
    host.forks(bash, 10, every=0.001)
    start = host.ts_ns
    host.forks(bash, 500, every=0.001)
    alerts = engine(BURST.replace("cooldown: 30", "cooldown: 0")).handle(host.records)
    assert seconds(alerts[1:], host, start) == [0.099, 0.199, 0.299, 0.399, 0.499]


# --- time -----------------------------------------------------------------------------


def test_records_that_come_out_of_order_break_no_window(host):
    bash = host.seen("bash")
    host.forks(bash, 10, every=0.1)
    forks = [record for record in host.records if record.kind == "fork"]
    for one, other in zip(forks[::2], forks[1::2], strict=True):
        one.ts_ns, other.ts_ns = other.ts_ns, one.ts_ns
    (alert,) = engine(BURST).handle(host.records)
    assert alert.ts_ns == max(fork.ts_ns for fork in forks)


def test_a_clock_that_is_set_back_begins_all_windows_anew(host):
    bash = host.seen("bash")
    host.forks(bash, 9)
    host.wait(-3600)
    host.forks(bash, 9)
    judge = engine(BURST)
    assert judge.handle(host.records) == []
    host.records.clear()
    host.forks(bash, 1)
    assert len(judge.handle(host.records)) == 1


def test_one_record_from_the_future_does_not_stop_time(host):
    bash = host.seen("bash")
    host.records.append(SystemSample(interval_ns=1, ts_ns=host.ts_ns + 10**18))
    for _ in range(20):
        host.forks(bash, 1)
        host.wait(1)
    assert engine(BURST).handle(host.records) == []


def test_a_loss_of_today_moves_no_window_of_what_is_played_back(host):
    bash = host.seen("bash")
    host.forks(bash, 9)
    host.records.append(Loss("handlers.rules", "queue_full", 1, 1, 1, ts_ns=host.ts_ns + 10**18))
    host.forks(bash, 1)
    assert len(engine(BURST).handle(host.records)) == 1


def test_a_clock_that_is_set_back_drops_the_open_round(host):
    java = host.seen("java")
    host.cpu({java: 99})
    host.wait(-3600)
    host.cpu({java: 1})
    host.wait(1)
    host.seen("end")
    assert engine(CPU).handle(host.records) == []


# --- replay ---------------------------------------------------------------------------


@st.composite
def lives(draw):
    """What a few processes do, as (what, who, seconds to wait)."""
    step = st.tuples(
        st.sampled_from(
            ["fork", "fork", "fork", "exec", "exit", "oom", "round", "machine", "groups", "seen"]
        ),
        st.integers(0, 7),
        st.sampled_from([0, 0, 0, 0.01, 0.3, 1]),
    )
    return draw(st.lists(step, max_size=150))


def records_of(host, steps):
    procs = [host.seen("init", pid=1)]
    procs.append(host.seen("bash", procs[0]))
    for what, who, wait in steps:
        host.wait(wait)
        proc = procs[who % len(procs)]
        if what == "fork":
            procs.append(host.fork(proc))
        elif what == "exec":
            host.exec(proc, f"image{who}")
        elif what == "exit" and len(procs) > 2:
            procs.remove(proc)
            host.exit(proc)
        elif what == "round":
            for each in procs:
                grown = (host.ts_ns - BEGAN_NS) // 1000
                host.sample(
                    each, cpu=40.0 + each.pid % 9, rss=30_000_000 + grown, interval=2, fds=who + 5
                )
        elif what == "oom":
            host.event("oom", proc)
        elif what == "groups":
            for name, percent in (("/", 1), ("/a", who), ("/a/b", who)):
                stalled = Pressure(percent, host.ts_ns // 10**5, percent, host.ts_ns // 10**5)
                killed = {"oom_kill": host.ts_ns // 10**9 % 10**6}
                host.records.append(
                    CgroupSample(name, 1, psi_io=stalled, memory_events=killed, ts_ns=host.ts_ns)
                )
        elif what == "machine":
            host.records.append(SystemSample(interval_ns=1, ts_ns=host.ts_ns))
        else:
            procs.append(host.seen("daemon", proc))
    return host.records


#: What makes forks be noted first and counted later, wherever that makes no difference.
AT_ONCE, LATE = 10**9, 0

NEW = """
- {name: bare, detector: fork_burst, counts: bare, threshold: 7, window_seconds: 2, cooldown: 3}
- {name: more, detector: fork_burst, counts: bare, threshold: 12, window_seconds: 2, cooldown: 0}
- {name: rate, detector: forks_per_sec, counts: living, threshold: 5, duration: 1.5, cooldown: 1}
- {name: tree, detector: runaway_tree, counts: living, threshold: 6, window_seconds: 3, cooldown: 2}
- {name: under, detector: runaway_tree, counts: bare, threshold: 4, window_seconds: 2, cooldown: 1}
"""


@given(steps=lives(), rules=st.sets(st.sampled_from(NEW.strip().splitlines()), min_size=1))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_when_forks_are_counted_makes_no_difference(make_host, steps, rules):
    records, found = records_of(make_host(), steps), []
    for hurry in (AT_ONCE, LATE):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine_module, "HURRY", hurry)
            found.append(engine("\n".join(sorted(rules))).handle(records))
    assert found[0] == found[1]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["fork", "fork", "fork", "exec", "exit"]),
            st.integers(0, 30),
            st.sampled_from([0, 0.01, 0.1, 0.4, 1]),
        ),
        max_size=80,
    ),
    counts=st.sampled_from(["bare", "living"]),
    threshold=st.integers(1, 12),
    hurry=st.sampled_from([AT_ONCE, LATE]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_alert_comes_at_the_very_fork_that_a_list_of_all_children_tells(
    make_host, steps, counts, threshold, hurry
):
    host, children, reached = make_host(), [], None  # children: when, who, whether it counts
    shell = host.seen("bash")
    tick_ns = 2 * 10**9 // TICKS
    for what, who, wait in steps:
        host.wait(wait)
        if what == "fork":
            children.append([host.ts_ns, host.fork(shell), True, True])
            young = host.ts_ns // tick_ns - TICKS
            total = sum(child[2] for child in children if child[0] // tick_ns > young)
            if total >= threshold and reached is None:
                reached = host.ts_ns
        elif living := [child for child in children if child[3]]:
            child = living[who % len(living)]
            host.exec(child[1], "tool") if what == "exec" else host.exit(child[1])
            child[2] &= what != {"bare": "exec", "living": "exit"}[counts]
            child[3] &= what != "exit"
    rule = (
        f"- {{name: r, detector: fork_burst, counts: {counts}, threshold: {threshold}, "
        "window_seconds: 2, cooldown: 9999}"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "HURRY", hurry)
        alerts = engine(rule).handle(host.records)
    assert [alert.ts_ns for alert in alerts] == ([] if reached is None else [reached])


@given(steps=lives(), cuts=st.lists(st.integers(0, 300), max_size=30))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_where_batches_end_makes_no_difference(make_host, steps, cuts):
    records = records_of(make_host(), steps)
    whole = engine(ALL).handle(records)
    judge, pieces = engine(ALL), []
    bounds = [0, *sorted(cut for cut in cuts if cut < len(records)), len(records)]
    for begin, end in pairwise(bounds):
        pieces += judge.handle(records[begin:end])
    assert pieces == whole


@pytest.mark.parametrize("seed", range(3))
def test_a_realistic_recording_raises_the_same_alerts_in_any_batches(linnix_records, seed):
    records = linnix_records(6000, seed=seed)
    whole = engine(ALL).handle(records)
    assert {alert.rule for alert in whole} >= {"burst", "rate", "tree", "spin", "big", "files"}
    judge = engine(ALL)
    assert [alert for record in records for alert in judge.handle([record])] == whole


def test_the_same_records_raise_the_same_alerts_at_any_time_of_day(host):
    records = records_of(host, [("fork", n, 0.01) for n in range(40)])
    later = [attrs.evolve(record, ts_ns=record.ts_ns + 12345 * 10**9) for record in records]
    assert [
        attrs.evolve(alert, ts_ns=alert.ts_ns + 12345 * 10**9)
        for alert in engine(ALL).handle(records)
    ] == engine(ALL).handle(later)


# --- memory ---------------------------------------------------------------------------


def test_memory_is_bounded_under_endless_new_processes(host, monkeypatch):
    monkeypatch.setattr(engine_module, "MAX_COOLDOWNS", 50)
    monkeypatch.setattr(engine_module, "MAX_PROCESSES", 60)
    monkeypatch.setattr(engine_module, "MAX_GROUPS", 30)
    monkeypatch.setattr(memory_module, "MAX_LIMITS", 20)
    monkeypatch.setattr(tree_module, "MAX_ENDED", 40)
    rules = ALL.replace("cooldown: 3", "cooldown: 9999")
    judge = engine(rules, tree=Tree(limit=100))
    for n in range(300):
        host.records.clear()
        parent = host.seen(f"storm{n}")
        for m in range(12):
            child = host.fork(parent)
            host.sample(child, cpu=99, rss=200_000_000, cgroup=f"/g{n}/{m}")
            host.exec(child, f"image{n}-{m}")
            host.event("oom", child, cgroup=f"/g{n}/{m}")
            host.exit(child) if m % 2 else None
            sample = CgroupSample(f"/g{n}/{m}", 1, memory_limit_bytes=1, ts_ns=host.ts_ns)
            host.records.append(sample)
        host.wait(3)
        judge.handle(host.records)
        assert len(judge.tree) <= 100
        assert len(judge.tree._ended) + len(judge.tree._ended_before) <= 40
        assert len(judge._kills) <= 30
        assert len(judge._left._limits) <= 20
        for stream in judge._streams.values():
            assert len(stream.window._groups) <= len(stream.window._entries) <= 60 * 12
        assert len(judge._cooldowns) <= 50
        assert len(judge._round) <= 60


def test_forks_that_are_not_counted_yet_are_bounded(host, monkeypatch):
    monkeypatch.setattr(engine_module, "MAX_BIRTHS", 50)
    judge = engine(BURST.replace("threshold: 10", "threshold: 1000, counts: living"))
    bash = host.seen("bash")
    for _ in range(100):
        host.records.clear()
        host.forks(bash, 7)
        judge.handle(host.records)
        assert len(judge._births) <= 50


@given(
    waits=st.lists(st.sampled_from([0, 0.05, 0.3, 1, 4]), max_size=60),
    cooldown=st.sampled_from([0, 1, 5]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cooldown_is_the_least_time_between_two_alerts(make_host, waits, cooldown):
    rule = f"- {{name: oom, detector: oom_kill, cooldown: {cooldown}}}"
    host, expected = make_host(), []
    victim = host.seen("java")
    for wait in waits:
        host.wait(wait)
        host.event("oom", victim)
        if not expected or host.ts_ns >= expected[-1] + int(max(cooldown, 0.1) * 1e9):
            expected.append(host.ts_ns)
    assert [alert.ts_ns for alert in engine(rule).handle(host.records)] == expected


def test_the_oldest_cooldowns_are_forgotten_first(host, monkeypatch):
    monkeypatch.setattr(engine_module, "MAX_COOLDOWNS", 2)
    judge = engine(BURST.replace("cooldown: 30", "cooldown: 9999"))
    procs = [host.seen(f"p{n}") for n in range(3)]
    for n in (0, 1, 2, 2, 0):
        host.forks(procs[n], 10)
        host.wait(3)
    alerts = judge.handle(host.records)
    assert [alert.subject.comm for alert in alerts] == ["p0", "p1", "p2", "p0"]


# --- the shipped rules ----------------------------------------------------------------


def shipped():
    return Engine(read_rules().rules)


def test_the_shipped_rules_report_a_storm_of_subshells_within_three_seconds(host):
    bash = host.seen("bash")
    start = host.ts_ns
    host.forks(bash, 1000, every=1 / 200)
    alerts = shipped().handle(host.records)
    assert [alert.rule for alert in alerts] == ["fork_storm"]
    assert alerts[0].subject.key == bash.key
    assert alerts[0].ts_ns - start < 3 * 10**9


def test_the_shipped_rules_report_a_flood_of_one_program_within_three_seconds(host):
    bash = host.seen("bash")
    start = host.ts_ns
    for _ in range(500):
        job = host.fork(bash)
        host.exec(job, "true")
        host.wait(1 / 150)
        host.exit(job)
    alerts = shipped().handle(host.records)
    assert [(alert.rule, alert.subject.key) for alert in alerts] == [("short_job_flood", bash.key)]
    assert alerts[0].ts_ns - start < 3 * 10**9


def test_the_shipped_rules_are_silent_about_a_build_on_a_few_cores(host):
    make = host.seen("make")
    for n in range(2000):
        compiler = host.fork(make)
        host.exec(compiler, "gcc", "-c", f"file{n}.c")
        host.wait(1 / 80)
        cc1 = host.fork(compiler)
        host.exec(cc1, "cc1", "-quiet", f"file{n}.c")
        host.exit(cc1)
        host.wait(1 / 80)
        host.exit(compiler)
    assert shipped().handle(host.records) == []


def test_the_shipped_rules_report_a_spin_within_ten_seconds(host):
    loop = host.seen("loop")
    start = host.ts_ns
    for _ in range(12):
        host.wait(1)
        host.sample(loop, cpu=100, rss=5_000_000, interval=1)
    (alert,) = shipped().handle(host.records)
    assert (alert.rule, alert.subject.key) == ("cpu_spin", loop.key)
    assert alert.ts_ns - start <= 9 * 10**9


def test_events_that_nobody_knows_the_parent_of_do_no_harm():
    judge = engine(ALL)
    for kind in ("seen", "fork", "exec", "exit", "oom"):
        judge.handle([ProcessEvent(kind, pid=1, start_ns=0), ProcessEvent(kind, pid=2, start_ns=0)])
    assert len(judge.tree) <= 2
