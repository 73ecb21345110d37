"""The conformance kit: a good plugin passes, and each test of a contract catches a bad one.

The first half of this file are plugins, one good one of each kind and bad ones that differ
from it in one respect. They are run against their contracts as their authors would, by
pytest in a process of its own, and the tests below look at what it said.
"""

import inspect
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import (
    Alert,
    Answer,
    ConfigError,
    Deployment,
    Duration,
    Health,
    Metric,
    PluginUnavailable,
    ProcessEvent,
    RecordsLost,
    Secret,
    decode,
    encode,
    hookimpl,
    start_time_ns,
)

# The run of pytest that most tests look at takes its time on a busy machine.
pytestmark = pytest.mark.timeout(300)

# --- good plugins ---------------------------------------------------------------------


@attrs.frozen
class HandlerConfig:
    ARG: ClassVar[str] = "path"

    path: str = attrs.field(default="out", metadata={"help": "where to write"})
    every: Duration = attrs.field(default=1.0, metadata={"help": "how often"})
    token: Secret | None = attrs.field(default=None, metadata={"help": "the password"})


class Handler:
    """Write the names of processes into a file, and raise an alert at every OOM kill."""

    Config = HandlerConfig

    def __init__(self, config, context):
        self.config = config
        self.context = context
        self.file = None
        self.thread = None
        self.ended = threading.Event()

    @hookimpl
    def linnix_start(self):
        self.file = (self.context.data_dir / self.config.path).open("a", encoding="utf-8")
        self.thread = threading.Thread(target=self.ended.wait)
        self.thread.start()

    @hookimpl
    def linnix_handle(self, batch):
        self.file.writelines(f"{getattr(record, 'comm', '')!r}\n" for record in batch)
        for record in batch:
            if record.type == "event" and record.kind == "oom":
                yield Alert("oom", "high", f"{record.comm} was killed", "oom_risk")

    @hookimpl
    def linnix_enrich(self, batch):
        for record in batch:
            if record.type == "event":
                record.labels = {"unit": "app"}

    @hookimpl
    def linnix_alert(self, alert):
        self.file.write(f"{alert.message!r}\n")

    @hookimpl
    def linnix_flush(self):
        self.file.flush()

    @hookimpl
    def linnix_metrics(self):
        return [Metric("handler_lines", 1)]

    @hookimpl
    def linnix_health(self):
        return Health()

    @hookimpl
    def linnix_stop(self):
        self.ended.set()
        if self.thread is not None:
            self.thread.join()
        if self.file is not None:
            self.file.close()


class Collector:
    """Tell of this very process, again and again."""

    def __init__(self, config, context):
        self.context = context

    def event(self, **changes):
        start_ns = start_time_ns(10**12)
        ts_ns = self.context.clock.time_ns()
        parts = {"ppid": 1, "parent_start_ns": 0, "comm": "python", "ts_ns": ts_ns, **changes}
        return ProcessEvent("seen", parts.pop("pid", 7), parts.pop("start_ns", start_ns), **parts)

    @hookimpl
    def linnix_poll(self):
        return [self.event()]


class Streamer(Collector):
    """Stream an event every few milliseconds."""

    linnix_poll = None

    @hookimpl
    def linnix_collect(self, sink, stop):
        sink.lost("ring_full", 1)
        while not stop.wait(0.01):
            sink.emit(self.event())


class Reasoner:
    """Cite the first fact, blame the first process, propose the first action."""

    def __init__(self, config, context):
        pass

    @hookimpl
    def linnix_reason(self, request):
        if not request.facts:
            return None
        return self.answer(request)

    def answer(self, request, **changes):
        parts = {
            "process": next((process.id for process in request.processes), None),
            "facts": (request.facts[0].id,),
            "actions": tuple(action.id for action in request.actions[:1]),
            **changes,
        }
        return Answer(request.incident.class_, 70, **parts)


class Deployer:
    """Serve a model by writing down its name in the component's folder."""

    def __init__(self, config, context):
        self.context = context

    @property
    def served(self):
        return self.context.data_dir / "served.json"

    def read(self):
        return json.loads(self.served.read_text()) if self.served.exists() else {}

    def write(self, served):
        self.served.write_text(json.dumps(served))

    @hookimpl
    def linnix_deploy(self, spec):
        if spec.format != "gguf":
            return None
        served = self.read()
        self.write({**served, spec.name: served.get(spec.name, str(time.time_ns()))})
        return self.found(spec.name)

    def found(self, name):
        return Deployment(name, "fake", "a-model", f"http://localhost/{self.read()[name]}")

    @hookimpl
    def linnix_probe(self, deployment):
        gone = deployment.name not in self.read()
        return Health("failed", "nothing answers") if gone else Health()

    @hookimpl
    def linnix_undeploy(self, deployment):
        self.write({name: at for name, at in self.read().items() if name != deployment.name})

    @hookimpl
    def linnix_deployments(self):
        return [self.found(name) for name in self.read()]


# --- bad plugins: the class, and how its configuration is --------------------------------


class Undocumented(Handler):
    __doc__ = None


class Misspells(Handler):
    """Misspells a hook."""

    @hookimpl
    def linnix_handel(self, batch):
        pass


@attrs.frozen
class ReservedConfig:
    queue: int = attrs.field(default=1, metadata={"help": "how many"})


class TakesAReservedKey(Handler):
    """Has a key that is the core's."""

    Config = ReservedConfig


@dataclass
class DataclassConfig:
    path: str = "out"


class ConfiguredByADataclass(Handler):
    """Has a ``Config`` of another library."""

    Config = DataclassConfig


@attrs.frozen
class HelplessConfig(HandlerConfig):
    size: int = 1


class ExplainsNothing(Handler):
    """Has a key without help."""

    Config = HelplessConfig


@attrs.frozen
class MisnamedConfig(HandlerConfig):
    ARG: ClassVar[str] = "pth"


class MisnamesItsArgument(Handler):
    """Has an argument that sets no key."""

    Config = MisnamedConfig


class TakesAnything(Handler):
    """Has a ``Config`` without keys, in which nothing is unknown."""

    Config = dict


@attrs.frozen
class PatternConfig(HandlerConfig):
    pattern: Any = attrs.field(factory=lambda: re.compile("x"), metadata={"help": "what to match"})


class CannotBeWritten(Handler):
    """Has a key whose type TOML does not know."""

    Config = PatternConfig


