"""What heuristics answers: the class that the facts support, whom they name, and why."""

import re
import subprocess
import sys
from pathlib import Path

import attrs
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
    ground,
)
from linnix_core.testing.injections import injected, obeyed
from linnix_core.testing.records import reason_request
from linnix_plugin_heuristics import HeuristicsReasoner

OFFENDER = ProcessKey("boot", 4412, 10_000_000)
BYSTANDER = ProcessKey("boot", 1, 0)

RECORDED = [
    line.split(" | ")
    for line in (Path(__file__).parent / "heuristics_recorded.txt").read_text().splitlines()
    if not line.startswith("#")
]


STORM = "forks=900 forks; window=2 s"
STAYED = "forks=200 forks; window=5 s; descendants alive=100 processes"
GROWTH = "rss_growth=2 MiB/s; threshold=1 MiB/s"
FULL = "cgroup memory used=90%"
CACHED = "RSS=9 MiB; cgroup memory limit=1000 MiB; cgroup memory used=99%"
SLOW_FORKS = "forks=60 forks; window=5 s"
SLOW_JOBS = "short_jobs=50 short_jobs; window=5 s"
FAST_JOBS = "short_jobs=200 short_jobs; window=2 s"


def ended(count, *, started, programs=None):
    """What is said of descendants that ended: how many started how many programs."""
    said = f"descendants that ended lately={count} processes; share with an exec={started}%"
    return said if programs is None else f"{said}; programs={programs} programs"


@pytest.fixture
def reasoner(linnix_context):
    return HeuristicsReasoner(None, linnix_context("reasoners.heuristics"))


def facts_of(text):
    """``forks=400 forks; cpu=97%`` as facts of the offender."""
    facts = []
    for number, part in enumerate(filter(None, text.split("; ")), 1):
        name, _, amount = part.partition("=")
        value, _, unit = amount.replace("%", " %").partition(" ")
        facts.append(Fact(name, float(value), unit, "P2", f"f{number}"))
    return tuple(facts)


def request(text="", class_="fork_storm", *, subject=OFFENDER, rules=("a_rule",), **changes):
    incident = Incident(
        fingerprint="f",
        severity="high",
        summary="what the alert said",
        class_=class_,
        subject=Subject(key=subject, exe="/usr/bin/bash", comm="bash"),
        rules=rules,
    )
    parts = {
        "facts": facts_of(text),
        "processes": (
            RequestProcess("P1", BYSTANDER, "init"),
            RequestProcess("P2", OFFENDER, "bash"),
        ),
        "actions": tuple(AllowedAction(f"a{n}", f"action {n}") for n in range(1, 6)),
    }
    return ReasonRequest(incident=incident, **{**parts, **changes})


# --- the class ----------------------------------------------------------------------------


@pytest.mark.parametrize(("true", "detected", "facts"), RECORDED)
def test_recorded_incidents_have_the_class_that_is_true(reasoner, true, detected, facts):
    asked = request(facts, detected)
    answer = reasoner.linnix_reason(asked)
    assert answer.class_ == true
    assert ground(asked, answer, "heuristics").grounded


# Where half of a tree lived and half of it died, the alert alone knows what came first.
TELLING = [
    (true, facts)
    for true, detected, facts in RECORDED
    if true == detected and not (true == "runaway_tree" and "ended" in facts)
]


@pytest.mark.parametrize(("true", "facts"), TELLING)
def test_without_the_class_of_the_alerts_what_they_measured_tells(reasoner, true, facts):
    assert reasoner.linnix_reason(request(facts, None)).class_ == true


@pytest.mark.parametrize("class_", CLASSES)
def test_where_no_fact_speaks_against_it_the_class_is_that_of_the_alerts(reasoner, class_):
    assert reasoner.linnix_reason(request("alerts=1 alerts", class_)).class_ == class_


@pytest.mark.parametrize(
    ("facts", "class_"),
    [
        ("threads=900 threads; threshold=500 threads; memory stall, some=40%", "oom_risk"),
        ("threads=900 threads; threshold=500 threads; I/O stall, some=60%", "io_saturation"),
        ("threads=900 threads; threshold=500 threads", "normal"),
        ("psi_io_full=60%; threshold=50%", "io_saturation"),
        ("psi_memory_some=60%; threshold=50%", "oom_risk"),
        ("execs=300 execs; threshold=100 execs; window=2 s", "short_job_flood"),
    ],
)
def test_an_incident_without_a_class_gets_the_one_of_what_is_short(reasoner, facts, class_):
    assert reasoner.linnix_reason(request(facts, None)).class_ == class_


