"""Components: plugins as they are configured, verified, called and supervised.

`PluginHost` owns its own pluggy manager and works with or without an agent. Nothing that
a plugin does, ``sys.exit`` and hanging included, gets out of a guarded call as anything
but `CallFailed`.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import queue
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pluggy

from linnix_core.catalog import Catalog, PluginRecord
from linnix_core.config import RESERVED, ComponentSettings, argument_value, structure
from linnix_core.context import ComponentStatus, Context, State
from linnix_core.errors import (
    ConfigError,
    LinnixError,
    PluginError,
    PluginUnavailable,
    Problem,
    RecordsLost,
)
from linnix_core.hookspecs import KINDS, PROJECT, SPECS, Kind
from linnix_core.incidents import IncidentView
from linnix_core.loading import describe, load
from linnix_core.processes import ProcessView
from linnix_core.records import Health

__all__ = ["CallFailed", "Component", "PluginHost", "verify"]


class CallFailed(LinnixError):
    """A guarded call did not return: it raised (``__cause__``) or overran its time."""


class _CallThread:
    """One daemon thread that makes one call at a time, so that a hung call costs only itself."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], _Reply] | None] | None = None
        self._busy = False

    def call(self, function: Callable[[], Any], timeout: float) -> Any:
        """What ``function`` returns or raises; ``TimeoutError`` when late or still busy."""
        reply = _Reply()
        with self._lock:
            if self._busy:
                raise TimeoutError("an earlier call has still not returned")
            self._busy = True
            if self._jobs is None:
                self._jobs = queue.SimpleQueue()
                threading.Thread(
                    target=self._run, args=(self._jobs,), name=self._name, daemon=True
                ).start()
            self._jobs.put((function, reply))
        if not reply.ready.wait(timeout):
            raise TimeoutError(f"no answer within {timeout:g} s")
        if reply.error is not None:
            raise reply.error
        return reply.value

    def close(self) -> None:
        """Let the thread end once its call has returned."""
        with self._lock:
            if self._jobs is not None:
                self._jobs.put(None)
                self._jobs = None
                self._busy = False

    def _run(self, jobs: queue.SimpleQueue[tuple[Callable[[], Any], _Reply] | None]) -> None:
        while (job := jobs.get()) is not None:
            function, reply = job
            try:
                reply.value = function()
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                reply.error = error
            with self._lock:
                if self._jobs is jobs:
                    self._busy = False
            reply.ready.set()


class _Reply:
    __slots__ = ("error", "ready", "value")

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None


class _Hooks:
    """What pluggy registers for a component: its bound hooks, compared by identity.

    Two instances of a plugin that defines ``__eq__`` may be equal, and pluggy would take
    the second for the first.
    """

    def __init__(self, methods: Mapping[str, types.MethodType]) -> None:
        self.__dict__.update(methods)


