"""What every rule can say: who is meant, together with whom, and how it is put."""

import os

import attrs
import pytest

from linnix_plugin_rules.rulefile import RuleFileError, parse_rules

BURST = "- {name: burst, detector: fork_burst, threshold: 10, window_seconds: 5"
CPU = "- {name: spin, detector: subtree_cpu_pct, threshold: 90, duration: 5"


NOT_RE2 = (
    "expected a regular expression of RE2, which supports no look-around and no back-references"
)


def who(alerts):
    return [alert.subject.comm for alert in alerts]


# --- match and except -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "fires"),
    [
        ("exe: tool", True),
        ("exe: /usr/bin/tool", True),
        ("exe: /usr/bin/*", True),
        ("exe: [other, 't*l']", True),
        ("exe: /bin/tool", False),
        ("exe: too", False),
        ("args: '--fast( |$)'", True),
        ("args: '^/usr/bin/tool --'", True),
        ("args: slow", False),
        ("user: 1000", True),
        ("user: [root, '1000']", True),
        ("user: root", False),
        ("cgroup: '/app.slice/*'", True),
        ("cgroup: '/app.slice'", False),
        ("ancestor: bash", True),
        ("ancestor: '/usr/bin/log*'", True),
        ("ancestor: tool", False),
        ("exe: tool, user: 1000, ancestor: login", True),
        ("exe: tool, user: 0", False),
    ],
)
def test_match_and_except_are_about_who_does_it(host, alerts_of, filters, fires):
    bash = host.seen("bash", host.seen("login"))
    tool = host.fork(bash)
    host.exec(tool, "tool", "--fast", uid=1000, cgroup="/app.slice/web")
    host.forks(tool, 10)
    assert bool(alerts_of(f"{BURST}, match: {{{filters}}}}}", host.records)) is fires
    assert bool(alerts_of(f"{BURST}, except: {{{filters}}}}}", host.records)) is not fires


def test_no_command_line_can_stall_a_filter(host, alerts_of):
    tool = host.fork(host.seen("bash"))
    host.exec(tool, "tool", "a" * 4000 + "!")
    host.forks(tool, 10)
    # One that tries every way to part the letters takes longer than the universe is old.
    filters = r"{args: '^/usr/bin/tool (\w+\s?)*$'}"
    assert alerts_of(f"{BURST}, match: {filters}}}", host.records) == []
    assert who(alerts_of(f"{BURST}, except: {filters}}}", host.records)) == ["tool"]


def test_letters_of_regular_expressions_are_those_of_ascii(host, alerts_of):
    tool = host.fork(host.seen("bash"))
    host.exec(tool, "tool", "café")
    host.forks(tool, 10)
    assert alerts_of(rf"{BURST}, match: {{args: 'tool \w+$'}}}}", host.records) == []
    assert who(alerts_of(f"{BURST}, match: {{args: 'CAF.$|(?i)CAFÉ$'}}}}", host.records)) == [
        "tool"
    ]


def test_only_samples_of_who_is_matched_add_up(host, alerts_of):
    shell = host.seen("shell")
    workers = [host.seen(name, shell) for name in ("good", "bad", "bad")]
    for _ in range(3):
        host.cpu(dict.fromkeys(workers, 50))
    assert who(alerts_of(CPU + ", match: {exe: bad}}", host.records)) == ["shell"]
    assert alerts_of(CPU + ", match: {exe: good}}", host.records) == []


def test_a_filter_holds_for_jobs_themselves(host, alerts_of):
    rule = (
        "- {name: f, detector: short_job_flood, threshold: 5, window_seconds: 5, match: {exe: a}}"
    )
    bash = host.seen("bash")
    host.jobs(bash, 6, "b")
    assert alerts_of(rule, host.records) == []
    host.jobs(bash, 6, "a")
    assert who(alerts_of(rule, host.records)) == ["bash"]


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ("{}", "match: expected a mapping, got an empty mapping"),
        ("{path: x}", "unknown key 'path' (there are exe, args, user, cgroup, ancestor)"),
        ("{args: 3}", "args: expected a regular expression, got 3"),
        ("{args: '('}", f"args: {NOT_RE2} (missing ): (), got '('"),
        ("{args: 'sh(?= -c)'}", f"args: {NOT_RE2} (invalid perl operator: (?=), got 'sh(?= -c)'"),
        ("{args: '(?<!a)b'}", f"args: {NOT_RE2} (invalid perl operator: (?<"),
        (r"{args: '(a)\1'}", rf"args: {NOT_RE2} (invalid escape sequence: \1), got"),
        (r'{args: "[\e[2J"}', rf"args: {NOT_RE2} (missing ]: [\x1b[2J), got '[\x1b[2J'"),
        ("{user: nobody-at-all}", "user: expected names or numbers of users of this machine"),
        ("{user: [0, -3]}", "user: expected names or numbers of users of this machine"),
        ("{user: 4294967295}", "user: expected names or numbers of users of this machine"),
        (f"{{user: '{'9' * 5000}'}}", "user: expected names or numbers of users of this machine"),
        ("{exe: []}", "exe: expected a text or a list of texts, got an empty list"),
        ("{exe: {a: b}}", "exe: expected a text or a list of texts"),
    ],
)
def test_a_filter_that_cannot_be_is_a_mistake(filters, said):
    with pytest.raises(RuleFileError) as caught:
        parse_rules(f"{BURST},\n match: {filters}}}", "x")
    assert str(caught.value).startswith(f"x:2: {said}")