@attrs.frozen
class ClearConfig(HandlerConfig):
    api_key: str = attrs.field(default="", metadata={"help": "the password"})


class KeepsSecretsAsText(Handler):
    """Has a secret that is not a ``Secret``, so that the configuration shows it."""

    Config = ClearConfig


class ShowsItsSecret(Handler):
    """Shows in its own words what the configuration hides."""

    def __repr__(self):
        return f"<Handler {self.config.token and self.config.token.reveal()}>"


class LogsItsSecret(Handler):
    """Logs what the configuration hides."""

    def __init__(self, config, context):
        super().__init__(config, context)
        context.logger.debug("token %s", config.token and config.token.reveal())


# --- bad plugins: their life ------------------------------------------------------------


class CannotStart(Handler):
    """Raises when it starts."""

    @hookimpl
    def linnix_start(self):
        raise RuntimeError("no start today")


class NeedsAServer(Handler):
    """Works, but not here."""

    @hookimpl
    def linnix_start(self):
        raise PluginUnavailable("there is no server", hint="start one")


class StopsOnlyWhatRuns(Handler):
    """Takes for granted that it was started."""

    @hookimpl
    def linnix_stop(self):
        super().linnix_stop()
        if not self.thread.is_alive():
            self.thread = None


class StopsOnce(Handler):
    """Forgets how to stop."""

    @hookimpl
    def linnix_stop(self):
        super().linnix_stop()
        del self.ended


class LeavesAThread(Handler):
    """Starts a thread that nobody ends."""

    @hookimpl
    def linnix_start(self):
        super().linnix_start()
        wait = threading.Event().wait
        threading.Thread(target=wait, name="straggler", daemon=True).start()


class LeavesASocket(Handler):
    """Opens a socket that nobody closes."""

    @hookimpl
    def linnix_start(self):
        super().linnix_start()
        self.socket = socket.socket()


class Prints(Handler):
    """Prints what it does."""

    @hookimpl
    def linnix_flush(self):
        print("flushed!")


class WritesToStandardError(Handler):
    """Writes to the descriptor of standard error."""

    @hookimpl
    def linnix_stop(self):
        super().linnix_stop()
        os.write(2, b"bye!")


class IsFine(Handler):
    """Has a health that is no ``Health``."""

    @hookimpl
    def linnix_health(self):
        return "fine"


class IsIllWithoutAReason(Handler):
    """Is degraded and does not say why."""

    @hookimpl
    def linnix_health(self):
        return Health("degraded")


class HasAHealthOnlyWhileItRuns(Handler):
    """Looks at what only a start makes."""

    @hookimpl
    def linnix_health(self):
        return Health(reason=self.file.name)


class HangsWhenAsked(Handler):
    """Waits for a server before it says how it is."""

    @hookimpl
    def linnix_health(self):
        self.ended.wait()
        threading.Event().wait(10)
        return Health()


# --- bad plugins: handlers --------------------------------------------------------------


class NeedsARecord(Handler):
    """Looks at the first record of a batch."""

    @hookimpl
    def linnix_handle(self, batch):
        batch[0]


class NeedsTwoRecords(Handler):
    """Divides by the number of records less one."""

    @hookimpl
    def linnix_handle(self, batch):
        1 / (len(batch) - 1) if len(batch) else 0


class HandlesOneLargeBatch(Handler):
    """Stumbles over the second large batch."""

    @hookimpl
    def linnix_handle(self, batch):
        if len(batch) == 1000:
            if hasattr(self, "full"):
                raise OverflowError("full already")
            self.full = True


class KnowsProcessesOnly(Handler):
    """Takes every record for one of a process."""

    @hookimpl
    def linnix_handle(self, batch):
        [record.pid for record in batch]


class KnowsEverything(Handler):
    """Takes what may be unknown for granted."""

    @hookimpl
    def linnix_handle(self, batch):
        [record.exe.lower() for record in batch if record.type == "event"]


class FormatsNames(Handler):
    """Uses the name of a process as a format string."""

    @hookimpl
    def linnix_handle(self, batch):
        [record.comm.format(0) for record in batch if record.type == "sample"]


class ChangesRecords(Handler):
    """Writes into what all handlers share."""

    @hookimpl
    def linnix_handle(self, batch):
        for record in batch:
            if record.type == "sample":
                record.comm = record.comm.upper()


class EnrichesNames(Handler):
    """Enriches more than labels."""

    @hookimpl
    def linnix_enrich(self, batch):
        for record in batch:
            if record.type == "event":
                record.comm += "!"


class EnrichesWithNumbers(Handler):
    """Makes labels that are no texts."""

    @hookimpl
    def linnix_enrich(self, batch):
        for record in batch:
            if record.type == "event":
                record.labels = {"unit": 7}


class RaisesTexts(Handler):
    """Returns alerts that are none."""

    @hookimpl
    def linnix_handle(self, batch):
        return ["something happened"]


class RaisesUrgentAlerts(Handler):
    """Invents a severity, and submits its alerts."""

    @hookimpl
    def linnix_handle(self, batch):
        self.context.submit(Alert("a-rule", "urgent", "something happened"))


class RaisesNothing(Handler):
    """Raises no alert where one is due."""

    @hookimpl
    def linnix_handle(self, batch):
        pass


class LosesTooMuch(Handler):
    """Loses more records than it got."""

    @hookimpl
    def linnix_handle(self, batch):
        raise RecordsLost(len(batch) + 1, "full", "no room")


class NeedsAClass(Handler):
    """Takes for granted that every incident has a class."""

    @hookimpl
    def linnix_incident(self, incident):
        incident.class_.upper()


class ChangesAlerts(Handler):
    """Writes into an alert that all handlers share."""

    @hookimpl
    def linnix_alert(self, alert):
        alert.message = alert.message[:10]


class FlushesOnce(Handler):
    """Has nothing to flush the second time."""

    @hookimpl
    def linnix_flush(self):
        del self.context


class StaysInItsThread(Handler):
    """Keeps a connection that belongs to one thread."""

    @hookimpl
    def linnix_start(self):
        super().linnix_start()
        self.database = sqlite3.connect(":memory:")

    @hookimpl
    def linnix_handle(self, batch):
        self.database.execute("SELECT 1").close()

    @hookimpl
    def linnix_stop(self):
        super().linnix_stop()
        if hasattr(self, "database"):
            self.database.close()


class MeasuresInItsOwnWay(Handler):
    """Has metrics that are none."""

    @hookimpl
    def linnix_metrics(self):
        return {"lines": 1}