class Component:
    """A configured instance of a plugin: its class, its object, its state and its counters."""

    def __init__(self, kind: Kind, name: str, *, plugin: str | None = None) -> None:
        self.kind: Kind = kind
        self.name = name
        self.plugin = plugin or name
        self.record: PluginRecord | None = None
        self.cls: Any = None
        self.config: Any = None
        self.instance: Any = None
        self.required = False
        self.limits: tuple[str, ...] = ()
        #: Reads the counters of the queue or worker that feeds this component.
        self.counters: Callable[[], Mapping[str, int]] = dict
        self.failures = 0
        self._hooks: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {}
        self._state: tuple[State, str, str, str | None] = ("available", "", "", None)
        self._calls = _CallThread(f"{self}-calls")
        self._health = _CallThread(f"{self}-health")

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}"

    def __repr__(self) -> str:
        return f"<Component {self}: {self.state}>"

    # --- state ------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the component is in its life."""
        return self._state[0]

    @property
    def runs(self) -> bool:
        """Whether it started and has neither failed for good nor stopped."""
        return self.state in ("running", "degraded")

    def set_state(
        self, state: State, code: str = "", reason: str = "", hint: str | None = None
    ) -> bool:
        """Replace state and reason in one step; whether that changed anything."""
        before, self._state = self._state, (state, code, reason, hint)
        return before != self._state

    def fail(self, error: BaseException) -> None:
        """Take the state that the error stands for."""
        cause = error.__cause__ if isinstance(error, CallFailed) and error.__cause__ else error
        if isinstance(cause, PluginUnavailable) and isinstance(cause.__cause__, BrokenPipeError):
            # Whoever read what it writes has gone away: it has done its work.
            self.set_state("stopped", "finished", str(cause))
        elif isinstance(cause, PluginUnavailable):
            self.set_state("unavailable", "capability", str(cause), cause.hint)
        elif isinstance(cause, PluginError):
            missing = cause.code in ("unknown", "blocked", "incompatible", "conflict", "metadata")
            self.set_state(
                "unavailable" if missing else "failed", cause.code, str(cause), cause.hint
            )
        else:
            code = "timeout" if isinstance(cause, TimeoutError) else "crash"
            self.set_state("failed", code, str(error))

    def status(self) -> ComponentStatus:
        """A snapshot for views."""
        state, code, reason, hint = self._state
        record = self.record
        return ComponentStatus(
            component=str(self),
            kind=self.kind,
            name=self.name,
            state=state,
            code=code,
            reason=reason,
            hint=hint,
            plugin=self.plugin,
            distribution=record.distribution if record else "",
            version=record.version if record else "",
            limits=self.limits,
            counters={**self.counters(), "failures": self.failures},
        )

    # --- calls ------------------------------------------------------------------------

    def has(self, hook: str) -> bool:
        """Whether the plugin implements the hook."""
        return hook in self._hooks

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call one hook in this thread, with the arguments that it names.

        Raises `PluginUnavailable` and `RecordsLost` as the plugin raised them, and
        `CallFailed` for everything else. None where the hook is not implemented.
        """
        implementation = self._hooks.get(hook)
        if implementation is None:
            return None
        function, names = implementation
        values = [arguments[name] for name in names]
        return self._guarded(hook, lambda: _completed(function(*values)))

    def call_within(self, seconds: float, hook: str, **arguments: Any) -> Any:
        """The same in a thread of the component's own, abandoned when it takes longer."""
        if hook not in self._hooks:
            return None
        function, names = self._hooks[hook]
        values = [arguments[name] for name in names]
        return self._guarded(
            hook, lambda: self._calls.call(lambda: _completed(function(*values)), seconds)
        )

    def create(self, context: Any, seconds: float) -> None:
        """Build the object and bind its hooks. Raises like `call`."""
        self.instance, self._hooks = self._guarded(
            "constructor", lambda: self._calls.call(lambda: self._built(context), seconds)
        )

    def _built(self, context: Any) -> tuple[Any, dict[str, tuple[Callable[..., Any], Any]]]:
        # A class that needs neither configuration nor context may leave out its constructor.
        arguments = () if self.cls.__init__ is object.__init__ else (self.config, context)
        instance = self.cls(*arguments)
        hooks = verify(self.cls, self.kind).items()
        return instance, {name: (getattr(instance, name), names) for name, names in hooks}

    def ask_health(self, seconds: float) -> Health | None:
        """What the plugin says of itself; None where it says nothing.

        Asked in a thread of its own: who is busy with a long call can still be well.
        """
        if not self.has("linnix_health"):
            return None
        function, _ = self._hooks["linnix_health"]
        health: Health | None
        try:
            health = self._guarded(
                "linnix_health", lambda: self._health.call(lambda: _said_of(function()), seconds)
            )
        except LinnixError as error:
            return Health("degraded", f"its health cannot be asked: {error}")
        return health

    def bound_hooks(self) -> _Hooks:
        """The hooks as an object that pluggy can register."""
        return _Hooks({name: function for name, (function, _) in self._hooks.items()})  # type: ignore[misc]

    def close(self) -> None:
        """Let the threads for timed calls end."""
        self._calls.close()
        self._health.close()

    def _guarded(self, what: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except (PluginUnavailable, RecordsLost):
            raise
        except BaseException as error:
            if (
                isinstance(error, KeyboardInterrupt)
                and threading.current_thread() is threading.main_thread()
            ):
                raise
            raise CallFailed(f"{what}: {describe(error)}") from error


def _completed(answer: Any) -> Any:
    """An answer that needs no more of the plugin's code: a generator runs inside of its call."""
    return list(answer) if isinstance(answer, Iterator) else answer


def _said_of(health: Any) -> Health | None:
    """A health whose words are words."""
    if not isinstance(health, Health):
        return None
    return Health(health.status, str(health.reason), tuple(map(str, health.limits)))


def verify(cls: Any, kind: Kind) -> dict[str, tuple[str, ...]]:
    """The hooks that a class implements, each with the arguments that it names.

    Raises `PluginError` with the code ``hooks`` unless every one of them can be called by
    the contract of its kind.
    """
    if not inspect.isclass(cls):
        raise PluginError("hooks", f"the entry point must name a class, not {describe_type(cls)}")
    known = {name: spec for spec_class in SPECS[kind] for name, spec in _specs(spec_class)}
    elsewhere = {
        name: other for other in KINDS for spec in SPECS[other] for name, _ in _specs(spec)
    }
    scratch = pluggy.PluginManager(PROJECT)
    for spec_class in SPECS[kind]:
        scratch.add_hookspecs(spec_class)
    found: dict[str, tuple[str, ...]] = {}
    for name in dir(cls):
        options = scratch.parse_hookimpl_opts(cls, name)
        if options is None:
            if name in elsewhere and callable(getattr(cls, name, None)):
                raise PluginError("hooks", f"{cls.__name__}.{name} is not marked with @hookimpl")
            continue
        hook = options.get("specname") or name
        if hook not in known:
            raise PluginError("hooks", _unknown_hook(cls, hook, kind, known, elsewhere))
        if hook != name:
            raise PluginError("hooks", f"{cls.__name__}.{name} must be called {hook}")
        _verify_options(cls, name, options)
        found[name] = _arguments(cls, name)
    try:
        scratch.register(cls, name=cls.__name__)
    except pluggy.PluginValidationError as error:
        raise PluginError("hooks", " ".join(str(error).split())) from error
    _verify_set(cls, kind, found)
    return found


def _specs(spec_class: type) -> Iterable[tuple[str, Any]]:
    return [(name, spec) for name, spec in vars(spec_class).items() if name.startswith("linnix_")]


def _unknown_hook(
    cls: Any, hook: str, kind: Kind, known: Mapping[str, Any], elsewhere: Mapping[str, Kind]
) -> str:
    if hook in elsewhere:
        return f"{cls.__name__}.{hook} belongs to {elsewhere[hook]}, and this is one of the {kind}"
    close = difflib.get_close_matches(hook, known, n=1)
    said = f"{cls.__name__}.{hook} is no hook of {kind}"
    return f"{said}; did you mean {close[0]}?" if close else said


def _verify_options(cls: Any, name: str, options: Any) -> None:
    for option in ("wrapper", "hookwrapper", "tryfirst", "trylast"):
        if options.get(option):
            raise PluginError(
                "hooks",
                f"{cls.__name__}.{name} asks for {option}: "
                "the order of calls is that of the configuration",
            )


def _arguments(cls: Any, name: str) -> tuple[str, ...]:
    function = getattr(cls, name)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError("hooks", f"{cls.__name__}.{name} is async: hooks are ordinary functions")
    static = isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod)
    parameters = list(inspect.signature(function).parameters.values())[0 if static else 1 :]
    for parameter in parameters:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise PluginError(
                "hooks",
                f"{cls.__name__}.{name}: {parameter} must be an ordinary argument, "
                "named as in the hook specification",
            )
    return tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)


