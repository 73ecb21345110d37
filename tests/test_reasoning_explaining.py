"""Who is asked, how often and for how long: an incident is explained in time, whoever fails."""

from __future__ import annotations

import threading
import time

import attrs
import pytest

from linnix_core import (
    Answer,
    Evidence,
    Fact,
    Incident,
    LinnixError,
    PluginUnavailable,
    ProcessEvent,
    ProcessKey,
    ProcessTable,
    Subject,
    hookimpl,
)
from linnix_core.config import AgentSettings, ComponentSettings
from linnix_core.explaining import Explainer
from linnix_core.plugins import PluginHost
from linnix_core.surroundings import Surroundings
from linnix_core.testing.distributions import catalog_of

KEY = ProcessKey("b", 7, 0)
LATER_S = 60.0


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def time_ns(self):
        return int(self.now * 1e9)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_explainer(tmp_path, clock):
    hosts = []

    def make(reasoners, handlers=None, **settings):
        kinds = {"reasoners": reasoners, "handlers": handlers or {}}
        host = PluginHost(catalog_of(kinds), data_dir=tmp_path / "data")
        hosts.append(host)
        for kind, plugins in kinds.items():
            for name in plugins:
                component = host.add(kind, name)
                host.configure(component, ComponentSettings(kind=kind, name=name), [])
                context = host.context(component)
                assert host.create(component, context), component.status().reason
                host.register()
                assert host.start(component, context)
        table = ProcessTable()
        table.update([ProcessEvent("seen", 7, 0, comm="make", exe="/bin/make", boot_id="b")])
        return Explainer(
            host,
            AgentSettings(drop_privileges=False, **settings),
            processes=table.view,
            surroundings=Surroundings(),
            clock=clock,
        )

    yield make
    for host in hosts:
        host.stop(time.monotonic() + 1.0)


class Says:
    """A reasoner that says what it is given, or does it, and notes what it was asked."""

    def __init__(self, said):
        self.said = said
        self.asked = []

    def plugin(self):
        given = self

        class Reasoner:
            @hookimpl
            def linnix_reason(self, request):
                given.asked.append(request)
                said = given.said(request) if callable(given.said) else given.said
                if isinstance(said, Exception):
                    raise said
                return said

        return Reasoner


GOOD = Answer("fork_storm", 80, "P1", ("f1",), ("a1",))
BAD = attrs.evolve(GOOD, facts=("f99",))


def incident(number=1, **parts):
    given = {
        "fingerprint": f"f{number}",
        "severity": "high",
        "summary": "s",
        "class_": "fork_storm",
        "subject": Subject(KEY, "/bin/make", "make", "/work"),
        "evidence": (Evidence("forks", 812, "forks"), Evidence("threshold", 100, "forks")),
        "id": f"i{number}",
    }
    return Incident(**(given | parts))


def explain(explainer, number=1, *, within_s=LATER_S, again=False, **parts):
    return explainer.explain(incident(number, **parts), time.monotonic() + within_s, again=again)


def status_of(explainer, name):
    return next(c.status() for c in explainer._host.components if c.name == name)


def turns(explainer, reasoner):
    return {
        metric.labels["outcome"]: metric.value
        for metric in explainer.metrics()
        if metric.labels.get("reasoner") == reasoner
    }


# --- in order -----------------------------------------------------------------------------


def test_the_first_good_answer_counts_and_says_whose_it_is(make_explainer):
    first, second, third = Says(None), Says(GOOD), Says(GOOD)
    explainer = make_explainer(
        {"shy": first.plugin(), "good": second.plugin(), "heuristics": third.plugin()}
    )
    insight = explain(explainer)
    assert (insight.reasoner, insight.why) == ("good", "Fork storm by make (pid 7): 812 forks")
    assert [len(r.asked) for r in (first, second, third)] == [1, 1, 0]
    assert turns(explainer, "shy") == {"declined": 1}
    assert turns(explainer, "good") == {"answered": 1}


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (None, "declined"),
        (ValueError("no"), "failed"),
        (PluginUnavailable("no server"), "failed"),
        (LinnixError("what came is no JSON"), "failed"),
        ("it was make", "discarded"),
        (BAD, "discarded"),
    ],
)
def test_whatever_the_first_does_the_incident_is_explained(make_explainer, said, outcome):
    bad, last = Says(said), Says(GOOD)
    explainer = make_explainer({"bad": bad.plugin(), "heuristics": last.plugin()})
    assert explain(explainer).reasoner == "heuristics"
    assert turns(explainer, "bad") == {outcome: 1}


def test_what_is_discarded_is_counted(make_explainer):
    wordy = attrs.evolve(GOOD, sentence="nginx forked 9000 times")
    liar, talker = Says(BAD), Says(wordy)
    explainer = make_explainer({"liar": liar.plugin(), "talker": talker.plugin()})
    assert explain(explainer).why == "Fork storm by make (pid 7): 812 forks"
    assert (explainer.discarded_answers, explainer.discarded_sentences) == (1, 1)
    counted = {m.name: m.value for m in explainer.metrics() if "outcome" not in m.labels}
    assert counted == {"linnix_discarded_answers": 1, "linnix_discarded_sentences": 1}


