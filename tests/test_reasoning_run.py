"""Reasoning in a real run: what the pipeline saw is asked about, again if somebody wants it."""

from __future__ import annotations

import queue

import attrs
import pytest

from linnix_core import (
    Alert,
    Answer,
    Evidence,
    Pressure,
    Result,
    Subject,
    SystemSample,
    hookimpl,
    load_bundle,
)
from linnix_core.bundle import dump_bundle

PATIENCE_S = 30.0


class Reasoner:
    """Answers, and notes what it was asked."""

    def __init__(self):
        self.asked = queue.SimpleQueue()

    @hookimpl
    def linnix_reason(self, request):
        self.asked.put(request)
        return Answer("cpu_spin", 80, "P1", ("f1",), ("a1",))


class Keeper:
    """A handler that keeps the notices, answers from them, and raises what it is told to."""

    def __init__(self):
        self.insights = queue.SimpleQueue()
        self.kept = []

    @hookimpl
    def linnix_start(self, context):
        self.context = context

    @hookimpl
    def linnix_alert(self, alert):
        self.kept.append(alert)

    @hookimpl
    def linnix_insight(self, insight):
        self.kept.append(insight)
        self.insights.put(insight)

    @hookimpl
    def linnix_query(self, query):
        return Result(tuple(r for r in self.kept if r.type in query.types))


@pytest.fixture
def run(linnix_runtime, linnix_records):
    class Run:
        reasoner, keeper = Reasoner(), Keeper()
        records = linnix_records(400)
        pressed = SystemSample(
            5 * 10**9, cpu_percent=99.0, psi_cpu=Pressure(77.0, 1), ts_ns=records[-1].ts_ns
        )
        agent = linnix_runtime(
            handlers={"keeper": keeper},
            reasoners={"reasoner": reasoner},
            records=[*records, pressed],
        )

        def alert(self, **parts):
            process = next(p for p in self.agent.processes.view if p.sample is not None)
            alert = Alert(
                "spin", "medium", "it spins", "cpu_spin",
                Subject(process.key, process.exe, process.comm, process.cgroup),
                (Evidence("cpu", 99, "%"), Evidence("threshold", 70, "%")),
                ts_ns=self.records[-1].ts_ns,
            )  # fmt: skip
            self.agent.submit(attrs.evolve(alert, **parts))
            assert self.agent.wait_idle(PATIENCE_S)

    made = Run()
    assert made.agent.wait_idle(PATIENCE_S)
    return made


def test_what_the_pipeline_saw_of_the_machine_is_a_fact(run):
    run.alert()
    request = run.reasoner.asked.get(timeout=PATIENCE_S)
    facts = {fact.name: fact.value for fact in request.facts}
    assert facts["machine CPU"] == 99.0
    assert facts["CPU stall, some"] == 77.0


def test_an_incident_that_got_worse_is_explained_again(run):
    run.alert()
    run.alert()
    run.alert(severity="critical")
    assert [run.reasoner.asked.get().incident.severity for _ in range(2)] == ["medium", "critical"]
    assert run.reasoner.asked.empty()


def test_whoever_wants_it_explained_again_is_served(run):
    run.alert()
    first = run.keeper.insights.get(timeout=PATIENCE_S)
    assert run.keeper.context.explain(first.incident)
    assert run.agent.wait_idle(PATIENCE_S)
    second = run.keeper.insights.get(timeout=PATIENCE_S)
    assert (second.incident, second.why) == (first.incident, first.why)
    assert second.id != first.id
    assert run.reasoner.asked.get()
    assert run.reasoner.asked.get()
    assert not run.keeper.context.explain("unknown")


def test_an_incident_can_be_taken_along(run):
    run.alert()
    run.alert(class_=None, rule="no class")
    asked = run.reasoner.asked.get(timeout=PATIENCE_S)
    insight = run.keeper.insights.get(timeout=PATIENCE_S)
    bundle = run.keeper.context.bundle(insight.incident)
    assert bundle.request.facts == asked.facts
    assert bundle.request.incident == asked.incident
    assert [alert.rule for alert in bundle.alerts] == ["spin"]
    assert bundle.insight == insight
    assert load_bundle(dump_bundle(bundle)) == bundle
    # Nobody was asked about this one, and still it can be.
    other = next(i for i in run.agent.incidents.open() if i.class_ is None)
    made = run.keeper.context.bundle(other.id)
    assert made.request.facts[0].name == "cpu"
    assert (made.request.incident.id, made.insight) == (other.id, None)
    assert run.keeper.context.bundle("unknown") is None


def test_turns_and_discards_are_metrics_of_the_agent(run):
    run.alert()
    told = {
        (m.name, m.labels.get("reasoner"), m.labels.get("outcome")): m.value
        for m in run.keeper.context.metrics()
    }
    assert told["linnix_reasoner_turns", "reasoner", "answered"] == 1
    assert told["linnix_discarded_answers", None, None] == 0
    assert told["linnix_discarded_sentences", None, None] == 0
