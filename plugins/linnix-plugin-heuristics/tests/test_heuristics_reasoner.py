"""What heuristics answers: the alerts' own class, their subject and their evidence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import (
    CLASSES,
    AllowedAction,
    Fact,
    Incident,
    ProcessKey,
    ReasonRequest,
    RequestProcess,
    Subject,
)
from linnix_plugin_heuristics import HeuristicsReasoner, confidence

OFFENDER = ProcessKey("boot", 4412, 10_000_000)
BYSTANDER = ProcessKey("boot", 1, 0)


@pytest.fixture
def reasoner(linnix_context):
    return HeuristicsReasoner(None, linnix_context("reasoners.heuristics"))


def request(**changes):
    of_incident = {
        "class_": "fork_storm",
        "subject": Subject(key=OFFENDER, exe="/usr/bin/bash", comm="bash"),
        "rules": ("fork_storm",),
    }
    of_incident.update({k: changes.pop(k) for k in list(changes) if k in of_incident})
    incident = Incident(
        fingerprint="f",
        severity="high",
        summary="fork burst: 400 forks in 5 s by bash (pid 4412)",
        **of_incident,
    )
    parts = {
        "facts": tuple(
            Fact(name, value, unit, "P2", f"f{n}")
            for n, (name, value, unit) in enumerate(
                [
                    ("forks", 400, "forks"),
                    ("threshold", 100, "forks"),
                    ("window", 5, "s"),
                    ("share", 97, "%"),
                    ("alerts", 1, "alerts"),
                ],
                1,
            )
        ),
        "processes": (
            RequestProcess("P1", BYSTANDER, "init"),
            RequestProcess("P2", OFFENDER, "bash"),
        ),
        "actions": tuple(AllowedAction(f"a{n}", f"action {n}") for n in range(1, 6)),
    }
    return ReasonRequest(incident=incident, **{**parts, **changes})


@pytest.mark.parametrize("class_", CLASSES)
def test_the_class_is_that_of_the_alerts(reasoner, class_):
    assert reasoner.linnix_reason(request(class_=class_)).class_ == class_


def test_the_process_is_the_one_that_the_alerts_name_wherever_it_is_listed(reasoner):
    assert reasoner.linnix_reason(request()).process == "P2"


def test_without_a_subject_it_names_nobody(reasoner):
    assert reasoner.linnix_reason(request(subject=Subject())).process is None


def test_it_cites_the_first_facts_and_proposes_the_first_actions(reasoner):
    answer = reasoner.linnix_reason(request())
    assert answer.facts == ("f1", "f2", "f3", "f4")
    assert answer.actions == ("a1", "a2", "a3")


def test_it_declines_what_has_no_class_or_no_facts(reasoner):
    assert reasoner.linnix_reason(request(class_=None)) is None
    assert reasoner.linnix_reason(request(facts=())) is None


def test_the_same_request_always_gets_the_same_answer(reasoner):
    assert reasoner.linnix_reason(request()) == reasoner.linnix_reason(request())


def test_confidence_grows_with_each_doubling_and_each_rule_up_to_a_bound():
    def of(value, rules=1):
        facts = [Fact("forks", value, "forks"), Fact("threshold", 100, "forks")]
        return confidence(facts, rules=rules)

    assert [of(100), of(200), of(400), of(100_000)] == [60, 70, 80, 80]
    assert [of(100, rules=n) for n in (2, 3, 4, 9)] == [65, 70, 75, 75]


def test_a_second_fact_of_another_unit_is_no_limit():
    facts = [Fact("forks", 400, "forks"), Fact("window", 5, "s")]
    assert confidence(facts, rules=1) == 60


@given(
    value=st.floats(min_value=0, max_value=1e12),
    limit=st.floats(min_value=0, max_value=1e12),
    rules=st.integers(min_value=1, max_value=64),
)
@settings(deadline=None)
def test_confidence_is_a_whole_number_between_60_and_95(value, limit, rules):
    points = confidence([Fact("a", value, "u"), Fact("b", limit, "u")], rules=rules)
    assert isinstance(points, int)
    assert 60 <= points <= 95