class RemembersTooMuch(Handler):
    """Answers a query with a list."""

    @hookimpl
    def linnix_query(self, query):
        return []


# --- bad plugins: collectors ------------------------------------------------------------


class DoesBoth(Collector):
    """Collects and polls."""

    @hookimpl
    def linnix_collect(self, sink, stop):
        pass


class EmitsDictionaries(Collector):
    """Emits what is no record."""

    @hookimpl
    def linnix_poll(self):
        return [{"pid": 7}]


class EmitsTextForNumbers(Collector):
    """Emits values of another type."""

    @hookimpl
    def linnix_poll(self):
        return [self.event(uid="root")]


class EmitsAnotherKind(Collector):
    """Emits an event of a kind that nobody knows."""

    @hookimpl
    def linnix_poll(self):
        return [attrs.evolve(self.event(), kind="clone")]


class SeesNothing(Collector):
    """Emits nothing, whatever happens."""

    @hookimpl
    def linnix_poll(self):
        return []


class EmitsTheKernel(Collector):
    """Emits a process without a pid."""

    @hookimpl
    def linnix_poll(self):
        return [self.event(pid=0)]


class MeasuresTimeExactly(Collector):
    """Makes start times by itself."""

    @hookimpl
    def linnix_poll(self):
        return [self.event(start_ns=10**12 + 1)]


class OlderThanItsParent(Collector):
    """Takes the new owner of a pid for the parent."""

    @hookimpl
    def linnix_poll(self):
        return [self.event(parent_start_ns=start_time_ns(10**13))]


class ForgetsTheTime(Collector):
    """Leaves the time to others."""

    @hookimpl
    def linnix_poll(self):
        return [self.event(ts_ns=0)]


class CountsSeconds(Collector):
    """Has seconds where nanoseconds are due."""

    @hookimpl
    def linnix_poll(self):
        return [self.event(ts_ns=int(time.time()))]


class LosesWithoutAWord(Streamer):
    """Does not say why records were lost."""

    @hookimpl
    def linnix_collect(self, sink, stop):
        sink.lost("", 1)


class PollsOnce(Collector):
    """Is exhausted after the first poll."""

    @hookimpl
    def linnix_poll(self):
        del self.context
        return []


class GoesOnAndOn(Streamer):
    """Does not look at ``stop``."""

    @hookimpl
    def linnix_collect(self, sink, stop):
        while True:
            time.sleep(0.05)
            sink.emit(self.event())


class EmitsFromTheGrave(Streamer):
    """Returns in time, and leaves a thread at work."""

    @hookimpl
    def linnix_collect(self, sink, stop):
        args = (sink, threading.Event())
        threading.Thread(target=super().linnix_collect, args=args, daemon=True).start()
        stop.wait()


# --- bad plugins: reasoners -------------------------------------------------------------


class MakesUpFacts(Reasoner):
    """Cites a fact that it was not given."""

    @hookimpl
    def linnix_reason(self, request):
        return self.answer(request, facts=("f99",))


class NamesProcesses(Reasoner):
    """Answers with a name where an id is due."""

    @hookimpl
    def linnix_reason(self, request):
        return self.answer(request, process=request.processes[0].comm)


class ObeysNames(Reasoner):
    """Uses the name of a process as a format string."""

    @hookimpl
    def linnix_reason(self, request):
        names = [process.comm.format() for process in request.processes]
        return self.answer(request) if names else None


class NeedsFacts(Reasoner):
    """Takes for granted that there is something to cite."""

    @hookimpl
    def linnix_reason(self, request):
        return self.answer(request)


class BlamesSomeone(Reasoner):
    """Takes for granted that there is a process to blame."""

    @hookimpl
    def linnix_reason(self, request):
        return self.answer(request, process=request.processes[0].id) if request.facts else None


class ChangesTheIncident(Reasoner):
    """Writes into the incident."""

    @hookimpl
    def linnix_reason(self, request):
        request.incident.summary = "explained"


class TakesItsTime(Reasoner):
    """Waits for a model for as long as that takes."""

    @hookimpl
    def linnix_reason(self, request):
        threading.Event().wait(60)


# --- bad plugins: deployers -------------------------------------------------------------


class CannotBeAskedBack(Deployer):
    """Does not implement how to undeploy."""

    linnix_undeploy = None


class TakesEveryFormat(Deployer):
    """Serves whatever it is given."""

    @hookimpl
    def linnix_deploy(self, spec):
        return super().linnix_deploy(attrs.evolve(spec, format="gguf"))


class HasNoEndpoint(Deployer):
    """Does not say where the model is reached."""

    def found(self, name):
        return Deployment(name, "fake", "a-model", "")


class CannotBeWrittenDown(Deployer):
    """Has details that are no JSON."""

    def found(self, name):
        return attrs.evolve(super().found(name), details={"lock": threading.Lock()})


class DeploysAgain(Deployer):
    """Brings the model up a second time."""

    @hookimpl
    def linnix_deploy(self, spec):
        if spec.format == "gguf":
            self.write({name: at for name, at in self.read().items() if name != spec.name})
        return super().linnix_deploy(spec)


class ListsNothing(Deployer):
    """Does not know what it serves."""

    @hookimpl
    def linnix_deployments(self):
        return []


class IsAlwaysWell(Deployer):
    """Reports a model that is gone as well."""

    @hookimpl
    def linnix_probe(self, deployment):
        return Health()


class UndeploysOnce(Deployer):
    """Cannot undeploy what is gone."""

    @hookimpl
    def linnix_undeploy(self, deployment):
        served = self.read()
        del served[deployment.name]
        self.write(served)


class TakesItsModelsAlong(Deployer):
    """Takes everything down when it stops."""

    @hookimpl
    def linnix_stop(self):
        self.write({})


# --- end of the plugins: what is above is their module, what is below tests them ----------

KINDS = {
    "HandlerContract": Handler,
    "CollectorContract": Collector,
    "ReasonerContract": Reasoner,
    "DeployerContract": Deployer,
}


@attrs.frozen
class Case:
    """A bad plugin, the test that catches it, words of the failure, and fixtures of its author."""

    plugin: type
    caught_by: str
    because: str
    fixtures: dict[str, str] = attrs.field(factory=dict)

    def __str__(self) -> str:
        return self.plugin.__name__


