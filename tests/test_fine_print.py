"""The fine print of the hooks, line by line: section 4 of the architecture, in its order.

===========================================  ======================================================
the fine print                               the test, ``test_`` and
===========================================  ======================================================
One class per entry point and kind; only     only_the_hooks_of_its_kind_count
  the hooks of its kind count (joining-in,   joining_in_enrichment_and_history_are_open_to_handlers
  enrichment and history hooks are open to
  handlers).
A distribution with two halves has two       two_halves_are_two_classes_and_a_shared_module
  classes and a shared module.
``linnix.commands`` values are click         commands_are_click_commands
  commands.
The class is verified on a scratch manager   a_class_is_verified_before_it_is_built
  before it is built: async def,
  keyword-only or *args hooks, misspelled
  ones, none at all are failed with the
  reason.
Constructor and start run under a deadline.  constructor_and_start_run_under_a_deadline
Components are found by identity, not        components_are_found_by_identity
  equality.
PluginHost serves commands without an        without_an_agent_views_are_empty_and_submit_raises
  agent: then views are empty and submit
  raises.
Deployments persist in the data folder and   deployments_persist_and_name_their_deployer
  name their deployer; only that one is      stopping_an_agent_never_undeploys
  asked to probe or undeploy, and stopping
  an agent never undeploys.
In linnix_deploy None falls through, an      in_deploy_none_falls_through_an_exception_does_not
  exception does not.
Alerts returned by handlers go to one queue  alerts_go_through_one_queue_and_one_incident_thread
  of the core and one incident thread;       every_handler_gets_alerts_in_its_own_thread
  every handler, the sender too, gets them
  in its own thread.
Each handler has one FIFO in which only      only_batches_may_be_dropped_never_notices
  batches may be dropped, never notices.
submit never blocks and takes alerts only;   submit_never_blocks_and_takes_alerts_only
block holds back only the pipeline.          block_holds_back_only_the_pipeline
Each reasoner has a worker of its own: past  each_reasoner_has_a_worker_of_its_own
  its timeout, or busy, it counts as         late_or_busy_counts_as_declined
  declined.
Reasoning starts when an incident opens or   reasoning_starts_when_an_incident_opens_or_gets_worse
  gets worse.
The pipeline thread alone writes the         the_pipeline_alone_writes_the_process_table
  process table; views return copies.        views_return_copies
Enrichment runs there too, from cached       enrichment_comes_before_the_handlers_within_its_budget
  data, within a time budget.
Shutdown order: collectors, batches,         shutdown_goes_from_the_collectors_to_the_last_flush
  incidents and insights, notices, flush,
  stop.
Reserved keys are taken out before a         reserved_keys_do_not_reach_the_config
  plugin's Config is built; no Config means  no_config_means_no_keys
  no keys.
--handler N:ARG sets the one field that      an_argument_sets_the_field_that_the_config_names
  Config.ARG names.
Names match [a-z][a-z0-9-]*.                 names_are_small_letters_digits_and_dashes
One request object per hook, so that fields  hooks_take_one_request_object
  can be added later; a plugin names only    a_plugin_names_only_the_arguments_that_it_needs
  the arguments it needs.
context gives a plugin what it may touch.    nothing_else_of_the_core_is_reachable
  Nothing else of the core is reachable.
===========================================  ======================================================
"""

from __future__ import annotations

import inspect
import re
import stat
import sys
import threading
import time

import attrs
import click
import pytest

from linnix_core import (
    AgentStopped,
    Alert,
    Answer,
    ConfigError,
    Deployment,
    Evidence,
    Health,
    LinnixError,
    ModelSpec,
    PluginError,
    ProcessEvent,
    Query,
    hookimpl,
)
from linnix_core import agent as agent_module
from linnix_core.agent import Agent
from linnix_core.catalog import Catalog
from linnix_core.cli import main
from linnix_core.config import AgentSettings, read
from linnix_core.deployments import DeploymentStore, deploy, probe, undeploy
from linnix_core.hookspecs import KINDS, SPECS
from linnix_core.loading import load
from linnix_core.plan import make_plan
from linnix_core.plugins import CallFailed, verify
from linnix_core.testing.waiting import eventually