@pytest.mark.parametrize(
    ("facts", "detected", "class_"),
    [
        # A tree that stays is no storm, and one that is gone is no tree.
        (f"{STORM}; descendants alive=150 processes", "fork_storm", "runaway_tree"),
        (f"{STORM}; {ended(400, started=0)}", "runaway_tree", "fork_storm"),
        # About as many that stayed as have gone; few for so many that have gone; few at all.
        (f"{STAYED}; {ended(110, started=99, programs=2)}", "short_job_flood", "runaway_tree"),
        (f"{STAYED}; {ended(2700, started=0)}", "runaway_tree", "fork_storm"),
        ("forks=20 forks; window=10 s; descendants alive=27 processes", "runaway_tree", "normal"),
        # Many of many programs are a burst of work that begins at once.
        (f"{STAYED}; {ended(30, started=99, programs=7)}", "runaway_tree", "normal"),
        # What starts programs is a flood if it is fast and monotonous, and else work.
        (f"{STORM}; {ended(400, started=99, programs=1)}", "fork_storm", "short_job_flood"),
        (f"{SLOW_FORKS}; {ended(90, started=99, programs=2)}", "fork_storm", "normal"),
        (f"{SLOW_JOBS}; {ended(90, started=99, programs=1)}", "short_job_flood", "normal"),
        # Fast is what is seen of it, wherever.
        (f"{SLOW_JOBS}; {ended(900, started=99)}", "short_job_flood", "short_job_flood"),
        (f"{SLOW_FORKS}; {ended(33, started=9)}", "fork_storm", "normal"),
        # Many programs are a script or a build, however fast.
        (f"{FAST_JOBS}; {ended(300, started=75, programs=5)}", "short_job_flood", "normal"),
        (
            f"{FAST_JOBS}; {ended(300, started=75, programs=4)}",
            "short_job_flood",
            "short_job_flood",
        ),
        # Twenty that have come and gone are no tree, and no flood.
        (f"forks=20 forks; window=10 s; {ended(21, started=100)}", "runaway_tree", "normal"),
        # A shell that starts itself again.
        (f"{FAST_JOBS}; {ended(200, started=2)}", "short_job_flood", "short_job_flood"),
        # Something comes of it.
        ("cpu=99%; threshold=70%; reads=20 MiB/s", "cpu_spin", "normal"),
        ("cpu=99%; threshold=70%; writes=0.2 MiB/s", "cpu_spin", "cpu_spin"),
        (f"cpu=99%; threshold=70%; {ended(1, started=99, programs=1)}", "cpu_spin", "normal"),
        # Who never pauses takes whole processors, as long as there are any.
        ("cpu=60%; threshold=50%; machine CPU=40%", "cpu_spin", "normal"),
        ("cpu=60%; threshold=50%; machine CPU=100%", "cpu_spin", "cpu_spin"),
        ("cpu=60%; threshold=50%; machine CPU=40%; cgroup throttled=30%", "cpu_spin", "cpu_spin"),
        ("cpu=97%; threshold=50%; machine CPU=50%", "cpu_spin", "cpu_spin"),
        ("cpu=104%; threshold=50%; machine CPU=50%", "cpu_spin", "cpu_spin"),
        ("cpu=118%; threshold=50%; machine CPU=60%", "cpu_spin", "normal"),
        ("cpu=270%; threshold=50%; machine CPU=60%", "cpu_spin", "cpu_spin"),
        # Storage that keeps up is not saturated.
        ("io=70 MiB/s; threshold=30 MiB/s; I/O stall, some=0.5%", "io_saturation", "normal"),
        ("io=70 MiB/s; threshold=30 MiB/s; I/O stall, some=9%", "io_saturation", "io_saturation"),
        ("io=70 MiB/s; threshold=30 MiB/s", "io_saturation", "io_saturation"),
        # What computes most of the time does not wait for storage.
        ("io=70 MiB/s; I/O stall, some=4%; CPU=50%", "io_saturation", "normal"),
        ("io=70 MiB/s; I/O stall, some=4%; CPU=10%", "io_saturation", "io_saturation"),
        # Where memory is short, pages are dropped and read again.
        ("io=70 MiB/s; I/O stall, some=9%; memory stall, some=8%", "io_saturation", "oom_risk"),
        (
            "io=70 MiB/s; I/O stall, some=40%; memory stall, some=8%",
            "io_saturation",
            "io_saturation",
        ),
        (
            "io=70 MiB/s; I/O stall, some=9%; RSS=950 MiB; cgroup memory limit=1000 MiB",
            "io_saturation",
            "oom_risk",
        ),
        # Files that were read fill a cgroup, too, and are given back.
        (f"io=70 MiB/s; I/O stall, some=9%; {CACHED}", "io_saturation", "io_saturation"),
        # Large is not short.
        ("rss=900 MiB; threshold=500 MiB; memory available=80%", "oom_risk", "normal"),
        (
            "rss=900 MiB; threshold=500 MiB; descendants alive=90 processes",
            "oom_risk",
            "runaway_tree",
        ),
        ("rss=900 MiB; threshold=500 MiB; memory available=4%", "oom_risk", "oom_risk"),
        ("rss=900 MiB; threshold=500 MiB; cgroup memory used=92%", "oom_risk", "oom_risk"),
        ("rss=900 MiB; threshold=500 MiB; memory stall, some=30%", "oom_risk", "oom_risk"),
        ("rss=900 MiB; threshold=500 MiB; cgroup OOM kills=1 kills", "oom_risk", "oom_risk"),
        ("rss_growth=2 MiB/s; threshold=1 MiB/s; memory available=80%", "oom_risk", "oom_risk"),
        # Who has watched for ten seconds cannot say what is in ten minutes.
        (f"{GROWTH}; window=10 s; time_until_limit=90 s", "oom_risk", "oom_risk"),
        (f"{GROWTH}; window=10 s; time_until_limit=600 s", "oom_risk", "normal"),
        (f"{GROWTH}; window=60 s; time_until_limit=600 s", "oom_risk", "oom_risk"),
        (f"{GROWTH}; window=10 s; time_until_limit=600 s; {FULL}", "oom_risk", "oom_risk"),
    ],
)
def test_facts_that_speak_against_the_class_of_the_alerts_win(reasoner, facts, detected, class_):
    assert reasoner.linnix_reason(request(facts, detected)).class_ == class_


