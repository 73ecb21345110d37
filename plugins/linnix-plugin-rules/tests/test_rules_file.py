"""The file of rules: what can stand in it, and what is said about what cannot."""

import os
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import CLASSES, SEVERITIES
from linnix_plugin_rules.counting import ForkBurst, ForksPerSec, RunawayTree, ShortJobFlood
from linnix_plugin_rules.detectors import DETECTORS
from linnix_plugin_rules.engine import Rule
from linnix_plugin_rules.rounds import SubtreeCpu, SubtreeRss
from linnix_plugin_rules.rulefile import MAX_BYTES, RuleFileError, parse_rules, read_rules
from linnix_plugin_rules.trials import parse_trials, run_trial

FIRST_RELEASE = """\
- name: fork_storm
  severity: high
  detector: fork_burst
  window_seconds: 5
  threshold: 100
  cooldown: 60
- name: short_job_flood
  severity: medium
  detector: short_job_flood
  window_seconds: 10
  threshold: 50
  max_exec_duration_ms: 1000
  cooldown: 120
- name: runaway_tree
  severity: high
  detector: runaway_tree
  window_seconds: 10
  threshold: 30
  cooldown: 120
"""

DEMONSTRATION = """\
- name: fork_storm_demo
  detector: forks_per_sec
  threshold: 10
  duration: 2
  severity: high
  cooldown: 30
- name: fork_burst_demo
  detector: fork_burst
  threshold: 30
  window_seconds: 5
  severity: medium
  cooldown: 30
- name: memory_leak_demo
  detector: subtree_rss_mb
  threshold: 50
  duration: 2
  severity: high
  cooldown: 30
- name: cpu_spike_demo
  detector: subtree_cpu_pct
  threshold: 50
  duration: 5
  severity: medium
  cooldown: 30
"""

BURST = "detector: fork_burst, threshold: 5, window_seconds: 1"


def mistakes(text, **options):
    with pytest.raises(RuleFileError) as caught:
        parse_rules(text, "rules.yaml", **options)
    return str(caught.value).splitlines()


def rules(text, **options):
    return list(parse_rules(text, "rules.yaml", **options).rules)


# --- files of the original ------------------------------------------------------------


def test_the_rules_of_the_first_release_load_unchanged():
    file = parse_rules(FIRST_RELEASE, "rules.yaml")
    assert list(file.rules) == [
        Rule("fork_storm", ForkBurst(threshold=100, window_seconds=5), "high", 60, "fork_storm"),
        Rule(
            "short_job_flood",
            ShortJobFlood(threshold=50, window_seconds=10, max_exec_duration_ms=1000),
            "medium",
            120,
            "short_job_flood",
        ),
        Rule(
            "runaway_tree",
            RunawayTree(threshold=30, window_seconds=10),
            "high",
            120,
            "runaway_tree",
        ),
    ]


def test_the_rules_of_the_demonstration_load_unchanged():
    file = parse_rules(DEMONSTRATION, "rules.yaml")
    assert [attrs.astuple(rule, recurse=False)[:5] for rule in file.rules] == [
        ("fork_storm_demo", ForksPerSec(threshold=10, duration=2), "high", 30, "fork_storm"),
        ("fork_burst_demo", ForkBurst(threshold=30, window_seconds=5), "medium", 30, "fork_storm"),
        ("memory_leak_demo", SubtreeRss(threshold=50, duration=2), "high", 30, "oom_risk"),
        ("cpu_spike_demo", SubtreeCpu(threshold=50, duration=5), "medium", 30, "cpu_spin"),
    ]