HANG_S = 60.0


def test_the_table_above_names_every_test_of_this_file_in_its_order():
    named = re.findall(r"^.{43}  (\w+)$", __doc__, re.MULTILINE)
    tests = [
        name.removeprefix("test_")
        for name, value in globals().items()
        if name.startswith("test_") and inspect.isfunction(value)
    ]
    assert named == tests[1:]


# --- what the tests share -------------------------------------------------------------


def fork(pid, **parts):
    return ProcessEvent("fork", pid=pid, start_ns=10_000_000, **parts)


class Quiet:
    """A collector that has nothing to tell."""

    @hookimpl
    def linnix_collect(self, stop):
        stop.wait()


def emits(*records):
    class Emits:
        @hookimpl
        def linnix_collect(self, sink, stop):
            for record in records:
                sink.emit(attrs.evolve(record))
            stop.wait()

    return Emits


def storm(**parts):
    evidence = (Evidence("forks", 812, "forks"),)
    return Alert("forks", "high", "812 forks", "fork_storm", **{"evidence": evidence, **parts})


def class_with(*hooks):
    """A class that implements these, each naming no argument."""

    class Made:
        pass

    for hook in hooks:

        def method(self):
            return None

        method.__qualname__ = f"Made.{hook}"
        setattr(Made, hook, hookimpl(method))
    return Made


def hooks_of(kind):
    return [name for name in vars(SPECS[kind][-1]) if name.startswith("linnix_")]


def status_of(agent, component):
    (status,) = [s for s in agent.status() if s.component == component]
    return status


GOOD = Answer("fork_storm", 80, facts=("f1",))


# --- classes --------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "other"), [(k, o) for k in KINDS for o in KINDS if k != o])
def test_only_the_hooks_of_its_kind_count(kind, other):
    own = hooks_of(kind)[0]
    for hook in hooks_of(other):
        with pytest.raises(PluginError, match=f"{hook} belongs to {other}, and this is one of"):
            verify(class_with(own, hook), kind)


def test_joining_in_enrichment_and_history_are_open_to_handlers():
    for hook in (
        "linnix_enrich", "linnix_query", "linnix_evidence", "linnix_http"
    ):  # fmt: skip
        assert verify(class_with(hook), "handlers") == {hook: ()}


def test_two_halves_are_two_classes_and_a_shared_module(install, make_host):
    half = (
        "from linnix_core import hookimpl\nfrom halves_shared import CLIENT\n"
        "class Half:\n    client = CLIENT\n    @hookimpl\n    def {hook}(self):\n        pass\n"
    )
    site = install(
        "linnix-plugin-halves",
        {"reasoners.halves": "halves_reasoner:Half", "deployers.halves": "halves_deployer:Half"},
        modules={
            "halves_shared": "CLIENT = object()",
            "halves_reasoner": half.format(hook="linnix_reason"),
            "halves_deployer": half.format(hook="linnix_deploy"),
        },
    )
    host = make_host(Catalog.scan([str(site)]))
    reasoner = host.open("reasoners", "halves")
    assert "halves_deployer" not in sys.modules  # each half is loaded when it is wanted
    deployer = host.open("deployers", "halves")
    assert reasoner.instance.client is deployer.instance.client


