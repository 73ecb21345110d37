"""``linnix rules``: check, list, and tests, inside the file and on a recording."""

import gzip
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linnix_core import LinnixError, encode
from linnix_plugin_rules.commands import command
from linnix_plugin_rules.rulefile import RuleFileError, parse_rules
from linnix_plugin_rules.trials import parse_trials, run_trial

RULES = """\
rules:
- {name: burst, severity: high, detector: fork_burst, threshold: 20, window_seconds: 5}
- {name: fds, detector: fd_count, threshold: 50, match: {exe: leaky}}
"""
PASSES = """\
tests:
- name: a burst
  given:
  - {fork: bash, times: 20, every: 0.1}
  expect:
  - {rule: burst, process: bash, severity: high, message: fork burst}
"""
FAILS = """\
- name: wrong
  given:
  - {fork: bash, times: 20, every: 0.1}
  - {sample: {leaky: {fds: 60}}}
  expect:
  - {rule: burst, process: zsh}
"""


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


@pytest.fixture
def recording(tmp_path, host):
    bash = host.seen("bash")
    host.forks(bash, 20, every=0.1)
    path = tmp_path / "recording.jsonl"
    path.write_bytes(b"".join(encode(record) + b"\n" for record in host.records) + b"no record\n")
    return path


def run(*arguments, code=0):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if isinstance(result.exception, LinnixError):
        assert result.exception.exit_code == code
        return str(result.exception)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def run_json(*arguments, code=0):
    return json.loads(run(*arguments, "--json", code=code))


# --- check and list -------------------------------------------------------------------


def test_check_counts_what_is_right(rules):
    assert run("check", rules) == f"{rules}: 2 rules and 0 tests, no mistake\n"
    assert run_json("check", rules) == {"file": str(rules), "rules": 2, "tests": 0, "mistakes": []}


def test_check_tells_every_mistake_with_its_line(rules):
    rules.write_text("- name: a\n  detector: fork_burst\n  threshold: x\n  window: 5\n")
    assert [line.split(":")[1] for line in run("check", rules, code=2).splitlines()] == list("134")
    document = run_json("check", rules, code=2)
    assert [mistake["line"] for mistake in document["mistakes"]] == [1, 3, 4]


def test_without_a_file_the_shipped_rules_are_meant():
    assert run("check").startswith("default_rules.yaml: ")
    assert "fork_storm" in run("list")
    assert " 0 failed" in run("test")


def test_list_tells_what_a_rule_detects(rules):
    first, second = run_json("list", rules)
    assert (first["name"], first["severity"], first["class"]) == ("burst", "high", "fork_storm")
    assert first["keys"] == {
        "bare_pct": 0, "counts": "all", "threshold": 20, "window_seconds": 5
    }  # fmt: skip
    assert (second["detector"], second["class"], second["filtered"]) == ("fd_count", None, True)
    assert run("list", rules).splitlines()[1].split()[:3] == ["burst", "high", "fork_storm"]


# --- tests in the file ----------------------------------------------------------------


def test_tests_pass_or_fail(rules):
    rules.write_text(RULES + PASSES)
    assert run("test", rules) == f"passed  a burst\n{rules}: 1 passed, 0 failed\n"
    rules.write_text(RULES + PASSES + FAILS)
    said = run("test", rules, code=1)
    assert "failed  wrong\n" in said
    assert "expected burst, process zsh, which came 0 times of 1" in said
    assert "not expected: burst: fork burst" in said
    assert "not expected: fds: descriptors: 60" in said
    document = run_json("test", rules, code=1)
    assert [each["passed"] for each in document["outcomes"]] == [True, False]