@pytest.mark.parametrize(
    ("word", "keys"),
    [
        ("forks_per_sec", "threshold: 3, duration: 1"),
        ("fork_burst", "threshold: 60, window_seconds: 5"),
        ("runaway_tree", "threshold: 25, window_seconds: 15"),
        ("short_job_flood", "threshold: 40, window_seconds: 30, max_exec_duration_ms: 1500"),
        ("short_job_flood", "threshold: 40, window_seconds: 30"),
        ("exec_rate", "regex: '.+', rate_per_min: 5, median_lifetime: 2"),
        ("subtree_cpu_pct", "threshold: 50.0, duration: 1"),
        ("subtree_rss_mb", "threshold: 50, duration: 2"),
        ("zombie_count", "threshold: 5, duration: 10"),
        ("system_psi_cpu", "threshold_pct: 40.0, duration: 15"),
        ("system_psi_memory", "threshold_pct: 10, duration: 15"),
        ("system_psi_io", "threshold_pct: 20, duration: 15"),
    ],
)
def test_every_detector_of_the_original_loads_with_its_keys(word, keys):
    (rule,) = rules(f"[{{name: a, severity: low, cooldown: 5, detector: {word}, {keys}}}]")
    assert isinstance(rule.detector, DETECTORS[word])


# --- forms ----------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["1000", "1_000", "1e3", "1.0e+3", "1E3", "1000.", "0x3e8"])
def test_numbers_are_written_as_in_yaml_1_2(written):
    (rule,) = rules(f"- {{name: a, cooldown: {written}, {BURST}}}")
    assert rule.cooldown_s == 1000


def test_the_list_may_stand_under_the_key_rules():
    assert rules(f"rules:\n- {{name: a, {BURST}}}") == rules(f"- {{name: a, {BURST}}}")


def test_toml_holds_the_same_rules():
    toml = '[[rules]]\nname = "a"\ndetector = "fork_burst"\nthreshold = 5\nwindow_seconds = 1\n'
    assert rules(toml, toml_first=True) == rules(f"- {{name: a, {BURST}}}")


def test_the_other_syntax_is_tried_when_the_ending_misleads(tmp_path):
    yaml = f"- {{name: a, {BURST}}}"
    (tmp_path / "rules.toml").write_text(yaml)
    toml = '[[rules]]\nname = "a"\ndetector = "fork_burst"\nthreshold = 5\nwindow_seconds = 1\n'
    (tmp_path / "rules.yaml").write_text(toml)
    assert read_rules(tmp_path / "rules.toml").rules == read_rules(tmp_path / "rules.yaml").rules


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "rules:", "rules: []", "{}"])
def test_a_file_may_hold_no_rules(text):
    assert rules(text) == []


def test_severity_cooldown_and_class_have_defaults():
    (rule,) = rules(f"- {{name: a, {BURST}}}")
    assert (rule.severity, rule.cooldown_s, rule.class_) == ("info", 60, "fork_storm")


@pytest.mark.parametrize("severity", SEVERITIES)
def test_every_severity_is_known(severity):
    (rule,) = rules(f"- {{name: a, severity: {severity}, {BURST}}}")
    assert rule.severity == severity


@pytest.mark.parametrize("class_", CLASSES)
def test_a_rule_may_name_the_class_of_its_alerts(class_):
    (rule,) = rules(f"- {{name: a, class: {class_}, {BURST}}}")
    assert rule.class_ == class_


def test_the_classes_of_the_detectors_are_those_of_the_readme():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \|.*\| (`[a-z_]+`|null) \|$", readme, re.MULTILINE)
    documented = {word: None if class_ == "null" else class_[1:-1] for word, class_ in rows}
    assert documented == {word: cls.class_ for word, cls in DETECTORS.items()}