def _verify_set(cls: Any, kind: Kind, found: Mapping[str, Any]) -> None:
    own = {name for name, _ in _specs(SPECS[kind][-1])}
    if not own & found.keys():
        raise PluginError(
            "hooks",
            f"{cls.__name__} implements no hook of {kind}: {', '.join(sorted(own))}",
        )
    if kind == "collectors" and own <= found.keys():
        raise PluginError(
            "hooks", f"{cls.__name__} implements linnix_collect and linnix_poll: choose one"
        )
    required = {"reasoners": "linnix_reason", "deployers": "linnix_deploy"}.get(kind)
    if required and required not in found:
        raise PluginError("hooks", f"{cls.__name__} does not implement {required}")


def _verify_config(config_cls: Any) -> None:
    if not attrs.has(config_cls):
        raise PluginError("config", f"Config must be an attrs class, not {config_cls!r:.100}")
    taken = [field.name for field in attrs.fields(config_cls) if field.name in RESERVED]
    if taken:
        raise PluginError(
            "config",
            f"{config_cls.__name__}.{taken[0]} can never be set: that key belongs to the core",
        )


def _no_argument(component: Component) -> Problem:
    return Problem(
        str(component),
        "takes no argument after the colon",
        f"write its keys into [{component}], or --set {component}.KEY=VALUE",
    )