def test_rules_about_the_machine_have_no_filters():
    text = "- {name: a, detector: system_psi_io, threshold_pct: 5, duration: 5, match: {exe: x}}"
    with pytest.raises(RuleFileError, match="measures the machine and has no filters"):
        parse_rules(text, "x")


# --- scope ----------------------------------------------------------------------------


def two_shells(host):
    roof = host.seen("tmux")
    return [host.seen(name, roof) for name in ("bash", "zsh")]


@pytest.mark.parametrize(
    ("scope", "fires"), [("host", True), ("process", False), ("subtree", False), ("cgroup", True)]
)
def test_scope_says_which_forks_add_up(host, alerts_of, scope, fires):
    for shell in two_shells(host):
        host.forks(shell, 5)
    alerts = alerts_of(f"{BURST}, scope: {scope}}}", host.records)
    assert bool(alerts) is fires
    if scope == "cgroup":
        assert "in cgroup /test.slice" in alerts[0].message


def test_forks_of_the_children_count_for_the_subtree_and_not_for_the_process(host, alerts_of):
    bash = host.seen("bash")
    for _ in range(5):
        host.fork(host.fork(bash))
    assert who(alerts_of(BURST + ", scope: subtree}", host.records)) == ["bash"]
    assert alerts_of(BURST + ", scope: process}", host.records) == []


@pytest.mark.parametrize(
    ("scope", "named"),
    [("process", []), ("subtree", ["tmux"]), ("cgroup", ["tmux"]), ("host", ["tmux"])],
)
def test_scope_says_what_is_summed_up(host, alerts_of, scope, named):
    shells = two_shells(host)
    for _ in range(3):
        host.cpu(dict.fromkeys(shells, 60))
    assert who(alerts_of(f"{CPU}, scope: {scope}}}", host.records)) == named


def test_a_scope_that_the_detector_has_not_is_a_mistake():
    with pytest.raises(
        RuleFileError, match="scope: expected one of host, process, subtree, cgroup"
    ):
        parse_rules(BURST + ", scope: exe}", "x")


# --- counts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "bare", "programs", "living"),
    [("all", True, True, True), ("bare", True, False, True), ("living", False, False, True)],
)
def test_counts_says_which_forks_do(make_host, alerts_of, counts, bare, programs, living):
    rule = f"{BURST}, counts: {counts}}}"
    host = make_host()
    host.forks(host.seen("bash"), 10)
    assert bool(alerts_of(rule, host.records)) is bare
    host = make_host()
    host.jobs(host.seen("make"), 10)
    assert bool(alerts_of(rule, host.records)) is programs
    host = make_host()
    server = host.seen("server")
    for _ in range(10):
        host.fork(server)
    assert bool(alerts_of(rule, host.records)) is living


def test_what_is_below_the_first_process_of_a_container_is_taken_back_as_well(host, alerts_of):
    host.jobs(host.seen("sh", pid=1), 30)
    assert alerts_of(BURST + ", counts: bare}", host.records) == []
    assert alerts_of(BURST + ", counts: living}", host.records) == []


def test_forks_are_taken_back_where_records_overtake_each_other(host, alerts_of):
    make = host.seen("make")
    for _ in range(400):
        job = host.fork(make)
        host.exec(job, "true")
        host.wait(0.003)
        host.exit(job)
        host.wait(-0.0027)  # the next one began before
    for counts in ("bare", "living"):
        rule = f"{BURST.replace('10', '25')}, counts: {counts}}}"
        assert alerts_of(rule, host.records) == []


def test_a_wave_that_ended_does_not_hide_the_next_one(host, alerts_of):
    server = host.seen("server")
    first = [host.fork(server) for _ in range(9)]
    host.wait(3)
    for child in first:
        host.exit(child)
    host.wait(3)
    for _ in range(10):
        host.fork(server)
    assert len(alerts_of(BURST + ", counts: living}", host.records)) == 1


def test_a_fork_that_has_left_the_window_is_not_taken_back(host, alerts_of):
    server = host.seen("server")
    old = [host.fork(server) for _ in range(9)]
    host.wait(6)
    for child in old:
        host.exit(child)
    for _ in range(10):
        host.fork(server)
    assert len(alerts_of(BURST + ", counts: living}", host.records)) == 1