def test_what_others_do_says_nothing_of_the_class(reasoner):
    asked = request("cpu=99%; threshold=70%", "cpu_spin")
    theirs = Fact("reads", 500.0, "MiB/s", "P1", "f3")
    asked = attrs.evolve(asked, facts=(*asked.facts, theirs))
    assert reasoner.linnix_reason(asked).class_ == "cpu_spin"


# --- the process --------------------------------------------------------------------------


@pytest.mark.parametrize(("true", "detected", "facts"), RECORDED)
def test_the_process_is_the_one_that_the_alerts_name_wherever_it_is_listed(
    reasoner, true, detected, facts
):
    expected = None if true == "normal" else "P2"
    assert reasoner.linnix_reason(request(facts, detected)).process == expected


@pytest.mark.parametrize(
    ("class_", "facts", "process"),
    [
        ("io_saturation", (("writes", 3, "P1"), ("reads", 40, "P2"), ("CPU", 99, "P1")), "P2"),
        ("oom_risk", (("RSS", 3000, "P1"), ("CPU", 99, "P2"), ("RSS", 20, "P2")), "P1"),
        ("cpu_spin", (("RSS", 3000, "P1"), ("CPU", 99, "P2"), ("CPU", 20, "P1")), "P2"),
        ("fork_storm", (("CPU", 9, "P2"),), "P2"),
        ("runaway_tree", (("CPU", 9, "P2"),), None),
        ("io_saturation", (("alerts", 1, None),), None),
    ],
)
def test_where_the_alerts_name_nobody_it_is_who_uses_most_of_what_is_short(
    reasoner, class_, facts, process
):
    made = tuple(Fact(name, v, "u", of, f"f{n}") for n, (name, v, of) in enumerate(facts, 1))
    answer = reasoner.linnix_reason(request(class_=class_, subject=None, facts=made))
    assert answer.process == process