def describe_type(value: object) -> str:
    """``a module``, ``an int``: what something is, in words."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


class PluginHost:
    """Loads, verifies, configures, starts, calls and stops components.

    An agent drives one; a command that needs a single plugin uses one without an agent.
    Components are kept in the order of the configuration, which is the order of calls.
    """

    def __init__(self, catalog: Catalog, *, data_dir: Path, start_timeout_s: float = 10.0) -> None:
        self.catalog = catalog
        self.data_dir = data_dir
        self.start_timeout_s = start_timeout_s
        self.components: list[Component] = []
        self._started: list[Component] = []
        self._manager = pluggy.PluginManager(PROJECT)
        for spec_class in dict.fromkeys(spec for specs in SPECS.values() for spec in specs):
            self._manager.add_hookspecs(spec_class)

    def add(self, kind: Kind, name: str, *, plugin: str | None = None) -> Component:
        """Load and verify one plugin under a name; what goes wrong is in the state."""
        component = Component(kind, name, plugin=plugin)
        self.components.append(component)
        try:
            component.record = self.catalog.find(kind, component.plugin)
            record = component.record
            component.cls = component._guarded(
                "import",
                lambda: component._calls.call(lambda: load(record), self.start_timeout_s),
            )
            # Looking at a class runs code of its own too: descriptors, a metaclass.
            component._guarded(
                "hooks",
                lambda: component._calls.call(
                    lambda: verify(component.cls, kind), self.start_timeout_s
                ),
            )
        except LinnixError as error:
            component.fail(error)
        return component

    def configure(
        self, component: Component, settings: ComponentSettings, problems: list[Problem]
    ) -> None:
        """Build the ``Config`` of a loaded component, or add every mistake to ``problems``.

        A ``Config`` that is itself a mistake is the plugin's: the component has failed.
        """
        try:
            component._guarded(
                "Config",
                lambda: component._calls.call(
                    lambda: self._configure(component, settings, problems), self.start_timeout_s
                ),
            )
        except LinnixError as error:
            known = isinstance(error.__cause__, PluginError)
            component.fail(error if known else PluginError("config", str(error)))

    @staticmethod
    def _configure(
        component: Component, settings: ComponentSettings, problems: list[Problem]
    ) -> None:
        config_cls = getattr(component.cls, "Config", None)
        if config_cls is None:
            problems.extend(
                Problem(f"{component}.{key}", f"{component.plugin} has no configuration")
                for key in settings.options
            )
            if settings.argument is not None:
                problems.append(_no_argument(component))
            return
        _verify_config(config_cls)
        options = dict(settings.options)
        if settings.argument is not None:
            field = getattr(config_cls, "ARG", None)
            if field is None:
                problems.append(_no_argument(component))
                return
            options[field] = argument_value(config_cls, field, settings.argument)
        component.config = structure(config_cls, options, str(component), problems)

    def context(self, component: Component, **parts: Any) -> Context:
        """What the component may touch; without an agent, views are empty."""
        parts.setdefault("processes", ProcessView())
        parts.setdefault("incidents", IncidentView())
        return Context(
            component=str(component),
            logger=logging.getLogger(f"linnix.{component}"),
            data_dir=self.data_dir / str(component),
            **parts,
        )

    def open(self, kind: Kind, name: str, options: Mapping[str, Any] | None = None) -> Component:
        """Load, configure and start one plugin for a command that runs without an agent.

        Raises `ConfigError` for its keys and `LinnixError` for whatever keeps it from
        running.
        """
        component = self.add(kind, name)
        problems: list[Problem] = []
        if component.state == "available":
            settings = ComponentSettings(kind=kind, name=name, options=options or {})
            self.configure(component, settings, problems)
        if problems:
            raise ConfigError(problems)
        context = self.context(component)
        if component.state == "available" and self.create(component, context):
            self.register()
            if self.start(component, context):
                self.ready(component)
        if not component.runs:
            status = component.status()
            raise LinnixError(f"{component} is {status.state}: {status.reason}", hint=status.hint)
        return component

    def create(self, component: Component, context: Any) -> bool:
        """Build the object of a component whose ``config`` is set; whether it can start."""
        try:
            component.create(context, self.start_timeout_s)
        except LinnixError as error:
            component.fail(error)
            return False
        return True

    def register(self) -> None:
        """Tell pluggy of every component that was built, so that calls follow their order."""
        # Pluggy calls the last registered first.
        for component in reversed([c for c in self.components if c.instance is not None]):
            if self._manager.get_plugin(str(component)) is None:
                self._manager.register(component.bound_hooks(), name=str(component))

    def start(self, component: Component, context: Any) -> bool:
        """Start one component under the deadline; whether it runs."""
        self._started.append(component)
        return self._call_start(component, "linnix_start", context=context)

    def ready(self, component: Component) -> bool:
        """Let a component that has started begin; whether it runs."""
        return self._call_start(component, "linnix_ready")

    def _call_start(self, component: Component, hook: str, **arguments: Any) -> bool:
        try:
            component.call_within(self.start_timeout_s, hook, **arguments)
        except LinnixError as error:
            component.fail(error)
            return False
        component.set_state("running")
        return True

    def implementing(self, hook: str) -> list[Component]:
        """The running components that implement a hook, in the order of the configuration."""
        registered = {
            impl.plugin_name for impl in getattr(self._manager.hook, hook).get_hookimpls()
        }
        # Not pluggy's order: that is of registration, and ladders and commands register late.
        return [c for c in self.components if c.runs and str(c) in registered]

    def each(self, hook: str, seconds: float, **arguments: Any) -> list[tuple[Component, Any]]:
        """What every implementation returns; one that fails is left out and shows why."""
        answers = []
        for component in self.implementing(hook):
            try:
                answers.append((component, self._ask(component, hook, seconds, arguments)))
            except LinnixError:
                continue
        return answers

    def first(self, hook: str, seconds: float, **arguments: Any) -> Any:
        """The first answer that is not None; one that fails counts as having declined."""
        for component in self.implementing(hook):
            try:
                answer = self._ask(component, hook, seconds, arguments)
            except LinnixError:
                continue
            if answer is not None:
                return answer
        return None

    @staticmethod
    def _ask(component: Component, hook: str, seconds: float, arguments: Mapping[str, Any]) -> Any:
        try:
            answer = component.call_within(seconds, hook, **arguments)
        except LinnixError as error:
            component.failures += 1
            if component.state == "running":
                component.set_state("degraded", "answer", str(error))
            raise
        if component.status().code == "answer":
            component.set_state("running")
        return answer

    def stop(self, deadline: float) -> None:
        """Stop what was started, the last first, until the monotonic ``deadline``."""
        for component in reversed(self._started):
            try:
                left = max(deadline - time.monotonic(), 0.1)
                component.call_within(left, "linnix_stop", deadline=deadline)
            except LinnixError as error:
                component.failures += 1
                if component.runs:
                    component.set_state("failed", "crash", f"did not stop: {error}")
            if component.runs:
                component.set_state("stopped")
        self._started.clear()
        for component in self.components:
            component.close()
