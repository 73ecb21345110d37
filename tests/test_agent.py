"""One run: it starts clean, tells the whole story, and stops in order, whatever happens.

Section 6 of the architecture. Everything here goes through a real agent with its real
threads; the signals at the end reach a real process.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading

import attrs
import pytest

from linnix_core import (
    AgentStopped,
    Alert,
    Answer,
    ConfigError,
    Evidence,
    Fact,
    Feedback,
    Health,
    LinnixError,
    Metric,
    Mount,
    PluginUnavailable,
    ProcessEvent,
    ProcessKey,
    Query,
    Result,
    Subject,
    hookimpl,
)
from linnix_core import agent as agent_module
from linnix_core import notices as notices_module
from linnix_core.errors import RequiredComponentFailed
from linnix_core.testing.waiting import eventually

HANG_S = 60.0


def fork(pid, **parts):
    return ProcessEvent("fork", pid=pid, start_ns=10_000_000, **parts)


def emits(*records, ends=False):
    """A collector that emits these, each in a batch of its own, and then waits for the stop."""

    class Emits:
        @hookimpl
        def linnix_collect(self, sink, stop):
            for record in records:
                sink.emit(attrs.evolve(record))
            if not ends:
                stop.wait()

    return Emits


def notes(journal, name="notes"):
    """A handler that writes all that it gets into the journal."""

    class Notes:
        @hookimpl
        def linnix_handle(self, batch):
            for record in batch:
                if record.type == "event":
                    journal.note((name, "event", record.pid))

        @hookimpl
        def linnix_alert(self, alert):
            journal.note((name, "alert", alert.rule))

        @hookimpl
        def linnix_incident(self, incident):
            journal.note((name, "incident", incident.change))

        @hookimpl
        def linnix_insight(self, insight):
            journal.note((name, "insight", insight.reasoner))

        @hookimpl
        def linnix_flush(self):
            journal.note((name, "flush"))

        @hookimpl
        def linnix_stop(self):
            journal.note((name, "stop"))

    return Notes


def alarms(*alerts):
    """A handler that raises these with its first batch."""

    waiting = list(alerts)

    class Alarms:
        @hookimpl
        def linnix_handle(self, batch):
            while waiting:
                yield waiting.pop(0)

    return Alarms


def storm(**parts):
    parts.setdefault("class_", "fork_storm")
    parts.setdefault("evidence", (Evidence("forks", 812, "forks"), Evidence("limit", 100, "forks")))
    return Alert("forks", "high", "812 forks in a second", **parts)


def answers(journal, name, answer):
    """A reasoner that notes that it was asked, and answers, raises or hangs."""

    class Answers:
        @hookimpl
        def linnix_reason(self, request):
            journal.note((name, "asked"))
            given = answer(request) if callable(answer) else answer
            if isinstance(given, BaseException):
                raise given
            return given

    return Answers


GOOD = Answer("fork_storm", 80, facts=("f1",), actions=("a1",))


def status_of(agent, component):
    (status,) = [s for s in agent.status() if s.component == component]
    return status


# --- starting and stopping ------------------------------------------------------------


def test_all_that_was_emitted_before_the_stop_is_handled_then_flushed_then_stopped(
    make_agent, journal
):
    def holds_back(name):
        class HoldsBack(notes(journal, name)):
            def __init__(self, config, context):
                self.stop = context.stop

            @hookimpl
            def linnix_handle(self, batch):
                self.stop.wait()  # so that everything still waits when the run is over
                return super().linnix_handle(batch)

        return HoldsBack

    count = 500
    emitted = threading.Event()

    class Emits:
        @hookimpl
        def linnix_collect(self, sink, stop):
            for pid in range(1, count):
                sink.emit(fork(pid))
            emitted.set()
            stop.wait()
            sink.emit(fork(count))  # what it still has when it is told

    agent = make_agent(
        {
            "collectors.c": Emits,
            "handlers.one": holds_back("one"),
            "handlers.two": holds_back("two"),
        },
        tables={name: {"overflow": "block"} for name in ("handlers.one", "handlers.two")},
    )
    agent.start()
    assert emitted.wait(HANG_S)
    agent.stop()
    for name in ("one", "two"):
        story = [entry[1:] for entry in journal.entries if entry[0] == name]
        events = [("event", pid) for pid in range(1, count + 1)]
        assert [entry for entry in story if entry[0] == "event"] == events
        assert story[-2:] == [("flush",), ("stop",)]
        assert story.count(("stop",)) == 1
        counters = status_of(agent, f"handlers.{name}").counters
        assert counters["received"] == counters["handled"] >= count
    assert {status.state for status in agent.status()} == {"stopped"}


def test_the_order_of_stopping_follows_what_was_emitted_last_to_its_insight(make_agent, journal):
    class LastWords:
        @hookimpl
        def linnix_collect(self, sink, stop):
            stop.wait()
            sink.emit(fork(1))
            journal.note("collector ends")

        @hookimpl
        def linnix_stop(self):
            journal.note("collector stops")

    class Alarms(notes(journal, "handler")):
        @hookimpl
        def linnix_handle(self, batch):
            super().linnix_handle(batch)
            return [storm()] if any(record.type == "event" for record in batch) else None

    class Reasoner(answers(journal, "reasoner", GOOD)):
        @hookimpl
        def linnix_stop(self):
            journal.note("reasoner stops")

    with make_agent(
        {"collectors.c": LastWords, "handlers.h": Alarms, "reasoners.r": Reasoner},
        batch_size=1,
    ):
        assert journal.entries == []
    story = journal.entries
    # Telling the incident and explaining it are two threads' work at the same time.
    asked = story.index(("reasoner", "asked"))
    assert story.index(("handler", "event", 1)) < asked < story.index(("handler", "insight", "r"))
    del story[asked]
    assert story == [
        "collector ends",
        ("handler", "event", 1),
        ("handler", "alert", "forks"),
        ("handler", "incident", "opened"),
        ("handler", "insight", "r"),
        ("handler", "flush"),
        # What was started last is stopped first: it may use what was there before it.
        "collector stops",
        "reasoner stops",
        ("handler", "stop"),
    ]


def test_a_run_ends_when_its_time_is_over_or_when_it_is_asked_to(make_agent, journal):
    with make_agent({"collectors.c": emits(fork(1))}) as agent:
        assert agent.run(0.01) == "the time is over"
        asker = threading.Thread(target=agent.request_stop, args=("enough",))
        asker.start()
        assert agent.run() == "enough"
        asker.join(HANG_S)


def test_a_run_that_has_nothing_more_to_collect_waits_for_its_explanation(make_agent, journal):
    def answer_unless_it_stops(request):
        return None if agent._stop.wait(0.5) else GOOD

    agent = make_agent(
        {
            "collectors.replay": emits(fork(1), ends=True),
            "handlers.alarms": alarms(storm()),
            "handlers.notes": notes(journal),
            "reasoners.slow": answers(journal, "slow", answer_unless_it_stops),
        }
    )
    with agent:
        assert agent.run(HANG_S) == "every collector has ended"
        assert journal.count(("notes", "insight", "slow")) == 1


def test_a_run_ends_when_the_last_collector_has_nothing_more(make_agent, journal):
    class Lasts:
        @hookimpl
        def linnix_start(self):
            running = threading.enumerate
            eventually(lambda: "linnix-collectors.replay" not in {t.name for t in running()})

        @hookimpl
        def linnix_collect(self, sink, stop):
            go_on.wait(HANG_S)
            sink.emit(fork(2))

    go_on = threading.Event()

    agent = make_agent(
        {
            "collectors.replay": emits(fork(1), ends=True),  # over before the next one starts
            "collectors.lasts": Lasts,
            "handlers.notes": notes(journal),
        }
    )
    with agent:
        assert agent.run(0.01) == "the time is over"
        go_on.set()
        assert agent.run(HANG_S) == "every collector has ended"
        assert {status_of(agent, f"collectors.{n}").code for n in ("replay", "lasts")} == {
            "finished"
        }
    assert journal.count(("notes", "event", 2)) == 1


def test_a_run_fails_when_nothing_collects_any_more(make_agent):
    class Leaves:
        @hookimpl
        def linnix_poll(self):
            raise PluginUnavailable("the probe has gone")

    with make_agent({"collectors.c": Leaves}) as agent, pytest.raises(LinnixError) as ended:
        agent.run(HANG_S)
    assert str(ended.value) == "nothing collects any more: collectors.c: the probe has gone"


def test_stopping_twice_is_stopping_once(make_agent, journal):
    agent = make_agent({"collectors.c": emits(fork(1)), "handlers.notes": notes(journal)})
    agent.stop()  # before it runs
    agent.start()
    agent.stop()
    agent.stop()
    assert journal.count(("notes", "stop")) == 1


def test_two_agents_of_one_process_know_nothing_of_each_other(make_agent, journal):
    agents = {
        name: make_agent(
            {
                "collectors.c": emits(fork(pid)),
                "handlers.notes": notes(journal, name),
                "handlers.alarms": alarms(storm()),
            }
        )
        for name, pid in (("one", 1), ("two", 2))
    }
    with agents["two"]:
        with agents["one"]:
            for name in agents:
                assert journal.wait_for((name, "incident", "opened"))
            assert [p.pid for p in agents["one"].processes.view] == [1]
            assert [p.pid for p in agents["two"].processes.view] == [2]
            assert agents["one"].run_id != agents["two"].run_id
            (one,), (two,) = (agents[name].incidents.open() for name in ("one", "two"))
            assert one.id != two.id
            assert (one.host, one.run_id) == ("testhost", agents["one"].run_id)
            assert (two.host, two.run_id) == ("testhost", agents["two"].run_id)
        assert status_of(agents["one"], "handlers.notes").state == "stopped"
        assert status_of(agents["two"], "handlers.notes").state == "running"
        agents["two"].submit(storm())
        assert journal.wait_for(("two", "alert", "forks"), times=2)
    assert journal.count(("one", "alert", "forks")) == 1
    assert journal.count(("two", "event", 1)) == 0


def test_every_mistake_of_every_component_is_reported_before_anything_is_built(make_agent, journal):
    @attrs.frozen
    class Keys:
        depth: int = 1

    class Handler(notes(journal)):
        Config = Keys

        def __init__(self, config, context):
            journal.note("built")

    agent = make_agent(
        {"collectors.c": emits(fork(1)), "handlers.one": Handler, "handlers.two": Handler},
        tables={"handlers.one": {"depth": "deep"}, "handlers.two": {"dpeth": 1}},
    )
    with pytest.raises(ConfigError) as wrong:
        agent.start()
    assert [problem.path for problem in wrong.value.problems] == [
        "handlers.one.depth",
        "handlers.two.dpeth",
    ]
    assert journal.entries == []


# --- what must run and what may -------------------------------------------------------


class Lacking:
    """What cannot start here."""

    @hookimpl
    def linnix_start(self):
        raise PluginUnavailable("needs CAP_BPF", hint="sudo linnix run")

    @hookimpl
    def linnix_poll(self):
        pass

    @staticmethod
    def handler():
        class LackingHandler:
            @hookimpl
            def linnix_start(self):
                raise PluginUnavailable("port 3000 is taken", hint="port = 3001")

            @hookimpl
            def linnix_handle(self):
                pass

        return LackingHandler


def test_what_is_not_required_is_left_out_and_says_why(make_agent, journal):
    plugins = {
        "collectors.c": emits(fork(1)),
        "handlers.http": Lacking.handler(),
        "handlers.notes": notes(journal),
    }
    with make_agent(plugins) as agent:
        assert journal.wait_for(("notes", "event", 1))
        status = status_of(agent, "handlers.http")
        assert (status.state, status.code) == ("unavailable", "capability")
        assert (status.reason, status.hint) == ("port 3000 is taken", "port = 3001")


@pytest.mark.parametrize(
    "options",
    [
        {"tables": {"handlers.http": {"required": True}}},
        {"origins": {"handlers.http": "command line"}},
        {"strict": True},
    ],
    ids=["required", "command line", "strict"],
)
def test_what_is_required_must_start_and_what_had_started_is_stopped(make_agent, journal, options):
    plugins = {
        "collectors.c": emits(fork(1)),
        "handlers.notes": notes(journal),
        "handlers.http": Lacking.handler(),
    }
    agent = make_agent(plugins, **options)
    with pytest.raises(RequiredComponentFailed) as failed:
        agent.start()
    assert str(failed.value) == "handlers.http is required and unavailable: port 3000 is taken"
    assert failed.value.hint == "port = 3001"
    assert failed.value.exit_code == 3
    assert journal.entries[-1] == ("notes", "stop")
    with pytest.raises(AgentStopped):
        agent.submit(storm())


def test_what_is_required_but_not_installed_ends_the_start(make_agent):
    agent = make_agent(
        {"collectors.c": emits(fork(1))}, tables={"handlers.slack": {"required": True}}
    )
    with pytest.raises(RequiredComponentFailed, match="a handler called 'slack'") as failed:
        agent.start()
    assert failed.value.hint == "pip install linnix-plugin-slack"


def test_a_ladder_runs_the_first_collector_that_can_start_and_builds_none_after_it(
    make_agent, journal
):
    def collector(name):
        class Collector(emits(fork(1))):
            def __init__(self, config, context):
                journal.note(f"{name} built")

        return Collector

    class Broken:
        def __init__(self, config, context):
            raise OSError("no such device")

        @hookimpl
        def linnix_poll(self):
            pass

    ladder = {
        "collectors.ebpf": Lacking,
        "collectors.bcc": Broken,
        "collectors.psutil": collector("psutil"),
        "collectors.last": collector("last"),
    }
    with make_agent(ladder, ladder=list(ladder), strict=True) as agent:
        said = {s.component: (s.state, s.code, s.reason) for s in agent.status()}
    assert said == {
        "collectors.ebpf": ("unavailable", "capability", "needs CAP_BPF"),
        "collectors.bcc": ("failed", "crash", "constructor: OSError: no such device"),
        "collectors.psutil": ("running", "", ""),
        "collectors.last": ("available", "ladder", "not needed: collectors.psutil runs"),
    }
    assert journal.entries == ["psutil built"]


def test_a_companion_runs_beside_the_ladder(make_agent, journal):
    plugins = {
        "collectors.psi": emits(fork(1)),
        "collectors.psutil": emits(fork(2)),
        "handlers.notes": notes(journal),
    }
    with make_agent(plugins, ladder=["collectors.psutil"]):
        assert journal.wait_for(("notes", "event", 1))
        assert journal.wait_for(("notes", "event", 2))


def test_without_any_collector_the_reasons_are_listed(make_agent):
    agent = make_agent(
        {"collectors.ebpf": Lacking, "collectors.bcc": Lacking},
        ladder=["collectors.ebpf", "collectors.bcc"],
    )
    with pytest.raises(RequiredComponentFailed) as failed:
        agent.start()
    assert str(failed.value) == (
        "no collector could start; collectors.ebpf: needs CAP_BPF; collectors.bcc: needs CAP_BPF"
    )
    with pytest.raises(RequiredComponentFailed, match="none is installed") as missing:
        make_agent({}).start()
    assert missing.value.hint == "pip install linnix-plugin-psutil"


@attrs.frozen
class WriterConfig:
    ARG = "path"
    path: str = "out.jsonl"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("path", "origin", "state"),
    [
        ("-", "default", "stopped"),
        ("out.jsonl", "default", "running"),
        ("-", "configuration", "running"),  # who wants both may have both
    ],
)
def test_a_default_that_writes_to_standard_output_yields_to_who_was_asked_to(
    make_agent, journal, path, origin, state, strict
):
    class Writer(notes(journal)):
        Config = WriterConfig

        def __init__(self, config, context):
            pass

    class Console(notes(journal)):
        USES_STDOUT = True

    agent = make_agent(
        {"collectors.c": emits(fork(1)), "handlers.jsonl": Writer, "handlers.console": Console},
        tables={"handlers.jsonl": {"path": path}},
        origins={"handlers.console": origin},
        strict=strict,
    )
    with agent:
        status = status_of(agent, "handlers.console")
        assert status.state == state
        assert status_of(agent, "handlers.jsonl").state == "running"
        if state == "stopped":
            assert status.code == "stdout"
            assert status.reason == "standard output belongs to handlers.jsonl"
        assert agent.run(0.01) == "the time is over"


# --- components -----------------------------------------------------------------------


def test_components_are_told_apart_by_identity_not_by_equality(make_agent, journal):
    class Equal:
        built = 0

        def __init__(self, config, context):
            self.name = context.component

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

        @hookimpl
        def linnix_handle(self, batch):
            journal.note((self.name, "handle"))

        @hookimpl
        def linnix_alert(self, alert):
            journal.note((self.name, "alert"))

        @hookimpl
        def linnix_evidence(self, incident):
            journal.note((self.name, "evidence"))

        @hookimpl
        def linnix_stop(self):
            journal.note((self.name, "stop"))

    names = ["handlers.one", "handlers.two"]
    agent = make_agent(
        {"collectors.c": emits(fork(1)), "handlers.equal": Equal, "handlers.a": alarms(storm())},
        tables={name: {"plugin": "equal"} for name in names},
    )
    with agent:
        for name in names:
            for hook in ("handle", "alert", "evidence"):
                assert journal.wait_for((name, hook))
    for name in names:
        assert journal.count((name, "alert")) == journal.count((name, "stop")) == 1


def test_health_is_asked_and_shown_with_its_limits(make_agent, journal, monkeypatch):
    monkeypatch.setattr(agent_module, "HEALTH_EVERY_S", 0.0)
    monkeypatch.setattr(agent_module, "HEALTH_TIMEOUT_S", HANG_S)
    now = [Health("degraded", "the disk is slow", limits=("sees no threads",))]

    class Feels(notes(journal)):
        @hookimpl
        def linnix_health(self):
            return now[0]

    plugins = {"collectors.c": emits(fork(1)), "handlers.feels": Feels}
    with make_agent(plugins) as agent:
        status = status_of(agent, "handlers.feels")  # the first time is at the start
        assert (status.state, status.code, status.reason) == (
            "degraded",
            "health",
            "the disk is slow",
        )
        assert status.limits == ("sees no threads",)
        now[0] = Health("ok")
        assert agent.run(1.1) == "the time is over"
        status = status_of(agent, "handlers.feels")
        assert (status.state, status.limits) == ("running", ())


def test_who_tells_its_health_knows_when_a_reload_no_longer_matters(make_agent, monkeypatch):
    monkeypatch.setattr(agent_module, "HEALTH_EVERY_S", 0.0)
    monkeypatch.setattr(agent_module, "HEALTH_TIMEOUT_S", HANG_S)
    now = [Health("degraded", "line 3 is broken")]

    class Feels:
        @hookimpl
        def linnix_handle(self, batch):
            pass

        @hookimpl
        def linnix_reload(self):
            raise LinnixError("line 3 is broken")

        @hookimpl
        def linnix_health(self):
            return now[0]

    with make_agent({"collectors.c": emits(), "handlers.feels": Feels}) as agent:
        agent.request_reload()
        assert agent.run(1.1) == "the time is over"
        assert status_of(agent, "handlers.feels").code == "reload"
        now[0] = Health("ok")
        assert agent.run(1.1) == "the time is over"
        assert status_of(agent, "handlers.feels").state == "running"


def test_a_component_that_has_gone_is_no_longer_asked_for_labels(make_agent, journal):
    class Leaves:
        @hookimpl
        def linnix_handle(self, batch):
            raise PluginUnavailable("the cache has gone")

        @hookimpl
        def linnix_enrich(self, batch):
            journal.note("enrich")
            raise OSError("no cache")

    class Pulse:
        @hookimpl
        def linnix_collect(self, sink, stop):
            pid = 1
            while not stop.wait(0.002):
                sink.emit(fork(pid))
                pid += 1

    plugins = {
        "collectors.c": Pulse, "handlers.leaves": Leaves, "handlers.notes": notes(journal),
    }  # fmt: skip
    with make_agent(plugins) as agent:
        eventually(lambda: status_of(agent, "handlers.leaves").code == "capability")
        for _ in range(3):  # the batch that was on its way may still have been offered
            asked, seen = journal.count("enrich"), len(journal.entries)
            assert journal.wait_until(lambda entries, n=seen: len(entries) > n + 5)
        assert journal.count("enrich") == asked
        assert status_of(agent, "handlers.leaves").state == "unavailable"


def test_a_context_has_what_a_plugin_may_touch_and_nothing_else(make_agent, journal, tmp_path):
    contexts = {}

    class Looks(notes(journal)):
        def __init__(self, config, context):
            contexts["constructor"] = context

        @hookimpl
        def linnix_start(self, context):
            contexts["start"] = context

        @hookimpl
        def linnix_query(self, query):
            return Result((query.limit,))

    plugins = {"collectors.c": emits(fork(1)), "handlers.looks": Looks}
    with make_agent(plugins) as agent:
        assert journal.wait_for(("notes", "event", 1))
        context = contexts["start"]
        assert context is contexts["constructor"]
        assert {name for name in dir(context) if not name.startswith("_")} == {
            "component", "logger", "stop", "clock", "host", "run_id", "processes", "incidents",
            "components", "query", "deployment", "submit", "feedback", "explain", "bundle",
            "metrics", "mounts", "data_dir",
        }  # fmt: skip
        assert (context.component, context.host) == ("handlers.looks", "testhost")
        assert context.run_id == agent.run_id
        assert context.logger.name == "linnix.handlers.looks"
        assert context.data_dir == tmp_path / "data" / "handlers.looks"
        assert context.processes.find(1) is not None
        assert context.query(Query(limit=3)) == Result((3,))
        assert context.deployment("none") is None
        assert [s.component for s in context.components()] == ["collectors.c", "handlers.looks"]
        assert not context.stop.is_set()
        for name in ("submit", "processes", "anything"):
            with pytest.raises(AttributeError):
                setattr(context, name, None)
    assert context.stop.is_set()


def test_everyone_is_ready_after_all_have_started_and_before_the_first_record(make_agent, journal):
    class Collects(emits(fork(1))):
        @hookimpl
        def linnix_start(self):
            journal.note(("collector", "start"))

        @hookimpl
        def linnix_ready(self):
            journal.note(("collector", "ready"))

    class Handles(notes(journal)):
        @hookimpl
        def linnix_start(self):
            journal.note(("handler", "start"))

        @hookimpl
        def linnix_ready(self):
            journal.note(("handler", "ready"))

    with make_agent({"collectors.c": Collects, "handlers.h": Handles}):
        assert journal.wait_for(("notes", "event", 1))
    assert [entry[:2] for entry in journal.entries[:5]] == [
        ("handler", "start"), ("collector", "start"), ("collector", "ready"), ("handler", "ready"),
        ("notes", "event"),
    ]  # fmt: skip


def test_metrics_of_a_run_are_its_own_and_those_of_its_components(make_agent, journal):
    class Counts(notes(journal)):
        @hookimpl
        def linnix_metrics(self):
            return [Metric("things", 3.0, labels={"sort": "odd"}), "no metric"]

    class Breaks(notes(journal)):
        @hookimpl
        def linnix_metrics(self):
            raise RuntimeError("no numbers today")

    plugins = {
        "collectors.c": emits(fork(1)),
        "handlers.breaks": Breaks,
        "handlers.counts": Counts,
    }
    with make_agent(plugins) as agent:
        assert journal.wait_for(("notes", "event", 1))
        found = {metric.name: metric for metric in agent.metrics()}
        assert found["things"].labels == {"sort": "odd", "component": "handlers.counts"}
        assert found["linnix_processes"].value == 1
        assert {"linnix_rejected_alerts", "linnix_discarded_answers"} < found.keys()
        assert "no numbers today" in status_of(agent, "handlers.breaks").reason


def test_pages_of_handlers_are_found_by_whoever_serves_them(make_agent, journal):
    page = Mount("/things", app=object(), title="Things")

    class Pages(notes(journal)):
        @hookimpl
        def linnix_http(self):
            return [page]

    with make_agent({"collectors.c": emits(fork(1)), "handlers.pages": Pages}) as agent:
        assert agent.mounts() == (page,)


def test_feedback_is_cleaned_stamped_and_reaches_every_handler(make_agent):
    told = queue.Queue()

    class Listens:
        @hookimpl
        def linnix_feedback(self, feedback):
            told.put(feedback)

    with make_agent({"collectors.c": emits(), "handlers.listens": Listens}) as agent:
        given = Feedback("x-i1", "noise", "password=hunter2 " + "x" * 2000, by="anna")
        agent.feedback(given)
        feedback = told.get(timeout=HANG_S)
        assert (feedback.incident, feedback.verdict, feedback.by) == ("x-i1", "noise", "anna")
        assert "hunter2" not in feedback.note
        assert len(feedback.note) == 1000
        assert feedback.seq > 0
        assert feedback.run_id == agent.run_id
        assert given.seq == 0, "what was given is the giver's"
        for wrong in (None, Feedback("x-i1", "great"), Feedback(7, "noise")):
            with pytest.raises(LinnixError, match="expected Feedback"):
                agent.feedback(wrong)
    with pytest.raises(AgentStopped):
        agent.feedback(given)


def test_an_incident_is_explained_once_more_on_request(make_agent, journal):
    plugins = {
        "collectors.c": emits(fork(1, comm="make")),
        "handlers.alarms": alarms(storm()),
        "handlers.notes": notes(journal),
        "reasoners.r": answers(journal, "r", GOOD),
    }
    with make_agent(plugins) as agent:
        assert journal.wait_until(lambda entries: sum(e[1] == "insight" for e in entries) == 1)
        (incident,) = agent.incidents.open()
        assert agent.explain(incident.id)
        assert journal.wait_until(lambda entries: sum(e[1] == "insight" for e in entries) == 2)
        assert not agent.explain("of-another-run")


def test_a_reload_reaches_every_component_and_a_broken_file_ends_nothing(make_agent, caplog):
    reloaded = queue.Queue()

    class Breaks:
        @hookimpl
        def linnix_handle(self, batch):
            pass

        @hookimpl
        def linnix_reload(self):
            raise LinnixError("rules.yaml:3: unknown key")

    class Reloads(Breaks):
        @hookimpl
        def linnix_reload(self):
            reloaded.put(True)

    plugins = {"collectors.c": emits(), "handlers.a": Breaks, "handlers.b": Reloads}
    with make_agent(plugins) as agent:
        agent.request_reload()
        running = threading.Thread(target=agent.run)
        running.start()
        assert reloaded.get(timeout=HANG_S)
        agent.request_stop("that was it")
        running.join(HANG_S)
        broken = status_of(agent, "handlers.a")
        assert (broken.state, broken.code) == ("degraded", "reload")
    assert "goes on with what it had: rules.yaml:3: unknown key" in caplog.text


def test_views_give_copies(make_agent, journal):
    plugins = {
        "collectors.c": emits(fork(1, comm="make")),
        "handlers.alarms": alarms(storm()),
        "handlers.notes": notes(journal),
    }
    with make_agent(plugins) as agent:
        assert journal.wait_for(("notes", "incident", "opened"))
        agent.processes.view.find(1).comm = "changed"
        next(iter(agent.processes.view)).ended_ns = 7
        agent.incidents.open()[0].severity = "info"
        counters = agent.status()[0].counters
        counters["received"] = 99
        assert agent.processes.view.find(1).comm == "make"
        assert agent.processes.view.find(1).alive
        assert agent.incidents.open()[0].severity == "high"
        assert agent.status()[0].counters["received"] == 1


# --- from an alert to an insight ------------------------------------------------------


def test_an_alert_becomes_an_incident_and_the_incident_an_insight(make_agent, journal):
    """The whole path, through a collector, handlers and a reasoner of three strangers."""
    offender = ProcessKey("", 4242, 10_000_000)
    got = {}

    class Rules:
        @hookimpl
        def linnix_handle(self, batch):
            for record in batch:
                if record.type == "event" and record.pid == 4242:
                    subject = Subject(record.key, record.exe, record.comm, record.cgroup)
                    yield storm(subject=subject, actions=("Ask who started it",))

    class Listens:
        @hookimpl
        def linnix_alert(self, alert):
            got["alert"] = alert

        @hookimpl
        def linnix_incident(self, incident):
            got["incident"] = incident

        @hookimpl
        def linnix_insight(self, insight):
            got["insight"] = insight
            journal.note("insight")

        @hookimpl
        def linnix_evidence(self, incident):
            return [Fact("namespace", 3, "pods")]

    def reason(request):
        got["request"] = request
        facts = {fact.name: fact.id for fact in request.facts}
        return Answer(
            "fork_storm",
            91,
            process=request.processes[0].id,
            facts=(facts["forks"], facts["namespace"]),
            actions=(request.actions[0].id,),
        )

    agent = make_agent(
        {
            "collectors.c": emits(fork(1), fork(4242, comm="make", exe="/usr/bin/make")),
            "handlers.rules": Rules,
            "handlers.listens": Listens,
            "reasoners.thinks": answers(journal, "thinks", reason),
        }
    )
    with agent:
        assert journal.wait_for("insight")
        assert agent.wait_idle(HANG_S)
    alert, incident, insight = got["alert"], got["incident"], got["insight"]
    assert alert.subject.key == offender._replace(boot_id=agent._stamp.boot_id)
    assert (incident.change, incident.alerts, incident.class_) == ("opened", 1, "fork_storm")
    assert got["request"].incident.id == incident.id == insight.incident
    assert (insight.class_, insight.confidence) == ("fork_storm", 0.91)
    assert insight.reasoner == "thinks"
    assert insight.primary_process == "make (pid 4242)"
    assert insight.why == "Fork storm by make (pid 4242): 812 forks, namespace 3 pods"
    assert insight.actions == ("Ask who started it",)
    assert [fact.name for fact in insight.facts] == ["forks", "namespace"]
    assert insight.grounded
    seqs = [alert.seq, incident.seq, insight.seq]
    assert seqs == sorted(set(seqs))
    assert all(
        n.host == "testhost" and n.run_id == agent.run_id
        for n in got.values()
        if n is not got["request"]
    )
    assert len({alert.id, incident.id, insight.id}) == 3


_DECLINES = {
    "declines": lambda request: None,
    "raises": ValueError("no model"),
    "exits": SystemExit(1),
    "is not available": PluginUnavailable("no server", hint="start one"),
    "answers a text": "it was make",
    "answers a dictionary": {"class": "fork_storm"},
    "makes up a fact": attrs.evolve(GOOD, facts=("f1", "f99")),
    "cites nothing": attrs.evolve(GOOD, facts=()),
    "makes up a process": attrs.evolve(GOOD, process="P9"),
    "makes up an action": attrs.evolve(GOOD, actions=("rm -rf /",)),
    "makes up a class": attrs.evolve(GOOD, class_="alien_attack"),
    "is too sure": attrs.evolve(GOOD, confidence=101),
    "answers with wrong types": attrs.evolve(GOOD, facts=7, process=[]),
}
_UNGROUNDED = {
    name for name in _DECLINES if name.startswith(("makes", "cites", "answers", "is too"))
}


@pytest.mark.parametrize("case", _DECLINES)
def test_a_reasoner_that_gives_no_good_answer_is_followed_by_the_next(make_agent, journal, case):
    agent = make_agent(
        {
            "collectors.c": emits(fork(1)),
            "handlers.alarms": alarms(storm()),
            "handlers.notes": notes(journal),
            "reasoners.first": answers(journal, "first", _DECLINES[case]),
            "reasoners.second": answers(journal, "second", GOOD),
            "reasoners.third": answers(journal, "third", GOOD),
        }
    )
    with agent:
        assert journal.wait_for(("notes", "insight", "second"))
        assert agent.wait_idle(HANG_S)
        assert agent.discarded_answers == (case in _UNGROUNDED)
        status = status_of(agent, "reasoners.first")
        if case in ("raises", "exits", "is not available"):
            assert (status.state, status.code) == ("degraded", "declined")
            assert status.counters["failures"] == 1
        else:
            assert status.state == "running"
    asked = [entry[0] for entry in journal.entries if entry[-1] == "asked"]
    assert asked == ["first", "second"]


def test_a_reasoner_that_takes_too_long_has_declined_and_is_not_waited_for_again(
    make_agent, journal, forever
):
    def hangs(request):
        forever.wait()

    agent = make_agent(
        {
            "collectors.c": emits(fork(1)),
            "handlers.alarms": alarms(storm(), storm(class_="cpu_spin")),
            "handlers.notes": notes(journal),
            "reasoners.slow": answers(journal, "slow", hangs),
            "reasoners.quick": answers(journal, "quick", GOOD),
        },
        reason_timeout_s=1.0,
        stop_timeout_s=2.0,
    )
    with agent:
        assert journal.wait_for(("notes", "insight", "quick"), times=2)
        status = status_of(agent, "reasoners.slow")
        assert (status.state, status.code) == ("degraded", "declined")
        assert re.search(r"no answer within 0\.\d+ s", status.reason)
        assert status.counters["failures"] == 1  # the second one had waited too long to ask
    assert journal.count(("slow", "asked")) == 1


def test_an_incident_that_nobody_explains_has_no_insight(make_agent, journal, caplog):
    agent = make_agent(
        {
            "collectors.c": emits(fork(1)),
            "handlers.alarms": alarms(storm()),
            "handlers.notes": notes(journal),
            "reasoners.shy": answers(journal, "shy", None),
        }
    )
    with agent:
        assert journal.wait_for(("shy", "asked"))
        assert agent.wait_idle(HANG_S)
    assert not [entry for entry in journal.entries if entry[1] == "insight"]
    assert "stays unexplained: every reasoner declined" in caplog.text


def test_an_incident_without_a_class_is_told_and_not_explained(make_agent, journal):
    agent = make_agent(
        {
            "collectors.c": emits(fork(1)),
            "handlers.alarms": alarms(Alert("fd_count", "medium", "9000 descriptors")),
            "handlers.notes": notes(journal),
            "reasoners.eager": answers(journal, "eager", GOOD),
        }
    )
    with agent:
        assert journal.wait_for(("notes", "incident", "opened"))
        assert agent.wait_idle(HANG_S)
        (incident,) = agent.incidents.open()
        assert (incident.class_, incident.summary) == (None, "9000 descriptors")
    assert journal.count(("eager", "asked")) == 0


@pytest.mark.parametrize(
    "evidence",
    [
        lambda: 7,
        lambda: [Fact("pods", 3, "pods"), "no fact", None],
        lambda: (1 // 0 for _ in range(1)),
        lambda: None,
    ],
    ids=["a number", "not only facts", "a generator that raises", "nothing"],
)
def test_evidence_that_cannot_be_used_does_not_keep_the_insight_back(make_agent, journal, evidence):
    class Adds:
        @hookimpl
        def linnix_evidence(self, incident):
            return evidence()

    agent = make_agent(
        {
            "collectors.c": emits(fork(1)),
            "handlers.alarms": alarms(storm()),
            "handlers.adds": Adds,
            "handlers.notes": notes(journal),
            "reasoners.good": answers(journal, "good", GOOD),
        }
    )
    with agent:
        assert journal.wait_for(("notes", "insight", "good"))


# --- submitting -----------------------------------------------------------------------


def test_alerts_can_be_submitted_from_anywhere_while_it_runs(make_agent, journal):
    agent = make_agent({"collectors.c": emits(fork(1)), "handlers.notes": notes(journal)})
    with pytest.raises(AgentStopped):
        agent.submit(storm())
    with agent:
        threads = [
            threading.Thread(target=lambda: [agent.submit(storm()) for _ in range(20)])
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG_S)
        assert agent.wait_idle(HANG_S)
        assert journal.count(("notes", "alert", "forks")) == 100
        assert agent.incidents.open()[0].alerts == 100
    with pytest.raises(AgentStopped):
        agent.submit(storm())


def test_a_handler_may_submit_from_its_hooks(make_agent, journal):
    class Echoes(notes(journal)):
        def __init__(self, config, context):
            self.submit = context.submit

        @hookimpl
        def linnix_start(self):
            self.submit(attrs.evolve(storm(), rule="from start"))

        @hookimpl
        def linnix_alert(self, alert):
            super().linnix_alert(alert)
            if alert.rule == "from start":
                self.submit(attrs.evolve(storm(), rule="from alert"))

        @hookimpl
        def linnix_stop(self):
            with pytest.raises(AgentStopped):
                self.submit(storm())
            journal.note("refused")

    with make_agent({"collectors.c": emits(fork(1)), "handlers.echoes": Echoes}):
        assert journal.wait_for(("notes", "alert", "from alert"))
    assert journal.entries[-1] == "refused"


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "fire",
        fork(1),
        storm(class_="alien_attack"),
        attrs.evolve(storm(), severity="urgent"),
        attrs.evolve(storm(), message=None),
        storm(evidence=("812",)),
        storm(subject=None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_alert_is_refused_where_it_is_submitted(make_agent, journal, wrong):
    agent = make_agent({"collectors.c": emits(fork(1)), "handlers.notes": notes(journal)})
    with agent:
        with pytest.raises(LinnixError, match="expected an Alert, got "):
            agent.submit(wrong)
        agent.submit(storm())
        assert journal.wait_for(("notes", "alert", "forks"))
        assert agent.wait_idle(HANG_S)
    assert journal.count(("notes", "alert", "forks")) == 1


def test_submitting_does_not_wait_when_too_many_alerts_do(make_agent, journal, monkeypatch):
    monkeypatch.setattr(notices_module, "MAX_WAITING_ALERTS", 10)
    agent = make_agent({"collectors.c": emits(fork(1)), "handlers.notes": notes(journal)})
    with agent:
        with agent.incidents._book._lock:  # the thread of alerts is held up
            for _ in range(100):
                agent.submit(storm())
        assert 89 <= agent.rejected_alerts <= 90
        assert agent.wait_idle(HANG_S)
        assert agent.incidents.open()[0].alerts + agent.rejected_alerts == 100


# --- what hangs -----------------------------------------------------------------------


def test_what_hangs_at_the_stop_costs_itself_and_the_others_get_all_that_waited(
    make_agent, journal, forever
):
    """Each step of the stop has a time of its own, so the last flush is never skipped."""

    def hang():
        journal.note("hangs")
        forever.wait()

    class HangsInCollect:
        @hookimpl
        def linnix_collect(self):
            hang()

    class HangsInPoll:
        @hookimpl
        def linnix_poll(self):
            hang()

    class HangsInHandle:
        @hookimpl
        def linnix_handle(self):
            hang()

    class HangsInInsight:
        @hookimpl
        def linnix_insight(self):
            hang()

    class HangsInReason:
        @hookimpl
        def linnix_reason(self):
            hang()

    class HoldsBack(notes(journal)):
        def __init__(self, config, context):
            self.stop = context.stop

        @hookimpl
        def linnix_handle(self, batch):
            self.stop.wait()
            return super().linnix_handle(batch)

        @hookimpl
        def linnix_flush(self):
            forever.wait(0.3)  # a slow disk
            super().linnix_flush()

    def answer(request):
        return GOOD if request.incident.class_ == "fork_storm" else None

    agent = make_agent(
        {
            "collectors.stream": HangsInCollect,
            "collectors.poll": HangsInPoll,
            "collectors.good": emits(*map(fork, range(1, 201))),
            "handlers.handle": HangsInHandle,
            "handlers.insight": HangsInInsight,
            "handlers.good": HoldsBack,
            "reasoners.good": answers(journal, "good", answer),
            "reasoners.hangs": HangsInReason,
        },
        tables={"handlers.good": {"overflow": "block"}},
        stop_timeout_s=8.0,
    )
    agent.start()
    agent.submit(storm())
    agent.submit(storm(class_="cpu_spin"))
    assert journal.wait_for("hangs", times=5)
    stopping = threading.Thread(target=agent.stop)
    stopping.start()
    stopping.join(HANG_S)
    assert not stopping.is_alive()
    story = [entry[1:] for entry in journal.entries if entry[0] == "notes"]
    assert [e for e in story if e[0] == "event"] == [("event", n) for n in range(1, 201)]
    assert story.count(("alert", "forks")) == 2
    assert story.count(("insight", "good")) == 1
    assert story[-2:] == [("flush",), ("stop",)]
    assert "linnix-handlers.good" not in {thread.name for thread in threading.enumerate()}
    assert status_of(agent, "handlers.good").counters["dropped"] == 0


# --- signals --------------------------------------------------------------------------

_PROBE = """
import sys, threading
from linnix_core import encode, hookimpl

