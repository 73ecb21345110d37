"""Plugins as components: verified before they are built, called under guard, in their order.

Section 3 of the architecture: the core calls implementations one by one, passing each only
the arguments that it names, and nothing that a plugin does gets out of such a call as
anything but `CallFailed`.
"""

from __future__ import annotations

import functools
import logging
import stat
import threading
import time

import attrs
import pytest

from linnix_core import (
    AgentStopped,
    Alert,
    ConfigError,
    Deployment,
    Fact,
    Health,
    LinnixError,
    PluginError,
    PluginUnavailable,
    Query,
    RecordsLost,
    Result,
    hookimpl,
)
from linnix_core.plugins import CallFailed, verify
from linnix_core.testing.waiting import eventually

HANG_S = 60.0


# --- verifying a class ----------------------------------------------------------------


def test_verify_finds_each_hook_with_the_arguments_that_it_names():
    class Handler:
        @hookimpl
        def linnix_start(self, context):
            pass

        @hookimpl
        def linnix_handle(self):
            pass

        @staticmethod
        @hookimpl
        def linnix_alert(alert):
            pass

        @classmethod
        @hookimpl
        def linnix_incident(cls, incident):
            pass

        @hookimpl
        def linnix_insight(self, insight, seen=()):
            pass

        def not_a_hook(self, anything):
            pass

    assert verify(Handler, "handlers") == {
        "linnix_start": ("context",),
        "linnix_handle": (),
        "linnix_alert": ("alert",),
        "linnix_incident": ("incident",),
        "linnix_insight": ("insight",),
    }


def test_verify_finds_inherited_hooks():
    class Base:
        @hookimpl
        def linnix_poll(self):
            pass

    class Derived(Base):
        pass

    assert verify(Derived, "collectors") == {"linnix_poll": ()}


class _AsyncHook:
    @hookimpl
    async def linnix_handle(self, batch):
        pass


class _AsyncGeneratorHook:
    @hookimpl
    async def linnix_handle(self, batch):
        yield


class _KeywordOnly:
    @hookimpl
    def linnix_handle(self, *, batch):
        pass


class _PositionalOnly:
    @hookimpl
    def linnix_handle(self, batch, /):
        pass


class _Args:
    @hookimpl
    def linnix_handle(self, *args):
        pass


class _Kwargs:
    @hookimpl
    def linnix_handle(self, **kwargs):
        pass


class _Misspelled:
    @hookimpl
    def linnix_handel(self, batch):
        pass


class _UnknownArgument:
    @hookimpl
    def linnix_handle(self, batches):
        pass


class _NoHooks:
    pass


class _OnlyLifecycle:
    @hookimpl
    def linnix_start(self):
        pass


class _OtherKind:
    @hookimpl
    def linnix_handle(self, batch):
        pass

    @hookimpl
    def linnix_reason(self, request):
        pass


class _OtherName:
    @hookimpl(specname="linnix_handle")
    def handle(self, batch):
        pass


class _Unmarked:
    def linnix_handle(self, batch):
        pass


class _First:
    @hookimpl(tryfirst=True)
    def linnix_handle(self, batch):
        pass


class _Last:
    @hookimpl(trylast=True)
    def linnix_handle(self, batch):
        pass


class _Wrapper:
    @hookimpl(wrapper=True)
    def linnix_handle(self, batch):
        return (yield)


class _OldWrapper:
    @hookimpl(hookwrapper=True)
    def linnix_handle(self, batch):
        yield


class _Both:
    @hookimpl
    def linnix_poll(self):
        pass

    @hookimpl
    def linnix_collect(self, sink, stop):
        pass


class _NoDeploy:
    @hookimpl
    def linnix_probe(self, deployment):
        pass