# --- texts ----------------------------------------------------------------------------


def test_labels_actions_severity_and_class_are_those_of_the_rule(host, alerts_of):
    host.forks(host.seen("bash"), 10)
    more = "labels: {team: core}, actions: ['renice 5 -p {pid}'], severity: critical, class: null"
    (alert,) = alerts_of(f"{BURST}, {more}}}", host.records)
    pid = alert.subject.key.pid
    assert (alert.labels, alert.actions) == ({"team": "core"}, (f"renice 5 -p {pid}",))
    assert (alert.severity, alert.class_) == ("critical", None)


def test_a_message_has_placeholders(host, alerts_of):
    bash = host.seen("bash")
    host.forks(bash, 10)
    message = "{comm} {pid} {exe} {cgroup}: {value} of {limit} {unit}; {process}; {{x}}; {summary}"
    (alert,) = alerts_of(f"{BURST}, message: '{message}'}}", host.records)
    assert alert.message == (
        f"bash {bash.pid} /usr/bin/bash /test.slice: 10 of 10 forks; bash (pid {bash.pid}); {{x}}; "
        f"fork burst: 10 forks in 5 s by bash (pid {bash.pid})"
    )


def test_what_a_process_chose_does_no_harm_in_a_message(host, alerts_of):
    host.forks(host.seen("{pid}\x1b[2J\n" + "x" * 999), 10)
    (alert,) = alerts_of(BURST + ", message: '{exe}'}", host.records)
    assert alert.message.startswith("/usr/bin/{pid}\\x1b[2J\\x0a")
    assert len(alert.message) <= 200
    assert alert.message.isprintable()


def test_in_a_suggested_command_a_name_is_one_word(host, alerts_of):
    host.forks(host.seen("x; reboot #"), 10)
    more = "actions: ['pkill {comm}', 'ls -l {exe}', 'ls {cgroup}', 'look at {process}']"
    (alert,) = alerts_of(f"{BURST}, {more}}}", host.records)
    assert alert.actions == (
        "pkill 'x; reboot #'",
        "ls -l '/usr/bin/x; reboot #'",
        "ls /test.slice",
        f"look at x; reboot # (pid {alert.subject.key.pid})",
    )


@pytest.mark.parametrize(
    "message", ["{who}", "{", "a } b", "{0}", "{value.real}", "' '", "{value!r}"]
)
def test_a_message_with_anything_else_is_a_mistake(message):
    message = message if message == "' '" else f"'{message}'"
    with pytest.raises(RuleFileError, match="x:1: message: expected"):
        parse_rules(f"{BURST}, message: {message}}}", "x")


def test_aliases_can_be_used_and_cannot_be_used_to_fill_the_memory():
    burst = "detector: fork_burst, threshold: 1, window_seconds: 1"
    text = f"- {{name: a, match: &m {{exe: sh}}, {burst}}}\n- {{name: b, match: *m, {burst}}}\n"
    first, second = parse_rules(text, "x").rules
    assert first.detector == second.detector
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(RuleFileError, match="more than 50000 values, those that aliases repeat"):
        parse_rules(bomb, "x")


def test_a_rule_may_begin_with_what_another_one_says():
    first, second, third = parse_rules(
        """\
- &base
  name: a
  detector: fork_burst
  threshold: 1
  window_seconds: 1
- {<<: *base, name: b, threshold: 2}
- <<: [{name: c, severity: high}, *base]
""",
        "x",
    ).rules
    assert attrs.evolve(second, name="a", detector=first.detector) == first
    assert (second.name, second.detector) == ("b", attrs.evolve(first.detector, threshold=2))
    assert third == attrs.evolve(first, name="c", severity="high")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("- {<<: *a, name: b}\n- {<<: *a, name: c}", []),
        ("- {<<: 7, name: b, detector: oom_kill}", ["x:2: <<: expected a mapping or a list of"]),
        ("- &b {<<: *b, name: b}", ["x:2: nested too deeply"]),
    ],
)
def test_what_cannot_be_merged_in_is_a_mistake_and_what_is_wrong_in_it_is_told_once(rules, said):
    text = f"- &a {BURST.removeprefix('- ')}, treshold: 3}}\n{rules}"
    with pytest.raises(RuleFileError) as caught:
        parse_rules(text, "x")
    lines = str(caught.value).splitlines()
    expected = said if "nested" in str(said) else ["x:1: unknown key 'treshold' (", *said]
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True))


def test_the_user_may_be_a_name(host, alerts_of):
    bash = host.fork(host.seen("login"))
    host.exec(bash, "bash", uid=os.getuid() if os.getuid() == 0 else 0)
    host.forks(bash, 10)
    assert who(alerts_of(BURST + ", match: {user: root}}", host.records)) == ["bash"]