SPEC = {"spec": 'ModelSpec("mine", "/models/mine.gguf")'}
#: For plugins that use up the patience of the kit; the machine may be busy, too.
HASTE = {"patience_s": "1.0"}
LESS_HASTE = {"patience_s": "2.5"}

BAD = [
    Case(Undocumented, "test_class_is_documented", "has no docstring"),
    Case(Misspells, "test_hooks_fit_their_specifications", "did you mean linnix_handle?"),
    Case(TakesAReservedKey, "test_config_leaves_reserved_keys_to_the_core", "the core: queue"),
    Case(ConfiguredByADataclass, "test_config_leaves_reserved_keys_to_the_core", "not an attrs"),
    Case(ExplainsNothing, "test_config_keys_are_explained", "size has no help"),
    Case(MisnamesItsArgument, "test_argument_is_a_key", "ARG names 'pth', which is no key"),
    Case(
        Handler, "test_options_are_taken", "handlers.under-test.path: expected a text, got 3",
        {"options": '{"path": 3}'},
    ),
    Case(TakesAnything, "test_unknown_key_is_reported", "no_such_key was taken"),
    Case(CannotBeWritten, "test_configuration_can_be_written", "type 'Pattern' is not TOML"),
    Case(KeepsSecretsAsText, "test_shows_no_secret", "the value of api_key is shown"),
    Case(ShowsItsSecret, "test_shows_no_secret", "the value of token is shown"),
    Case(LogsItsSecret, "test_shows_no_secret", "the value of token is shown"),
    Case(CannotStart, "test_starts_and_stops", "no start today"),
    Case(NeedsAServer, "test_starts_and_stops", "there is no server (start one)"),
    Case(StopsOnlyWhatRuns, "test_stops_without_start", "no attribute 'is_alive'"),
    Case(StopsOnce, "test_stops_twice", "no attribute 'ended'"),
    Case(LeavesAThread, "test_leaves_nothing_behind", "thread straggler", LESS_HASTE),
    Case(Prints, "test_prints_nothing", "flushed!"),
    Case(WritesToStandardError, "test_prints_nothing", "bye!"),
    Case(IsFine, "test_tells_its_health_at_any_time", "'fine' is no Health"),
    Case(IsIllWithoutAReason, "test_tells_its_health_at_any_time", "degraded without a reason"),
    Case(HasAHealthOnlyWhileItRuns, "test_tells_its_health_at_any_time", "no attribute 'name'"),
    Case(HangsWhenAsked, "test_tells_its_health_at_any_time", "no answer within 1 s", HASTE),
    Case(NeedsARecord, "test_takes_an_empty_batch", "IndexError"),
    Case(NeedsTwoRecords, "test_takes_one_record", "ZeroDivisionError"),
    Case(HandlesOneLargeBatch, "test_takes_a_thousand_records", "full already"),
    Case(KnowsProcessesOnly, "test_takes_every_type_of_record", "no attribute 'pid'"),
    Case(KnowsEverything, "test_takes_records_of_which_little_is_known", "no attribute 'lower'"),
    Case(FormatsNames, "test_takes_hostile_names", "KeyError"),
    Case(ChangesRecords, "test_does_not_change_the_batch", "comm was '"),
    Case(EnrichesNames, "test_enriches_labels_only", "and is 'systemd!'"),
    Case(EnrichesWithNumbers, "test_enriches_labels_only", "{'unit': 7}"),
    Case(RaisesTexts, "test_alerts_are_alerts", "'something happened' is no Alert"),
    Case(RaisesUrgentAlerts, "test_alerts_are_alerts", "severity='urgent'"),
    Case(
        RaisesNothing, "test_alerts_are_alerts", "the provoking records raise no alert",
        {"provoking_records": "[ProcessEvent('oom', 7, 0)]"},
    ),
    Case(LosesTooMuch, "test_takes_one_record", "2 of 1 records lost"),
    Case(NeedsAClass, "test_takes_every_notice", "no attribute 'upper'"),
    Case(ChangesAlerts, "test_takes_every_notice", "linnix_alert changes what it gets: message"),
    Case(FlushesOnce, "test_flushes", "no attribute 'context'"),
    Case(StaysInItsThread, "test_works_in_another_thread", "same thread"),
    Case(MeasuresInItsOwnWay, "test_joins_in_with_what_the_hooks_promise", "'lines' is no Metric"),
    Case(RemembersTooMuch, "test_joins_in_with_what_the_hooks_promise", "[] is no Result"),
    Case(DoesBoth, "test_collects_or_polls", "choose one"),
    Case(EmitsDictionaries, "test_emits_records", "{'pid': 7} is no record"),
    Case(EmitsTextForNumbers, "test_emits_records", "$.uid"),
    Case(EmitsAnotherKind, "test_emits_records", "enum value 'clone'"),
    Case(SeesNothing, "test_emits_records", "nothing was emitted", {"provoke": "int"}),
    Case(EmitsTheKernel, "test_identifies_processes", "pid 0"),
    Case(MeasuresTimeExactly, "test_identifies_processes", "is not whole ticks"),
    Case(OlderThanItsParent, "test_identifies_processes", "pid 7 began before its parent, pid 1"),
    Case(ForgetsTheTime, "test_tells_the_time", "event without ts_ns"),
    Case(CountsSeconds, "test_tells_the_time", "is not plausible"),
    Case(LosesWithoutAWord, "test_counts_what_it_loses", "no reason that has a word"),
    Case(PollsOnce, "test_polls_twice", "no attribute 'context'"),
    Case(GoesOnAndOn, "test_stops_when_it_is_told", "goes on after stop", HASTE),
    Case(EmitsFromTheGrave, "test_emits_nothing_after_it_stopped", "emitted after the end"),
    Case(MakesUpFacts, "test_answers_from_what_was_given", "fact 'f99' was not given"),
    Case(NamesProcesses, "test_answers_from_what_was_given", "process 'app' was not given"),
    Case(ObeysNames, "test_takes_hostile_names", "Replacement index 0"),
    Case(NeedsFacts, "test_takes_requests_that_lack_something", "IndexError"),
    Case(BlamesSomeone, "test_takes_requests_that_lack_something", "IndexError"),
    Case(ChangesTheIncident, "test_does_not_change_the_incident", "and is 'explained'"),
    Case(TakesItsTime, "test_answers_in_time", "has not returned within 3 s", HASTE),
    Case(CannotBeAskedBack, "test_has_every_hook", "not implemented: linnix_undeploy"),
    Case(TakesEveryFormat, "test_declines_a_foreign_format", "Deployment(name='kit-foreign'"),
    Case(HasNoEndpoint, "test_deploys", "no endpoint", SPEC),
    Case(CannotBeWrittenDown, "test_deploys", "type lock is not JSON", SPEC),
    Case(DeploysAgain, "test_deploys_once", "http://localhost/", SPEC),
    Case(ListsNothing, "test_lists_what_it_serves", "'mine' in []", SPEC),
    Case(IsAlwaysWell, "test_probes", "'ok' != 'ok'", SPEC),
    Case(UndeploysOnce, "test_undeploys_twice", "KeyError: 'mine'", SPEC),
    Case(TakesItsModelsAlong, "test_serves_on_when_it_stops", "'mine' in []", SPEC),
]  # fmt: skip
if sys.platform == "linux":
    BAD.append(Case(LeavesASocket, "test_leaves_nothing_behind", "(socket:[", LESS_HASTE))

