"""What every plugin of a kind must do, as tests that a class of yours inherits.

A plugin has one such class in ``tests/test_contract.py``, and it overrides fixtures only:

    class TestJsonl(HandlerContract):
        @pytest.fixture
        def plugin_class(self):
            return JsonlHandler

        @pytest.fixture
        def options(self, tmp_path):
            return {"path": str(tmp_path / "out.jsonl")}

Each test says in its docstring what to do if it fails. One that your plugin cannot pass may
be given up in public, with the reason:

    @pytest.mark.xfail(reason="the server of this vendor keeps its port for a minute")
    def test_stops_twice(self, component):
        super().test_stops_twice(component)

New tests come with minor versions of ``linnix-core`` only, which is what your upper bound
is for.
"""

from __future__ import annotations

import gc
import json
import math
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import tomli_w
from packaging.requirements import Requirement

from linnix_core.__about__ import __version__
from linnix_core.codec import decode, encode
from linnix_core.config import RESERVED, structure, unstructure
from linnix_core.context import Context
from linnix_core.deployments import DeploymentStore
from linnix_core.errors import PluginUnavailable
from linnix_core.grounding import ground
from linnix_core.hookspecs import Kind
from linnix_core.plugins import CallFailed, verify
from linnix_core.processes import TICK_NS
from linnix_core.records import (
    CLASSES,
    SEVERITIES,
    Answer,
    Deployment,
    Fact,
    Health,
    Metric,
    ModelSpec,
    Mount,
    ProcessEvent,
    ProcessSample,
    Query,
    ReasonRequest,
    Record,
    Result,
)
from linnix_core.redact import CLEANERS, is_alert
from linnix_core.testing import records as specimens
from linnix_core.testing.distributions import CORE_REQUIREMENT
from linnix_core.testing.trial import (
    STOP_S,
    Sink,
    Trial,
    collect,
    config_fields,
    configured,
    find_entry_point,
    import_alone,
    in_a_thread,
    left_since,
    listed,
    open_things,
    secret_values,
    with_secrets,
)

__all__ = [
    "CollectorContract",
    "DeployerContract",
    "HandlerContract",
    "ReasonerContract",
]

#: Modules that take long to import or much memory, or end the process when they fail.
HEAVY = frozenset(
    {
        "bcc",
        "jax",
        "llama_cpp",
        "matplotlib",
        "numpy",
        "onnxruntime",
        "pandas",
        "pyarrow",
        "scipy",
        "sklearn",
        "tensorflow",
        "torch",
        "transformers",
        "vllm",
    }
)

#: Fixtures that are there to be overridden.
OPEN = frozenset(
    {
        "may_be_unavailable",
        "options",
        "patience_s",
        "plugin_class",
        "provoke",
        "provoking_records",
        "spec",
    }
)

#: Seconds in which something that should not come any more would have come.
LATE_S = 0.3

#: Seconds that a reasoner may take beyond what a request allows: machines are noisy.
GRACE_S = 5.0

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_YEAR_2000_NS = 946_684_800 * 10**9