def test_commands_are_click_commands(install, capsys):
    site = install(
        "linnix-plugin-greeting",
        {"commands.greet": "greeting:greet", "commands.shout": "greeting:shout"},
        modules={
            "greeting": "import click\n@click.command()\ndef greet():\n    click.echo('hello')\n"
            "def shout():\n    pass\n"
        },
    )
    record = Catalog.scan([str(site)]).find("commands", "greet")
    assert isinstance(load(record), click.Command)
    with pytest.raises(SystemExit, match="0"):
        main(["greet"])
    assert capsys.readouterr().out == "hello\n"
    with pytest.raises(SystemExit, match="1"):
        main(["shout"])
    assert "linnix shout is no click command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        ("async def linnix_handle(self, batch)", "linnix_handle is async"),
        ("def linnix_handle(self, *, batch)", "batch must be an ordinary argument"),
        ("def linnix_handle(self, *args)", r"\*args must be an ordinary argument"),
        ("def linnix_handles(self, batch)", "did you mean linnix_handle?"),
        ("def nothing(self)", "implements no hook of handlers"),
    ],
)
def test_a_class_is_verified_before_it_is_built(make_agent, hook, reason):
    names = {"hookimpl": hookimpl, "built": []}
    marked = "" if "nothing" in hook else "    @hookimpl\n"
    exec(
        f"class Bad:\n    def __init__(self, config, context):\n        built.append(self)\n"
        f"{marked}    {hook}:\n        pass\n",
        names,
    )
    with make_agent({"collectors.c": Quiet, "handlers.bad": names["Bad"]}) as agent:
        status = status_of(agent, "handlers.bad")
        assert (status.state, status.code) == ("failed", "hooks")
        assert re.search(reason, status.reason)
        assert names["built"] == []
        # What was tried out on the scratch manager did not get into that of the run.
        assert not agent.host._manager.has_plugin("handlers.bad")


@pytest.mark.parametrize("where", ["constructor", "linnix_start"])
def test_constructor_and_start_run_under_a_deadline(make_host, forever, where):
    class Hangs:
        def __init__(self, config, context):
            if where == "constructor":
                forever.wait()

        @hookimpl
        def linnix_start(self):
            forever.wait()

        @hookimpl
        def linnix_handle(self):
            pass

    host = make_host({"handlers.hangs": Hangs}, start_timeout_s=1.0)
    with pytest.raises(LinnixError, match=f"{where}: TimeoutError: no answer within 1 s"):
        host.open("handlers", "hangs")
    assert host.components[0].status().code == "timeout"


def test_components_are_found_by_identity(make_host):
    class Equal:
        def __init__(self, config, context):
            self.name = context.component

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 0

        @hookimpl
        def linnix_evidence(self):
            return self.name

    host = make_host({"handlers.one": Equal, "handlers.two": Equal})
    one, two = host.open("handlers", "one"), host.open("handlers", "two")
    assert one.instance == two.instance
    assert host.each("linnix_evidence", HANG_S) == [(one, "handlers.one"), (two, "handlers.two")]


# --- without an agent, and deployments ------------------------------------------------


def test_without_an_agent_views_are_empty_and_submit_raises(make_host):
    class Handler:
        def __init__(self, config, context):
            self.context = context

        @hookimpl
        def linnix_evidence(self):
            return [self.context.component]

    host = make_host({"handlers.tested": Handler})
    component = host.open("handlers", "tested")
    assert component.call("linnix_evidence") == ["handlers.tested"]
    context = component.instance.context
    assert (list(context.processes), len(context.processes)) == ([], 0)
    assert (context.incidents.open(), context.incidents.recent()) == ([], [])
    assert context.components() == ()
    assert context.query(Query()) is None
    with pytest.raises(AgentStopped):
        context.submit(storm())


def deployer(journal, name, answer):
    class Deployer:
        @hookimpl
        def linnix_deploy(self, spec):
            journal.note((name, "deploy"))
            if isinstance(answer, Exception):
                raise answer
            return answer

        @hookimpl
        def linnix_probe(self, deployment):
            journal.note((name, "probe"))
            return Health("ok")

        @hookimpl
        def linnix_undeploy(self, deployment):
            journal.note((name, "undeploy"))

    return Deployer


SERVED = Deployment("small", "", "small.gguf", "http://127.0.0.1:8080/v1")
SPEC = ModelSpec("small", "/models/small.gguf")


def test_deployments_persist_and_name_their_deployer(make_host, journal, tmp_path):
    def host():
        opened = make_host(
            {
                "deployers.near": deployer(journal, "near", None),
                "deployers.far": deployer(journal, "far", SERVED),
            }
        )
        for name in ("near", "far"):
            opened.open("deployers", name)
        return opened

    path = tmp_path / "data" / "deployments.json"
    deploy(host(), DeploymentStore(path), SPEC)
    later = DeploymentStore(path)  # another command, another day
    assert later.get("small").deployer == "far"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert probe(host(), later.get("small")) == Health("ok")
    undeploy(host(), later, "small")
    assert DeploymentStore(path).list() == []
    assert [entry for entry in journal.entries if entry[1] != "deploy"] == [
        ("far", "probe"),
        ("far", "undeploy"),
    ]


