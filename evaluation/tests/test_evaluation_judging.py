"""An alert is about the case that it names, and right if that is an incident of its class."""

import pytest

from evaluation.cases import CLASSES, FAMILIES, Case, families
from evaluation.judging import judge, seconds_of
from evaluation.report import printed, score, time_watched
from linnix_core import Alert, ProcessKey, Subject

S = 10**9


def case(name="storm", kind="fork_storm", began=100, ended=110, **more):
    facts = {
        "name": name, "family": name, "kind": kind, "split": "development", "also": [],
        "leak": False, "cgroup": f"/e/{name}", "root": 10, "began_ns": began * S,
        "ended_ns": ended * S, "full_ns": None, "happened": True, "measure": 1.0,
        "members": [
            member(10, 1), member(11, 10, cpu_s=9.0, rss_bytes=500, io_bytes=500),
            member(12, 10),
        ],
    }  # fmt: skip
    return {**facts, **more}


def member(pid, ppid, **used):
    nothing = {"cpu_s": 0.0, "rss_bytes": 0, "io_bytes": 0}
    return {"pid": pid, "start_ns": pid * S, "ppid": ppid, "comm": f"p{pid}", **nothing, **used}


def alert(class_="fork_storm", at=101.0, pid=10, cgroup="/e/storm", rule="r"):
    key = None if pid is None else ProcessKey("boot", pid, pid * S)
    subject = Subject(key, f"/bin/p{pid}", f"p{pid}", cgroup)
    return Alert(rule, "high", "so", class_, subject, ts_ns=int(at * S))


def judged(alerts, *cases):
    truth = {"cases": list(cases) or [case()], "agent_pid": 99, "harness": 98}
    return judge("recording", truth, alerts)


def test_an_incident_is_told_by_the_first_alert_of_its_class():
    (outcome,) = judged([alert(at=103), alert(at=102.5, rule="q")]).outcomes
    assert outcome.detected_s == pytest.approx(2.5)
    assert outcome.more_alerts == 1
    assert outcome.more_incidents == 0
    assert outcome.offender


@pytest.mark.parametrize(
    "other",
    [
        alert(class_="cpu_spin"),
        alert(cgroup="/e/another", pid=77),
        alert(cgroup="/e/storm2", pid=77),
        alert(pid=None, cgroup=None),
        alert(at=99),
        alert(at=121),
    ],
)
def test_other_alerts_tell_nothing_of_it(other):
    (outcome,) = judged([other]).outcomes
    assert outcome.detected_s is None


def test_what_runs_beside_an_incident_is_never_taken_for_it():
    found = judged([alert(cgroup="/somebody", pid=500)])
    assert found.outcomes[0].detected_s is None
    assert [(wrong.kind, wrong.about) for wrong in found.unknown] == [("fork_storm", "others")]
    assert not found.wrong


def test_the_agent_itself_is_no_incident():
    (wrong,) = judged([alert(cgroup="/", pid=99)]).wrong
    assert wrong.on == "agent"


def test_a_class_that_is_just_as_true_is_not_wrong():
    found = judged([alert(class_="runaway_tree")], case(also=["runaway_tree"]))
    assert found.outcomes[0].detected_s is None
    assert not found.wrong


def test_another_class_is_wrong_once_however_often_it_is_said():
    (wrong,) = judged([alert(class_="cpu_spin", at=at) for at in (101, 102, 103)]).wrong
    assert (wrong.kind, wrong.alerts, wrong.on) == ("cpu_spin", 3, "fork_storm")


def test_every_alert_on_ordinary_work_is_wrong():
    found = judged([alert(), alert(class_=None)], case(kind=None))
    assert [wrong.on for wrong in found.wrong] == ["ordinary", "ordinary"]
    assert not found.outcomes


def test_an_incident_that_did_not_come_about_counts_for_nothing():
    found = judged([alert()], case(happened=False))
    assert not found.outcomes
    assert not found.wrong


@pytest.mark.parametrize(
    ("kind", "pid", "right"),
    [
        ("fork_storm", 12, True),
        ("fork_storm", 77, False),
        ("runaway_tree", 10, True),
        ("runaway_tree", 12, False),
        ("cpu_spin", 11, True),
        ("cpu_spin", 10, True),
        ("cpu_spin", 12, False),
        ("io_saturation", 12, False),
        ("oom_risk", 11, True),
    ],
)
def test_the_offender_is_who_did_it_or_whose_children_did(kind, pid, right):
    (outcome,) = judged([alert(class_=kind, pid=pid)], case(kind=kind)).outcomes
    assert outcome.offender is right


def test_a_leak_has_to_be_told_long_before_the_limit():
    leaks = [
        case(name, "oom_risk", 100, 300, leak=True, full_ns=300 * S) for name in ("storm", "late")
    ]
    early, late = (
        alert("oom_risk", at=200), alert("oom_risk", at=250, pid=77, cgroup="/e/late")
    )  # fmt: skip
    found = judged([early, late], *leaks)
    assert [outcome.lead_s for outcome in found.outcomes] == [100, 50]
    truth = {
        "cases": leaks, "began_ns": 0, "ended_ns": 400 * S, "agent": {"cpu_s": 4.0},
    }  # fmt: skip
    figures = score([found], time_watched([truth], "development", 1, 0), "development")
    assert (figures["leaks"]["warned"], figures["leaks"]["n"]) == (1, 2)
    assert figures["classes"]["oom_risk"]["recall"] == 1


def test_time_that_passes_once_is_counted_once():
    assert seconds_of([(0, 5 * S), (2 * S, 8 * S), (10 * S, 11 * S)]) == 9


def test_the_report_has_a_line_for_each_class():
    found = judged([alert()])
    truth = {"cases": [case()], "began_ns": 0, "ended_ns": 4 * S, "agent": {}}
    time = time_watched([truth], "development", 9, 0)
    text = printed({"rules": score([found], time, "development")}, details=True)
    assert all(kind in text for kind in CLASSES)
    assert "1.000 [0.207, 1.000]" in text


def test_a_seed_always_draws_the_same():
    from evaluation.schedule import SOURCES

    assert SOURCES
    for family in FAMILIES.values():
        one, two = Case.of(family, 7), Case.of(family, 7)
        assert (one.plan.argv, one.drawn) == (two.plan.argv, two.drawn)
        assert one.plan.seconds > 0


def test_each_split_has_programs_of_every_class():
    from evaluation.schedule import SOURCES

    assert SOURCES
    for split in ("development", "held-out"):
        of_split = [each for each in FAMILIES.values() if each.split == split]
        kinds = [each.kind for each in of_split]
        assert all(kinds.count(kind) >= 3 for kind in CLASSES)
        assert kinds.count(None) >= 9


def test_memory_runs_out_slowly_and_at_once_in_either_split():
    from evaluation.schedule import SOURCES

    assert SOURCES
    for split in ("development", "held-out"):
        plans = [Case.of(each, 1).plan for each in families("oom_risk", split)]
        assert {plan.leak for plan in plans} == {True, False}
