"""The handler in a run: its configuration, its health, and its alerts on their way."""

import pytest

from linnix_core import PluginUnavailable, hookimpl
from linnix_plugin_rules import RulesConfig, RulesHandler

RULES = """
- {name: storm, detector: fork_burst, threshold: 20, window_seconds: 5}
"""


@pytest.fixture
def handler(linnix_context):
    def make(path=None):
        return RulesHandler(RulesConfig(path), linnix_context("handlers.rules"))

    return make


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def test_path_names_the_file_of_rules(handler, rules, host):
    host.forks(host.seen("bash"), 20)
    (alert,) = handler(rules).linnix_handle(host.records)
    assert alert.rule == "storm"


def test_how_many_rules_apply_is_a_metric(handler, rules):
    (metric,) = handler(rules).linnix_metrics()
    assert (metric.name, metric.value, metric.unit) == ("rules_active", 1, "{rule}")


def test_without_a_path_the_shipped_rules_apply(handler, host):
    host.forks(host.seen("bash"), 300)
    (alert,) = handler().linnix_handle(host.records)
    assert alert.rule == "fork_storm"


def test_a_path_may_begin_in_the_home_folder(handler, rules, monkeypatch, host):
    monkeypatch.setenv("HOME", str(rules.parent))
    host.forks(host.seen("bash"), 20)
    assert len(handler(type(rules)("~/rules.yaml")).linnix_handle(host.records)) == 1


def test_a_home_folder_that_does_not_exist_is_no_file(handler, rules):
    with pytest.raises(PluginUnavailable, match="there is no such file"):
        handler(type(rules)("~no-such-user/rules.yaml"))


def test_a_missing_file_makes_it_unavailable(handler, tmp_path):
    with pytest.raises(PluginUnavailable) as caught:
        handler(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: there is no such file"
    assert "shipped rules" in caught.value.hint


def test_all_mistakes_are_in_the_reason(handler, rules):
    rules.write_text("- name: a\n  detector: fork_burst\n  threshold: x\n  window: 5\n")
    with pytest.raises(PluginUnavailable) as caught:
        handler(rules)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        f"{rules}:{line}" for line in (1, 3, 4)
    ]


def test_a_file_without_rules_says_so(handler, rules, caplog):
    rules.write_text("")
    assert handler(rules).linnix_health().limits == ("no rule is loaded",)
    assert "no rule is loaded" in caplog.text


def test_health_tells_when_processes_had_to_be_forgotten(handler, rules, host):
    judge = handler(rules)
    judge._engine.tree._limit = 10
    host.forks(host.seen("bash"), 1)
    for n in range(20):
        host.seen(f"p{n}")
    judge.linnix_handle(host.records)
    assert any("had to be forgotten" in limit for limit in judge.linnix_health().limits)


def test_alerts_reach_the_other_handlers_of_a_run(linnix_runtime, rules, host):
    heard = []

    class Listener:
        """Keeps what it hears."""

        @hookimpl
        def linnix_alert(self, alert):
            heard.append(alert)

    bash = host.seen("bash")
    host.forks(bash, 20, every=0.001)
    agent = linnix_runtime(
        handlers={"rules": RulesHandler, "listener": Listener},
        options={"handlers.rules": {"path": rules}},
        records=host.records,
    )
    assert agent.wait_idle(10)
    (alert,) = heard
    assert alert.rule == "storm"
    assert alert.subject.key == bash.key
    assert alert.host == "testhost"
    assert alert.seq