# --- what it cites and proposes -----------------------------------------------------------


def test_it_cites_what_was_measured_its_limit_and_what_decided(reasoner):
    facts = (
        "forks=900 forks; threshold=300 forks; window=2 s; share=97%; "
        "descendants that ended lately=400 processes; share with an exec=0%"
    )
    assert reasoner.linnix_reason(request(facts)).facts == ("f1", "f2", "f6", "f3")


def test_that_nothing_is_wrong_is_shown_by_what_decided(reasoner):
    answer = reasoner.linnix_reason(
        request("rss=900 MiB; threshold=500 MiB; memory available=80%", "oom_risk")
    )
    assert (answer.class_, answer.facts[0]) == ("normal", "f3")
    assert answer.actions == ("a5",)  # to wait and see


def test_it_proposes_the_first_actions(reasoner):
    assert reasoner.linnix_reason(request("alerts=1 alerts")).actions == ("a1", "a2", "a3")


def test_it_declines_only_what_has_no_fact_at_all(reasoner):
    assert reasoner.linnix_reason(request("")) is None
    assert reasoner.linnix_reason(request("anything=1 things", None)) is not None


def test_the_same_request_always_gets_the_same_answer(reasoner):
    asked = reason_request("io_saturation")
    assert reasoner.linnix_reason(asked) == reasoner.linnix_reason(asked)


@pytest.mark.parametrize("class_", CLASSES)
def test_no_order_in_a_name_an_argument_or_a_path_changes_anything(reasoner, class_):
    asked = reason_request(class_)
    before = reasoner.linnix_reason(asked)
    for order, hostile in injected(asked):
        assert not obeyed(before, reasoner.linnix_reason(hostile)), order


# --- how sure it is -----------------------------------------------------------------------


def test_it_is_surer_the_further_over_the_limit_and_the_more_agrees(reasoner):
    def of(facts, rules=("one",), class_="fork_storm"):
        return reasoner.linnix_reason(request(facts, class_, rules=rules)).confidence

    over = [of(f"forks={n} forks; threshold=100 forks") for n in (100, 200, 400, 100_000)]
    assert over == [60, 70, 80, 80]
    assert of("forks=100 forks; threshold=100 forks", rules=("one", "two")) == 65
    assert of("forks=400 forks; window=5 s") == 60  # a second fact of another unit is no limit
    agreeing = "share with an exec=0%; descendants that ended lately=300 processes"
    assert of(f"forks=100 forks; threshold=100 forks; {agreeing}") == 65
    against = "descendants alive=300 processes"
    assert of(f"forks=100 forks; threshold=100 forks; {against}") == 55
    assert of("something=1 things", class_=None) == 50


NAMES = st.sampled_from(sorted({f.name for _, _, t in RECORDED for f in facts_of(t)}))


@given(
    facts=st.lists(
        st.builds(
            Fact,
            NAMES | st.text(max_size=10),
            st.floats(-1e12, 1e12) | st.integers(-(2**62), 2**62),
            st.sampled_from(["%", "forks", "MiB", "s", ""]),
            st.sampled_from([None, "P1", "P2"]),
        ),
        min_size=1,
        max_size=20,
    ),
    class_=st.none() | st.sampled_from(CLASSES),
    subject=st.sampled_from([None, OFFENDER, ProcessKey("other", 9, 9)]),
    rules=st.lists(st.text(max_size=5), max_size=3).map(tuple),
)
@settings(deadline=None)
def test_whatever_the_facts_are_the_answer_is_grounded(facts, class_, subject, rules):
    numbered = tuple(attrs.evolve(fact, id=f"f{n}") for n, fact in enumerate(facts, 1))
    asked = request(class_=class_, subject=subject, rules=rules, facts=numbered)
    answer = HeuristicsReasoner(None, None).linnix_reason(asked)
    assert 50 <= answer.confidence <= 95
    assert ground(asked, answer, "heuristics").grounded


def test_its_score_is_shown_where_people_choose_a_reasoner():
    command = [sys.executable, "-m", "linnix_core", "plugins", "show", "heuristics"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shares = r"class \d+% \(incidents \d+%, normal \d+%\), process \d+%, .*injected 0%"
    assert re.search(rf"score +{shares} of 81 cases", shown)