def test_stopping_an_agent_never_undeploys(make_agent, journal, tmp_path):
    found = []

    class Looks:
        def __init__(self, config, context):
            self.context = context

        @hookimpl
        def linnix_start(self):
            found.append(self.context.deployment("small"))

        @hookimpl
        def linnix_handle(self):
            pass

    store = DeploymentStore(tmp_path / "data" / "deployments.json")
    store.put(attrs.evolve(SERVED, deployer="near"))
    plugins = {
        "collectors.c": Quiet,
        "handlers.looks": Looks,
        "deployers.near": deployer(journal, "near", SERVED),
    }
    with make_agent(plugins) as agent:
        assert status_of(agent, "deployers.near").state == "running"
    assert status_of(agent, "deployers.near").state == "stopped"
    assert journal.entries == []
    assert store.list() == found == [attrs.evolve(SERVED, deployer="near")]


def test_in_deploy_none_falls_through_an_exception_does_not(make_host, journal, tmp_path):
    host = make_host(
        {
            "deployers.none": deployer(journal, "none", None),
            "deployers.fails": deployer(journal, "fails", OSError("the GPU is full")),
            "deployers.never": deployer(journal, "never", SERVED),
        }
    )
    for name in ("none", "fails", "never"):
        host.open("deployers", name)
    with pytest.raises(CallFailed, match="the GPU is full"):
        deploy(host, DeploymentStore(tmp_path / "deployments.json"), SPEC)
    assert journal.entries == [("none", "deploy"), ("fails", "deploy")]


# --- alerts, queues, submit -----------------------------------------------------------


def listens(journal, name, *, alerts=()):
    """A handler that notes, with its thread, what it gets, and raises alerts with a batch."""
    waiting = list(alerts)

    class Listens:
        def _note(self, what):
            journal.note((name, what, threading.current_thread().name))

        @hookimpl
        def linnix_handle(self, batch):
            self._note("batch")
            while waiting:
                yield waiting.pop(0)

        @hookimpl
        def linnix_alert(self, alert):
            self._note(f"alert {alert.rule}")

        @hookimpl
        def linnix_incident(self, incident):
            self._note(f"incident {incident.rules[-1]}")

    return Listens


def test_alerts_go_through_one_queue_and_one_incident_thread(make_agent, journal):
    def many(sender):
        return [Alert(f"{sender}-{number}", "low", "message") for number in range(20)]

    names = ("one", "two", "three")
    agent = make_agent(
        {
            "collectors.c": emits(fork(1)),
            **{f"handlers.{n}": listens(journal, n, alerts=many(n)) for n in names},
        }
    )
    with agent:
        for name in names:
            assert journal.wait_until(
                lambda entries, n=name: (
                    sum(e[0] == n and e[1].startswith("inc") for e in entries) == 60
                )
            )
    stories = [
        [what for who, what, _ in journal.entries if who == name and what != "batch"]
        for name in names
    ]
    # Whoever raised them: all hear the same, in the same order, each alert before its incident.
    assert stories[0] == stories[1] == stories[2]
    assert [what.split()[0] for what in stories[0]] == ["alert", "incident"] * 60
    for name in names:
        of_sender = [what for what in stories[0] if what.startswith(f"alert {name}-")]
        assert of_sender == [f"alert {alert.rule}" for alert in many(name)]


def test_every_handler_gets_alerts_in_its_own_thread(make_agent, journal):
    agent = make_agent(
        {
            "collectors.c": emits(fork(1)),
            "handlers.sender": listens(journal, "sender", alerts=[storm()]),
            "handlers.other": listens(journal, "other"),
        }
    )
    with agent:
        for name in ("sender", "other"):
            thread = f"linnix-handlers.{name}"
            for what in ("batch", "alert forks", "incident forks"):
                assert journal.wait_for((name, what, thread))
    assert len(journal.entries) == 6


