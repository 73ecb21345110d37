"""How the contracts look at a plugin: as an agent would, but patiently and one call at a time."""

from __future__ import annotations

import functools
import gc
import inspect
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
import pytest

from linnix_core.batch import Batch
from linnix_core.config import ComponentSettings, structure
from linnix_core.context import Context
from linnix_core.errors import PluginUnavailable, Problem, RecordsLost
from linnix_core.hookspecs import Kind
from linnix_core.plugins import Component, PluginHost
from linnix_core.processes import ProcessTable
from linnix_core.records import Alert, Record
from linnix_core.settings import Secret
from linnix_core.testing.distributions import catalog_of

__all__ = ["Trial"]

#: Seconds for threads and descriptors to go away after the component has stopped.
SETTLE_S = 5.0

#: Seconds for a streaming collector to have something, if nobody provokes it.
QUIET_S = 2.0

#: Seconds for a collector to return once ``stop`` is set.
STOP_S = 10.0

#: Names of keys that hold a secret, whatever their type is.
_SECRETIVE = re.compile(r"(^|_)(password|passphrase|passwd|secret|token|api_?key|credentials?)$")


class Trial:
    """One component of the plugin, called as an agent would call it.

    Every call is made in a thread of the component's own and may take ``patience_s``.
    """

    def __init__(
        self,
        component: Component,
        make_context: Callable[..., Context],
        *,
        patience_s: float,
        may_be_unavailable: bool,
    ) -> None:
        self.component = component
        self.alerts: list[Alert] = []
        self._patience_s = patience_s
        self._may_be_unavailable = may_be_unavailable
        self._table = ProcessTable()
        self.running = False
        self.context = make_context(
            str(component), processes=self._table.view, submit=self.alerts.append
        )
        with self._unless_unavailable():
            component.create(self.context, patience_s)

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call a hook; None if the plugin does not implement it."""
        with self._unless_unavailable():
            return self.component.call_within(self._patience_s, hook, **arguments)

    def start(self) -> None:
        """Call ``linnix_start`` and ``linnix_ready``."""
        self.running = True
        self.call("linnix_start", context=self.context)
        self.call("linnix_ready")

    def stop(self) -> None:
        """Call ``linnix_stop``."""
        self.running = False
        self.call("linnix_stop", deadline=time.monotonic() + self._patience_s)

    def end(self) -> None:
        """Stop if it runs, and let the thread for the calls end."""
        self.context.stop.set()
        try:
            if self.running:
                self.stop()
        finally:
            self.component.close()

    def call_here(self, hook: str, **arguments: Any) -> Any:
        """Call a hook in the calling thread, for as long as it takes."""
        with self._unless_unavailable():
            return self.component.call(hook, **arguments)

    def admit(self, records: Sequence[Record]) -> Batch:
        """A batch as the pipeline makes it, with the process table brought up to date."""
        self._table.update(records)
        return Batch(records)

    def handle(self, records: Sequence[Record]) -> list[Any]:
        """Give a handler one batch; the alerts that come back."""
        batch = self.admit(records)
        self.call("linnix_enrich", batch=batch)
        return self.deliver(batch)

    def deliver(self, batch: Batch, *, here: bool = False) -> list[Any]:
        """Call ``linnix_handle`` alone, in the calling thread if ``here``."""
        call = self.call_here if here else self.call
        try:
            return list(call("linnix_handle", batch=batch) or ())
        except RecordsLost as lost:
            # A handler may say so when the other side does not answer.
            _check_lost(lost, len(batch))
            return []

    def poll(self) -> list[Record]:
        """What one poll of a collector returns."""
        return list(self.call("linnix_poll") or ())

    @contextmanager
    def _unless_unavailable(self) -> Iterator[None]:
        try:
            yield
        except PluginUnavailable as missing:
            hint = f" ({missing.hint})" if missing.hint else ""
            if self._may_be_unavailable:
                pytest.skip(f"{self.component} is unavailable here: {missing}{hint}")
            raise AssertionError(
                f"{self.component} is unavailable: {missing}{hint}. "
                "Where that is right, override the fixture may_be_unavailable."
            ) from missing


def _check_lost(lost: RecordsLost, given: int) -> None:
    assert 0 <= lost.count <= given, f"{lost.count} of {given} records lost"
    assert lost.why, "RecordsLost without a word for why"


class Sink:
    """A collector's sink that keeps what it gets, and notices what comes too late."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.losses: list[tuple[Any, Any]] = []
        self.account: tuple[Any, Any, dict[Any, Any]] | None = None
        self.first = threading.Event()
        self.closed = False
        self.late = threading.Event()

    def emit(self, record: Any) -> None:
        """Keep one."""
        self.emit_many((record,))

    def emit_many(self, records: Sequence[Any]) -> None:
        """Keep several."""
        (self.late if self.closed else self.first).set()
        self.records.extend(records)

    def lost(self, why: Any, count: Any = 1) -> None:
        """Keep what it was told, whatever that is."""
        self.losses.append((why, count))

    def balance(self, emitted: Any, received: Any, lost: Any) -> None:
        """Keep the latest account, which has to balance."""
        assert emitted == received + sum(lost.values()), (
            f"emitted {emitted} is not received {received} and lost {dict(lost)}"
        )
        self.account = (emitted, received, dict(lost))


def find_entry_point(kind: Kind, cls: Any) -> metadata.EntryPoint | None:
    """The installed entry point of this kind that leads to the class."""
    package = cls.__module__.partition(".")[0]
    for entry_point in metadata.entry_points(group=f"linnix.{kind}"):
        if entry_point.module.partition(".")[0] == package:
            with suppress(Exception):  # another plugin of the package may be broken
                if entry_point.load() is cls:
                    return entry_point
        elif getattr(sys.modules.get(entry_point.module), entry_point.attr, None) is cls:
            return entry_point  # offered by a distribution that imports it from elsewhere
    return None