GOOD = [
    Case(Handler, "", "", {"options": '{"path": "x", "every": "2s"}',
                           "provoking_records": "[ProcessEvent('oom', 7, 0)]"}),
    Case(Collector, "", "", {"provoke": "int"}),
    Case(Streamer, "", "", {"provoke": "int"}),
    Case(Reasoner, "", ""),
    Case(Deployer, "", "", SPEC),
]  # fmt: skip


@attrs.frozen
class Installation:
    """A distribution of one trivial handler with something wrong about how it is installed."""

    module: str
    caught_by: str
    because: str
    name: str = "plain"
    requires: tuple[str, ...] | None = None
    first_line: str = ""
    patience_s: float = 30.0

    def __str__(self) -> str:
        return self.module


_REQUIREMENT = "test_distribution_says_which_core_it_needs"
_IN_ANOTHER_PROCESS = "import sys, threading, os; 'pytest' in sys.modules or "

BADLY_INSTALLED = [
    Installation("not_offered", "test_entry_point_leads_to_the_class", "leads to <class", name=""),
    Installation("shouting", "test_name_is_plain", "'Not_Plain' must begin", name="Not_Plain"),
    Installation("asks_nothing", _REQUIREMENT, "does not require linnix-core", requires=()),
    Installation("asks_no_end", _REQUIREMENT, "no upper bound", requires=("linnix-core>=0.1",)),
    Installation("asks_no_start", _REQUIREMENT, "no lower bound", requires=("linnix_core<99",)),
    Installation("asks_an_extra", _REQUIREMENT, "does not require linnix-core",
                 requires=('linnix-core>=0.1,<99; extra == "all"',)),
    Installation("asks_another", _REQUIREMENT, "excludes the core", requires=("linnix-core~=9.1",)),
    Installation("heavy", "test_import_is_light", "also imports torch", first_line="import torch"),
    Installation("loud", "test_import_is_light", "prints 'hello'", first_line="print('hello')"),
    Installation("leaving", "test_import_is_light", "ended with status 3",
                 first_line=f"{_IN_ANOTHER_PROCESS} sys.exit(3)"),
    Installation("vanishing", "test_import_is_light", "ended with status 0",
                 first_line=f"{_IN_ANOTHER_PROCESS} os._exit(0)"),
    Installation("needy", "test_import_is_light", "ended with status 1: KeyError: 'pytest'",
                 first_line="import sys; sys.modules['pytest']"),
    Installation("staying", "test_import_is_light", "it has not ended after 1 s", first_line=
                 f"{_IN_ANOTHER_PROCESS} threading.Thread(target=threading.Event().wait).start()",
                 patience_s=1.0),
]  # fmt: skip

PLAIN = """
from linnix_core import hookimpl

class Plain:
    "Does nothing."

    def __init__(self, config, context):
        pass

    @hookimpl
    def linnix_handle(self, batch):
        pass
"""

#: What authors do to their classes; the plugin is the good handler unless said otherwise.
AUTHORS = """
class Author(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return plugins.Handler

class TestRewritesATest(Author):
    def test_flushes(self):
        pass

class TestRemovesATest(Author):
    test_flushes = None

class TestRewritesAHelper(Author):
    def _work(self, trial):
        pass

class TestRewritesAFixture(Author):
    @pytest.fixture
    def component(self):
        return None

class TestGivesUpWithoutAReason(Author):
    @pytest.mark.xfail
    def test_flushes(self, component):
        super().test_flushes(component)

class TestGivesUpWithAReason(Author):
    @pytest.fixture
    def plugin_class(self):
        return plugins.FlushesOnce

    @pytest.mark.xfail(reason="it was never asked twice", strict=True)
    def test_flushes(self, component):
        super().test_flushes(component)

class TestAddsATest(Author):
    def test_of_its_own(self, component):
        assert component.handle([]) == []

class TestNamesNoPlugin(HandlerContract):
    pass

class TestMayBeUnavailable(Author):
    @pytest.fixture
    def plugin_class(self):
        return plugins.NeedsAServer

    @pytest.fixture
    def may_be_unavailable(self):
        return True

class TestOwnsStandardOutput(Author):
    @pytest.fixture
    def plugin_class(self, monkeypatch):
        monkeypatch.setattr(plugins.Prints, "USES_STDOUT", True, raising=False)
        return plugins.Prints

class TestServesNothingHere(DeployerContract):
    @pytest.fixture
    def plugin_class(self):
        return plugins.Deployer
"""


@attrs.frozen
class Verdict:
    """What pytest said of one test: passed, failed, error or skipped, and the message."""

    outcome: str
    words: str = ""


class Report(dict[tuple[str, str], Verdict]):
    """Verdicts by class and test."""

    def of(self, cls: str) -> dict[str, Verdict]:
        return {test: verdict for (name, test), verdict in self.items() if name == cls}


#: Selects tests by class or by class and name; as arguments, pytest takes seconds for them.
SELECT = """
def pytest_collection_modifyitems(items):
    names = [(item, item.nodeid.split("::")[1:]) for item in items]
    items[:] = [item for item, (cls, test) in names if {cls, f"{cls}::{test}"} & set(WANTED)]
"""