def test_a_sentence_that_is_grounded_is_no_loss(make_explainer):
    talker = Says(attrs.evolve(GOOD, sentence="make forked 812 times"))
    explainer = make_explainer({"talker": talker.plugin()})
    assert explain(explainer).why == "make forked 812 times"
    assert explainer.discarded_sentences == 0


# --- in time ------------------------------------------------------------------------------


def test_who_hangs_leaves_time_for_the_last(make_explainer, forever):
    slow, last = Says(lambda request: forever.wait()), Says(GOOD)
    explainer = make_explainer(
        {"slow": slow.plugin(), "heuristics": last.plugin()}, reason_timeout_s=1.0
    )
    began = time.monotonic()
    assert explain(explainer, within_s=1.0).reasoner == "heuristics"
    assert slow.asked[0].timeout_s <= 0.9
    assert last.asked[0].timeout_s >= 0.1
    assert time.monotonic() - began >= 0.8  # it had its turn


def test_every_reasoner_is_told_what_is_left_of_the_time_of_all(make_explainer):
    first, second, last = Says(None), Says(None), Says(GOOD)
    explainer = make_explainer(
        {"one": first.plugin(), "two": second.plugin(), "heuristics": last.plugin()},
        reason_timeout_s=20.0,
    )
    explain(explainer, within_s=20.0)
    times = [reasoner.asked[0].timeout_s for reasoner in (first, second, last)]
    assert times[0] <= 19.0  # a second is kept for the last one
    assert times[0] >= times[1] > 10.0
    assert times[2] <= 20.0


def test_an_incident_that_has_waited_too_long_goes_to_the_last_at_once(make_explainer):
    first, last = Says(GOOD), Says(GOOD)
    explainer = make_explainer({"model": first.plugin(), "heuristics": last.plugin()})
    assert explain(explainer, within_s=-5.0).reasoner == "heuristics"
    assert turns(explainer, "model") == {"late": 1}
    assert last.asked[0].timeout_s > 0


def test_evidence_that_is_slow_costs_a_part_of_the_time(make_explainer, forever):
    class Slow:
        @hookimpl
        def linnix_evidence(self, incident):
            forever.wait()

    class Quick:
        @hookimpl
        def linnix_evidence(self, incident):
            return [Fact("pods", 3, "pods")]

    reasoner = Says(GOOD)
    explainer = make_explainer(
        {"model": reasoner.plugin()}, {"slow": Slow, "quick": Quick}, reason_timeout_s=1.0
    )
    assert explain(explainer, within_s=1.0) is not None
    assert "pods" in {fact.name for fact in reasoner.asked[0].facts}
    assert reasoner.asked[0].timeout_s > 0.5


# --- not too often ------------------------------------------------------------------------


def test_after_reasons_per_hour_the_next_one_is_asked(make_explainer, clock):
    model, last = Says(GOOD), Says(GOOD)
    explainer = make_explainer(
        {"model": model.plugin(), "heuristics": last.plugin()}, reasons_per_hour=2
    )
    told = [explain(explainer, number).reasoner for number in range(4)]
    assert told == ["model", "model", "heuristics", "heuristics"]
    status = status_of(explainer, "model")
    assert (status.state, status.code) == ("degraded", "budget")
    assert status.reason == "was asked 2 times within an hour; again in 60 min"
    assert turns(explainer, "model") == {"answered": 2, "over_budget": 2}
    clock.now += 3600
    assert explain(explainer, 5).reasoner == "model"
    assert status_of(explainer, "model").state == "running"


def test_the_last_reasoner_has_no_budget(make_explainer):
    last = Says(GOOD)
    explainer = make_explainer({"heuristics": last.plugin()}, reasons_per_hour=1)
    assert all(explain(explainer, number) for number in range(5))


def test_after_reason_failures_in_a_row_it_is_left_alone_for_reason_pause_s(make_explainer, clock):
    model, last = Says(PluginUnavailable("refused", hint="start it")), Says(GOOD)
    explainer = make_explainer(
        {"model": model.plugin(), "heuristics": last.plugin()},
        reason_failures=2,
        reason_pause_s=30.0,
    )
    for number in range(5):
        assert explain(explainer, number).reasoner == "heuristics"
    assert len(model.asked) == 2
    assert turns(explainer, "model") == {"failed": 2, "paused": 3}
    status = status_of(explainer, "model")
    assert (status.state, status.reason) == ("degraded", "refused; asked again in 30 s")
    assert status.hint == "start it"
    # One more try, and it is left alone again at once.
    clock.now += 30
    explain(explainer, 6)
    explain(explainer, 7)
    assert len(model.asked) == 3
    # It has recovered: from now on it may fail once again.
    clock.now += 30
    model.said = GOOD
    assert explain(explainer, 8).reasoner == "model"
    assert status_of(explainer, "model").state == "running"
    model.said = BAD
    explain(explainer, 9)
    explain(explainer, 10)
    explain(explainer, 11)
    assert len(model.asked) == 6