def test_mistakes_in_tests_are_those_of_the_file(rules):
    rules.write_text(
        RULES + "tests:\n- name: a\n  given:\n  - {frok: bash}\n  - {fork: bash, time: 3}\n"
        "  - wait\n  - {pressure: {ram: 5}}\n  expect:\n  - {rule: burts}\n  colour: red\n"
    )
    lines = run("check", rules, code=2).splitlines()
    assert [line.split(":", 1)[1].split(" (")[0][:40] for line in lines] == [
        "7: a step begins with one of process, fo",
        "8: unknown key 'time'",
        "9: expected a step, got 'wait'",
        "10: pressure: expected cpu, memory or io",
        "12: there is no rule 'burts'",
        "13: unknown key 'colour'",
    ]


STEPS = """\
rules:
- {name: forks, detector: forks_per_sec, threshold: 10, duration: 1}
- {name: jobs, detector: short_job_flood, threshold: 3, window_seconds: 9}
- {name: crash, detector: crash_loop, threshold: 3, window_seconds: 99, match: {user: 7}}
- {name: oom, detector: oom_kill, match: {cgroup: /app}}
- {name: rss, detector: subtree_rss_mb, threshold: 100, duration: 2}
- {name: io, detector: io_rate, threshold: 10, duration: 2}
- {name: threads, detector: thread_count, threshold: 5}
- {name: zombies, detector: zombie_count, threshold: 0.0}
- {name: psi, detector: cgroup_psi_cpu, threshold_pct: 10, duration: 2}
- {name: leak, detector: rss_growth, threshold: 60, window_seconds: 10, within_seconds: 99}
tests:
"""


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        ("[{fork: sh, times: 10}]", "[{rule: forks, process: sh}]"),
        (
            "[{fork: sh, exec: ls, args: [ls, -l], lives: 0.1, times: 3, every: 1}]",
            "[{rule: jobs}]",
        ),
        ("[{fork: sh, as: a}, {exec: a, exe: /bin/x}, {exit: a}]", "[]"),
        (
            "[{process: d, user: 7}, {fork: d, lives: 0, exit_code: 2, times: 3, every: 1}]",
            "[{rule: crash}]",
        ),
        ("[{process: d, user: 7}, {fork: d, lives: 0, signal: 15, times: 3, every: 1}]", "[]"),
        ("[{process: v, cgroup: /app}, {oom: v}]", "[{rule: oom, process: v}]"),
        ("[{process: v, cgroup: /else}, {oom: v}]", "[]"),
        (
            "[{cgroup: /app, oom_kills: 0}, {wait: 5}, {cgroup: /app, oom_kills: 1}]",
            "[{rule: oom}]",
        ),
        ("[{sample: {a: {rss_mb: 200}}, times: 3}]", "[{rule: rss, process: a}]"),
        ("[{sample: {a: {io_mb: 20}}, times: 3}]", "[{rule: io, process: a}]"),
        ("[{sample: {a: {threads: 9}}}]", "[{rule: threads, process: a}]"),
        ("[{pressure: {cpu: 50}, cgroup: /a, times: 3}]", "[{rule: psi}]"),
        ("[{pressure: {cpu: 50}, cgroup: /a, times: 3, every: 0.1}]", "[]"),
        (
            "[{cgroup: /a, memory_limit_mb: 90}, {process: l, cgroup: /a}, LEAKS]".replace(
                "LEAKS", "{sample: {l: {rss_growth_mb: 2}}, times: 12}"
            ),
            "[{rule: leak, process: l}]",
        ),
    ],
)
def test_every_step_does_what_it_says(given, expect):
    text = STEPS.replace("threshold: 0.0", "threshold: 1")
    text += f"- {{name: t, given: {given}, expect: {expect}}}\n"
    file = parse_rules(text, "x")
    (trial,) = parse_trials(file.tests, [rule.name for rule in file.rules], [])
    assert run_trial(trial, file.rules).problems == ()


# --- recordings -----------------------------------------------------------------------


