"""A file of rules that changes while they run."""

import logging
import os

import pytest
import re2

from linnix_core import PluginUnavailable
from linnix_plugin_rules import RulesConfig, RulesHandler
from linnix_plugin_rules.rulefile import RuleFileError

BURST = "- {name: burst, detector: fork_burst, threshold: %d, window_seconds: 60}\n"
SPIN = "- {name: spin, detector: subtree_cpu_pct, threshold: 90, duration: %d}\n"


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now

    def time_ns(self):
        return 0


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(BURST % 20 + SPIN % 5)
    return path


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def handler(linnix_context, clock, path):
    def make(**options):
        import attrs

        context = attrs.evolve(linnix_context("handlers.rules"), clock=clock)
        return RulesHandler(RulesConfig(path, **options), context)

    return make


def replace(path, text):
    """As editors and configuration management do: another file takes its place."""
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def names(alerts):
    return [(alert.rule, alert.severity) for alert in alerts]


def test_a_changed_file_is_read_again_within_a_second(handler, clock, path, host):
    judge = handler()
    replace(path, (BURST % 5).replace("name: burst", "name: sooner"))
    host.forks(host.seen("bash"), 5)
    assert judge.linnix_handle(host.records[:1]) == []
    clock.now += 1
    assert names(judge.linnix_handle(host.records[1:])) == [("sooner", "info")]


def test_a_flush_reads_it_again_as_well(handler, clock, path, host):
    judge = handler()
    path.write_text(BURST % 5)
    clock.now += 1
    judge.linnix_flush()
    host.forks(host.seen("bash"), 5)
    assert names(judge.linnix_handle(host.records)) == [("burst", "info")]


def test_with_reload_false_it_is_not(handler, clock, path, host):
    judge = handler(reload=False)
    replace(path, BURST % 5)
    clock.now += 9
    host.forks(host.seen("bash"), 5)
    assert judge.linnix_handle(host.records) == []


def test_rules_that_stay_lose_nothing_of_what_they_have_counted(handler, clock, path, host):
    judge = handler()
    bash = host.seen("bash")
    host.forks(bash, 12)
    assert judge.linnix_handle(host.records) == []
    host.records.clear()
    # Other rules, another order, and texts of its own: it still detects the same.
    replace(path, SPIN % 9 + (BURST % 20).replace("}", ", severity: high, cooldown: 5}"))
    clock.now += 1
    host.forks(bash, 8)
    assert names(judge.linnix_handle(host.records)) == [("burst", "high")]


@pytest.mark.parametrize(
    "rule",
    [
        (BURST % 20).replace("}", r", match: {args: 'bas\w'}}"),
        "- {name: burst, detector: exec_rate, regex: ., rate_per_min: 20, median_lifetime: 2}\n",
    ],
)
def test_a_regular_expression_is_the_same_when_it_is_read_again(handler, clock, path, host, rule):
    path.write_text(rule)
    judge = handler()
    bash = host.seen("bash")
    host.jobs(bash, 12)
    assert judge.linnix_handle(host.records) == []
    host.records.clear()
    re2.purge()
    replace(path, SPIN % 9 + rule)
    clock.now += 1
    host.jobs(bash, 8)
    assert names(judge.linnix_handle(host.records)) == [("burst", "info")]


def test_the_timer_of_a_rule_that_stays_runs_on(handler, clock, path, host):
    judge = handler()
    path.write_text(SPIN % 8)
    clock.now += 1
    judge.linnix_flush()
    loop = host.seen("loop")
    host.cpu({loop: 99}, interval=4)
    judge.linnix_handle(host.records)
    host.records.clear()
    path.write_text(BURST % 7 + SPIN % 8)
    clock.now += 1
    host.cpu({loop: 99}, interval=4)
    host.wait(1)
    host.seen("end")
    assert names(judge.linnix_handle(host.records)) == [("spin", "info")]


def test_a_silence_lasts_through_a_change(handler, clock, path, host):
    judge = handler()
    bash = host.seen("bash")
    host.forks(bash, 20)
    assert len(judge.linnix_handle(host.records)) == 1
    host.records.clear()
    replace(path, BURST % 10)
    clock.now += 1
    host.forks(bash, 30)
    assert judge.linnix_handle(host.records) == []