#: What is asked about the authors' classes.
ASKED = [
    "TestRewritesATest::test_contract_is_not_overridden",
    "TestRemovesATest::test_contract_is_not_overridden",
    "TestRewritesAHelper::test_contract_is_not_overridden",
    "TestRewritesAFixture::test_contract_is_not_overridden",
    "TestGivesUpWithoutAReason::test_contract_is_not_overridden",
    "TestGivesUpWithAReason::test_contract_is_not_overridden",
    "TestGivesUpWithAReason::test_flushes",
    "TestAddsATest::test_contract_is_not_overridden",
    "TestAddsATest::test_of_its_own",
    "TestNamesNoPlugin::test_starts_and_stops",
    "TestMayBeUnavailable::test_starts_and_stops",
    "TestMayBeUnavailable::test_hooks_fit_their_specifications",
    "TestOwnsStandardOutput::test_prints_nothing",
    "TestServesNothingHere::test_deploys",
    "TestServesNothingHere::test_declines_a_foreign_format",
]


def contract_of(plugin: type) -> str:
    return next(contract for contract, base in KINDS.items() if issubclass(plugin, base))


def class_of(case: Case | Installation) -> str:
    if isinstance(case, Installation):
        return f"TestInstalled{BADLY_INSTALLED.index(case)}"
    return f"TestGood{GOOD.index(case)}" if case in GOOD else f"TestBad{BAD.index(case)}"


def test_class(name: str, contract: str, fixtures: dict[str, str]) -> str:
    """The source of a class as an author would write it."""
    lines = [f"class {name}({contract}):"]
    for fixture, value in fixtures.items():
        lines += ["    @pytest.fixture", f"    def {fixture}(self): return {value}"]
    return "\n".join(lines)


test_class.__test__ = False


