"""A bad plugin costs itself: the run goes on, and its status says state, code and reason.

Section 3 of the architecture: a broken plugin never takes down the command line or the run.
Distributions are written to a folder and found there as pip's would be; every case runs
beside good plugins, which must not notice.
"""

from __future__ import annotations

import sys

import pytest

from linnix_core import Alert, Answer, Feedback, PluginUnavailable, Query, hookimpl
from linnix_core import agent as agent_module
from linnix_core import explaining as explaining_module
from linnix_core import workers as workers_module
from linnix_core.catalog import Catalog
from linnix_core.errors import PluginError, RequiredComponentFailed
from linnix_core.hookspecs import SPECS, Lifecycle
from linnix_core.records import ProcessEvent
from linnix_core.testing.waiting import eventually

HANG_S = 60.0

#: For what must not hang; a good plugin answers within a fraction of it, whatever the load.
SHORT_S = 1.0


# --- the good ones --------------------------------------------------------------------


class Pulse:
    """One event after the other, for as long as the run lasts."""

    @hookimpl
    def linnix_collect(self, sink, stop):
        pid = 1
        while not stop.wait(0.002):
            sink.emit(ProcessEvent("fork", pid=pid, start_ns=0))
            pid += 1


class Thinker:
    """Believes the first fact."""

    @hookimpl
    def linnix_reason(self, request):
        return Answer(request.incident.class_, 50, facts=("f1",))


@pytest.fixture
def watcher(journal):
    """A handler that raises one alert, asks the history, and notes all that it gets."""

    class Watcher:
        def __init__(self, config, context):
            self.context = context
            self.alarmed = False

        @hookimpl
        def linnix_handle(self, batch):
            journal.note("batch")
            if not self.alarmed:
                self.alarmed = True
                self.context.query(Query())
                return [Alert("forks", "high", "too many forks", "fork_storm")]
            return None

        @hookimpl
        def linnix_alert(self):
            journal.note("alert")

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

    return Watcher


@pytest.fixture
def good(watcher):
    return {
        "collectors.good": Pulse,
        "handlers.good": watcher,
        "reasoners.good": Thinker,
    }


@pytest.fixture
def beats_on(journal):
    """Whether the good handler goes on getting records."""
    return lambda: journal.wait_for("batch", times=journal.count("batch") + 3)


def empty(*components):
    """A table without keys for each."""
    return {component: {} for component in components}


def status_of(agent, component):
    (status,) = [s for s in agent.status() if s.component == component]
    return status


# --- what goes wrong before anything runs ---------------------------------------------

_HANDLER = """
from linnix_core import hookimpl

class Bad:
    @hookimpl
    def linnix_handle(self, batch):
        pass
"""