def test_a_broken_file_keeps_the_old_rules_and_says_so(handler, clock, path, host, caplog):
    judge = handler()
    replace(path, "- name: a\n  detector: fork_bust\n")
    clock.now += 1
    host.forks(host.seen("bash"), 20)
    with caplog.at_level(logging.WARNING):
        assert names(judge.linnix_handle(host.records)) == [("burst", "info")]
    health = judge.linnix_health()
    assert health.status == "degraded"
    assert f"{path}:2: detector: expected one of" in health.reason
    assert "rules as they were go on" in caplog.text
    replace(path, BURST % 5)
    clock.now += 1
    judge.linnix_flush()
    assert judge.linnix_health().status == "ok"


def test_a_file_that_is_gone_keeps_the_old_rules_and_says_so(handler, clock, path, host):
    judge = handler()
    path.unlink()
    clock.now += 1
    host.forks(host.seen("bash"), 20)
    assert len(judge.linnix_handle(host.records)) == 1
    assert "there is no such file" in judge.linnix_health().reason


def test_a_file_that_the_run_may_not_read_any_more_says_so(handler, clock, path, monkeypatch):
    # What open(2) and access(2) answer once root has become another account.
    judge = handler()
    monkeypatch.setattr(os, "access", lambda *_: False)

    def closed(self, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", closed)
    clock.now += 1
    judge.linnix_flush()
    health = judge.linnix_health()
    assert health.status == "degraded"
    assert "cannot be read: Permission denied" in health.reason


def test_a_file_that_is_broken_at_the_start_makes_it_unavailable(handler, path):
    path.write_text("- name: a\n")
    with pytest.raises(PluginUnavailable, match="needs the key 'detector'"):
        handler()


# --- on demand ------------------------------------------------------------------------


@pytest.mark.parametrize("reload", [True, False], ids=["watched", "not watched"])
def test_on_demand_it_is_read_at_once_and_loses_no_count(handler, path, host, reload):
    judge = handler(reload=reload)
    bash = host.seen("bash")
    host.forks(bash, 12)
    assert judge.linnix_handle(host.records) == []
    host.records.clear()
    replace(path, SPIN % 9 + (BURST % 20).replace("}", ", severity: high}"))
    judge.linnix_reload()
    host.forks(bash, 8)
    assert names(judge.linnix_handle(host.records)) == [("burst", "high")]


def test_on_demand_a_broken_file_is_refused_and_the_old_rules_go_on(handler, path, host):
    judge = handler()
    replace(path, "- name: a\n  detector: fork_bust\n")
    with pytest.raises(RuleFileError, match="2: detector: expected one of"):
        judge.linnix_reload()
    health = judge.linnix_health()
    assert health.status == "degraded"
    assert "the rules as they were go on" in health.reason
    host.forks(host.seen("bash"), 20)
    assert names(judge.linnix_handle(host.records)) == [("burst", "info")]
    replace(path, BURST % 5)
    judge.linnix_reload()
    assert judge.linnix_health().status == "ok"


def test_on_demand_a_file_that_becomes_broken_before_it_is_used_is_still_read(handler, path, host):
    judge = handler()
    replace(path, BURST % 5)
    judge.linnix_reload()
    path.unlink()
    host.forks(host.seen("bash"), 5)
    assert names(judge.linnix_handle(host.records)) == [("burst", "info")]


def test_the_shipped_rules_are_not_read_again(linnix_context, host):
    judge = RulesHandler(RulesConfig(), linnix_context("handlers.rules"))
    judge.linnix_reload()
    host.forks(host.seen("bash"), 300)
    assert len(judge.linnix_handle(host.records)) == 1


@pytest.mark.parametrize("counts", ["bare", "living"])
def test_forks_that_are_noted_and_not_counted_yet_are_not_lost(handler, path, host, counts):
    rule = (BURST % 20).replace("}", f", counts: {counts}}}")
    path.write_text(rule)
    judge = handler()
    bash = host.seen("bash")
    for _ in range(12):
        host.fork(bash)
    assert judge.linnix_handle(host.records) == []
    host.records.clear()
    replace(path, rule + SPIN % 9)
    judge.linnix_reload()
    for _ in range(8):
        host.fork(bash)
    assert names(judge.linnix_handle(host.records)) == [("burst", "info")]