@pytest.mark.parametrize(
    ("cls", "kind", "said"),
    [
        (_AsyncHook, "handlers", "linnix_handle is async: hooks are ordinary functions"),
        (_AsyncGeneratorHook, "handlers", "linnix_handle is async: hooks are ordinary functions"),
        (_KeywordOnly, "handlers", "linnix_handle: batch must be an ordinary argument"),
        (_PositionalOnly, "handlers", "linnix_handle: batch must be an ordinary argument"),
        (_Args, "handlers", "linnix_handle: *args must be an ordinary argument"),
        (_Kwargs, "handlers", "linnix_handle: **kwargs must be an ordinary argument"),
        (_Misspelled, "handlers", "is no hook of handlers; did you mean linnix_handle?"),
        (_UnknownArgument, "handlers", "'batches'"),
        (_NoHooks, "handlers", "implements no hook of handlers: linnix_alert, "),
        (_NoHooks, "collectors", "no hook of collectors: linnix_collect, linnix_poll"),
        (_NoHooks, "reasoners", "implements no hook of reasoners: linnix_reason"),
        (_OnlyLifecycle, "handlers", "implements no hook of handlers"),
        (_OtherKind, "handlers", "linnix_reason belongs to reasoners, and this is one of the ha"),
        (_OtherKind, "reasoners", "linnix_handle belongs to handlers, and this is one of the re"),
        (_OtherName, "handlers", "handle must be called linnix_handle"),
        (_Unmarked, "handlers", "_Unmarked.linnix_handle is not marked with @hookimpl"),
        (_First, "handlers", "asks for tryfirst: the order of calls is that of the configuration"),
        (_Last, "handlers", "asks for trylast"),
        (_Wrapper, "handlers", "asks for wrapper"),
        (_OldWrapper, "handlers", "asks for hookwrapper"),
        (_Both, "collectors", "implements linnix_collect and linnix_poll: choose one"),
        (_NoDeploy, "deployers", "_NoDeploy does not implement linnix_deploy"),
        (threading, "handlers", "the entry point must name a class, not a module"),
        (_NoHooks(), "handlers", "must name a class, not a _NoHooks"),
        (verify, "handlers", "must name a class, not a function"),
        (3, "handlers", "must name a class, not an int"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_class_that_cannot_be_called_by_the_contract_is_refused(cls, kind, said):
    with pytest.raises(PluginError) as refused:
        verify(cls, kind)
    assert refused.value.code == "hooks"
    assert said in str(refused.value)


# --- guarded calls --------------------------------------------------------------------


def handler_that(action):
    """A class whose ``linnix_alert`` does what the test says, with the alert."""

    class Tested:
        @hookimpl
        def linnix_alert(self, alert):
            return action(alert)

    return Tested


@pytest.fixture(params=["in this thread", "in time"])
def call(request):
    """Both ways to call a hook."""
    if request.param == "in this thread":
        return lambda component, hook, **arguments: component.call(hook, **arguments)
    return lambda component, hook, **arguments: component.call_within(HANG_S, hook, **arguments)


def test_a_call_passes_the_arguments_that_the_hook_names_and_returns_its_answer(
    make_component, call
):
    class Reasoner:
        @hookimpl
        def linnix_reason(self, request):
            return ("answer to", request)

        @hookimpl
        def linnix_start(self):
            """Needs no context and names none."""

    component = make_component("reasoners.tested", Reasoner)
    assert call(component, "linnix_reason", request="why") == ("answer to", "why")
    assert call(component, "linnix_start", context="not wanted") is None


def test_a_hook_that_is_not_implemented_answers_nothing(make_component, call):
    component = make_component("handlers.tested", handler_that(print))
    assert not component.has("linnix_query")
    assert call(component, "linnix_query", query=Query()) is None


class _Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


class _Rude(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such\n  thing"), "linnix_alert: ValueError: no such thing"),
        (ValueError(), "linnix_alert: ValueError"),
        (SystemExit(4), "linnix_alert: SystemExit: 4"),
        (GeneratorExit(), "linnix_alert: GeneratorExit"),
        (_Rude("a bad day"), "linnix_alert: _Rude: a bad day"),
        (_Unspeakable(), "linnix_alert: _Unspeakable: it cannot even be shown"),
        (AgentStopped("too late"), "linnix_alert: AgentStopped: too late"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_hook_raises_comes_out_as_a_failed_call(make_component, call, error, said):
    def fail(alert):
        raise error

    component = make_component("handlers.tested", handler_that(fail))
    with pytest.raises(CallFailed) as failed:
        call(component, "linnix_alert", alert=None)
    assert str(failed.value) == said
    assert failed.value.__cause__ is error


@pytest.mark.parametrize("error", [PluginUnavailable("no disk"), RecordsLost(1, "a", "b")])
def test_two_errors_of_the_contract_come_out_as_they_are(make_component, call, error):
    def fail(alert):
        raise error

    component = make_component("handlers.tested", handler_that(fail))
    with pytest.raises(type(error)) as raised:
        call(component, "linnix_alert", alert=None)
    assert raised.value is error


def test_a_generator_runs_to_its_end_inside_of_the_call(make_component, call):
    def facts(alert):
        yield Fact("a", 1, "s")
        if alert:
            raise SystemExit(5)

    component = make_component("handlers.tested", handler_that(facts))
    assert call(component, "linnix_alert", alert=None) == [Fact("a", 1, "s")]
    with pytest.raises(CallFailed, match="linnix_alert: SystemExit: 5"):
        call(component, "linnix_alert", alert="fire")


def test_control_c_of_a_person_is_not_the_plugins(make_component):
    def interrupted(alert):
        raise KeyboardInterrupt

    component = make_component("handlers.tested", handler_that(interrupted))
    with pytest.raises(KeyboardInterrupt):
        component.call("linnix_alert", alert=None)


def test_a_call_that_takes_too_long_is_given_up_and_the_next_is_refused(make_component, forever):
    component = make_component("handlers.tested", handler_that(lambda alert: forever.wait()))
    with pytest.raises(CallFailed, match=r"linnix_alert: TimeoutError: no answer within 0\.01 s"):
        component.call_within(0.01, "linnix_alert", alert=None)
    with pytest.raises(CallFailed, match="an earlier call has still not returned"):
        component.call_within(HANG_S, "linnix_alert", alert=None)
    forever.set()

    def answers():
        try:
            return component.call_within(HANG_S, "linnix_alert", alert=None)
        except CallFailed:
            return False

    eventually(answers)


def test_timed_calls_have_one_thread_of_the_component_own(make_component):
    component = make_component(
        "handlers.tested", handler_that(lambda alert: threading.current_thread())
    )
    first, second = (component.call_within(HANG_S, "linnix_alert", alert=n) for n in range(2))
    assert first is second
    assert first is not threading.current_thread()
    assert first.daemon
    component.close()
    first.join(HANG_S)
    assert not first.is_alive()


def test_a_component_that_is_busy_can_still_say_how_it_is(make_component, forever, journal):
    class Busy:
        @hookimpl
        def linnix_reason(self, request):
            journal.note("thinking")
            forever.wait()

        @hookimpl
        def linnix_health(self):
            return Health("ok", limits=("one thought at a time",))

    component = make_component("reasoners.busy", Busy)
    with pytest.raises(CallFailed):
        component.call_within(0.01, "linnix_reason", request=None)
    assert journal.wait_for("thinking")
    assert component.ask_health(HANG_S) == Health("ok", "", ("one thought at a time",))


def test_asking_for_health_does_not_keep_a_component_from_its_work(
    make_component, forever, journal
):
    class Ill:
        @hookimpl
        def linnix_reason(self, request):
            return "an answer"

        @hookimpl
        def linnix_health(self):
            journal.note("asked")
            forever.wait()

    component = make_component("reasoners.ill", Ill)
    asked = threading.Thread(target=component.ask_health, args=(HANG_S,))
    asked.start()
    assert journal.wait_for("asked")
    assert component.call_within(HANG_S, "linnix_reason", request=None) == "an answer"
    forever.set()
    asked.join(HANG_S)


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (lambda: Health("degraded", "slow"), Health("degraded", "slow")),
        (lambda: Health("ok", 7, [1, None]), Health("ok", "7", ("1", "None"))),
        (lambda: Health(limits=(n for n in "ab")), Health(limits=("a", "b"))),
        (lambda: None, None),
        (lambda: "fine", None),
    ],
)
def test_the_health_that_a_plugin_tells_is_made_of_words(make_component, answer, health):
    class Tells:
        @hookimpl
        def linnix_health(self):
            return answer()

        @hookimpl
        def linnix_poll(self):
            pass

    assert make_component("collectors.tells", Tells).ask_health(HANG_S) == health


@pytest.mark.parametrize(
    "answer", [lambda: 1 // 0, lambda: Health(limits=None), lambda: Health(limits=7)]
)
def test_a_health_that_cannot_be_told_is_degraded(make_component, answer):
    class Tells:
        @hookimpl
        def linnix_health(self):
            return answer()

        @hookimpl
        def linnix_poll(self):
            pass

    health = make_component("collectors.tells", Tells).ask_health(HANG_S)
    assert health.status == "degraded"
    assert health.reason.startswith("its health cannot be asked: linnix_health: ")


def test_who_implements_no_health_says_nothing(make_component):
    component = make_component("handlers.tested", handler_that(print))
    assert component.ask_health(HANG_S) is None


# --- the host -------------------------------------------------------------------------


@attrs.frozen
class GreeterConfig:
    greeting: str = "hello"
    times: int = 1


class Greeter:
    """Answers queries, so that it can be told from others."""

    Config = GreeterConfig

    def __init__(self, config, context):
        self.config = config
        self.context = context

    @hookimpl
    def linnix_query(self, query):
        return Result((self.config.greeting,))


def test_a_plugin_can_be_opened_without_an_agent(make_host, tmp_path):
    host = make_host({"handlers.greeter": Greeter})
    component = host.open("handlers", "greeter", {"greeting": "good morning"})
    assert component.state == "running"
    assert host.first("linnix_query", HANG_S, query=Query()) == Result(("good morning",))
    context = component.instance.context
    assert list(context.processes) == []
    assert context.incidents.recent() == []
    assert context.components() == ()
    assert context.query(Query()) is None
    assert context.deployment("any") is None
    assert context.logger is logging.getLogger("linnix.handlers.greeter")
    with pytest.raises(AgentStopped):
        context.submit(Alert("rule", "low", "message"))
    folder = tmp_path / "data" / "handlers.greeter"
    assert not folder.exists()
    assert context.data_dir == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_opening_reports_every_mistake_of_the_configuration(make_host):
    host = make_host({"handlers.greeter": Greeter})
    with pytest.raises(ConfigError) as wrong:
        host.open("handlers", "greeter", {"greeting": 3, "times": "often", "loud": True})
    assert {problem.path for problem in wrong.value.problems} == {
        "handlers.greeter.greeting",
        "handlers.greeter.times",
        "handlers.greeter.loud",
    }


def test_opening_what_cannot_run_says_why_and_what_to_do(make_host):
    class Lacks:
        def __init__(self, config, context):
            raise PluginUnavailable("libbpf is not installed", hint="apt install libbpf1")

        @hookimpl
        def linnix_poll(self):
            pass

    with pytest.raises(LinnixError) as lacking:
        make_host({"collectors.lacks": Lacks}).open("collectors", "lacks")
    assert str(lacking.value) == "collectors.lacks is unavailable: libbpf is not installed"
    assert lacking.value.hint == "apt install libbpf1"


def test_opening_what_is_not_installed_names_the_distribution_to_install(make_host):
    with pytest.raises(LinnixError) as missing:
        make_host({}).open("deployers", "vllm")
    assert missing.value.hint == "pip install linnix-plugin-vllm"


def answering(journal, name, answer):
    class Answers:
        @hookimpl
        def linnix_query(self, query):
            journal.note(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        @hookimpl
        def linnix_start(self):
            journal.note(f"start {name}")

        @hookimpl
        def linnix_stop(self):
            journal.note(f"stop {name}")

    return Answers


def test_calls_follow_the_order_in_which_components_were_added(make_host, journal):
    host = make_host({f"handlers.{n}": answering(journal, n, None) for n in "cab"})
    for name in "cab":
        host.open("handlers", name)  # each is registered before the next is known
    assert [str(c) for c in host.implementing("linnix_query")] == [
        "handlers.c",
        "handlers.a",
        "handlers.b",
    ]
    assert host.first("linnix_query", HANG_S, query=Query()) is None
    assert journal.entries == ["start c", "start a", "start b", "c", "a", "b"]


def test_the_first_answer_wins_and_who_fails_has_declined(make_host, journal):
    given = {"a": None, "b": OSError("the file is gone"), "c": Result(("c",)), "d": Result(("d",))}
    host = make_host({f"handlers.{n}": answering(journal, n, a) for n, a in given.items()})
    components = {name: host.open("handlers", name) for name in given}
    assert host.first("linnix_query", HANG_S, query=Query()) == Result(("c",))
    assert journal.entries[4:] == ["a", "b", "c"]
    status = components["b"].status()
    assert (status.state, status.code) == ("degraded", "answer")
    assert status.reason == "linnix_query: OSError: the file is gone"
    assert status.counters["failures"] == 1


def test_all_answers_are_collected_and_who_fails_is_left_out(make_host, journal):
    given = {"a": Result(("a",)), "b": SystemExit(1), "c": None}
    host = make_host({f"handlers.{n}": answering(journal, n, a) for n, a in given.items()})
    components = {name: host.open("handlers", name) for name in given}
    assert host.each("linnix_query", HANG_S, query=Query()) == [
        (components["a"], Result(("a",))),
        (components["c"], None),
    ]
    assert components["b"].failures == 1


def test_who_answers_again_runs_again(make_host, journal):
    errors = iter([OSError("busy")])

    class Answers:
        @hookimpl
        def linnix_query(self, query):
            for error in errors:
                raise error
            return Result(())

    host = make_host({"handlers.a": Answers})
    component = host.open("handlers", "a")
    assert host.first("linnix_query", HANG_S, query=Query()) is None
    assert component.state == "degraded"
    assert host.first("linnix_query", HANG_S, query=Query()) == Result(())
    assert component.state == "running"


def test_only_what_runs_is_called(make_host, journal):
    host = make_host({f"handlers.{n}": answering(journal, n, Result((n,))) for n in "ab"})
    first = host.open("handlers", "a")
    second = host.open("handlers", "b")
    first.set_state("failed", "crash", "gone")
    assert host.implementing("linnix_query") == [second]
    assert host.first("linnix_query", HANG_S, query=Query()) == Result(("b",))


def test_what_was_started_is_stopped_once_the_last_first(make_host, journal):
    host = make_host({f"handlers.{n}": answering(journal, n, None) for n in "abc"})
    components = [host.open("handlers", name) for name in "abc"]
    host.stop(time.monotonic() + HANG_S)
    host.stop(time.monotonic() + HANG_S)
    assert journal.entries[3:] == ["stop c", "stop b", "stop a"]
    assert {component.state for component in components} == {"stopped"}


def test_a_plugin_is_told_the_deadline_of_its_stop(make_host, journal):
    class Stops:
        @hookimpl
        def linnix_poll(self):
            pass

        @hookimpl
        def linnix_stop(self, deadline):
            journal.note(deadline)

    host = make_host({"collectors.a": Stops})
    host.open("collectors", "a")
    deadline = time.monotonic() + HANG_S
    host.stop(deadline)
    assert journal.entries == [deadline]


def test_a_failed_start_is_stopped_too(make_host, journal):
    class Fails:
        @hookimpl
        def linnix_poll(self):
            pass

        @hookimpl
        def linnix_start(self):
            raise PluginUnavailable("half way")

        @hookimpl
        def linnix_stop(self):
            journal.note("stop")

    host = make_host({"collectors.a": Fails})
    with pytest.raises(LinnixError, match=r"collectors\.a is unavailable: half way"):
        host.open("collectors", "a")
    host.stop(time.monotonic() + HANG_S)
    assert journal.entries == ["stop"]
    assert host.components[0].state == "unavailable"


def test_a_plugin_can_run_twice_under_two_names(make_host):
    host = make_host({"handlers.greeter": Greeter})
    components = [host.add("handlers", name, plugin="greeter") for name in ("one", "two")]
    for component in components:
        component.config = GreeterConfig(component.name)
        assert host.create(component, host.context(component))
    host.register()
    for component in components:
        assert host.start(component, host.context(component))
    answers = host.each("linnix_query", HANG_S, query=Query())
    assert answers == [(components[0], Result(("one",))), (components[1], Result(("two",)))]
    assert components[0].status().plugin == "greeter"


def test_a_status_says_what_and_whose_it_is(make_host):
    host = make_host({"handlers.greeter": Greeter})
    component = host.open("handlers", "greeter")
    status = component.status()
    assert (status.component, status.kind, status.name) == (
        "handlers.greeter",
        "handlers",
        "greeter",
    )
    assert (status.distribution, status.version) == ("given-by-the-test", "0")
    assert (status.state, status.code, status.reason, status.hint) == ("running", "", "", None)


def test_hooks_that_a_decorator_wraps_are_hooks_still(make_host):
    def logged(function):
        @functools.wraps(function)
        def wrapper(self, query):
            return function(self, query)

        return wrapper

    class Decorated:
        @hookimpl
        @logged
        def linnix_query(self, query):
            return Result((query.limit,))

    host = make_host({"handlers.decorated": Decorated})
    host.open("handlers", "decorated")
    assert host.first("linnix_query", HANG_S, query=Query(limit=3)) == Result((3,))


def test_two_hosts_know_nothing_of_each_other(make_host):
    one, two = make_host({"handlers.greeter": Greeter}), make_host({"handlers.greeter": Greeter})
    one.open("handlers", "greeter", {"greeting": "one"})
    assert two.implementing("linnix_query") == []
    two.open("handlers", "greeter", {"greeting": "two"})
    assert one.first("linnix_query", HANG_S, query=Query()) == Result(("one",))


def test_deployers_are_asked_in_the_order_in_which_they_were_opened(make_host, journal):
    def deployer(name):
        class Deploys:
            @hookimpl
            def linnix_deploy(self, spec):
                journal.note(name)

            @hookimpl
            def linnix_deployments(self):
                yield Deployment(name, name, "model", "http://127.0.0.1:1")

        return Deploys

    host = make_host({f"deployers.{n}": deployer(n) for n in ("near", "far")})
    for name in ("near", "far"):
        host.open("deployers", name)
    assert host.first("linnix_deploy", HANG_S, spec=None) is None
    assert journal.entries == ["near", "far"]
    served = host.each("linnix_deployments", HANG_S)
    assert [deployments[0].name for _, deployments in served] == ["near", "far"]