def test_only_batches_may_be_dropped_never_notices(make_agent, journal):
    go_on = threading.Event()
    events, alerts = [], []

    class Slow:
        @hookimpl
        def linnix_handle(self, batch):
            journal.note("batch")
            go_on.wait(HANG_S)
            events.extend(record.seq for record in batch)

        @hookimpl
        def linnix_alert(self, alert):
            alerts.append(alert.seq)
            journal.note("alert")

    class Interleaves:
        def __init__(self, config, context):
            self.submit = context.submit

        @hookimpl
        def linnix_handle(self, batch):
            for record in batch:
                if record.type == "event":
                    self.submit(storm())

    class Emits:
        @hookimpl
        def linnix_collect(self, sink, stop):
            sink.emit(fork(1))
            assert journal.wait_for("batch")  # the slow one has its hands full
            for pid in range(2, 101):
                sink.emit(fork(pid))
            journal.note("emitted")
            stop.wait()

    agent = make_agent(
        {"collectors.c": Emits, "handlers.slow": Slow, "handlers.interleaves": Interleaves},
        tables={"handlers.slow": {"queue": 3}, "handlers.interleaves": {"overflow": "block"}},
        batch_size=1,
    )
    with agent:
        assert journal.wait_for("emitted")
        assert agent._collectors[0].queue.wait_idle(time.monotonic() + HANG_S)
        assert agent._handlers[1].queue.wait_idle(time.monotonic() + HANG_S)
        assert agent._alerts.wait_idle(time.monotonic() + HANG_S)
        go_on.set()
        assert agent.wait_idle(HANG_S)
        counters = status_of(agent, "handlers.slow").counters
    assert journal.count("alert") == 100
    assert counters["dropped"] > 0
    assert counters["received"] == counters["handled"] + counters["dropped"]
    # What is left is in its order; the two come out of two threads and may overtake each other.
    assert events == sorted(events)
    assert alerts == sorted(alerts)


def test_submit_never_blocks_and_takes_alerts_only(make_agent):
    with make_agent({"collectors.c": Quiet}) as agent:
        for wrong in (None, "alert", fork(1), Query()):
            with pytest.raises(LinnixError, match="expected an Alert"):
                agent.submit(wrong)
        with agent.incidents._book._lock:  # nobody can take an alert in meanwhile
            for _ in range(6000):
                agent.submit(storm())
            assert agent.rejected_alerts > 0
        assert agent.wait_idle(HANG_S)
        (incident,) = agent.incidents.open()
        assert incident.alerts == 6000 - agent.rejected_alerts


def test_block_holds_back_only_the_pipeline(make_agent, journal):
    go_on = threading.Event()

    class Blocks:
        @hookimpl
        def linnix_handle(self, batch):
            go_on.wait(HANG_S)
            for record in batch:
                journal.note(("blocks", record.pid))

    agent = make_agent(
        {
            "collectors.c": emits(*map(fork, range(1, 51))),
            "handlers.blocks": Blocks,
            "handlers.free": listens(journal, "free"),
            "reasoners.r": class_with("linnix_reason"),
        },
        tables={"handlers.blocks": {"overflow": "block", "queue": 1}},
        batch_size=1,
    )
    with agent:
        blocked = agent._handlers[0].queue
        eventually(lambda: blocked.waiting and blocked._changed._waiters)
        # Alerts, incidents and whoever submits are not held back.
        agent.submit(storm())
        assert journal.wait_for(("free", "incident forks", "linnix-handlers.free"))
        go_on.set()
        assert journal.wait_for(("blocks", 50))
        assert agent.wait_idle(HANG_S)
        assert status_of(agent, "handlers.blocks").counters["dropped"] == 0
    assert [e[1] for e in journal.entries if e[0] == "blocks"] == list(range(1, 51))


# --- reasoners ------------------------------------------------------------------------


def reasons(journal, name, answer):
    class Reasons:
        @hookimpl
        def linnix_reason(self, request):
            journal.note((name, request.incident.change, threading.current_thread().name))
            return answer()

    return Reasons