def say(word):
    print(word, flush=True)

class Probe:
    '''Writes records into a buffer that only a flush empties.'''

    def __init__(self, config, context):
        self.file = open('out.jsonl', 'wb', buffering=1 << 24)
        self.handled = False

    @hookimpl
    def linnix_handle(self, batch):
        self.file.writelines(line + b'\\n' for line in batch.lines())
        if not self.handled:
            self.handled = True
            say('handled')

    @hookimpl
    def linnix_flush(self):
        self.file.flush()

    @hookimpl
    def linnix_stop(self):
        self.file.write(b'"stopped"\\n')
        self.file.close()

class Stuck(Probe):
    @hookimpl
    def linnix_stop(self):
        say('stopping')
        threading.Event().wait()
"""


@pytest.fixture
def linnix(install, tmp_path):
    """Start ``linnix`` with the probes installed; nothing of it is left after the test."""
    site = install(
        "linnix-plugin-probe",
        {"handlers.probe": "probe_plugin:Probe", "handlers.stuck": "probe_plugin:Stuck"},
        modules={"probe_plugin": _PROBE},
    )
    environ = {key: value for key, value in os.environ.items() if not key.startswith("LINNIX")}
    environ |= {"PYTHONPATH": str(site), "HOME": str(tmp_path)}
    environ |= {"LINNIX__AGENT__DATA_DIR": str(tmp_path / "data")}
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", "from linnix_core.cli import main; main()", *arguments],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


_RUN = (
    "run", "--no-plugins", "--collector", "psutil", "--set", "collectors.psutil.interval=0.05",
)  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_stops_the_run_in_order_and_everything_is_written(linnix, tmp_path, number):
    process = linnix(*_RUN, "--handler", "probe")
    assert process.stdout.readline() == "handled\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANG_S)
    assert (process.returncode, errors) == (0, "")
    *records, last = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert last == "stopped"
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert os.getpid() in {record["pid"] for record in records if record["type"] == "event"}


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM,) * 2],
    ids=lambda n: n.name,
)
def test_a_second_signal_stops_the_run_at_once(linnix, first, second):
    process = linnix(*_RUN, "--handler", "stuck", "--set", "agent.stop_timeout_s=3600")
    assert process.stdout.readline() == "handled\n"
    process.send_signal(first)
    assert process.stdout.readline() == "stopping\n"  # and there it would hang for an hour
    process.send_signal(second)
    process.communicate(timeout=HANG_S)
    assert process.returncode == -second  # which a shell shows as 128 + second


def test_a_run_whose_time_is_over_exits_with_0(linnix, tmp_path):
    process = linnix(*_RUN, "--handler", "probe", "--duration", "300ms")
    output, errors = process.communicate(timeout=HANG_S)
    assert (process.returncode, output, errors) == (0, "handled\n", "")
    assert (tmp_path / "out.jsonl").read_text().endswith('"stopped"\n')
