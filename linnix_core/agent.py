"""The agent: starts the components of a run, moves what they make, and stops them in order.

collectors -> pipeline -> handlers -> alerts -> incidents -> reasoners -> insights -> handlers
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import attrs

from linnix_core.batch import Batch
from linnix_core.bundle import Bundle
from linnix_core.config import DEFAULT_OVERFLOW, AgentSettings, ComponentSettings
from linnix_core.context import Clock, ComponentStatus, Context
from linnix_core.deployments import DeploymentStore
from linnix_core.errors import (
    AgentStopped,
    ConfigError,
    LinnixError,
    Problem,
    RequiredComponentFailed,
)
from linnix_core.explaining import Explainer
from linnix_core.incidents import IncidentBook
from linnix_core.notices import AlertThread, ReasonThread
from linnix_core.pipeline import BoundedQueue, Pipeline, Stamp
from linnix_core.plan import Plan
from linnix_core.plugins import Component, PluginHost
from linnix_core.privileges import Privileges
from linnix_core.processes import ProcessTable, boot_id
from linnix_core.records import (
    Alert,
    Feedback,
    Incident,
    Insight,
    Metric,
    Mount,
    Query,
    Result,
)
from linnix_core.redact import clean_feedback, is_alert, is_feedback
from linnix_core.surroundings import Surroundings
from linnix_core.workers import CollectorWorker, HandlerWorker

__all__ = ["Agent"]

_ENDED = "every collector has ended"
_RELOAD = "reload"

_LOG = logging.getLogger("linnix.agent")

_T = TypeVar("_T")

#: Seconds after which a hook that does not return is shown as stalled.
STALLED_S = 30.0

#: Seconds between two looks at the health of the components, and for one answer.
HEALTH_EVERY_S = 10.0
HEALTH_TIMEOUT_S = 1.0

#: Seconds that enriching one batch may take, and that the history may take to answer.
ENRICH_BUDGET_S = 0.02
QUERY_BUDGET_S = 10.0

#: Seconds that one component may take for its metrics, its pages, or to read its files again.
METRICS_BUDGET_S = 1.0
MOUNTS_BUDGET_S = 1.0
RELOAD_BUDGET_S = 10.0


class Agent:
    """One run. Use it as a context manager, or call `start`, `run` and `stop`.

    Raises `ConfigError` from `start` when any component's own keys are wrong, before
    anything has started, and `RequiredComponentFailed` when one that must run cannot.
    """

    def __init__(
        self,
        plan: Plan,
        host: PluginHost,
        *,
        settings: AgentSettings | None = None,
        clock: Clock = time,
        hostname: str | None = None,
    ) -> None:
        # Whose process this is has not been said: it is not the agent's to change.
        self.settings = settings or AgentSettings(drop_privileges=False)
        self.host = host
        self.run_id = uuid.uuid4().hex[:12]
        self.processes = ProcessTable()
        self.rejected_alerts = 0
        self._plan = plan
        self._clock = clock
        self._stop = threading.Event()
        self._wake: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stamp = Stamp(
            host=hostname or socket.gethostname(),
            run_id=self.run_id,
            boot_id=boot_id(),
            clock=clock,
        )
        self._pipeline = Pipeline(
            stamp=self._stamp,
            table=self.processes,
            clock=clock,
            batch_size=self.settings.batch_size,
            linger_s=self.settings.linger_ms / 1000,
            enrich=self._enrich,
        )
        self._incidents = IncidentBook(
            new_id=self._new_incident_id,
            host=self._stamp.host,
            run_id=self.run_id,
            boot_id=self._stamp.boot_id,
            processes=self.processes.view,
        )
        self._surroundings = Surroundings()
        self._explainer = Explainer(
            host,
            self.settings,
            processes=self.processes.view,
            surroundings=self._surroundings,
            clock=clock,
        )
        self._reasoning = ReasonThread(
            reason=self._explainer.explain,
            publish=self._publish,
            timeout_s=self.settings.reason_timeout_s,
        )
        self._alerts = AlertThread(
            self._incidents, publish=self._publish, explain=self._reasoning.ask, clock=clock
        )
        self._deployments = DeploymentStore(host.data_dir / "deployments.json")
        self._contexts: dict[str, Context] = {}
        self._handlers: list[HandlerWorker] = []
        self._collectors: list[CollectorWorker] = []
        self._enrichers: list[Component] = []
        self._health_due = 0.0
        self._incident_count = 0
        self._running = False
        self._privileges: Privileges | None = None
        self.incidents = self._incidents.view

    # --- starting ---------------------------------------------------------------------

    def start(self) -> None:
        """Load, check and start everything; what cannot start says why and is left out.

        Started as root, with settings that have ``drop_privileges``, the whole process
        gives up its privileges for good (`linnix_core.privileges`).
        """
        self._running = True
        try:
            self._privileges = Privileges.of_this_run(self.settings)
            built = self._build()
            by_kind: dict[str, list[tuple[ComponentSettings, Component]]] = {}
            for settings, component in built:
                by_kind.setdefault(settings.kind, []).append((settings, component))
            for settings, component in by_kind.get("handlers", []):
                if self._start(settings, component):
                    self._add_handler(settings, component)
            for kind in ("reasoners", "deployers"):
                for settings, component in by_kind.get(kind, []):
                    self._start(settings, component)
            self._start_collectors(by_kind.get("collectors", []))
            if self._privileges is not None:
                self._privileges.drop(self.host.components, self.host.data_dir)
            self._enrichers = self.host.implementing("linnix_enrich")
            # From here on threads begin, which inherit what is left of the privileges.
            for component in self.host.implementing("linnix_ready"):
                self.host.ready(component)
            self._reasoning.start()
            self._alerts.start()
            for handler in self._handlers:
                handler.start()
            self._pipeline.start()
            for collector in self._collectors:
                collector.start()
            self._supervise()
        except BaseException:
            self.stop()
            raise

    def _build(self) -> list[tuple[ComponentSettings, Component]]:
        """Load every class and check every table before anything is built."""
        problems: list[Problem] = []
        built = []
        ladder = {settings.path for settings in self._plan.ladder}
        for settings in (*self._plan.components, *self._plan.ladder):
            component = self.host.add(settings.kind, settings.name, plugin=settings.plugin)
            component.required = settings.required or (
                self.settings.strict and settings.path not in ladder
            )
            built.append((settings, component))
            if component.cls is not None and component.state == "available":
                self.host.configure(component, settings, problems)
        if problems:
            raise ConfigError(problems)
        self._yield_standard_output(built)
        if self._privileges is not None:
            self._privileges.take_back(self.host.components)
        for settings, component in built:
            if component.state == "available" and settings.path not in ladder:
                self.host.create(component, self._context(component))
        self.host.register()
        return built

    @staticmethod
    def _yield_standard_output(built: Sequence[tuple[ComponentSettings, Component]]) -> None:
        """Two writers on one stream would spoil each other: what was asked for wins."""
        writers = [
            component
            for _, component in built
            if component.kind == "handlers" and _writes_to_stdout(component)
        ]
        if not writers:
            return
        for settings, component in built:
            if settings.origin == "default" and getattr(component.cls, "USES_STDOUT", False):
                component.set_state("stopped", "stdout", f"standard output belongs to {writers[0]}")
                # Even where everything is required: it did not fail, it stepped back.
                component.required = False

    def _context(self, component: Component) -> Context:
        name = str(component)
        if name not in self._contexts:
            self._contexts[name] = self.host.context(
                component,
                stop=self._stop,
                clock=self._clock,
                host=self._stamp.host,
                run_id=self.run_id,
                processes=self.processes.view,
                incidents=self._incidents.view,
                components=self.status,
                query=self._query,
                deployment=self._deployments.get,
                submit=self.submit,
                feedback=self.feedback,
                explain=self.explain,
                bundle=self.bundle,
                metrics=self.metrics,
                mounts=self.mounts,
            )
        return self._contexts[name]

    def _new_incident_id(self) -> str:
        self._incident_count += 1
        return f"{self.run_id}-i{self._incident_count}"

    def _start(self, settings: ComponentSettings, component: Component) -> bool:
        """Start one; whether it runs. Raises when one that is required does not."""
        if component.instance is not None and component.state == "available":
            _LOG.debug("starting %s", component)
            self.host.start(component, self._context(component))
        if component.runs:
            return True
        if component.required:
            status = component.status()
            raise RequiredComponentFailed(
                f"{component} is required and {status.state}: {status.reason}", hint=status.hint
            )
        if settings.origin != "default" or component.state == "failed":
            self._tell(component)
        return False

    def _tell(self, component: Component) -> None:
        status = component.status()
        hint = f" ({status.hint})" if status.hint else ""
        _LOG.warning("%s is %s: %s%s", component, status.state, status.reason, hint)

    def _add_handler(self, settings: ComponentSettings, component: Component) -> None:
        if not component.has("linnix_handle"):
            # Nothing would ever read its queue for batches, but notices still come.
            records: BoundedQueue = BoundedQueue(1, "drop_oldest")
        else:
            records = self._pipeline.sink(
                str(component),
                settings.reserved.queue * self.settings.batch_size,
                settings.reserved.overflow or DEFAULT_OVERFLOW["handlers"],
            )
        worker = HandlerWorker(
            component,
            records,
            logger=_LOG,
            stop=self._stop,
            on_alerts=self._take_alerts,
        )
        component.counters = worker.counters
        self._handlers.append(worker)

    def _start_collectors(self, chosen: Sequence[tuple[ComponentSettings, Component]]) -> None:
        ladder = {settings.path for settings in self._plan.ladder}
        best: Component | None = None
        for settings, component in chosen:
            if settings.path in ladder:
                if best is not None:
                    continue
                if component.state == "available" and self.host.create(
                    component, self._context(component)
                ):
                    self.host.register()
            if self._start(settings, component):
                if settings.path in ladder:
                    best = component
                self._add_collector(settings, component)
        for settings, component in chosen:
            if settings.path in ladder and component is not best and component.state == "available":
                component.set_state("available", "ladder", f"not needed: {best} runs")
        if not self._collectors:
            reasons = [f"{c}: {c.status().reason}" for _, c in chosen] or ["none is installed"]
            raise RequiredComponentFailed(
                "no collector could start; " + "; ".join(reasons),
                hint=None if chosen else "pip install linnix-plugin-psutil",
            )

    def _add_collector(self, settings: ComponentSettings, component: Component) -> None:
        records = self._pipeline.source(
            str(component),
            settings.reserved.queue * self.settings.batch_size,
            settings.reserved.overflow or DEFAULT_OVERFLOW["collectors"],
        )
        worker = CollectorWorker(
            component,
            records,
            interval_s=settings.reserved.interval,
            logger=_LOG,
            stop=self._stop,
            on_finished=self._collector_finished,
        )
        component.counters = worker.counters
        self._collectors.append(worker)

    # --- running ----------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def run(self, duration_s: float | None = None) -> str:
        """Wait until the time is over, `request_stop` is called or every collector has ended.

        Returns why it ended. Looks after the components meanwhile. Raises
        `RequiredComponentFailed` when one that is required fails on the way.
        """
        began = time.monotonic()
        ended: float | None = None
        while True:
            left = 1.0
            if duration_s is not None:
                left = min(left, duration_s - (time.monotonic() - began))
                if left <= 0:
                    return "the time is over"
            try:
                reason = self._wake.get(timeout=left)
            except queue.Empty:
                self._supervise()
                continue
            if reason is _RELOAD:
                self._reload()
                continue
            if reason is _ENDED and any(w.alive and w.component.runs for w in self._collectors):
                continue  # it ended before the next one had been started
            if reason is _ENDED and not any(
                worker.component.state == "stopped" for worker in self._collectors
            ):
                said = "; ".join(
                    f"{w.component}: {w.component.status().reason}" for w in self._collectors
                )
                raise LinnixError(f"nothing collects any more: {said}")
            if reason is _ENDED:
                # What was collected is still to be handled and explained.
                ended = ended or time.monotonic()
                late = time.monotonic() - ended > self.settings.reason_timeout_s
                if not late and not self.wait_idle(0.1):
                    self._wake.put(_ENDED)
                    self._supervise()
                    continue
            return reason

    def request_stop(self, reason: str) -> None:
        """End `run`. Safe in a signal handler: it takes no lock that may be held there."""
        self._wake.put(reason)

    def request_reload(self) -> None:
        """Have every component that reads files read them again. Safe in a signal handler."""
        self._wake.put(_RELOAD)

    def _reload(self) -> None:
        _LOG.info("reading files again")
        for component in self.host.implementing("linnix_reload"):
            try:
                component.call_within(RELOAD_BUDGET_S, "linnix_reload")
            except LinnixError as error:
                cause = error.__cause__ if isinstance(error.__cause__, LinnixError) else error
                component.failures += 1
                component.set_state("degraded", "reload", f"goes on with what it had: {cause}")
                _LOG.warning("%s goes on with what it had: %s", component, cause)
            else:
                if component.status().code == "reload":
                    component.set_state("running")

    def _collector_finished(self) -> None:
        if self._stop.is_set():
            return
        alive = [w for w in self._collectors if w.alive and w.component.runs]
        if not alive:
            self.request_stop(_ENDED)

    def status(self) -> tuple[ComponentStatus, ...]:
        """Every component of the run with its state, reason and counters.

        And as ``agent``, what became of the privileges of a run that was started as root.
        """
        statuses = tuple(component.status() for component in self.host.components)
        if self._privileges is None or self._privileges.status is None:
            return statuses
        return (*statuses, self._privileges.status)

    def submit(self, alert: Alert) -> None:
        """Take an alert from anywhere; never blocks. Raises `AgentStopped` outside of a run."""
        if not self._running:
            raise AgentStopped("alerts can be submitted to a running agent only")
        self._take_alerts(None, [alert])

    def feedback(self, given: Feedback) -> None:
        """Pass on what a person says of an incident. Raises `LinnixError` for what is none."""
        if not self._running:
            raise AgentStopped("feedback can be given to a running agent only")
        if not is_feedback(given):
            raise LinnixError(f"expected Feedback, got {given!r:.100}")
        feedback = attrs.evolve(given)
        clean_feedback(feedback)
        self._publish(feedback)

    @property
    def discarded_answers(self) -> int:
        """How many answers of reasoners were not grounded."""
        return self._explainer.discarded_answers

    def explain(self, incident_id: str) -> bool:
        """Have an incident of this run explained once more; False where it is not known."""
        incident = self.incidents.get(incident_id)
        if incident is None or incident.class_ is None:
            return False
        self._reasoning.ask(incident, again=True)
        return True

    def bundle(self, incident_id: str) -> Bundle | None:
        """An incident of this run as it was last asked about; None where it is not known."""
        incident = self.incidents.get(incident_id)
        if incident is None:
            return None
        question = Query(types=("alert", "insight"), since_ns=incident.opened_ns)
        answer = self._query(question)
        return Bundle.gathered(
            self._explainer.request(incident_id) or self._explainer.request_about(incident),
            () if answer is None else answer.records,
        )

    def metrics(self) -> tuple[Metric, ...]:
        """The agent's own numbers, and what every ``linnix_metrics`` says now."""
        own = (
            Metric(
                "linnix_processes",
                len(self.processes.view),
                "{process}",
                help="Processes that are known to live",
            ),
            Metric(
                "linnix_rejected_alerts",
                self.rejected_alerts,
                "{alert}",
                "counter",
                help="Alerts that came faster than they could be taken",
            ),
            *self._explainer.metrics(),
        )
        theirs = (
            attrs.evolve(metric, labels={**metric.labels, "component": str(component)})
            for component, metrics in self.host.each("linnix_metrics", METRICS_BUDGET_S)
            for metric in _only(Metric, metrics)
        )
        return (*own, *theirs)

    def mounts(self) -> tuple[Mount, ...]:
        """What every ``linnix_http`` offers."""
        return tuple(
            mount
            for _, mounts in self.host.each("linnix_http", MOUNTS_BUDGET_S)
            for mount in _only(Mount, mounts)
        )

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until what was collected has been handled and explained; for tests and replays."""
        deadline = time.monotonic() + timeout_s
        stages: list[Callable[[float], bool]] = [
            *(worker.queue.wait_idle for worker in self._collectors),
            *(worker.queue.wait_idle for worker in self._handlers),
            self._alerts.wait_idle,
            self._reasoning.wait_idle,
            *(worker.queue.wait_idle for worker in self._handlers),
        ]
        return all(stage(deadline) for stage in stages)

    def _supervise(self) -> None:
        now = time.monotonic()
        for worker in (*self._handlers, *self._collectors):
            worker.watch(STALLED_S)
        if now >= self._health_due:
            self._health_due = now + HEALTH_EVERY_S
            for component in self.host.implementing("linnix_health"):
                self._ask_health(component)
        for component in self.host.components:
            if not component.required:
                continue
            status = component.status()
            if component.kind == "handlers" and status.code == "finished":
                self.request_stop(status.reason)
            if status.state in ("failed", "unavailable"):
                raise RequiredComponentFailed(
                    f"{component} is required and {status.state}: {status.reason}"
                )

    @staticmethod
    def _ask_health(component: Component) -> None:
        health = component.ask_health(HEALTH_TIMEOUT_S)
        if health is None:
            return
        component.limits = tuple(map(str, health.limits))
        if health.status == "ok":
            # Who says how it is knows whether a reload still matters.
            if component.status().code in ("health", "reload"):
                component.set_state("running")
        elif component.state == "running" or component.status().code == "health":
            component.set_state("degraded", "health", health.reason)

    # --- what the pipeline and the threads call ---------------------------------------

    def _enrich(self, batch: Batch) -> None:
        self._surroundings.update(batch)
        for component in self._enrichers:
            if not component.runs:
                continue
            try:
                component.call_within(ENRICH_BUDGET_S, "linnix_enrich", batch=batch)
            except LinnixError as error:
                component.failures += 1
                component.set_state("degraded", "enrich", f"labels are missing: {error}")
            else:
                if component.status().code == "enrich":
                    component.set_state("running")
        if self._enrichers:
            self.processes.take_labels(batch)

    def _query(self, question: Query) -> Result | None:
        answer = self.host.first("linnix_query", QUERY_BUDGET_S, query=question)
        return answer if isinstance(answer, Result) else None

    def _take_alerts(self, sender: Component | None, alerts: Iterable[Any]) -> None:
        """Queue alerts; one that is none is the sender's mistake, one too many is counted."""
        for alert in alerts:
            if not is_alert(alert):
                raise LinnixError(f"expected an Alert, got {alert!r:.100}")
            if not self._alerts.submit(alert):
                self.rejected_alerts += 1
                if sender is not None:
                    sender.set_state("degraded", "alerts", "raises more alerts than can be taken")

    def _publish(self, notice: Alert | Incident | Insight | Feedback) -> None:
        """Stamp a notice and put it into the queue of every handler that wants it."""
        self._stamp.notice(notice)
        notice.id = notice.id or f"{self.run_id}-{notice.seq}"
        hook = f"linnix_{notice.type}"
        for worker in self._handlers:
            if not worker.component.runs or not worker.component.has(hook):
                continue
            if not worker.queue.put_notice(hook, notice) and not self._stop.is_set():
                worker.component.set_state(
                    "failed", "stuck", "takes nothing any more: thousands of notices wait for it"
                )
                worker.queue.close()
                worker.queue.discard("stuck")

    # --- stopping ---------------------------------------------------------------------

    def stop(self) -> None:
        """Collectors, batches, incidents and insights, notices, flush, stop: in this order.

        Returns within ``stop_timeout_s``; what has not ended by then is abandoned.
        """
        if not self._running:
            return
        began = time.monotonic()
        # Every step has a stretch of its own, so that what hangs costs only itself.
        collected, handled, explained, flushed, deadline = (
            began + self.settings.stop_timeout_s * share for share in (0.3, 0.5, 0.7, 0.85, 1.0)
        )
        self._stop.set()
        for handler in self._handlers:
            handler.hurry.set()
        for collector in self._collectors:
            if not collector.join(collected):
                _LOG.warning("%s did not stop in time", collector.component)
                collector.queue.close()
        self._pipeline.stop(handled)
        for handler in self._handlers:
            handler.queue.wait_idle(handled)
        self._alerts.stop(explained)
        self._reasoning.stop(explained)
        self._running = False
        for handler in self._handlers:
            handler.queue.close()
        for handler in self._handlers:
            if not handler.join(flushed):
                lost = handler.queue.waiting
                handler.queue.discard("stopped")
                _LOG.warning("%s did not finish in time: %d records lost", handler.component, lost)
        self.host.stop(deadline)


def _only(cls: type[_T], values: Any) -> Iterator[_T]:
    """Those of what a plugin returned that are what it should have returned."""
    for value in values if isinstance(values, Iterable) else ():
        if isinstance(value, cls):
            yield value


def _writes_to_stdout(component: Component) -> bool:
    """Whether its argument is ``-``, as in ``--handler jsonl:-``."""
    argument = getattr(getattr(component.cls, "Config", None), "ARG", None)
    return argument is not None and getattr(component.config, argument, None) == "-"