@attrs.frozen
class Import:
    """What came of importing a module: a problem or nothing, what it brought and said."""

    problem: str
    modules: tuple[str, ...] = ()
    printed: str = ""


_IMPORT_SCRIPT = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
before = set(sys.modules)
importlib.import_module(sys.argv[2])
print("", "imported:" + json.dumps(sorted(set(sys.modules) - before)), sep="\\n", flush=True)
"""


@functools.cache
def import_alone(module: str, path: Sequence[str], patience_s: float) -> Import:
    """Import a module in a process of its own that looks for modules where this one does."""
    command = [sys.executable, "-c", _IMPORT_SCRIPT, json.dumps(path), module]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, and a module that is a plugin
            command, capture_output=True, text=True, timeout=patience_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Import(f"it has not ended after {patience_s:g} s: does it wait or run a thread?")
    printed, imported, modules = done.stdout.rpartition("\nimported:")
    if not imported or done.returncode:
        said = f"{done.stdout}{done.stderr}".strip()
        last = said.rpartition("\n")[2]
        return Import(f"the process ended with status {done.returncode}: {last}\n{said}")
    return Import("", tuple(json.loads(modules)), (printed + done.stderr).strip())


def configured(
    kind: Kind, cls: Any, options: Mapping[str, Any], folder: Path
) -> tuple[Component, list[Problem]]:
    """Load, verify and configure the class under the name ``under-test``."""
    assert inspect.isclass(cls), f"plugin_class must return a class, not {cls!r}"
    host = PluginHost(catalog_of({kind: {"under-test": cls}}), data_dir=folder / "data")
    component = host.add(kind, "under-test")
    assert component.state == "available", component.status().reason
    problems: list[Problem] = []
    host.configure(
        component, ComponentSettings(kind=kind, name="under-test", options=options), problems
    )
    return component, problems


def listed(problems: Sequence[Problem]) -> str:
    """Problems as people read them."""
    return "\n".join(map(str, problems))


def config_fields(plugin_class: Any) -> list[attrs.Attribute[Any]]:
    """The keys that ``Config`` has; none if there is no such class."""
    config = getattr(plugin_class, "Config", None)
    if config is None or not attrs.has(config):
        return []
    return [field for field in attrs.fields(config) if field.init]


def with_secrets(plugin_class: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options, and made-up secrets where they have none; unless those do not fit."""
    filled = dict(options)
    hints = get_type_hints(plugin_class.Config) if config_fields(plugin_class) else {}
    for field in config_fields(plugin_class):
        types = (hints[field.name], *get_args(hints[field.name]))
        if Secret in types or (str in types and _SECRETIVE.search(field.name)):
            filled.setdefault(field.name, f"made-up-{field.name}")
    problems: list[Problem] = []
    if filled != options:
        structure(plugin_class.Config, filled, "", problems)
    return options if problems else filled


def secret_values(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every secret within a configuration, with the key that holds it."""
    if isinstance(value, Secret):
        yield key, value.reveal()
    elif isinstance(value, str):
        if _SECRETIVE.search(key) and len(value) > 3:
            yield key, value
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from secret_values(getattr(value, field.name), field.name)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from secret_values(item, str(name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from secret_values(item, key)


def open_things() -> dict[Any, str]:
    """The threads and, on Linux, the descriptors of this process."""
    things: dict[Any, str] = {thread: f"thread {thread.name}" for thread in threading.enumerate()}
    folder = Path("/proc/self/fd")
    for link in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):  # closed meanwhile, like the one for looking here
            things[link.name, link.readlink()] = f"descriptor {link.name} ({link.readlink()})"
    return things


def left_since(before: Mapping[Any, str], patience_s: float) -> list[str]:
    """What is still open that was not open before, after some time to settle."""
    deadline = time.monotonic() + min(SETTLE_S, patience_s)
    while True:
        gc.collect()
        left = [words for thing, words in open_things().items() if thing not in before]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def in_a_thread(call: Callable[[], Any], seconds: float) -> Any:
    """What a call returns or raises in a new thread."""
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the outcome is asked for
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        raise AssertionError(f"has not returned within {seconds:g} s") from None


def collect(
    trial: Trial, sink: Sink, provoke: Callable[[], object] | None, patience_s: float
) -> None:
    """Two polls, or streaming until something came; with something provoked in between."""
    if trial.component.has("linnix_poll"):
        sink.emit_many(trial.poll())
        if provoke is not None:
            provoke()
        sink.emit_many(trial.poll())
        return
    with collecting(trial, sink, patience_s):
        if provoke is None:
            sink.first.wait(min(QUIET_S, patience_s))
        else:
            deadline = time.monotonic() + patience_s
            provoke()
            while not sink.first.wait(1.0) and time.monotonic() < deadline:
                provoke()


@contextmanager
def collecting(trial: Trial, sink: Sink, patience_s: float) -> Iterator[None]:
    """Run ``linnix_collect`` in a thread, tell it to stop, and see that it does."""
    stop = trial.context.stop
    raised: list[BaseException] = []

    def run() -> None:
        try:
            trial.call_here("linnix_collect", sink=sink, stop=stop)
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits for the end
            raised.append(error)
        finally:
            sink.first.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(min(STOP_S, patience_s))
    if raised:
        raise raised[0]
    assert not thread.is_alive(), "linnix_collect goes on after stop was set"