def test_the_last_reasoner_is_never_left_alone(make_explainer):
    last = Says(ValueError("once"))
    explainer = make_explainer({"heuristics": last.plugin()}, reason_failures=1)
    assert explain(explainer) is None
    last.said = GOOD
    assert explain(explainer) is not None


def test_declining_is_no_failure(make_explainer):
    model = Says(None)
    explainer = make_explainer(
        {"model": model.plugin(), "heuristics": Says(GOOD).plugin()}, reason_failures=1
    )
    for number in range(3):
        explain(explainer, number)
    assert len(model.asked) == 3


# --- not twice ----------------------------------------------------------------------------


def test_what_was_asked_before_is_not_asked_again(make_explainer):
    model = Says(attrs.evolve(GOOD, actions=("a1",)))
    explainer = make_explainer({"model": model.plugin()})
    first = explain(explainer, 1)
    # The same program, in the same place, about as bad, later and under another pid.
    other = ProcessKey("b", 8, 10)
    second = explain(
        explainer, 1, id="i2", subject=Subject(other, "/bin/make", "make", "/work"),
        evidence=(Evidence("forks", 790, "forks"), Evidence("threshold", 100, "forks")),
    )  # fmt: skip
    assert len(model.asked) == 1
    assert turns(explainer, "model") == {"answered": 1, "cached": 1}
    # The ids are the same; what they stand for is of this incident.
    assert (first.why, second.why) == (
        "Fork storm by make (pid 7): 812 forks",
        "Fork storm by make (pid 8): 790 forks",
    )
    assert second.actions == ("Look at the tree: pstree -aps 8",)
    assert second.incident == "i2"


@pytest.mark.parametrize(
    "changed",
    [
        {"severity": "critical"},
        {"fingerprint": "another"},
        {"evidence": (Evidence("forks", 8120, "forks"), Evidence("threshold", 100, "forks"))},
        {"evidence": (Evidence("jobs", 812, "forks"), Evidence("threshold", 100, "forks"))},
    ],
)
def test_what_differs_is_asked_again(make_explainer, changed):
    model = Says(GOOD)
    explainer = make_explainer({"model": model.plugin()})
    explain(explainer)
    explain(explainer, **changed)
    assert len(model.asked) == 2


def test_an_answer_whose_ids_mean_something_else_now_is_asked_for_again(make_explainer):
    model = Says(GOOD)
    explainer = make_explainer({"model": model.plugin()})
    explain(explainer)
    explain(explainer, actions=("Ask the owner first",))  # which is now a1
    assert len(model.asked) == 2


def test_who_wants_it_explained_again_gets_a_new_answer(make_explainer):
    model = Says(GOOD)
    explainer = make_explainer({"model": model.plugin()})
    explain(explainer)
    explain(explainer, again=True)
    assert len(model.asked) == 2


def test_as_many_answers_are_kept_as_reason_cache_says(make_explainer):
    def asked_with(size):
        model = Says(GOOD)
        explainer = make_explainer({"model": model.plugin()}, reason_cache=size)
        for number in (1, 2, 1):
            explain(explainer, number)
        return len(model.asked)

    assert [asked_with(size) for size in (0, 1, 2)] == [3, 3, 2]


def test_what_failed_is_not_kept(make_explainer):
    model = Says(BAD)
    explainer = make_explainer({"model": model.plugin()})
    explain(explainer)
    model.said = GOOD
    assert explain(explainer) is not None


# --- what was asked -----------------------------------------------------------------------


def test_the_request_of_an_incident_can_be_looked_at(make_explainer):
    model = Says(GOOD)
    explainer = make_explainer({"model": model.plugin()})
    assert explainer.request("i1") is None
    explain(explainer)
    kept = explainer.request("i1")
    assert attrs.evolve(kept, timeout_s=model.asked[0].timeout_s) == model.asked[0]


def test_only_so_many_requests_are_kept(make_explainer, monkeypatch):
    monkeypatch.setattr("linnix_core.explaining.MAX_REQUESTS", 2)
    explainer = make_explainer({"heuristics": Says(GOOD).plugin()})
    for number in (1, 2, 3):
        explain(explainer, number)
    assert [explainer.request(f"i{n}") is not None for n in (1, 2, 3)] == [False, True, True]


def test_looking_from_other_threads_disturbs_nothing(make_explainer):
    explainer = make_explainer({"heuristics": Says(GOOD).plugin(), "second": Says(GOOD).plugin()})
    done, troubles = threading.Event(), []

    def look():
        while not done.is_set():
            try:
                list(explainer.metrics())
                explainer.request("i1")
            except Exception as error:
                troubles.append(error)
                return

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(200):
        explain(explainer, number)
    done.set()
    thread.join()
    assert troubles == []
