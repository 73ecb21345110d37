"""Rules about forks: how many it takes, within which time, and who is to blame."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import Evidence, ProcessEvent, Subject
from linnix_plugin_rules import engine as engine_module
from linnix_plugin_rules.tree import STARTS_NS, Image, Process
from linnix_plugin_rules.windows import MAX_ENTRIES, TICKS, EventWindow

BURST = "- {name: burst, severity: high, detector: fork_burst, threshold: 30, window_seconds: 5}"
RATE = "- {name: rate, detector: forks_per_sec, threshold: 10, duration: 2}"
RUNAWAY = "- {name: tree, detector: runaway_tree, threshold: 30, window_seconds: 10}"


# --- how many, and how fast -----------------------------------------------------------


def test_a_burst_is_reported_with_its_numbers_and_its_offender(host, alerts_of):
    bash = host.seen("bash")
    host.forks(bash, 30, every=0.01)
    (alert,) = alerts_of(BURST, host.records)
    assert (alert.rule, alert.severity, alert.class_) == ("burst", "high", "fork_storm")
    assert alert.message == f"fork burst: 30 forks in 5 s by bash (pid {bash.pid})"
    assert alert.subject == Subject(bash.key, "/usr/bin/bash", "bash", "/test.slice")
    assert alert.evidence == (
        Evidence("forks", 30, "forks"),
        Evidence("threshold", 30, "forks"),
        Evidence("window", 5, "s"),
        Evidence("offender_share", 100, "%"),
    )
    last_fork = [record for record in host.records if record.kind == "fork"][-1]
    assert alert.ts_ns == last_fork.ts_ns
    assert alert.boot_id == bash.key.boot_id


def test_one_fork_less_is_no_burst(host, alerts_of):
    host.forks(host.seen("bash"), 29, every=0.01)
    assert alerts_of(BURST, host.records) == []


def test_forks_count_while_they_are_younger_than_the_window(host, alerts_of):
    bash = host.seen("bash")
    host.forks(bash, 15)
    host.wait(4.99)
    host.forks(bash, 15)
    assert len(alerts_of(BURST, host.records)) == 1


def test_forks_do_not_count_when_they_are_older_than_the_window(host, alerts_of):
    bash = host.seen("bash")
    host.forks(bash, 15)
    host.wait(5)
    host.forks(bash, 15)
    assert alerts_of(BURST, host.records) == []


def test_a_rate_is_an_average_over_its_duration(host, alerts_of):
    bash = host.seen("bash")
    host.forks(bash, 19, every=0.1)
    assert alerts_of(RATE, host.records) == []
    host.fork(bash)
    (alert,) = alerts_of(RATE, host.records)
    assert alert.message == f"fork rate: 10 forks/s over 2 s by bash (pid {bash.pid})"
    assert [(one.name, one.value) for one in alert.evidence[:3]] == [
        ("forks", 20),
        ("threshold", 20),
        ("window", 2),
    ]


def test_a_rate_takes_at_least_its_threshold_however_short_the_duration(host, alerts_of):
    rule = RATE.replace("duration: 2", "duration: 0.5")
    bash = host.seen("bash")
    host.forks(bash, 9)
    assert alerts_of(rule, host.records) == []
    host.fork(bash)
    assert len(alerts_of(rule, host.records)) == 1


def test_only_forks_count(host, alerts_of):
    bash = host.seen("bash")
    for _ in range(100):
        child = host.seen("old", bash)
        host.exec(child, "new")
        host.event("oom", child)
        host.exit(child)
    assert alerts_of(f"{BURST}\n{RATE}\n{RUNAWAY}", host.records) == []


# --- who ------------------------------------------------------------------------------


def test_a_shell_loop_is_the_shells(host, alerts_of):
    login = host.seen("login")
    bash = host.seen("bash", login)
    for _ in range(30):
        child = host.fork(bash)
        host.exec(child, "true")
        host.exit(child)
    (alert,) = alerts_of(BURST, host.records)
    assert alert.subject.key == bash.key


def test_a_fork_bomb_is_that_of_the_process_at_its_root(host, alerts_of):
    bash = host.seen("bash", host.seen("login"))
    generation = [host.fork(bash)]
    host.exec(generation[0], "bomb")
    for _ in range(5):
        generation = [host.fork(parent, "bomb") for parent in generation for _ in range(2)]
    for rules in (BURST, RUNAWAY):
        (alert,) = alerts_of(rules, host.records)
        assert alert.subject.comm == "bomb"
        assert alert.subject.key.pid == host.records[2].pid


def test_children_that_outlive_their_parents_still_belong_to_the_tree(host, alerts_of):
    script = host.seen("script")
    for _ in range(20):
        helper = host.fork(script, "helper")
        orphan = host.fork(helper, "job")
        host.exit(helper)
        host.exit(orphan)
    (alert,) = alerts_of(BURST, host.records)
    assert alert.subject.key == script.key


def test_a_relay_is_named_by_its_first_process(host, alerts_of):
    first = runner = host.seen("relay", host.seen("init", pid=1))
    for _ in range(200):
        successor = host.fork(runner)
        host.exit(runner)
        runner = successor
        host.wait(0.001)
    for rules in (BURST, RUNAWAY):
        (alert,) = alerts_of(rules, host.records)
        assert alert.subject.key == first.key


def test_neither_init_nor_kthreadd_is_to_blame_for_its_descendants(host, alerts_of):
    init, kthreadd = host.seen("systemd", pid=1), host.seen("kthreadd", pid=2)
    daemons = [host.seen(f"daemon{n}", parent) for n in range(9) for parent in (init, kthreadd)]
    for _ in range(5):
        for daemon in daemons:
            host.forks(daemon, 1)
    (alert,) = alerts_of(f"{BURST}\n{RUNAWAY}", host.records)
    assert alert.rule == "burst"
    assert alert.subject.comm.startswith("daemon")


def test_init_answers_for_its_own_forks(host, alerts_of):
    init = host.seen("systemd", pid=1)
    host.forks(init, 30)
    (alert,) = alerts_of(BURST, host.records)
    assert alert.subject.key == init.key


def test_in_a_container_pid_2_is_a_process_like_any_other(host, alerts_of):
    shell = host.seen("sh", host.seen("init", pid=1), pid=2)
    for _ in range(30):
        host.forks(host.fork(shell), 1)
    (alert,) = alerts_of(RUNAWAY, host.records)
    assert alert.subject.key == shell.key


def test_the_share_of_the_offender_is_told(host, alerts_of):
    bash, other = host.seen("bash"), host.seen("other")
    host.forks(other, 9)
    host.forks(bash, 21)
    (alert,) = alerts_of(BURST, host.records)
    assert alert.message == f"fork burst: 30 forks in 5 s, 70 % by bash (pid {bash.pid})"
    assert alert.evidence[3] == Evidence("offender_share", 70, "%")


def test_forks_of_unknown_origin_count_without_an_offender(alerts_of):
    forks = [ProcessEvent("fork", pid=100 + n, start_ns=5, ts_ns=10**18) for n in range(30)]
    (alert,) = alerts_of(BURST, forks)
    assert alert.message == "fork burst: 30 forks in 5 s"
    assert alert.subject == Subject()
    assert len(alert.evidence) == 3
    assert alerts_of(RUNAWAY, forks) == []


def test_an_offender_of_which_only_the_pid_is_known_is_named_by_it(alerts_of):
    forks = [ProcessEvent("fork", pid=100 + n, start_ns=5, ppid=7, ts_ns=10**18) for n in range(30)]
    (alert,) = alerts_of(BURST, forks)
    assert alert.message == "fork burst: 30 forks in 5 s by pid 7"
    assert alert.subject == Subject()


def test_an_offender_that_was_never_seen_is_described_by_its_children(host, alerts_of):
    bash = host.seen("bash")
    host.records.clear()
    host.forks(bash, 30)
    (alert,) = alerts_of(BURST, host.records)
    assert (alert.subject.key, alert.subject.comm) == (bash.key, "bash")


def test_names_are_shown_without_what_could_harm_a_terminal(host, alerts_of):
    evil = host.seen("e\x1b[2J\u202evil" + "x" * 99)
    host.forks(evil, 30)
    (alert,) = alerts_of(BURST, host.records)
    assert alert.message.isprintable()
    assert len(alert.message) < 100


# --- runaway trees --------------------------------------------------------------------


def test_a_runaway_tree_is_reported_with_its_numbers(host, alerts_of):
    bash = host.seen("bash")
    host.forks(bash, 30, every=0.3)
    (alert,) = alerts_of(RUNAWAY, host.records)
    assert (alert.rule, alert.class_) == ("tree", "runaway_tree")
    assert alert.message == f"runaway tree: 30 forks in 10 s by bash (pid {bash.pid})"
    assert alert.evidence == (
        Evidence("forks", 30, "forks"),
        Evidence("threshold", 30, "forks"),
        Evidence("window", 10, "s"),
        Evidence("offender_share", 100, "%"),
    )


def test_forks_of_separate_trees_do_not_add_up(host, alerts_of):
    for _ in range(4):
        host.forks(host.seen("daemon"), 29)
    assert alerts_of(RUNAWAY, host.records) == []


def test_a_runaway_is_noticed_at_its_very_fork_whatever_else_forks(host, alerts_of):
    other, bash = host.seen("other"), host.seen("bash")
    host.forks(other, 20, every=0.01)
    host.forks(bash, 29, every=0.01)
    assert alerts_of(RUNAWAY, host.records) == []
    host.fork(bash)
    (alert,) = alerts_of(RUNAWAY, host.records)
    assert alert.subject.key == bash.key


def test_two_runaways_under_one_roof_are_both_named_and_the_roof_is_not(host, alerts_of):
    roof = host.seen("tmux")
    first, second = host.seen("bash", roof), host.seen("zsh", roof)
    for _ in range(60):
        host.forks(first, 1)
        host.forks(second, 1)
    alerts = alerts_of(RUNAWAY, host.records)
    assert [alert.subject.key for alert in alerts] == [first.key, second.key]


def test_quiet_shells_under_one_roof_do_not_add_up(host, alerts_of):
    roof = host.seen("tmux")
    shells = [host.seen("bash", roof) for _ in range(20)]
    for _ in range(20):
        for shell in shells:
            host.forks(shell, 1)
    assert alerts_of(RUNAWAY, host.records) == []


def test_a_growing_fork_bomb_is_one_tree_until_its_end(host, alerts_of):
    bash = host.seen("bash")
    bomb = host.fork(bash)
    generation = [bomb]
    for _ in range(12):
        generation = [host.fork(parent) for parent in generation for _ in range(2)]
        host.wait(0.5)
    (alert,) = alerts_of(RUNAWAY, host.records)
    assert alert.subject.key == bomb.key


def test_a_build_is_named_by_the_process_that_runs_it(host, alerts_of):
    bash = host.seen("bash", host.seen("sshd"))
    host.forks(bash, 3)
    make = host.fork(bash)
    host.exec(make, "make")
    for _ in range(20):
        compiler = host.fork(make, "gcc")
        host.exit(host.fork(compiler, "cc1"))
        host.exit(compiler)
    (alert,) = alerts_of(RUNAWAY, host.records)
    assert alert.subject.comm == "make"
    assert alert.message == f"runaway tree: 30 forks in 10 s, 86 % by make (pid {make.pid})"


def test_a_pid_that_is_used_again_is_another_process(host, alerts_of):
    for _ in range(2):
        host.forks(host.seen("bash", pid=77), 15)
    assert alerts_of(RUNAWAY, host.records) == []


def test_the_roof_is_not_blamed_for_the_end_of_a_storm(host, alerts_of):
    rule = RUNAWAY.replace("30", "100")
    roof = host.seen("tmux")
    storm, quiet = host.seen("storm", roof), host.seen("quiet", roof)
    for _ in range(100):
        host.forks(storm, 1)
        host.wait(0.05)
    for _ in range(60):
        host.forks(quiet, 1)
        host.wait(0.2)
    alerts = alerts_of(rule, host.records)
    assert {alert.subject.comm for alert in alerts} == {"storm"}


# --- the window -----------------------------------------------------------------------

PROCESSES = [Process("b", pid, 1, None, Image("x")) for pid in range(3, 7)]
PROCESSES[1].parent = PROCESSES[0]
PROCESSES[2].parent = PROCESSES[1]
#: As if the second had been old when it forked, and the third young.
ORIGINS = dict(
    zip(PROCESSES, [PROCESSES[0], PROCESSES[1], PROCESSES[1], PROCESSES[3]], strict=True)
)
TOPS = dict(zip(PROCESSES, [PROCESSES[0], PROCESSES[0], PROCESSES[0], PROCESSES[3]], strict=True))


@given(
    seconds=st.sampled_from([0.001, 0.5, 2, 10]),
    steps=st.lists(
        st.tuples(
            st.floats(0, 1.5, allow_nan=False),  # of the window, to the next fork
            st.sampled_from([None, *PROCESSES]),
            st.integers(1, 4),
        ),
        max_size=60,
    ),
)
@settings(deadline=None)
def test_a_window_counts_what_a_list_of_all_forks_would(seconds, steps):
    window, made, now_ns = EventWindow(seconds), [], 10**18
    tick_ns = int(seconds * 1e9) // TICKS
    for wait, forker, count in steps:
        now_ns += int(wait * wait * seconds * 1e9)
        for _ in range(count):
            window.add(now_ns, forker, ORIGINS.get(forker))
            made.append((now_ns, forker))
        young = [who for ts_ns, who in made if ts_ns // tick_ns > now_ns // tick_ns - TICKS]
        assert window.total == len(young)
        # Within a tick of what was asked for.
        assert window.total <= sum(ts_ns > now_ns - seconds * 1e9 for ts_ns, _ in made)
        assert window.total >= sum(
            ts_ns > now_ns - seconds * 1e9 * (1 - 1 / TICKS) for ts_ns, _ in made
        )
        assert window.counts == Counter(map(ORIGINS.get, young))
        assert window.most >= window.count_most() == max(window.counts.values(), default=0)
        heaviest = window.heaviest_tree()
        tops = Counter(TOPS[who] for who in young if who is not None)
        assert (heaviest.total if heaviest else 0) == max(tops.values(), default=0)
        for origin in set(window.counts) - {None}:
            assert window.tree_of(origin).total == window.count_of(origin)


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 1.2), st.sampled_from(PROCESSES), st.booleans()), max_size=60
    )
)
@settings(deadline=None)
def test_what_is_taken_back_does_not_count(steps):
    window, living, now_ns = EventWindow(2, "exec"), [], 10**18
    tick_ns = window.length_ns // TICKS
    for wait, forker, takes_back in steps:
        now_ns += int(wait * wait * 2e9)
        if takes_back and living:
            _, _, entry = living.pop(0)
            entry.take_back("exit")  # that is no reason
            entry.take_back("exec")
        window.add(now_ns, forker, forker)
        living.append((now_ns, forker, window.entry))
        young = [who for ts, who, _ in living if ts // tick_ns > now_ns // tick_ns - TICKS]
        assert window.total == len(young)
        assert window.counts == Counter(young)
    window.add(now_ns + 10**11, None, None)
    assert window.total == len(window._entries) == len(window._groups) == 1


def test_a_window_stays_exact_and_small_when_everybody_forks():
    window = EventWindow(10)
    root = Process("b", 3, 3, None, Image("bomb"))
    count = 3 * MAX_ENTRIES
    for n in range(count):
        process = Process("b", n, n, root, Image("bomb"))
        window.add(10**18 + n * 100_000, process, root)
    assert window.total == count
    assert window.sampled == window.heaviest_tree().total == MAX_ENTRIES
    assert len(window._entries) <= MAX_ENTRIES + TICKS
    window.add(10**18 + 60 * 10**9, None, None)
    assert window.total == window.sampled == len(window._entries) == len(window._groups) == 1


BARE = "- {name: bare, detector: fork_burst, counts: bare, threshold: 30, window_seconds: 2"


def subshells_and_programs(host, script, programs, subshells, turns=40):
    """A script that forks so many of each in turn, the programs from subshells."""
    for _ in range(turns):
        subshell = host.fork(script)
        for _ in range(subshells - 1):
            host.exit(host.fork(subshell))
        for _ in range(programs):
            host.jobs(subshell, 1, "tr", lives=0.001, every=0.001)
        host.exit(subshell)
        host.wait(0.01)


@pytest.mark.parametrize(
    ("programs", "subshells", "fires"), [(0, 1, True), (1, 4, True), (2, 2, False), (4, 2, False)]
)
def test_of_a_storm_nearly_nothing_starts_a_program(host, alerts_of, programs, subshells, fires):
    script = host.seen("bash")
    subshells_and_programs(host, script, programs, subshells)
    found = alerts_of(BARE + ", bare_pct: 75}", host.records)
    assert [alert.subject.key for alert in found] == [script.key] * fires
    assert alerts_of(BARE + "}", host.records)


def test_programs_that_were_started_before_hide_no_storm(host, alerts_of):
    server = host.seen("server")
    host.jobs(server, 500, every=0.001)
    host.wait(5)
    host.forks(server, 40, every=0.01)
    (alert,) = alerts_of(BARE + ", bare_pct: 75}", host.records)
    assert alert.subject.key == server.key


def test_a_script_beside_it_hides_no_storm_for_long(host, alerts_of):
    script, bomb = host.seen("bash"), host.seen("bomb")
    subshells_and_programs(host, script, 2, 2, turns=20)
    for _ in range(20):
        subshells_and_programs(host, script, 2, 2, turns=1)
        host.forks(bomb, 20, every=0.002)
    found = alerts_of(BARE + ", bare_pct: 75}", host.records)
    assert [alert.subject.key for alert in found] == [bomb.key]


@pytest.mark.parametrize("scope", ["process", "cgroup"])
def test_groups_are_judged_alike(host, alerts_of, scope):
    script = host.seen("bash")
    subshells_and_programs(host, script, 2, 2)
    assert not alerts_of(f"{BARE}, bare_pct: 75, scope: {scope}}}", host.records)


@given(st.lists(st.integers(0, 3 * 10**9), max_size=60))
def test_starts_are_counted_of_about_the_latest_span(gaps):
    """Never more than of three spans, and nothing of what is older."""
    process = Process("b", 9, 9, None, Image("sh"))
    moments, now_ns = [], 10**18
    for gap in gaps:
        now_ns += gap
        process.child_started(now_ns)
        moments.append(now_ns)
    within = sum(now_ns - at < 3 * STARTS_NS for at in moments)
    assert process.started_lately(now_ns) <= within
    assert process.started_lately(now_ns + 2 * STARTS_NS) == 0


def test_forks_that_were_taken_back_make_room_for_others():
    """However many came and went within the window, a tree that stays is found."""
    window = EventWindow(10, "exit")
    root = Process("b", 3, 3, None, Image("bomb"))
    tree = Process("b", 4, 4, None, Image("tree"))
    for n in range(3 * MAX_ENTRIES):
        window.add(10**18 + n * 100_000, Process("b", n, n, root, Image("bomb")), root)
        window.entry.take_back("exit")
        if n % 100 == 0:
            window.add(10**18 + n * 100_000, tree, tree)
    assert len(window._entries) <= MAX_ENTRIES
    assert window.counts == {tree: 3 * MAX_ENTRIES // 100 + 1}
    assert window.tree_of(tree).offender is tree
    window.add(10**18 + 60 * 10**9, None, None)
    assert window.total == window.sampled == len(window._entries) == len(window._groups) == 1


@pytest.mark.parametrize("threshold", [500, 5000])
def test_a_storm_of_distinct_forkers_is_still_a_runaway_tree(host, alerts_of, threshold):
    rule = RUNAWAY.replace("30", str(threshold))
    root = host.seen("bomb")
    generation = [root]
    while len(host.records) < 2 * MAX_ENTRIES:
        generation = [host.fork(parent) for parent in generation for _ in range(2)]
        host.wait(0.1)
    (alert,) = alerts_of(rule, host.records)
    assert alert.subject.key == root.key
    assert alert.evidence[0].value == threshold


@pytest.mark.parametrize("lives", [0, 0.02, 0.3])
def test_a_storm_that_goes_on_is_told_again_whenever_its_forks_are_counted(
    host, alerts_of, monkeypatch, lives
):
    """It rises above the limit once more after each pause: told, or silent, as one by one."""
    bash, other = host.seen("bash"), host.seen("other")
    for storm in range(4):
        children = []
        for n in range(700):
            children.append(host.fork(other if storm % 2 else bash))
            if len(children) > lives * 1000:
                host.exit(children.pop(0))
            if n % 7 == 0 and children:
                host.exec(children[-1], "true")
            host.wait(0.001)
        host.wait(storm * 0.7)
    rules = "\n".join(
        f"- {{name: {counts}, detector: fork_burst, counts: {counts}, threshold: 40, "
        "window_seconds: 1, cooldown: 1}"
        for counts in ("bare", "living")
    )
    found = alerts_of(rules, host.records)
    monkeypatch.setattr(engine_module, "MAX_BIRTHS", 0)
    assert found == alerts_of(rules, host.records)
    assert found