def test_each_reasoner_has_a_worker_of_its_own(make_agent, journal):
    plugins = {
        "collectors.c": Quiet,
        "reasoners.one": reasons(journal, "one", lambda: None),
        "reasoners.two": reasons(journal, "two", lambda: None),
    }
    with make_agent(plugins) as agent:
        for class_ in ("fork_storm", "cpu_spin"):
            agent.submit(attrs.evolve(storm(), class_=class_))
        assert agent.wait_idle(HANG_S)
    threads = {(who, thread) for who, _, thread in journal.entries}
    assert threads == {("one", "reasoners.one-calls"), ("two", "reasoners.two-calls")}


def test_late_or_busy_counts_as_declined(make_agent, journal, forever):
    insights = []

    class Listens:
        @hookimpl
        def linnix_insight(self, insight):
            insights.append(insight.reasoner)

    plugins = {
        "collectors.c": Quiet,
        "handlers.listens": Listens,
        "reasoners.slow": reasons(journal, "slow", forever.wait),
        "reasoners.quick": reasons(journal, "quick", lambda: GOOD),
    }
    with make_agent(plugins, reason_timeout_s=1.0, stop_timeout_s=2.0) as agent:
        agent.submit(storm())
        assert agent.wait_idle(HANG_S)
        assert "no answer within 0." in status_of(agent, "reasoners.slow").reason
        agent.submit(attrs.evolve(storm(), class_="cpu_spin"))
        assert agent.wait_idle(HANG_S)
        assert "earlier call has still not returned" in status_of(agent, "reasoners.slow").reason
    assert insights == ["quick", "quick"]
    assert [who for who, *_ in journal.entries] == ["slow", "quick", "quick"]


def test_reasoning_starts_when_an_incident_opens_or_gets_worse(make_agent, journal):
    plugins = {"collectors.c": Quiet, "reasoners.r": reasons(journal, "r", lambda: GOOD)}
    with make_agent(plugins) as agent:
        began = time.time_ns()
        for after_s, severity in ((0, "medium"), (1, "medium"), (20, "low"), (30, "critical")):
            agent.submit(
                attrs.evolve(storm(), severity=severity, ts_ns=began + after_s * 1_000_000_000)
            )
            assert agent.wait_idle(HANG_S)
        assert agent.incidents.open()[0].alerts == 4
    assert [change for _, change, _ in journal.entries] == ["opened", "worse"]


# --- the process table and enrichment -------------------------------------------------


def test_the_pipeline_alone_writes_the_process_table(make_agent, journal):
    agent = make_agent(
        {
            "collectors.one": emits(*map(fork, range(1, 30))),
            "collectors.two": emits(*map(fork, range(50, 80))),
            "handlers.h": listens(journal, "h"),
        }
    )
    update, writers = agent.processes.update, set()

    def watched(records):
        writers.add(threading.current_thread().name)
        update(records)

    agent.processes.update = watched
    with agent:
        assert agent.wait_idle(HANG_S)
        agent.submit(storm())
    assert writers == {"linnix-pipeline"}
    assert len(agent.processes.view) == 59


def test_views_return_copies(make_agent, journal):
    agent = make_agent(
        {"collectors.c": emits(fork(7, comm="make")), "handlers.h": listens(journal, "h")}
    )
    with agent:
        agent.submit(storm())
        assert journal.wait_for(("h", "batch", "linnix-handlers.h"))
        assert journal.wait_for(("h", "incident forks", "linnix-handlers.h"))
        process, (incident,) = agent.processes.view.find(7), agent.incidents.open()
        process.comm, incident.severity = "changed", "info"
        assert agent.processes.view.get(process.key).comm == "make"
        assert agent.incidents.get(incident.id).severity == "high"