def test_the_readme_names_every_key_of_every_detector():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for word, cls in DETECTORS.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{word}` |"))
        for field in attrs.fields(cls):
            if "parse" in field.metadata:
                assert f"`{field.name}`" in row, (word, field.name)


def test_the_shipped_rules_pass_their_own_tests():
    file = read_rules()
    trials = parse_trials(file.tests, [rule.name for rule in file.rules], [])
    outcomes = [run_trial(trial, read_rules().rules) for trial in trials]
    assert len(outcomes) >= 9
    assert [(each.trial.name, each.problems) for each in outcomes if each.problems] == []


def test_the_shipped_rules_need_no_regular_expressions():
    source = (
        "import sys; from linnix_plugin_rules.rulefile import read_rules; read_rules(); "
        "print('re2' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == "False\n"


# --- mistakes -------------------------------------------------------------------------


def test_all_mistakes_are_listed_with_their_lines():
    text = """\
rules:
  - name: first
    severity: warning
    detector: fork_burst
    treshold: 100
    window_seconds: 0
  - detector: fork_bust
    threshold: 3
    colour: red
  - name: first
    detector: subtree_cpu_pct
    threshold: -1
    duration: yes
    cooldown: often
    class: cpu
  - just a text
"""
    said = """\
rules.yaml:2: fork_burst needs the key 'threshold'
rules.yaml:3: severity: expected one of info, low, medium, high, critical, got 'warning'
rules.yaml:5: unknown key 'treshold' (did you mean 'threshold'?)
rules.yaml:6: window_seconds: expected seconds from 0.001 to 86400, got 0
rules.yaml:7: a rule needs the key 'name'
rules.yaml:7: detector: expected one of {detectors} (did you mean 'fork_burst'?), got 'fork_bust'
rules.yaml:9: unknown key 'colour' ({keys})
rules.yaml:10: the rule in line 2 is called 'first' as well
rules.yaml:12: threshold: expected a number above 0, got -1
rules.yaml:13: duration: expected seconds from 0.001 to 86400, got True
rules.yaml:14: cooldown: expected seconds, 0 or more, got 'often'
rules.yaml:15: class: expected one of fork_storm, short_job_flood, runaway_tree, cpu_spin, \
io_saturation, oom_risk, normal, got 'cpu'
rules.yaml:16: expected a rule, got 'just a text'
"""
    found = "\n".join(mistakes(text))
    found = found.replace(", ".join(DETECTORS), "{detectors}")
    found = re.sub(r"there are name, detector, severity.*threshold.*[)]", "{keys})", found)
    assert found.splitlines() == said.splitlines()


def test_mistakes_in_toml_have_lines_too():
    text = """\
title = "mine"

[[rules]]
name = "a"
detector = "fork_burst"
threshold = 1.5
window_seconds = 5

[[rules]]
name = "b"
detector = "runaway_tree"
threshold = 3

[rules.match]
exec = "x"
"""
    said = """\
rules.yaml:1: only 'rules' and 'tests' can stand here, got 'title'
rules.yaml:6: threshold: expected a whole number of at least 1, got 1.5
rules.yaml:9: runaway_tree needs the key 'window_seconds'
rules.yaml:15: unknown key 'exec' (did you mean 'exe'?)
"""
    assert mistakes(text, toml_first=True) == said.splitlines()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- [a, b]", "1: expected a rule, got a list"),
        ("- name: a\n  name: b\n  " + BURST.replace(", ", "\n  "), "2: the key 'name' is there"),
        ("- {1: 2, name: a, " + BURST + "}", "1: expected a key, got 1"),
        ("- {name: '', " + BURST + "}", "1: name: expected a text of one line, got ''"),
        ('- {name: "a\\nb", ' + BURST + "}", r"1: name: expected a text of one line, got 'a\x0ab'"),
        ("- {name: a, severity: , " + BURST + "}", "got nothing"),
        (
            '- {name: a, labels: {"\\e[2J": b}, ' + BURST + "}",
            r"1: expected labels of one line, got",
        ),
        ("- {name: a, severity: {b: c}, " + BURST + "}", "got a mapping"),
        (
            "- {name: a, severity: High, " + BURST + "}",
            "critical (did you mean 'high'?), got 'High'",
        ),
        (r'- {name: a, match: {args: "\ud800"}, ' + BURST + "}", "(not valid Unicode)"),
        ("- {name: a, cooldown: -1, " + BURST + "}", "cooldown: expected seconds, 0 or more"),
        ("- {name: a, cooldown: .nan, " + BURST + "}", "cooldown: expected seconds, 0 or more"),
        ("- {name: a, cooldown: 010, " + BURST + "}", "expected seconds, 0 or more, got '010'"),
        ("- {name: a, cooldown: 1:30, " + BURST + "}", "expected seconds, 0 or more, got '1:30'"),
        ("- {name: a, cooldown: !!python/name:os.system , " + BURST + "}", "cannot be read"),
        ("- {name: a, cooldown: " + "9" * 5000 + ", " + BURST + "}", "cannot be read"),
        ("other: 1", "1: only 'rules' and 'tests' can stand here, got 'other'"),
        ("rules: 7", "1: rules: expected a list, got 7"),
        ("text", "1: expected a list of rules"),
        ("a: b\n\tc: d", "2: not YAML"),
        ("- a\n- b: [", "2: not YAML"),
        ("a\0b", "1: not YAML"),
        ("--- 1\n--- 2", "2: not YAML"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_each_mistake_is_a_sentence(text, said):
    assert said in "\n".join(mistakes(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rules]]\nname = ", "2: not TOML"),
        ("rules = 3", "1: rules: expected a list, got 3"),
        ("rules = [3]", "1: expected a rule, got 3"),
        ("a = " + "9" * 5000, "not TOML"),
        ("a = " + "[" * 5000, "nested too deeply"),
    ],
)
def test_each_mistake_in_toml_is_a_sentence(text, said):
    assert said in "\n".join(mistakes(text, toml_first=True))


@pytest.mark.parametrize(
    ("detector", "values"),
    [
        ("forks_per_sec", {"threshold": 1, "duration": 1}),
        ("fork_burst", {"threshold": 1, "window_seconds": 1}),
        ("runaway_tree", {"threshold": 1, "window_seconds": 1}),
        ("subtree_cpu_pct", {"threshold": 0.5, "duration": 0.5}),
        ("subtree_rss_mb", {"threshold": 0.5, "duration": 0.5}),
    ],
)
@pytest.mark.parametrize("wrong", ["0", "-1", "many", "true", ".inf", ".nan", "null", "[1]"])
def test_every_key_of_every_detector_is_needed_and_checked(detector, values, wrong):
    def rule(values):
        keys = "".join(f"\n  {key}: {value}" for key, value in values.items())
        return f"- name: a\n  detector: {detector}{keys}"

    assert len(rules(rule(values))) == 1
    for line, key in enumerate(values, 3):
        (said,) = mistakes(rule({**values, key: wrong}))
        assert said.startswith(f"rules.yaml:{line}: {key}: expected ")
        others = {other: value for other, value in values.items() if other != key}
        assert mistakes(rule(others)) == [f"rules.yaml:1: {detector} needs the key {key!r}"]


@given(st.text() | st.text(alphabet="-:{}[]&*!|>'\"%@`# \nrulesname=").map(lambda t: "- " + t))
def test_any_text_is_rules_or_a_list_of_mistakes(text):
    for toml_first in (False, True):
        lines = range(text.count("\n") + 3)
        try:
            parse_rules(text, "x", toml_first=toml_first)
        except RuleFileError as error:
            found = error.mistakes
        else:
            continue
        assert found
        assert all(mistake.line in lines for mistake in found)


# --- files ----------------------------------------------------------------------------


def said_of(path):
    with pytest.raises(RuleFileError) as caught:
        read_rules(path)
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    assert said_of(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: there is no such file"


def test_a_folder_and_a_pipe_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    assert said_of(tmp_path) == f"{tmp_path}: not a file"
    assert said_of(tmp_path / "pipe.yaml") == f"{tmp_path}/pipe.yaml: not a file"


def test_a_file_that_is_no_text_is_refused_with_the_line(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_bytes(b"- name: a\n  detector: \xff\n")
    assert said_of(path) == f"{path}:2: not UTF-8 text"


def test_a_huge_file_is_refused(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("#" * (MAX_BYTES + 1))
    assert said_of(path) == f"{path}: larger than {MAX_BYTES} bytes"


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    assert said_of(loop).startswith(f"{loop}: ")