class _Contract:
    """What is common to the plugins of every kind."""

    kind: ClassVar[Kind]

    # --- fixtures to override ---------------------------------------------------------

    @pytest.fixture
    def plugin_class(self) -> Any:
        """The class behind the entry point. Required."""
        pytest.fail("override the fixture plugin_class: return the class of your plugin")

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """The component's keys, as its table in ``linnix.toml`` would have them."""
        return {}

    @pytest.fixture
    def may_be_unavailable(self) -> bool:
        """Whether `PluginUnavailable` skips a test, with its reason, instead of failing it.

        Return a condition, such as ``os.geteuid() != 0``, so that the tests run somewhere.
        """
        return False

    @pytest.fixture
    def patience_s(self) -> float:
        """Seconds that any one call may take before it counts as hung."""
        return 30.0

    # --- fixtures to use --------------------------------------------------------------

    @pytest.fixture
    def entry_point(self, plugin_class: Any) -> metadata.EntryPoint | None:
        """The installed entry point of the plugin's kind that leads to the class."""
        return find_entry_point(self.kind, plugin_class)

    @pytest.fixture
    def make_component(
        self,
        plugin_class: Any,
        options: Mapping[str, Any],
        linnix_context: Callable[..., Context],
        patience_s: float,
        may_be_unavailable: bool,
        tmp_path: Path,
    ) -> Iterator[Callable[..., Trial]]:
        """Build components of the plugin, with ``options`` or others; not started yet."""
        made: list[Trial] = []

        def make(others: Mapping[str, Any] | None = None) -> Trial:
            component, problems = configured(
                self.kind, plugin_class, options if others is None else others, tmp_path
            )
            assert not problems, listed(problems)
            trial = Trial(
                component,
                linnix_context,
                patience_s=patience_s,
                may_be_unavailable=may_be_unavailable,
            )
            made.append(trial)
            return trial

        yield make
        for trial in reversed(made):
            trial.end()

    @pytest.fixture
    def component(self, make_component: Callable[..., Trial]) -> Trial:
        """A component with ``options``, started."""
        trial = make_component()
        trial.start()
        return trial

    def _work(self, trial: Trial) -> None:
        """Let a started component do a little of what it is for."""
        raise NotImplementedError

    # --- the contract itself ----------------------------------------------------------

    def test_contract_is_not_overridden(self) -> None:
        """Every test of the contract is the kit's own, or given up with a reason.

        If this fails, delete the test, helper or fixture of that name from your class, and
        override one of the fixtures that are there for it. A test that your plugin cannot
        pass is overridden with ``@pytest.mark.xfail(reason="…")`` and calls ``super()``.
        """
        changed = []
        classes = type(self).__mro__
        kit = [base for base in classes if base.__module__ == __name__]
        for name in sorted({name for base in kit for name in vars(base)} - OPEN):
            found = _written(classes, name)
            if not _is_magic(name) and found is not _written(kit, name) and not _given_up(found):
                changed.append(name)
        assert not changed, f"{type(self).__name__} changes {', '.join(changed)}"

    # --- the distribution -------------------------------------------------------------

    def test_entry_point_leads_to_the_class(
        self, plugin_class: Any, entry_point: metadata.EntryPoint | None
    ) -> None:
        """An installed distribution offers the class under the group of its kind.

        If this fails, add the entry point to ``pyproject.toml`` and install the distribution
        again (``pip install -e .``): entry points are read from what is installed.
        """
        where = f"{plugin_class.__module__.partition('.')[0]}:{plugin_class.__qualname__}"
        assert entry_point is not None, (
            f"no installed entry point leads to {plugin_class!r}; in pyproject.toml:\n"
            f'[project.entry-points."linnix.{self.kind}"]\nthe-name = "{where}"'
        )

    def test_name_is_plain(self, entry_point: metadata.EntryPoint | None) -> None:
        """The name of the entry point is made of small letters, digits and dashes.

        If this fails, rename the entry point: its name is a table in ``linnix.toml`` and a
        word on the command line.
        """
        if entry_point is not None:
            assert _NAME.fullmatch(entry_point.name), (
                f"{entry_point.name!r} must begin with a small letter and go on with those, "
                "digits or dashes"
            )

    def test_distribution_says_which_core_it_needs(
        self, entry_point: metadata.EntryPoint | None
    ) -> None:
        """The distribution requires ``linnix-core`` from some version on and below another.

        If this fails, write both bounds into the dependencies, as the message shows. Without
        an upper bound, your plugin would be loaded by a core that it was not written for.
        """
        if entry_point is None or entry_point.dist is None:
            return
        wanted = [
            requirement
            for requirement in map(Requirement, entry_point.dist.requires or ())
            if re.sub(r"[-_.]+", "-", requirement.name).lower() == "linnix-core"
            and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
        ]
        advice = f"write {CORE_REQUIREMENT!r} into the dependencies"
        assert wanted, f"{entry_point.dist.name} does not require linnix-core; {advice}"
        specifier = wanted[0].specifier
        operators = {part.operator for part in specifier}
        assert operators & {">=", ">", "~=", "==", "==="}, f"no lower bound: {wanted[0]}; {advice}"
        assert operators & {"<", "<=", "~=", "==", "==="}, f"no upper bound: {wanted[0]}; {advice}"
        assert specifier.contains(__version__, prereleases=True), (
            f"{wanted[0]} excludes the core it is tested with, {__version__}"
        )

    def test_import_is_light(
        self, plugin_class: Any, entry_point: metadata.EntryPoint | None, patience_s: float
    ) -> None:
        """Importing the plugin's module alone is quiet, harmless and brings nothing heavy.

        If this fails, move the import of the heavy module into ``linnix_start`` or to where
        it is needed; whatever prints, exits or waits at import, likewise. The module is
        imported for ``linnix plugins show`` and ``config check``, maybe without the library.
        """
        module = plugin_class.__module__ if entry_point is None else entry_point.module
        outcome = import_alone(module, tuple(sys.path), patience_s)
        assert outcome.problem == "", f"import {module} in a fresh process: {outcome.problem}"
        heavy = HEAVY & {name.partition(".")[0] for name in outcome.modules}
        assert not heavy, f"import {module} also imports {', '.join(sorted(heavy))}"
        assert outcome.printed == "", f"import {module} prints {outcome.printed!r}"

    # --- the class --------------------------------------------------------------------

    def test_class_is_documented(self, plugin_class: Any) -> None:
        """The class has a docstring of its own.

        If this fails, say in one sentence what the plugin does: its first line is what
        people read about it.
        """
        said = vars(plugin_class).get("__doc__")
        assert (said or "").strip(), f"{plugin_class.__qualname__} has no docstring"

    def test_hooks_fit_their_specifications(self, plugin_class: Any) -> None:
        """Hooks are those of the kind, ordinary functions with the arguments of the contract.

        If this fails, the message names the hook; `linnix_core.hookspecs` shows how it is
        spelled and what its arguments are called.
        """
        assert verify(plugin_class, self.kind)

    def test_config_leaves_reserved_keys_to_the_core(self, plugin_class: Any) -> None:
        """``Config``, if there is one, is an attrs class, and none of its keys is the core's.

        If this fails, decorate it with ``@attrs.frozen``, or rename the key: the core takes
        reserved keys out of the table before the plugin's own are looked at.
        """
        config = getattr(plugin_class, "Config", None)
        if config is not None:
            assert attrs.has(config), f"Config is {config!r}, not an attrs class"
            taken = {field.name for field in attrs.fields(config)} & set(RESERVED)
            assert not taken, f"reserved for the core: {', '.join(sorted(taken))}"

    def test_config_keys_are_explained(self, plugin_class: Any) -> None:
        """Every key of ``Config`` carries a few words of help.

        If this fails, add ``metadata={"help": "…"}`` to the field: ``linnix plugins show``
        and ``linnix config init`` print it.
        """
        for field in config_fields(plugin_class):
            said = field.metadata.get("help", "")
            assert isinstance(said, str), f"the help of {field.name} is no text"
            assert said.strip(), f"{field.name} has no help"

    def test_argument_is_a_key(self, plugin_class: Any) -> None:
        """``Config.ARG``, if there is one, names a key.

        If this fails, correct the name: ``--handler NAME:ARG`` sets this key.
        """
        argument = getattr(getattr(plugin_class, "Config", None), "ARG", None)
        if argument is not None:
            keys = {field.name for field in config_fields(plugin_class)}
            assert argument in keys, f"ARG names {argument!r}, which is no key"

    # --- the configuration ------------------------------------------------------------

    def test_options_are_taken(
        self, plugin_class: Any, options: Mapping[str, Any], tmp_path: Path
    ) -> None:
        """The options of this test pass the strict converter.

        If this fails, the message holds what a person would read who had them in
        ``linnix.toml``. Options are TOML values: a path is a text, a duration ``"5s"``.
        """
        component, problems = configured(self.kind, plugin_class, options, tmp_path)
        component.close()
        assert not problems, listed(problems)

    def test_unknown_key_is_reported(
        self, plugin_class: Any, options: Mapping[str, Any], tmp_path: Path
    ) -> None:
        """A key that does not exist is a mistake, shown with its path.

        If this fails, ``Config`` takes whatever it is given. Make it an attrs class with one
        field for each key, so that a misspelled one does not pass unnoticed.
        """
        wrong = {**options, "no_such_key": 1}
        component, problems = configured(self.kind, plugin_class, wrong, tmp_path)
        component.close()
        paths = [problem.path for problem in problems]
        assert f"{component}.no_such_key" in paths, "the key no_such_key was taken"

    def test_configuration_can_be_written(
        self, plugin_class: Any, options: Mapping[str, Any], tmp_path: Path
    ) -> None:
        """What the options were made into can be written as TOML, and read again.

        If this fails, give the key a type that TOML has, or `Duration`, `Size`, `Path`,
        `Secret`: ``linnix config show`` prints every component's configuration.
        """
        component, problems = configured(self.kind, plugin_class, options, tmp_path)
        component.close()
        assert not problems, listed(problems)
        if component.config is not None:
            written = unstructure(component.config)
            table = tomllib.loads(tomli_w.dumps(written))
            read = structure(plugin_class.Config, table, str(component), problems)
            assert not problems, listed(problems)
            assert unstructure(read) == written

    def test_shows_no_secret(
        self,
        plugin_class: Any,
        options: Mapping[str, Any],
        make_component: Callable[..., Trial],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Neither the object nor its configuration nor the log show a secret.

        Keys of type `Secret`, and texts with a name like ``password`` or ``api_key``, are
        filled in where the options have none. If this fails, give the key the type
        `linnix_core.Secret`, keep it in that form, and call ``reveal()`` where it is used.
        """
        caplog.set_level("DEBUG")
        trial = make_component(with_secrets(plugin_class, options))
        component = trial.component
        shown = [repr(component.instance), str(component.instance), caplog.text]
        if component.config is not None:
            shown += [repr(component.config), str(component.config)]
            shown.append(tomli_w.dumps(unstructure(component.config)))
        for key, secret in secret_values(component.config):
            for text in shown:
                assert secret not in text, f"the value of {key} is shown"

    # --- its life ---------------------------------------------------------------------

    def test_starts_and_stops(self, make_component: Callable[..., Trial]) -> None:
        """With the options of this test it is built, starts and stops.

        If this fails with `PluginUnavailable`, give it in ``options`` what it needs (a
        server of the test's own, a folder), or override ``may_be_unavailable``.
        """
        trial = make_component()
        trial.start()
        trial.stop()

    def test_stops_without_start(self, make_component: Callable[..., Trial]) -> None:
        """Stopping is safe when nothing was started.

        If this fails, let ``linnix_stop`` release only what is there: it is also called
        after a start that failed half way.
        """
        make_component().stop()

    def test_stops_twice(self, component: Trial) -> None:
        """Stopping again does nothing.

        If this fails, let ``linnix_stop`` forget what it has released.
        """
        component.stop()
        component.stop()

    def test_leaves_nothing_behind(
        self, make_component: Callable[..., Trial], patience_s: float
    ) -> None:
        """Once stopped, none of its threads lives and none of its descriptors is open.

        If this fails, the message names what is left. Close files and sockets and join
        threads in ``linnix_stop``; a library may need a ``close()`` or ``shutdown()``.
        """
        # What libraries open once, they keep: so the second life is what counts.
        for count_now in (False, True):
            gc.collect()
            before = open_things()
            trial = make_component()
            trial.start()
            self._work(trial)
            trial.stop()
            trial.end()
            if count_now:
                left = left_since(before, patience_s)
                assert not left, f"left after stop: {', '.join(left)}"

    def test_prints_nothing(
        self,
        plugin_class: Any,
        make_component: Callable[..., Trial],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """Standard output and standard error belong to whoever runs Linnix.

        If this fails, use ``context.logger``. A plugin whose business is standard output says
        so with the class attribute ``USES_STDOUT = True``.
        """
        capfd.readouterr()
        trial = make_component()
        trial.start()
        self._work(trial)
        trial.stop()
        out, err = capfd.readouterr()
        if not getattr(plugin_class, "USES_STDOUT", False):
            assert out == ""
            assert err == ""

    def test_tells_its_health_at_any_time(self, make_component: Callable[..., Trial]) -> None:
        """``linnix_health``, if there is one, returns a `Health` before, in and after a run.

        If this fails by time, answer from what is known already: the answer should take a
        tenth of a second and not wait for a server. (The kit is more patient than the core,
        because it runs on noisy machines.)
        """
        trial = make_component()
        if not trial.component.has("linnix_health"):
            return
        _check_health(trial.call("linnix_health"))
        trial.start()
        self._work(trial)
        _check_health(trial.call("linnix_health"))
        trial.stop()
        _check_health(trial.call("linnix_health"))


class HandlerContract(_Contract):
    """What every handler must do."""

    kind = "handlers"

    @pytest.fixture
    def provoking_records(self) -> Sequence[Record]:
        """Records that make this handler raise an alert, if that is what it does."""
        return ()

    def _work(self, trial: Trial) -> None:
        trial.handle(specimens.realistic_records(300))
        trial.call("linnix_flush")

    def test_takes_an_empty_batch(self, component: Trial) -> None:
        """A batch may be empty.

        If this fails, do not take the first or the last record for granted.
        """
        component.handle([])

    def test_takes_one_record(self, component: Trial) -> None:
        """A batch may hold a single record.

        If this fails, look for divisions by the number of records less one, or by the time
        between the first and the last.
        """
        component.handle(specimens.realistic_records(1))

    def test_takes_a_thousand_records(self, component: Trial) -> None:
        """A batch may be large, and another one follows at once.

        If this fails by time, hand the batch on in one piece instead of record by record;
        if it fails otherwise, see what the first batch left behind in the handler.
        """
        records = specimens.realistic_records(2000)
        component.handle(records[:1000])
        component.handle(records[1000:])

    def test_takes_every_type_of_record(self, component: Trial) -> None:
        """Events, samples, cgroups, the host and losses may come in one batch.

        If this fails, ask for the ``type`` of a record before you use its attributes, and
        pass over types that you do not know.
        """
        by_type = {record.type: record for record in specimens.realistic_records(2000)}
        assert len(by_type) == 5, sorted(by_type)
        component.handle(list(by_type.values()))
        for record in by_type.values():
            component.handle([record])

    def test_takes_records_of_which_little_is_known(self, component: Trial) -> None:
        """Everything that may be None is None.

        If this fails, provide for None where the record says ``| None``: it means that
        nobody knows, and is never zero.
        """
        for record in specimens.bare_records():
            component.handle([record])

    def test_takes_hostile_names(self, component: Trial) -> None:
        """Names, arguments and paths hold whatever a process chose.

        If this fails, treat them as data: quote them for the format that you write, and
        never put them into a format string, a query or a command.
        """
        component.handle(specimens.hostile_records())

    def test_does_not_change_the_batch(self, component: Trial) -> None:
        """Records are the same afterwards: all handlers share them.

        If this fails, copy what you want to change (``attrs.evolve(record, …)``).
        """
        for records in (specimens.realistic_records(500), specimens.hostile_records()):
            batch = component.admit(records)
            before = list(map(encode, batch))
            component.deliver(batch)
            changes = _changes(before, map(encode, batch))
            assert not changes, changes

    def test_enriches_labels_only(self, component: Trial) -> None:
        """``linnix_enrich``, if there is one, changes nothing but ``labels``.

        If this fails, put what you know into ``labels``, as texts.
        """
        batch = component.admit(specimens.realistic_records(500))
        before = list(map(_unlabelled, batch))
        component.call("linnix_enrich", batch=batch)
        changes = _changes(before, map(_unlabelled, batch))
        assert not changes, changes
        for record in batch:
            labels = getattr(record, "labels", None) or {}
            assert all(isinstance(part, str) for pair in labels.items() for part in pair), labels

    def test_alerts_are_alerts(
        self, make_component: Callable[..., Trial], provoking_records: Sequence[Record]
    ) -> None:
        """What it returns or submits are `Alert` records with a severity and class we know.

        If this fails, build `linnix_core.Alert` with one of `SEVERITIES`, and with one of
        `CLASSES` or None. If no alert came, see whether ``provoking_records`` raise one.
        """
        for records in (
            specimens.realistic_records(1000),
            list(map(attrs.evolve, provoking_records)),
        ):
            trial = make_component()
            trial.start()
            alerts = [*trial.handle(records), *trial.alerts]
            trial.end()
            for alert in alerts:
                assert is_alert(alert), f"{alert!r} is no Alert"
                assert alert.severity in SEVERITIES
                assert alert.class_ is None or alert.class_ in CLASSES
                assert decode(encode(alert)) == alert
        assert alerts or not provoking_records, "the provoking records raise no alert"

    def test_takes_every_notice(self, component: Trial) -> None:
        """Alerts, incidents, insights and feedback of every sort, and does not change them.

        If this fails, provide for ``class_`` None, for a subject without key, executable or
        cgroup, for no evidence, and for texts that are hostile.
        """
        for hook, argument, notices in (
            ("linnix_alert", "alert", specimens.alerts()),
            ("linnix_incident", "incident", specimens.incidents()),
            ("linnix_insight", "insight", specimens.insights()),
            ("linnix_feedback", "feedback", specimens.feedback()),
        ):
            for notice in notices:
                before = encode(notice)
                component.call(hook, **{argument: notice})
                changes = _changes([before], [encode(notice)])
                assert not changes, f"{hook} changes what it gets: {changes}"

    def test_flushes(self, component: Trial) -> None:
        """``linnix_flush`` is safe with nothing to write, after a batch and again.

        If this fails, remember in the handler what is still to be written.
        """
        component.call("linnix_flush")
        component.handle(specimens.realistic_records(100))
        component.call("linnix_alert", alert=specimens.alerts()[0])
        for _ in range(2):
            component.call("linnix_flush")

    def test_works_in_another_thread(self, component: Trial, patience_s: float) -> None:
        """It is started in one thread and handles in another.

        If this fails, look for what belongs to a thread: a connection of ``sqlite3``, an
        event loop, `threading.local`. Open it where it is used, or allow other threads.
        """
        batch = component.admit(specimens.realistic_records(100))

        def work() -> None:
            component.deliver(batch, here=True)
            component.call_here("linnix_alert", alert=specimens.alerts()[0])
            component.call_here("linnix_flush")

        in_a_thread(work, patience_s)

    def test_joins_in_with_what_the_hooks_promise(self, component: Trial) -> None:
        """Facts, metrics, mounts and results of history are of their types.

        If this fails, build the records of `linnix_core` that the hook specification names;
        the core passes over anything else.
        """
        component.handle(specimens.realistic_records(300))
        facts = component.call("linnix_evidence", incident=specimens.incidents()[1])
        metrics = component.call("linnix_metrics") or ()
        mounts = component.call("linnix_http")
        result = component.call("linnix_query", query=Query(limit=10))
        for fact in facts or ():
            assert isinstance(fact, Fact), f"linnix_evidence: {fact!r} is no Fact"
        for metric in metrics:
            assert isinstance(metric, Metric), f"linnix_metrics: {metric!r} is no Metric"
            assert math.isfinite(metric.value), f"{metric.name} is {metric.value}"
        for mount in mounts or ():
            assert isinstance(mount, Mount), f"linnix_http: {mount!r} is no Mount"
        if result is not None:
            assert isinstance(result, Result), f"linnix_query: {result!r} is no Result"
            assert len(result.records) <= 10, f"{len(result.records)} records where 10 were asked"


class CollectorContract(_Contract):
    """What every collector must do."""

    kind = "collectors"

    @pytest.fixture
    def provoke(self) -> Callable[[], object] | None:
        """Make something happen that this collector sees: ``lambda: subprocess.run(["true"])``.

        With it, the collector must emit something; without, a quiet host is no failure. It
        may be called several times, until something comes.
        """
        return None

    @pytest.fixture
    def collected(
        self, component: Trial, provoke: Callable[[], object] | None, patience_s: float
    ) -> Sink:
        """What the started component collected: two polls, or a while of streaming."""
        sink = Sink()
        collect(component, sink, provoke, patience_s)
        return sink

    def _work(self, trial: Trial) -> None:
        collect(trial, Sink(), None, STOP_S)

    def test_collects_or_polls(self, plugin_class: Any) -> None:
        """It implements ``linnix_collect`` or ``linnix_poll``, and not both.

        If this fails, keep one: a source that tells by itself streams from ``linnix_collect``;
        one that must be asked answers in ``linnix_poll``.
        """
        found = verify(plugin_class, self.kind)
        assert len(found.keys() & {"linnix_collect", "linnix_poll"}) == 1

    def test_emits_records(self, collected: Sink, provoke: Callable[[], object] | None) -> None:
        """Everything that it emits is a record of the core with values of the right types.

        If this fails, build `ProcessEvent`, `ProcessSample`, `CgroupSample`, `SystemSample`
        or `Loss`; the message names the attribute. What has other types, the core drops.
        """
        assert collected.records or provoke is None, "something happened, and nothing was emitted"
        for record in collected.records:
            assert type(record) in CLEANERS, f"{record!r} is no record"
            CLEANERS[type(record)](record)
            # Reading JSON checks the type of every attribute.
            assert decode(encode(record)) == record

    def test_identifies_processes(self, collected: Sink) -> None:
        """A process is its pid and its start time, and never older than its parent.

        If this fails, make every ``start_ns`` with `linnix_core.start_time_ns`, from
        nanoseconds since boot; leave ``parent_start_ns`` None where it is not known.
        """
        for record in _of_processes(collected.records):
            assert record.pid > 0, f"pid {record.pid}"
            assert record.start_ns >= 0, f"start_ns {record.start_ns}"
            assert record.start_ns % TICK_NS == 0, f"start_ns {record.start_ns} is not whole ticks"
            if isinstance(record, ProcessEvent):
                assert record.ppid is None or record.ppid >= 0, f"ppid {record.ppid}"
                if record.parent_start_ns is not None:
                    assert record.parent_start_ns % TICK_NS == 0
                    assert record.parent_start_ns <= record.start_ns, (
                        f"pid {record.pid} began before its parent, pid {record.ppid}"
                    )

    def test_tells_the_time(self, collected: Sink) -> None:
        """Every record has its ``ts_ns``: nanoseconds since 1970, not in the future.

        If this fails, use ``context.clock.time_ns()``, or convert the kernel's clock to it.
        """
        latest = time.time_ns() + 60 * 10**9
        for record in collected.records:
            assert record.ts_ns != 0, f"{record.type} without ts_ns"
            assert _YEAR_2000_NS < record.ts_ns < latest, f"ts_ns {record.ts_ns} is not plausible"

    def test_counts_what_it_loses(self, collected: Sink) -> None:
        """``sink.lost`` gets a word and a count.

        If this fails, call ``sink.lost("ring_full", 3)``.
        """
        for why, count in collected.losses:
            assert isinstance(why, str), f"lost for {why!r}"
            assert why, "lost for no reason that has a word"
            assert type(count) is int, f"{count!r} lost"
            assert count >= 0, f"{count} lost"

    def test_polls_twice(self, component: Trial) -> None:
        """``linnix_poll``, if that is what it has, can be called again and again.

        If this fails, keep in the collector what the next poll is compared with.
        """
        if component.component.has("linnix_poll"):
            for _ in range(3):
                component.poll()

    def test_stops_when_it_is_told(self, component: Trial, patience_s: float) -> None:
        """``linnix_collect``, if that is what it has, returns soon after ``stop`` is set.

        If this fails, wait on the source with a timeout and look at ``stop.is_set()`` in
        between, or wait with ``stop.wait(…)`` instead of ``time.sleep``.
        """
        if component.component.has("linnix_collect"):
            collect(component, Sink(), None, patience_s)

    def test_emits_nothing_after_it_stopped(
        self, component: Trial, provoke: Callable[[], object] | None, patience_s: float
    ) -> None:
        """The sink is left alone once ``linnix_collect`` has returned and stop was called.

        If this fails, a thread of the collector is still at work: join it before returning.
        """
        sink = Sink()
        collect(component, sink, provoke, patience_s)
        component.stop()
        sink.closed = True
        assert not sink.late.wait(LATE_S), f"emitted after the end: {sink.records[-1]!r}"


class ReasonerContract(_Contract):
    """What every reasoner must do."""

    kind = "reasoners"

    def _work(self, trial: Trial) -> None:
        trial.call("linnix_reason", request=specimens.reason_request("fork_storm"))

    def test_answers_from_what_was_given(self, component: Trial) -> None:
        """For every class it declines, or answers with ids of the request that fit.

        If this fails, the message says which id or number was made up. Cite at least one
        fact; choose processes and actions by their ids; decline with None if in doubt.
        """
        for class_ in CLASSES:
            _check_answer(component, specimens.reason_request(class_))

    def test_takes_hostile_names(self, component: Trial) -> None:
        """Names of processes hold whatever a process chose, instructions included.

        If this fails, pass names as data: the ids are what an answer is made of.
        """
        for name in specimens.HOSTILE:
            _check_answer(component, specimens.reason_request("cpu_spin", name=name))

    def test_takes_requests_that_lack_something(self, component: Trial) -> None:
        """A request may hold no facts, no processes or no actions, or none of all.

        If this fails, decline with None when there is nothing to cite, and leave out the
        process or the actions when none is given.
        """
        for class_ in CLASSES:
            request = specimens.reason_request(class_)
            _check_answer(component, attrs.evolve(request, processes=()))
            _check_answer(component, attrs.evolve(request, actions=()))
            _check_answer(component, attrs.evolve(request, processes=(), actions=()))
            # An answer that cites nothing is one that the core discards, like none.
            bare = attrs.evolve(request, facts=(), processes=(), actions=())
            answer = component.call("linnix_reason", request=bare)
            assert answer is None or isinstance(answer, Answer)
            assert answer is None or not (answer.facts or answer.actions or answer.process), (
                f"{answer!r} cites what was not given"
            )

    def test_does_not_change_the_incident(self, component: Trial) -> None:
        """The request is the same afterwards: the next reasoner gets it too.

        If this fails, copy what you want to change (``attrs.evolve(incident, …)``).
        """
        request = specimens.reason_request("oom_risk")
        before = encode(request.incident)
        component.call("linnix_reason", request=request)
        changes = _changes([before], [encode(request.incident)])
        assert not changes, changes

    def test_answers_in_time(self, component: Trial, patience_s: float) -> None:
        """It returns, raises or declines within the ``timeout_s`` of the request.

        If this fails, hand ``request.timeout_s`` to whatever is waited for. The core does
        not wait longer, but the component counts as busy until it returns.
        """
        request = specimens.reason_request("io_saturation", timeout_s=2.0)
        with suppress(CallFailed, PluginUnavailable):  # to say that it cannot is in time, too
            in_a_thread(
                lambda: component.component.call("linnix_reason", request=request),
                request.timeout_s + min(GRACE_S, patience_s),
            )


class DeployerContract(_Contract):
    """What every deployer must do."""

    kind = "deployers"

    @pytest.fixture
    def spec(self) -> ModelSpec | None:
        """A model that this deployer can serve here; without one, most tests are skipped."""
        return None

    @pytest.fixture
    def patience_s(self) -> float:
        """Seconds that any one call may take: bringing up a model may take long."""
        return 120.0

    @pytest.fixture
    def deployable(self, spec: ModelSpec | None) -> ModelSpec:
        """The spec, or the reason for skipping the test."""
        if spec is None:
            pytest.skip("override the fixture spec with a model that can be served here")
        return spec

    @pytest.fixture
    def deployment(
        self, component: Trial, make_component: Callable[..., Trial], deployable: ModelSpec
    ) -> Iterator[Any]:
        """What deploying the spec returned; taken down after the test."""
        deployment = component.call("linnix_deploy", spec=deployable)
        yield deployment
        if not component.running:
            component = make_component()
            component.start()
        if isinstance(deployment, Deployment):
            component.call("linnix_undeploy", deployment=deployment)

    def _work(self, trial: Trial) -> None:
        list(trial.call("linnix_deployments") or ())

    def test_has_every_hook(self, plugin_class: Any) -> None:
        """A model that can be deployed can be listed, probed and undeployed.

        If this fails, implement the hook that the message names.
        """
        found = verify(plugin_class, self.kind)
        wanted = {"linnix_deploy", "linnix_deployments", "linnix_probe", "linnix_undeploy"}
        missing = wanted - found.keys()
        assert not missing, f"not implemented: {', '.join(sorted(missing))}"

    def test_declines_a_foreign_format(self, component: Trial) -> None:
        """A model in a format that it does not know is for another deployer.

        If this fails, return None for such a spec, and raise only for a model that is yours.
        """
        spec = ModelSpec("kit-foreign", "/nonexistent/model", format="kit-no-such-format")
        assert component.call("linnix_deploy", spec=spec) is None

    def test_deploys(self, deployment: Any, deployable: ModelSpec, tmp_path: Path) -> None:
        """Deploying returns a `Deployment` that can be written down and found again.

        If this fails, return the name of the spec, the model, the endpoint as clients reach
        it, and ``details`` made of JSON values.
        """
        assert isinstance(deployment, Deployment)
        assert deployment.name == deployable.name
        assert deployment.endpoint, "no endpoint"
        assert deployment.model, "no model"
        store = DeploymentStore(tmp_path / "deployments.json")
        store.put(deployment)
        assert store.get(deployment.name) == deployment

    def test_deploys_once(self, component: Trial, deployment: Any, deployable: ModelSpec) -> None:
        """Deploying the same spec again returns what is there already.

        If this fails, look for the model under its name before you bring it up.
        """
        again = component.call("linnix_deploy", spec=deployable)
        assert isinstance(again, Deployment)
        assert again.endpoint == deployment.endpoint
        assert _names(component).count(deployable.name) == 1

    def test_lists_what_it_serves(
        self, component: Trial, deployment: Any, deployable: ModelSpec
    ) -> None:
        """A deployment is listed until it is undeployed.

        If this fails, list what is found where models are served, not what is remembered.
        """
        assert deployable.name in _names(component)
        component.call("linnix_undeploy", deployment=deployment)
        assert deployable.name not in _names(component)

    def test_probes(self, component: Trial, deployment: Any) -> None:
        """Probing returns a `Health` that is ok while the model is served, and not after.

        If this fails, ask the endpoint for a real answer, and report the error as a reason
        instead of raising it.
        """
        health = component.call("linnix_probe", deployment=deployment)
        _check_health(health)
        assert health.status == "ok", health.reason
        component.call("linnix_undeploy", deployment=deployment)
        gone = component.call("linnix_probe", deployment=deployment)
        _check_health(gone)
        assert gone.status != "ok"

    def test_undeploys_twice(self, component: Trial, deployment: Any) -> None:
        """Undeploying what is gone does nothing.

        If this fails, let ``linnix_undeploy`` return when there is nothing to stop.
        """
        component.call("linnix_undeploy", deployment=deployment)
        component.call("linnix_undeploy", deployment=deployment)

    def test_serves_on_when_it_stops(
        self,
        component: Trial,
        make_component: Callable[..., Trial],
        deployment: Any,
        deployable: ModelSpec,
    ) -> None:
        """Stopping the component leaves the model served; another one finds and ends it.

        If this fails, do not tie the server to the life of the object: the command that
        deployed it ends at once. Keep what is needed to find it in ``context.data_dir``.
        """
        component.stop()
        successor = make_component()
        successor.start()
        assert deployable.name in _names(successor)
        successor.call("linnix_undeploy", deployment=deployment)
        assert deployable.name not in _names(successor)


# --- what the tests have in common ----------------------------------------------------


def _written(classes: Iterable[type], name: str) -> Any:
    """What the first of the classes that has the name has written under it."""
    return next((vars(cls)[name] for cls in classes if name in vars(cls)), None)


def _is_magic(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _given_up(test: Any) -> bool:
    return any(
        mark.name == "xfail" and mark.kwargs.get("reason")
        for mark in getattr(test, "pytestmark", ())
    )


def _unlabelled(record: Any) -> bytes:
    return encode(attrs.evolve(record, labels=None) if hasattr(record, "labels") else record)


def _changes(before: Iterable[bytes], after: Iterable[bytes]) -> str:
    """What is different in the first record that is not as it was; nothing if all are."""
    for old, new in zip(map(json.loads, before), map(json.loads, after), strict=True):
        if old != new:
            changed = [key for key in old if old[key] != new[key]]
            return ", ".join(f"{key} was {old[key]!r} and is {new[key]!r}" for key in changed)
    return ""


def _of_processes(records: Iterable[Any]) -> list[ProcessEvent | ProcessSample]:
    return [record for record in records if isinstance(record, ProcessEvent | ProcessSample)]


def _check_health(health: Any) -> None:
    assert isinstance(health, Health), f"{health!r} is no Health"
    assert health.status in ("ok", "degraded", "failed")
    assert health.status == "ok" or health.reason, f"{health.status} without a reason"
    limits: Any = health.limits
    assert not isinstance(limits, str), f"limits are texts, and not one: {limits!r}"
    assert all(isinstance(limit, str) for limit in limits), f"limits are texts, not {limits!r}"


def _check_answer(component: Trial, request: ReasonRequest) -> None:
    answer = component.call("linnix_reason", request=request)
    if answer is not None:
        assert answer.class_ in request.classes
        ground(request, answer, "under-test")


def _names(component: Trial) -> list[str]:
    """The names of what a deployer says that it serves."""
    found = list(component.call("linnix_deployments") or ())
    assert all(isinstance(deployment, Deployment) for deployment in found)
    return [deployment.name for deployment in found]