def test_enrichment_comes_before_the_handlers_within_its_budget(
    make_agent, journal, forever, monkeypatch
):
    monkeypatch.setattr(agent_module, "ENRICH_BUDGET_S", 1.0)

    class Enriches:
        def __init__(self, config, context):
            self.processes = context.processes

        @hookimpl
        def linnix_enrich(self, batch):
            for record in batch:
                if record.pid == 2:
                    forever.wait()
                # The table knows it already, no handler does.
                journal.note(("enriched", record.pid, self.processes.find(record.pid) is not None))
                record.labels = {"pod": "web"}

    class Reads:
        @hookimpl
        def linnix_handle(self, batch):
            for record in batch:
                journal.note(("handled", record.pid, record.labels))

    agent = make_agent(
        {
            "collectors.c": emits(fork(1), fork(2), fork(3)),
            "handlers.reads": Reads,
            "handlers.enriches": Enriches,
        },
        batch_size=1,
    )
    with agent:
        assert journal.wait_for(("handled", 3, None))
        assert status_of(agent, "handlers.enriches").code == "enrich"
    assert journal.entries == [
        ("enriched", 1, True),
        ("handled", 1, {"pod": "web"}),
        ("handled", 2, None),
        ("handled", 3, None),
    ]
    # Who looks a process up finds its labels too.
    assert [process.labels for process in agent.processes.view] == [{"pod": "web"}, None, None]


# --- stopping -------------------------------------------------------------------------


def test_shutdown_goes_from_the_collectors_to_the_last_flush(make_agent, journal):
    class Collector:
        @hookimpl
        def linnix_collect(self, sink, stop):
            stop.wait()
            sink.emit(fork(1))
            journal.note("collector")

    class Handler:
        @hookimpl
        def linnix_handle(self, batch):
            journal.note("batch")
            return [storm()]

        @hookimpl
        def linnix_incident(self):
            journal.note("incident")

        @hookimpl
        def linnix_insight(self):
            journal.note("insight")

        @hookimpl
        def linnix_flush(self):
            journal.note("flush")

        @hookimpl
        def linnix_stop(self):
            journal.note("stop")

    plugins = {
        "collectors.c": Collector,
        "handlers.h": Handler,
        "reasoners.r": reasons(journal, "r", lambda: GOOD),
    }
    with make_agent(plugins):
        assert journal.entries == []
    reasoned = ("r", "opened", "reasoners.r-calls")
    story = journal.entries
    # Telling the incident and explaining it are two threads' work at the same time.
    assert story.index("batch") < story.index(reasoned) < story.index("insight")
    story.remove(reasoned)
    assert story == ["collector", "batch", "incident", "insight", "flush", "stop"]


# --- keys, arguments and names --------------------------------------------------------


@attrs.frozen
class Keys:
    ARG = "path"
    path: str = "default"
    depth: int = 1


def keeps(configs):
    class Keeps:
        Config = Keys

        def __init__(self, config, context):
            configs[context.component] = config

        @hookimpl
        def linnix_handle(self):
            pass

    return Keeps


@pytest.fixture
def run_from_file(make_catalog, make_host, tmp_path):
    """Start what a file and a command line say, and stop it."""

    def run(plugins, toml, **typed):
        file = tmp_path / "linnix.toml"
        file.write_text(toml)
        settings = read(file, environ={})
        plan = make_plan(settings, make_catalog(plugins), **typed)
        kept = AgentSettings(stop_timeout_s=HANG_S, drop_privileges=False)
        agent = Agent(plan, make_host(plugins), settings=kept)
        with agent:
            return agent

    return run


def test_reserved_keys_do_not_reach_the_config(run_from_file):
    configs = {}
    agent = run_from_file(
        {"collectors.c": Quiet, "handlers.keeps": keeps(configs)},
        """
        [collectors.c]
        interval = 3
        [handlers.archive]
        plugin = "keeps"
        enabled = true
        required = true
        queue = 7
        overflow = "block"
        depth = 4
        """,
    )
    assert configs == {"handlers.archive": Keys(depth=4)}
    assert agent._handlers[0].queue._limit == 7 * 256
    assert agent._handlers[0].queue._overflow == "block"
    assert agent._collectors[0]._interval_s == 3
    assert agent.host.components[1].required