def install_plugins(folder: Path) -> None:
    """Write the distributions of all plugins, good and bad."""
    from linnix_core.testing.distributions import write_distribution

    source = Path(__file__).read_text(encoding="utf-8")
    entry_points: dict[str, dict[str, str]] = {}
    for case in (*GOOD, *BAD):
        group = f"linnix.{contract_of(case.plugin).removesuffix('Contract').lower()}s"
        name = case.plugin.__name__
        entry_points.setdefault(group, {})[name.lower()] = f"plugins:{name}"
    write_distribution(
        folder,
        "kit-plugins",
        entry_points=entry_points,
        modules={"plugins.py": source.partition("# --- end of the plugins")[0], "torch.py": ""},
    )
    for wrong in BADLY_INSTALLED:
        write_distribution(
            folder,
            wrong.module,
            requires=wrong.requires,
            entry_points={"linnix.handlers": {wrong.name: f"{wrong.module}:Plain"}}
            if wrong.name
            else {},
            modules={f"{wrong.module}.py": wrong.first_line + PLAIN},
        )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One run of pytest: good plugins against everything, bad ones against what catches them."""
    folder = tmp_path_factory.mktemp("kit")
    install_plugins(folder / "site")
    parts = [
        "import pytest, plugins, importlib",
        "from linnix_core import ModelSpec, ProcessEvent",
        "from linnix_core.testing import *",
        AUTHORS,
    ]
    for case in (*GOOD, *BAD):
        fixtures = {"plugin_class": f"plugins.{case.plugin.__name__}", **case.fixtures}
        parts.append(test_class(class_of(case), contract_of(case.plugin), fixtures))
    for wrong in BADLY_INSTALLED:
        module = f"importlib.import_module('{wrong.module}')"
        fixtures = {"plugin_class": f"{module}.Plain", "patience_s": str(wrong.patience_s)}
        parts.append(test_class(class_of(wrong), "HandlerContract", fixtures))
    wanted = [*ASKED, *(class_of(case) for case in GOOD)]
    wanted += [f"{class_of(case)}::{case.caught_by}" for case in (*BAD, *BADLY_INSTALLED)]
    (folder / "conftest.py").write_text(f"WANTED = {wanted}\n{SELECT}", encoding="utf-8")
    (folder / "test_kit.py").write_text("\n\n".join(parts), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=native", "--junitxml=report.xml",
               "-p", "no:cacheprovider", "-p", "no:randomly"]  # fmt: skip
    run = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "site")},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    return read_report(folder / "report.xml")


def read_report(file: Path) -> Report:
    report = Report()
    for case in ET.parse(file).getroot().iter("testcase"):
        cls = case.get("classname", "").rpartition(".")[2]
        verdict = Verdict("passed")
        for child in case:
            # A test may also fail when it is cleaned up; the first word counts.
            if child.tag in ("failure", "error", "skipped") and verdict.outcome == "passed":
                outcome = child.tag.replace("failure", "failed")
                verdict = Verdict(outcome, child.get("message", ""))
        report[cls, case.get("name", "")] = verdict
    return report


# --- what the contracts say -------------------------------------------------------------


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_a_good_plugin_passes_every_test_of_its_contract(case: Case, report: Report) -> None:
    verdicts = report.of(class_of(case))
    assert len(verdicts) > 15
    assert {test: v for test, v in verdicts.items() if v.outcome != "passed"} == {}


@pytest.mark.parametrize("case", [*BAD, *BADLY_INSTALLED], ids=str)
def test_a_bad_plugin_is_caught_and_told_why(case: Case | Installation, report: Report) -> None:
    verdict = report[class_of(case), case.caught_by]
    assert verdict.outcome in ("failed", "error")
    assert case.because in verdict.words


def contract_tests() -> dict[str, Any]:
    from linnix_core.testing import contracts

    return {
        name: test
        for contract in KINDS
        for name, test in inspect.getmembers(getattr(contracts, contract), inspect.isfunction)
        if name.startswith("test_")
    }


def test_every_test_of_a_contract_catches_some_bad_plugin() -> None:
    caught = {case.caught_by for case in (*BAD, *BADLY_INSTALLED)}
    assert set(contract_tests()) - caught == {"test_contract_is_not_overridden"}


@pytest.mark.parametrize("name", sorted(contract_tests()))
def test_every_test_of_a_contract_says_what_to_do_if_it_fails(name: str) -> None:
    assert "If this fails" in inspect.getdoc(contract_tests()[name])


@pytest.mark.parametrize(
    ("author", "changed"),
    [
        ("TestRewritesATest", "test_flushes"),
        ("TestRemovesATest", "test_flushes"),
        ("TestRewritesAHelper", "_work"),
        ("TestRewritesAFixture", "component"),
        ("TestGivesUpWithoutAReason", "test_flushes"),
    ],
)
def test_a_contract_that_is_changed_fails(author: str, changed: str, report: Report) -> None:
    verdict = report[author, "test_contract_is_not_overridden"]
    assert verdict.outcome == "failed"
    assert f"{author} changes {changed}" in verdict.words.splitlines()[0]


def test_a_test_may_be_given_up_with_a_reason(report: Report) -> None:
    given_up = report["TestGivesUpWithAReason", "test_flushes"]
    assert given_up.outcome == "skipped"
    assert "it was never asked twice" in given_up.words
    assert report["TestGivesUpWithAReason", "test_contract_is_not_overridden"].outcome == "passed"


def test_an_author_may_add_tests(report: Report) -> None:
    assert report["TestAddsATest", "test_of_its_own"].outcome == "passed"
    assert report["TestAddsATest", "test_contract_is_not_overridden"].outcome == "passed"


def test_a_class_without_a_plugin_says_which_fixture_is_missing(report: Report) -> None:
    verdict = report["TestNamesNoPlugin", "test_starts_and_stops"]
    assert verdict.outcome in ("failed", "error")
    assert "override the fixture plugin_class" in verdict.words


def test_what_cannot_run_here_is_skipped_only_where_the_author_says_so(report: Report) -> None:
    verdicts = report.of("TestMayBeUnavailable")
    assert verdicts["test_starts_and_stops"].outcome == "skipped"
    assert "there is no server (start one)" in verdicts["test_starts_and_stops"].words
    assert verdicts["test_hooks_fit_their_specifications"].outcome == "passed"


def test_a_plugin_whose_business_is_standard_output_may_print(report: Report) -> None:
    assert report["TestOwnsStandardOutput", "test_prints_nothing"].outcome == "passed"


def test_without_a_model_a_deployer_is_not_asked_to_deploy(report: Report) -> None:
    verdicts = report.of("TestServesNothingHere")
    assert verdicts["test_deploys"].outcome == "skipped"
    assert "override the fixture spec" in verdicts["test_deploys"].words
    assert verdicts["test_declines_a_foreign_format"].outcome == "passed"


def test_the_contracts_themselves_are_no_tests(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("from linnix_core.testing import *")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_nothing.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout


def test_a_failed_assertion_shows_its_values(report: Report) -> None:
    case = next(case for case in BAD if case.plugin is Prints)
    assert "assert 'flushed!\\n' == ''" in report[class_of(case), case.caught_by].words


# --- the pytest plugin ------------------------------------------------------------------


def test_an_ordinary_run_of_pytest_imports_next_to_nothing_of_the_core() -> None:
    script = "import sys, linnix_core.testing.fixtures; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    modules = set(run.stdout.split())
    assert {name for name in modules if name.startswith("linnix_core")} == {
        "linnix_core",
        "linnix_core.__about__",
        "linnix_core.testing",
        "linnix_core.testing.fixtures",
    }
    assert not modules & {"cattrs", "msgspec", "stevedore", "tomli_w"}


def test_the_kit_has_no_other_names() -> None:
    import linnix_core.testing

    with pytest.raises(AttributeError, match="DaemonContract"):
        linnix_core.testing.DaemonContract  # noqa: B018


def test_a_context_is_that_of_a_run(linnix_context) -> None:
    stop = threading.Event()
    context = linnix_context("handlers.mine", stop=stop)
    assert context.component == "handlers.mine"
    assert context.logger.name == "linnix.handlers.mine"
    assert context.stop is stop
    assert (context.host, context.run_id) == ("testhost", "testrun")
    assert list(context.processes) == []
    assert context.data_dir.is_dir()


# --- records ----------------------------------------------------------------------------


def test_equal_seeds_make_equal_records(linnix_records) -> None:
    assert linnix_records(500, seed=3) == linnix_records(500, seed=3)
    assert linnix_records(500, seed=3) != linnix_records(500, seed=4)


def test_more_records_begin_with_the_same_ones(linnix_records) -> None:
    assert linnix_records(900)[:400] == linnix_records(400)


def test_a_thousand_records_hold_every_type_and_every_kind_of_event(linnix_records) -> None:
    records = linnix_records()
    assert len(records) == 1000
    assert {record.type for record in records} == {"event", "sample", "cgroup", "system", "loss"}
    kinds = {record.kind for record in records if record.type == "event"}
    assert kinds == {"seen", "fork", "exec", "exit", "oom"}


def test_records_are_new_at_every_call(linnix_records) -> None:
    linnix_records(1)[0].comm = "changed"
    assert linnix_records(1)[0].comm == "systemd"


def test_records_are_stamped_and_can_be_encoded(linnix_records) -> None:
    records = linnix_records()
    assert [record.seq for record in records] == list(range(1, 1001))
    assert len({(record.host, record.run_id, record.boot_id) for record in records}) == 1
    assert [decode(encode(record)) for record in records] == records


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_records_tell_of_a_plausible_host(seed: int) -> None:
    from linnix_core.testing.records import realistic_records

    living: dict[int, ProcessEvent] = {}
    last_ns = 0
    for record in realistic_records(1500, seed):
        assert record.ts_ns >= last_ns
        last_ns = record.ts_ns
        if record.type == "event":
            if record.kind in ("seen", "fork"):
                assert record.pid not in living
                living[record.pid] = record
            born = living[record.pid]
            assert record.key == born.key
            assert record.start_ns == start_time_ns(record.start_ns)
            if record.kind == "fork":
                parent = living[record.ppid]
                assert record.parent_start_ns == parent.start_ns <= record.start_ns
            if record.kind == "exit":
                assert (record.exit_code is None) != (record.signal is None)
                del living[record.pid]
        elif record.type == "sample":
            assert record.key == living[record.pid].key
        elif record.type == "loss":
            assert record.emitted == record.received + record.lost_total


def test_the_process_table_follows_the_host(linnix_records) -> None:
    from linnix_core import ProcessTable

    table = ProcessTable()
    records = linnix_records(1500)
    table.update(records)
    began = {r.pid for r in records if r.type == "event" and r.kind in ("seen", "fork")}
    ended = {r.pid for r in records if r.type == "event" and r.kind == "exit"}
    assert {process.pid for process in table.view} == began - ended
    make = next(process for process in records if getattr(process, "comm", "") == "make")
    assert {p.comm for p in table.view.ancestors(make.key)} >= {"bash", "sshd", "systemd"}


# --- distributions ----------------------------------------------------------------------


FAKE = {
    "entry_points": {"linnix.handlers": {"fake": "fake_plugin:Plain"}},
    "modules": {"fake_plugin.py": PLAIN},
}


def test_a_fake_distribution_is_found_and_loaded_like_a_real_one(linnix_distribution) -> None:
    from linnix_core.catalog import Catalog
    from linnix_core.loading import load

    folder = linnix_distribution(
        "linnix-plugin-fake", "2.1", requires=["linnix-core<99", "attrs"], summary="Fake.", **FAKE
    )
    (record,) = Catalog.scan([str(folder)], allow="linnix-plugin-fake")
    assert record.source == "linnix-plugin-fake 2.1"
    assert (record.kind, record.name, record.summary) == ("handlers", "fake", "Fake.")
    assert (record.requires, record.state) == ("<99", "available")
    assert load(record).__doc__ == "Does nothing."
    assert "fake_plugin" in sys.modules


def test_a_fake_distribution_asks_for_the_core_that_runs(linnix_distribution) -> None:
    from linnix_core.catalog import Catalog

    (record,) = Catalog.scan([str(linnix_distribution(**FAKE))], allow="linnix-plugin-fake")
    assert record.state == "available"
    assert record.requires


def test_fake_distributions_live_side_by_side(linnix_distribution) -> None:
    from linnix_core.catalog import Catalog

    folders = [str(linnix_distribution(name, **FAKE)) for name in ("fake-one", "fake-two")]
    assert [record.code for record in Catalog.scan(folders, allow="fake-one,fake-two")] == [
        "conflict",
        "conflict",
    ]


def test_a_fake_distribution_is_gone_after_its_test(tmp_path: Path) -> None:
    from linnix_core.testing.distributions import on_path, write_distribution

    path, modules = list(sys.path), set(sys.modules)
    write_distribution(tmp_path, modules={"gone/__init__.py": "", "gone/inner.py": "x = 1"})
    with on_path(tmp_path):
        from gone.inner import x

        assert x == 1
        assert {"gone", "gone.inner"} <= set(sys.modules)
    assert sys.path == path
    assert set(sys.modules) == modules
    with pytest.raises(ModuleNotFoundError):
        import gone  # noqa: F401


def test_the_record_lists_every_file(tmp_path: Path) -> None:
    from importlib.metadata import PathDistribution

    from linnix_core.testing.distributions import write_distribution

    write_distribution(tmp_path, "a.b-c", "1", modules={"m/__init__.py": ""})
    listed = PathDistribution(tmp_path / "a_b_c-1.dist-info").files
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.locate() for file in listed} == set(written)


# --- runs -------------------------------------------------------------------------------


class Recorder:
    """Keeps what it gets."""

    def __init__(self, *_: object) -> None:
        self.records: list[Any] = []
        self.alerts: list[Alert] = []
        self.stopped = threading.Event()

    @hookimpl
    def linnix_handle(self, batch):
        self.records.extend(batch)

    @hookimpl
    def linnix_alert(self, alert):
        self.alerts.append(alert)

    @hookimpl
    def linnix_stop(self):
        self.stopped.set()


def test_a_runtime_hands_the_given_records_to_the_given_handler(
    linnix_runtime, linnix_records
) -> None:
    recorder, records = Recorder(), linnix_records(600)
    agent = linnix_runtime(handlers={"mine": recorder}, records=records)
    assert agent.wait_idle(60)
    assert [(r.type, r.ts_ns) for r in recorder.records] == [(r.type, r.ts_ns) for r in records]
    assert {record.run_id for record in recorder.records} == {agent.run_id}
    assert {record.run_id for record in records} != {agent.run_id}, "the given ones are copied"


def test_a_runtime_goes_from_alert_to_insight(linnix_runtime) -> None:
    class Curious(Recorder):
        """Waits for an explanation."""

        explained = threading.Event()

        @hookimpl
        def linnix_insight(self, insight):
            self.explained.set()

    oom = ProcessEvent("oom", 7, 0, comm="worker")
    agent = linnix_runtime(
        handlers={"bad": Handler, "curious": Curious}, reasoners={"mine": Reasoner}, records=[oom]
    )
    assert Curious.explained.wait(60)
    assert [status.state for status in agent.status()] == ["running"] * 4


def test_a_runtime_has_nothing_but_what_it_is_given(linnix_runtime) -> None:
    agent = linnix_runtime(handlers={"mine": Recorder}, collectors={"self": Collector})
    assert [status.component for status in agent.status()] == ["collectors.self", "handlers.mine"]
    assert {status.distribution for status in agent.status()} == {"given-by-the-test"}


def test_options_go_through_a_real_file(linnix_runtime, tmp_path: Path) -> None:
    agent = linnix_runtime(
        handlers={"mine": Handler},
        options={"handlers.mine": {"path": tmp_path / "there", "every": "2m", "queue": 3}},
        agent={"batch_size": 7},
    )
    (component,) = agent.host.implementing("linnix_handle")
    assert component.config == HandlerConfig(path=str(tmp_path / "there"), every=Duration(120.0))
    assert agent.settings.batch_size == 7


def test_a_wrong_option_raises_what_a_person_would_see(linnix_runtime) -> None:
    with pytest.raises(ConfigError, match=r"handlers\.mine\.pth: unknown key \(did you mean"):
        linnix_runtime(handlers={"mine": Handler}, options={"handlers.mine": {"pth": "x"}})


def test_options_for_nobody_are_a_mistake_of_the_test(linnix_runtime) -> None:
    with pytest.raises(ValueError, match=r"handlers\.other, which was not given"):
        linnix_runtime(handlers={"mine": Recorder}, options={"handlers.other": {}})


def test_an_object_takes_no_options(linnix_runtime) -> None:
    with pytest.raises(ConfigError, match="has no configuration"):
        linnix_runtime(handlers={"mine": Recorder()}, options={"handlers.mine": {"path": "x"}})


def test_what_is_given_is_loaded_and_verified_like_a_plugin(linnix_runtime) -> None:
    agent = linnix_runtime(handlers={"typo": Misspells, "mine": Recorder})
    states = {status.name: (status.state, status.code) for status in agent.status()}
    assert states["typo"] == ("failed", "hooks")
    assert states["mine"][0] == "running"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    # This fixture was there before the runtime was, so it ends after it.
    assert recorder.stopped.is_set()


def test_a_runtime_is_stopped_when_its_test_ends(recorder: Recorder, linnix_runtime) -> None:
    linnix_runtime(handlers={"mine": recorder})
    assert not recorder.stopped.is_set()