def test_replay_tells_what_would_have_fired(rules, recording):
    said = run("test", rules, "--replay", recording).splitlines()
    assert said[0].endswith("41 records, 1 lines that hold none")
    assert "2026-01-01 00:00:01Z  high      burst: fork burst: 20 forks in 5 s by bash" in said[1]
    assert said[2] == f"{rules}: 1 alerts"
    document = run_json("test", rules, "--replay", recording)
    assert (document["records"], document["unreadable"]) == (41, 1)
    (alert,) = document["files"][0]["alerts"]
    assert (alert["rule"], alert["comm"], alert["evidence"][0]["value"]) == ("burst", "bash", 20)


def test_replay_compares_two_files(rules, recording, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(RULES.replace("burst, severity", "sooner, severity").replace("20", "10"))
    said = run("test", rules, "--replay", recording, "--rules", other).splitlines()
    assert [(line[0], line.split()[4].rstrip(":")) for line in said[1:3]] == [
        ("+", "sooner"),
        ("-", "burst"),
    ]
    document = run_json("test", rules, "--replay", recording, "--rules", other)
    assert [[alert["rule"] for alert in only] for only in document["only"]] == [
        ["burst"],
        ["sooner"],
    ]
    same = run("test", rules, "--replay", recording, "--rules", rules).splitlines()
    assert same[1].startswith("  2026")
    assert len(same) == 4


def test_a_recording_is_what_was_rotated_from_it_as_well(rules, recording):
    lines = recording.read_bytes().splitlines(keepends=True)
    parts = {
        "recording.jsonl.20261121T000000.000000Z.gz": gzip.compress(b"".join(lines[:10])),
        "recording.jsonl.20261121T000000.000001Z": b"".join(lines[10:30]),
        # Being compressed just now:
        "recording.jsonl.20261121T000000.000001Z.gz": gzip.compress(b"".join(lines[10:12])),
        "recording.jsonl": b"".join(lines[30:]),
        # Something else:
        "recording.jsonl.bak": lines[0],
        "recording.jsonl.20261121T000000.000000Z.old": lines[0],
    }
    for name, content in parts.items():
        recording.with_name(name).write_bytes(content)
    said = run("test", rules, "--replay", recording).splitlines()
    assert said[0].endswith("41 records, 1 lines that hold none")
    assert said[2] == f"{rules}: 1 alerts"


def test_a_recording_may_come_from_standard_input(rules, recording):
    command = [sys.executable, "-m", "linnix_core", "rules", "test", rules, "--replay", "-"]
    for content in (recording.read_bytes(), gzip.compress(recording.read_bytes())):
        done = subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True)
        first, *_, last = done.stdout.decode().splitlines()
        assert first == "-: 41 records, 1 lines that hold none"
        assert last == f"{rules}: 1 alerts"


def test_of_a_damaged_recording_counts_what_can_be_read(rules, recording):
    packed = gzip.compress(recording.read_bytes())
    for damaged in (packed[:-20], packed[:-8] + bytes(8)):
        recording.write_bytes(damaged)
        document = run_json("test", rules, "--replay", recording)
        assert document["unreadable"] >= 1


def test_a_recording_that_is_none_says_so(rules, tmp_path):
    assert "cannot be read" in run("test", rules, "--replay", tmp_path / "none", code=2)
    (tmp_path / "text").write_text("hello\n")
    assert "not one of 1 lines is a record" in run(
        "test", rules, "--replay", tmp_path / "text", code=2
    )


def test_rules_are_compared_on_a_recording_only(rules):
    assert "name one with --replay" in run("test", rules, "--rules", rules, code=2)


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9**9) | st.text("abforkexec: ", max_size=9),
    lambda each: st.lists(each, max_size=3)
    | st.dictionaries(
        st.sampled_from(["fork", "sample", "expect", "given", "name", "rule", "times", "pressure"]),
        each, max_size=4,
    ),
    max_leaves=12,
))  # fmt: skip
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_stands_under_tests_is_a_test_or_a_mistake(tests):
    text = RULES + "tests: " + json.dumps(tests)
    try:
        mistakes = parse_rules(text, "x") and None
    except RuleFileError as error:
        mistakes = error.mistakes
    assert mistakes != ()