def test_no_config_means_no_keys(run_from_file):
    with pytest.raises(ConfigError) as wrong:
        run_from_file(
            {"collectors.c": Quiet, "handlers.plain": class_with("linnix_handle")},
            "[collectors.c]\nspeed = 9\n[handlers.plain]\nqueue = 9\ndepth = 1\npath = 'x'",
        )
    assert [problem.path for problem in wrong.value.problems] == [
        "collectors.c.speed",
        "handlers.plain.depth",
        "handlers.plain.path",
    ]


def test_an_argument_sets_the_field_that_the_config_names(run_from_file):
    configs = {}
    plugins = {
        "collectors.c": Quiet,
        "handlers.keeps": keeps(configs),
        "handlers.plain": class_with("linnix_handle"),
    }
    run_from_file(plugins, "[collectors.c]\n[handlers.keeps]\ndepth = 4", handlers=["keeps:a:b"])
    assert configs == {"handlers.keeps": Keys(path="a:b", depth=4)}
    with pytest.raises(ConfigError, match=r"handlers\.plain: takes no argument after the colon"):
        run_from_file(plugins, "[collectors.c]", handlers=["plain:x"])


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a", True), ("llama-cpp", True), ("k8s", True), ("a-", True),
        ("A", False), ("1st", False), ("-a", False), ("a_b", False), ("a.b", False),
        ("é", False), ("a b", False),
    ],
)  # fmt: skip
def test_names_are_small_letters_digits_and_dashes(name, fits, install, run_from_file):
    site = install("linnix-plugin-named", {f"handlers.{name}": "named:Named"})
    (record,) = Catalog.scan([str(site)])
    assert (record.state == "available") is fits
    toml = f'[collectors.c]\n[handlers."{name}"]\nplugin = "keeps"'
    plugins = {"collectors.c": Quiet, "handlers.keeps": keeps({})}
    if fits:
        assert run_from_file(plugins, toml).host.components[1].name == name
    else:
        with pytest.raises(ConfigError, match="a name starts with a small letter"):
            run_from_file(plugins, toml)


# --- requests and the context ---------------------------------------------------------


def test_hooks_take_one_request_object():
    for kind in KINDS:
        for spec_class in SPECS[kind]:
            for name, spec in vars(spec_class).items():
                if name.startswith("linnix_"):
                    arguments = list(inspect.signature(spec).parameters)[1:]
                    # A stream is not a request: it has a way in and a way out.
                    assert len(arguments) <= 1 or arguments == ["sink", "stop"], name


def test_a_plugin_names_only_the_arguments_that_it_needs(make_agent, journal):
    class Collector:
        @hookimpl
        def linnix_collect(self, sink):
            sink.emit(fork(1))

    class Handler:
        @hookimpl
        def linnix_start(self):
            journal.note("start")

        @hookimpl
        def linnix_handle(self):
            journal.note("handle")
            return [storm()]

        @hookimpl
        def linnix_alert(self):
            journal.note("alert")

        @hookimpl
        def linnix_incident(self, incident):
            journal.note(incident.change)

        @hookimpl
        def linnix_stop(self):
            journal.note("stop")

    with make_agent({"collectors.c": Collector, "handlers.h": Handler}) as agent:
        assert agent.run(HANG_S) == "every collector has ended"
    assert journal.entries == ["start", "handle", "alert", "opened", "stop"]


def test_nothing_else_of_the_core_is_reachable(make_agent):
    contexts = []

    class Handler:
        @hookimpl
        def linnix_start(self, context):
            contexts.append(context)

        @hookimpl
        def linnix_handle(self):
            pass

    with make_agent({"collectors.c": Quiet, "handlers.h": Handler}):
        (context,) = contexts
        assert sorted(name for name in dir(context) if not name.startswith("_")) == [
            "bundle",
            "clock",
            "component",
            "components",
            "data_dir",
            "deployment",
            "explain",
            "feedback",
            "host",
            "incidents",
            "logger",
            "metrics",
            "mounts",
            "processes",
            "query",
            "run_id",
            "stop",
            "submit",
        ]
        for view in (context.processes, context.incidents):
            for name in ("update", "add", "close_quiet", "clear"):
                assert not hasattr(view, name)
        with pytest.raises(AttributeError):
            context.submit = None