_BROKEN = {
    "raises at import": ("raise RuntimeError('broken')", "import", "RuntimeError: broken"),
    "exits at import": ("import sys; sys.exit('bye')", "import", "SystemExit: bye"),
    "asserts at import": ("assert False, 'never'", "import", "AssertionError: never"),
    "is interrupted at import": ("raise KeyboardInterrupt", "import", "KeyboardInterrupt"),
    "lacks a module": ("import no_such_module", "import", "No module named 'no_such_module'"),
    "is no Python": ("def def", "import", "SyntaxError: invalid syntax"),
    "lacks its class": ("Good = 1", "import", "AttributeError: module 'bad_plugin' has no attribu"),
    "names no class": ("def Bad(config, context): pass", "hooks", "a class, not a function"),
    "names an object": ("Bad = object()", "hooks", "must name a class, not an object"),
    "cannot be looked at": (
        """
class Meta(type):
    def __dir__(cls):
        raise OSError('mind your own business')

class Bad(metaclass=Meta):
    pass
""",
        "crash",
        "OSError: mind your own business",
    ),
    "raises in its constructor": (
        _HANDLER + "\n    def __init__(self, config, context): raise ValueError('no')",
        "crash",
        "constructor: ValueError: no",
    ),
    "exits in its constructor": (
        _HANDLER + "\n    def __init__(self, config, context): raise SystemExit(1)",
        "crash",
        "constructor: SystemExit: 1",
    ),
    "has another constructor": (
        _HANDLER + "\n    def __init__(self): pass",
        "crash",
        "constructor: TypeError: Bad.__init__() takes 1 positional argument but 3 were given",
    ),
    "hides its hooks": (
        _HANDLER + "\n    def __getattribute__(self, name): raise LookupError(name)",
        "crash",
        "constructor: LookupError: linnix_handle",
    ),
    "has a configuration of another kind": (
        _HANDLER + "\n    Config = dict",
        "config",
        "Config must be an attrs class, not <class 'dict'>",
    ),
    "wants a key of the core": (
        "import attrs\n" + _HANDLER + "\n    Config = attrs.make_class('Keys', ['queue'])",
        "config",
        "Keys.queue can never be set: that key belongs to the core",
    ),
    "has a configuration that exits": (
        "import attrs, sys\n@attrs.define\nclass Keys:\n    depth: int = attrs.field(default=1)\n"
        "    def __attrs_post_init__(self): sys.exit(3)\n" + _HANDLER + "\n    Config = Keys",
        "config",
        "SystemExit: 3",
    ),
    "has async hooks": (
        _HANDLER.replace("def linnix", "async def linnix"),
        "hooks",
        "Bad.linnix_handle is async",
    ),
    "has keyword-only hooks": (_HANDLER.replace("batch", "*, batch"), "hooks", "batch must be an"),
    "has hooks with *args": (_HANDLER.replace("batch", "*args"), "hooks", "*args must be an"),
    "misspells its hooks": (
        _HANDLER.replace("linnix_handle", "linnix_handles"),
        "hooks",
        "did you mean linnix_handle?",
    ),
    "has no hooks": ("class Bad: pass", "hooks", "implements no hook of handlers"),
    "has the hooks of another kind": (
        _HANDLER.replace("linnix_handle(self, batch)", "linnix_poll(self)"),
        "hooks",
        "Bad.linnix_poll belongs to collectors, and this is one of the handlers",
    ),
    "wants to be first": (
        _HANDLER.replace("@hookimpl", "@hookimpl(tryfirst=True)"),
        "hooks",
        "asks for tryfirst",
    ),
    "wraps the others": (
        _HANDLER.replace("@hookimpl", "@hookimpl(wrapper=True)").replace("pass", "return (yield)"),
        "hooks",
        "asks for wrapper",
    ),
    "forgets to mark its hooks": (
        _HANDLER.replace("@hookimpl", ""),
        "hooks",
        "Bad.linnix_handle is not marked with @hookimpl",
    ),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_a_plugin_that_cannot_be_built_has_failed_and_the_run_goes_on(
    case, install, good, make_agent, make_catalog, journal, beats_on
):
    source, code, said = _BROKEN[case]
    site = install(
        "linnix-plugin-bad", {"handlers.bad": "bad_plugin:Bad"}, modules={"bad_plugin": source}
    )
    catalog = Catalog([*Catalog.scan([str(site)], allow="linnix-plugin-bad"), *make_catalog(good)])
    assert "bad_plugin" not in sys.modules  # looking at what is installed imports nothing
    with make_agent(catalog, tables=empty("handlers.bad", *good)) as agent:
        assert journal.wait_for("insight")
        status = status_of(agent, "handlers.bad")
        assert (status.state, status.code) == ("failed", code)
        assert said in status.reason
        assert (status.distribution, status.version) == ("linnix-plugin-bad", "1.0")
        assert beats_on()
    assert status_of(agent, "handlers.bad").state == "failed"
    assert status_of(agent, "handlers.good").state == "stopped"


@pytest.mark.parametrize("value", ["nowhere:Bad", "bad_plugin.sub:Bad", "not a module", "bad:"])
def test_an_entry_point_that_leads_nowhere_has_failed(value, install, make_host):
    site = install("linnix-plugin-bad", {"handlers.bad": value}, modules={"bad_plugin": _HANDLER})
    component = make_host(Catalog.scan([str(site)])).add("handlers", "bad")
    assert (component.state, component.status().code) == ("failed", "import")
    assert value in component.status().reason


@pytest.mark.parametrize("where", ["import", "constructor", "configuration"])
def test_a_plugin_that_hangs_while_it_is_built_is_given_up(
    where, install, good, make_agent, make_catalog, journal, beats_on, forever, monkeypatch
):
    monkeypatch.setattr(sys, "linnix_tests_forever", forever, raising=False)
    hang = "__import__('sys').linnix_tests_forever.wait()"
    source = {
        "import": f"{hang}\n",
        "constructor": f"{_HANDLER}\n    def __init__(self, config, context): {hang}",
        "configuration": f"import attrs\n{_HANDLER}\n    @attrs.define\n    class Config:\n"
        f"        def __attrs_post_init__(self): {hang}",
    }[where]
    site = install(
        "linnix-plugin-bad", {"handlers.bad": "bad_plugin:Bad"}, modules={"bad_plugin": source}
    )
    catalog = Catalog([*Catalog.scan([str(site)]), *make_catalog(good)])
    tables = empty("handlers.bad", *good)
    with make_agent(catalog, tables=tables, start_timeout_s=SHORT_S) as agent:
        assert journal.wait_for("insight")
        status = status_of(agent, "handlers.bad")
        assert status.state == "failed"
        assert status.reason.endswith("TimeoutError: no answer within 1 s")
        assert beats_on()


# --- what its distribution says -------------------------------------------------------


@pytest.mark.parametrize(
    ("requires", "code", "said"),
    [
        (["linnix-core>=9"], "incompatible", "linnix-plugin-bad 1.0 needs linnix-core >=9; this "),
        (["linnix-core<0.1"], "incompatible", "linnix-plugin-bad 1.0 needs linnix-core <0.1; "),
        (["linnix-core ~~ 7"], "metadata", "a requirement that cannot be read: 'linnix-core ~~ 7'"),
    ],
)
def test_a_plugin_for_another_core_is_not_imported(
    requires, code, said, install, good, make_agent, make_catalog, journal, beats_on
):
    site = install(
        "linnix-plugin-bad",
        {"handlers.bad": "bad_plugin:Bad"},
        modules={"bad_plugin": "raise RuntimeError('imported')"},
        requires=requires,
    )
    catalog = Catalog([*Catalog.scan([str(site)]), *make_catalog(good)])
    with make_agent(catalog, tables=empty("handlers.bad", *good)) as agent:
        assert journal.wait_for("insight")
        status = status_of(agent, "handlers.bad")
        assert (status.state, status.code) == ("unavailable", code)
        assert said in status.reason
        assert "bad_plugin" not in sys.modules
        assert beats_on()


def test_of_two_plugins_with_one_name_neither_runs_until_one_is_chosen(
    install, good, make_agent, make_catalog, journal, beats_on
):
    install("linnix-plugin-bad", {"handlers.bad": "bad_one:Bad"}, modules={"bad_one": _HANDLER})
    site = install("acme-bad", {"handlers.bad": "bad_two:Bad"}, modules={"bad_two": _HANDLER})
    catalog = Catalog([*Catalog.scan([str(site)]), *make_catalog(good)])
    tables = {
        "handlers.bad": {},
        "handlers.chosen": {"plugin": "acme-bad:bad"},
        **empty(*good),
    }
    with make_agent(catalog, tables=tables) as agent:
        assert journal.wait_for("insight")
        status = status_of(agent, "handlers.bad")
        assert (status.state, status.code) == ("unavailable", "conflict")
        assert status.reason == "acme-bad 1.0 and linnix-plugin-bad 1.0 both offer handlers.bad"
        assert status.hint == 'choose one: plugin = "acme-bad:bad"'
        assert status_of(agent, "handlers.chosen").state == "running"
        assert status_of(agent, "handlers.chosen").distribution == "acme-bad"
        assert "bad_one" not in sys.modules
        assert beats_on()


@pytest.mark.parametrize(
    ("name", "reason", "hint"),
    [
        (
            "slack",
            "no installed plugin is a handler called 'slack'",
            "pip install linnix-plugin-slack",
        ),
        ("goood", "no installed plugin is a handler called 'goood'; did you mean 'good'?", None),
        (
            "thinker",
            "no installed plugin is a handler called 'thinker' (it is one of the reasoners)",
            None,
        ),
    ],
)
def test_an_unknown_name_is_met_with_the_closest_one_or_what_to_install(
    name, reason, hint, good, make_agent, make_catalog, journal, beats_on
):
    catalog = make_catalog({**good, "reasoners.thinker": Thinker})
    tables = empty(f"handlers.{name}", *good)
    with make_agent(catalog, tables=tables) as agent:
        assert journal.wait_for("insight")
        status = status_of(agent, f"handlers.{name}")
        assert (status.state, status.code) == ("unavailable", "unknown")
        assert (status.reason, status.hint) == (reason, hint)
        assert beats_on()


def test_what_linnix_plugins_does_not_allow_is_not_imported(
    install, good, make_agent, make_catalog, journal, beats_on, monkeypatch
):
    site = install(
        "linnix-plugin-bad", {"handlers.bad": "bad_plugin:Bad"}, modules={"bad_plugin": "1 / 0"}
    )
    monkeypatch.setenv("LINNIX_PLUGINS", "linnix-plugin-psutil, Linnix_Plugin.JSONL")
    catalog = Catalog([*Catalog.scan([str(site)]), *make_catalog(good)])
    with make_agent(catalog, tables=empty("handlers.bad", *good)) as agent:
        assert journal.wait_for("insight")
        status = status_of(agent, "handlers.bad")
        assert (status.state, status.code) == ("unavailable", "blocked")
        assert status.reason == ("linnix-plugin-bad is not among those that LINNIX_PLUGINS allows")
        assert "bad_plugin" not in sys.modules
        assert beats_on()
    monkeypatch.setenv("LINNIX_PLUGINS", "linnix.plugin.BAD")
    assert Catalog.scan([str(site)]).find("handlers", "bad").state == "available"


@pytest.mark.parametrize("name", ["Bad", "bad_name", "bad.name", "9bad", "bäd"])
def test_a_name_that_cannot_stand_in_a_configuration_is_refused(name, install):
    site = install("linnix-plugin-bad", {f"handlers.{name}": "bad_plugin:Bad"})
    (record,) = Catalog.scan([str(site)])
    assert (record.state, record.code) == ("unavailable", "metadata")
    with pytest.raises(PluginError, match="names are made of small letters, digits and dashes"):
        Catalog.scan([str(site)]).find("handlers", name)


# --- what goes wrong while it runs ----------------------------------------------------


def test_every_trouble_has_a_place_in_the_table_below():
    covered = {(kind, hook) for kind, hook, *_ in _TROUBLED}
    for kind, classes in SPECS.items():
        for hook in (name for cls in classes for name in vars(cls) if name.startswith("linnix_")):
            # What a run does not call is for commands: see the tests of deployments.
            if hook not in {
                "linnix_deploy", "linnix_probe", "linnix_undeploy", "linnix_deployments"
            }:  # fmt: skip
                assert (kind, hook) in covered


_START = ("failed", "crash", "linnix_start: ")
_LATE = ("failed", "timeout", "linnix_start: TimeoutError: no answer within 1 s")
_READY = ("failed", "crash", "linnix_ready: ")
_READY_LATE = ("failed", "timeout", "linnix_ready: TimeoutError: no answer within 1 s")
_STOP = ("failed", "crash", "did not stop: linnix_stop: ")
_HEALTH = ("degraded", "health", "its health cannot be asked: linnix_health: ")
_STALLED = ("degraded", "stalled", "a call has not returned for 0.01 s")
_RELOAD = ("degraded", "reload", "goes on with what it had: linnix_reload: ")
_LABELS = ("degraded", "enrich", "labels are missing: linnix_enrich: ")
_DECLINED = ("degraded", "declined", "linnix_reason: ")


def _answer(hook):
    return ("degraded", "answer", f"{hook}: ")


def _crash(hook):
    return ("degraded", ("crash", "quarantined"), f"{hook}: ")


#: Kind, hook, what it shows when it raises or exits, and when it hangs.
_TROUBLED = [
    *(
        (kind, hook, failed, hung)
        for kind in SPECS
        for hook, failed, hung in (
            ("linnix_start", _START, _LATE),
            ("linnix_ready", _READY, _READY_LATE),
            ("linnix_stop", _STOP, _STOP),
            ("linnix_health", _HEALTH, _HEALTH),
            ("linnix_metrics", _answer("linnix_metrics"), _answer("linnix_metrics")),
            ("linnix_reload", _RELOAD, _RELOAD),
        )
    ),
    ("collectors", "linnix_collect", _crash("linnix_collect"), ("running", "", "")),
    ("collectors", "linnix_poll", _crash("linnix_poll"), _STALLED),
    ("handlers", "linnix_handle", _crash("linnix_handle"), _STALLED),
    ("handlers", "linnix_alert", _crash("linnix_alert"), _STALLED),
    ("handlers", "linnix_incident", _crash("linnix_incident"), _STALLED),
    ("handlers", "linnix_insight", _crash("linnix_insight"), _STALLED),
    ("handlers", "linnix_feedback", _crash("linnix_feedback"), _STALLED),
    ("handlers", "linnix_flush", ("degraded", "flush", "linnix_flush: "), _STALLED),
    ("handlers", "linnix_enrich", _LABELS, _LABELS),
    *(
        ("handlers", hook, _answer(hook), _answer(hook))
        for hook in ("linnix_query", "linnix_evidence", "linnix_http")
    ),
    ("reasoners", "linnix_reason", _DECLINED, _DECLINED),
]

#: A hook that a class of each kind cannot do without.
_NEEDED = {
    "collectors": "linnix_poll",
    "handlers": "linnix_alert",
    "reasoners": "linnix_reason",
    "deployers": "linnix_deploy",
}


def _bad(kind, hook, trouble):
    """A class that is in trouble in one hook, and else does nothing; ``trouble`` ends it."""

    class Bad:
        pass

    def add(name, action):
        def method(self):
            action()

        method.__qualname__ = f"Bad.{name}"
        setattr(Bad, name, hookimpl(method))

    add(hook, trouble)
    if hook in {name for name in vars(Lifecycle) if name.startswith("linnix_")}:
        add(_NEEDED[kind], lambda: None)
    if hook == "linnix_flush":
        add("linnix_handle", lambda: None)
    return Bad


def _raise():
    raise ValueError("in trouble")


@pytest.mark.parametrize("trouble", ["raises", "exits", "hangs"])
@pytest.mark.parametrize(
    ("kind", "hook", "failed", "hung"), _TROUBLED, ids=[f"{k}-{h}" for k, h, *_ in _TROUBLED]
)
def test_a_hook_in_trouble_costs_its_component_alone(
    kind, hook, failed, hung, trouble, good, make_agent, journal, beats_on, forever,
    monkeypatch,
):  # fmt: skip
    # Who raises at once may have to wait for a processor: that is no hanging.
    budget_s = 0.1 if trouble == "hangs" else HANG_S
    for name, seconds in {
        "STALLED_S": 0.01,
        "HEALTH_EVERY_S": 0.01,
        "HEALTH_TIMEOUT_S": budget_s,
        "QUERY_BUDGET_S": budget_s,
        "RELOAD_BUDGET_S": budget_s,
    }.items():
        monkeypatch.setattr(agent_module, name, seconds)
    monkeypatch.setattr(explaining_module, "EVIDENCE_BUDGET_S", budget_s)
    monkeypatch.setattr(workers_module, "FLUSH_EVERY_S", 0.01)
    action = {"raises": _raise, "exits": sys.exit, "hangs": forever.wait}[trouble]
    state, code, said = hung if trouble == "hangs" else failed
    codes = code if isinstance(code, tuple) else (code,)
    bad = f"{kind}.bad"
    hangs_in = hook if trouble == "hangs" else None
    agent = make_agent(
        {bad: _bad(kind, hook, action), **good},
        stop_timeout_s=2 * SHORT_S if hangs_in else HANG_S,
        start_timeout_s=SHORT_S if hangs_in in ("linnix_start", "linnix_ready") else HANG_S,
        reason_timeout_s=SHORT_S if hangs_in == "linnix_reason" else HANG_S,
    )

    def shown():
        status = status_of(agent, bad)
        return status.state == state and status.code in codes and status.reason.startswith(said)

    with agent:
        assert journal.wait_for("insight")
        if hook in ("linnix_metrics", "linnix_http"):
            agent.host.each(hook, budget_s)
        if hook == "linnix_feedback":
            agent.feedback(Feedback("x-i1", "noise"))
        if hook == "linnix_reload":
            agent.request_reload()
        if hook != "linnix_stop":
            # Looking after the components is what the run does while it waits.
            eventually(lambda: agent.run(0.01) and shown(), said=lambda: status_of(agent, bad))
        assert beats_on()
    if hook == "linnix_stop":
        assert shown(), status_of(agent, bad)
    assert journal.wait_for("stop")  # of the good one: after its last flush, whatever hangs
    assert journal.entries[-2:] == ["flush", "stop"]
    if trouble != "hangs":
        assert status_of(agent, "handlers.good").state == "stopped"
        assert status_of(agent, bad).counters["failures"] >= (hook not in _NOT_COUNTED)


#: Failing to start is told by the state; health is asked again and again.
_NOT_COUNTED = ("linnix_start", "linnix_ready", "linnix_health")


@pytest.mark.parametrize("hook", ["linnix_start", "linnix_handle"])
def test_what_is_required_ends_the_run_when_it_fails(hook, good, make_agent, journal):
    class Bad:
        def fail(self, where):
            if where == hook:
                journal.note("failing")
                raise PluginUnavailable("no disk", hint="insert a disk")

        @hookimpl
        def linnix_start(self):
            self.fail("linnix_start")

        @hookimpl
        def linnix_handle(self):
            self.fail("linnix_handle")

    agent = make_agent({**good, "handlers.bad": Bad}, tables={"handlers.bad": {"required": True}})
    said = r"handlers\.bad is required and unavailable: no disk"

    def run():
        with agent:
            assert journal.wait_for("failing")
            agent.run(HANG_S)

    with pytest.raises(RequiredComponentFailed, match=said):
        run()
    assert status_of(agent, "handlers.bad").state == "unavailable"
    assert journal.count("stop") == 1  # the good one was stopped all the same
