"""Every hook that a plugin can implement: the table of contents of Linnix.

A plugin is a class behind an entry point. It marks its hooks with ``@hookimpl`` and
names only the arguments that it needs. Each kind has its own hooks; the lifecycle is
common to all. No hook is historic, none may be a wrapper or ``tryfirst``: the order is
that of the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event
from typing import TYPE_CHECKING, Literal, TypeAlias

import pluggy

if TYPE_CHECKING:
    from linnix_core.batch import Batch
    from linnix_core.context import Context, Sink
    from linnix_core.records import (
        Alert,
        Answer,
        Deployment,
        Fact,
        Feedback,
        Health,
        Incident,
        Insight,
        Metric,
        ModelSpec,
        Mount,
        Query,
        ReasonRequest,
        Record,
        Result,
    )

__all__ = ["KINDS", "PROJECT", "SPECS", "Kind", "hookimpl", "hookspec"]

PROJECT = "linnix"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Kind: TypeAlias = Literal["collectors", "handlers", "reasoners", "deployers"]


class Lifecycle:
    """Common to every kind, and all optional."""

    @hookspec
    def linnix_start(self, context: Context) -> None:
        """Acquire what the component needs. Raise `PluginUnavailable` when it is missing here.

        Called once, under a deadline, before any other hook.
        """

    @hookspec
    def linnix_ready(self) -> None:
        """Begin threads of your own: everything has started, and privileges are given up.

        Called once, under the deadline of the start, before the first record moves. A thread
        that begins earlier keeps what root may do.
        """

    @hookspec
    def linnix_stop(self, deadline: float) -> None:
        """Release everything; called once, also after a failed start.

        ``deadline`` is a moment of ``time.monotonic()``, after which nobody waits.
        """

    @hookspec
    def linnix_reload(self) -> None:
        """Read again what was read from files; on SIGHUP, from another thread than the rest.

        What is broken is refused with an exception and leaves everything as it was.
        """

    @hookspec
    def linnix_health(self) -> Health:  # type: ignore[empty-body]
        """Say how the component is and what it cannot see. Answer within 100 ms."""

    @hookspec
    def linnix_metrics(self) -> Iterable[Metric]:  # type: ignore[empty-body]
        """Numbers of this component for whoever exports metrics."""


class CollectorSpec:
    """Where records are born: one of the two, never both."""

    @hookspec
    def linnix_collect(self, sink: Sink, stop: Event) -> None:
        """Stream records into ``sink`` from a thread of its own until ``stop`` is set.

        Returning earlier means that there is nothing more to come (a replay).
        """

    @hookspec
    def linnix_poll(self) -> Iterable[Record]:  # type: ignore[empty-body]
        """Return what is to be seen now; called every ``interval`` seconds."""


class HandlerSpec:
    """What happens with records; each handler has a queue and a thread of its own."""

    @hookspec
    def linnix_handle(self, batch: Batch) -> Iterable[Alert] | None:
        """Take a batch of records, read-only. Returned alerts go to everyone, sender included.

        Raise `RecordsLost` for records that could not be delivered.
        """

    @hookspec
    def linnix_alert(self, alert: Alert) -> None:
        """A rule fired, here or in another handler."""

    @hookspec
    def linnix_incident(self, incident: Incident) -> None:
        """An incident opened, got worse, was updated or closed (``incident.change``)."""

    @hookspec
    def linnix_insight(self, insight: Insight) -> None:
        """An incident was explained."""

    @hookspec
    def linnix_feedback(self, feedback: Feedback) -> None:
        """A person said what an incident was worth."""

    @hookspec
    def linnix_flush(self) -> None:
        """Make what was handled durable: about once a second while busy, and before stop.

        Raise `RecordsLost` for records that were handled and turn out to be lost.
        """

    @hookspec
    def linnix_enrich(self, batch: Batch) -> None:
        """Fill ``labels`` of records from cached data, before any handler sees the batch.

        Runs in the pipeline's thread within a time budget: never read or ask here.
        """

    @hookspec
    def linnix_query(self, query: Query) -> Result | None:
        """Answer from history, or None where this handler keeps none; the first answer wins."""

    @hookspec
    def linnix_evidence(self, incident: Incident) -> Iterable[Fact]:  # type: ignore[empty-body]
        """Add facts to an incident before it is explained."""

    @hookspec
    def linnix_http(self) -> Iterable[Mount]:  # type: ignore[empty-body]
        """Routes and pages for whoever serves HTTP."""


class ReasonerSpec:
    """Who explains incidents: asked in the order of the configuration."""

    @hookspec
    def linnix_reason(self, request: ReasonRequest) -> Answer | None:
        """Choose class, process, facts and actions by their ids, or decline with None.

        Past ``request.timeout_s``, or while still busy with an earlier request, the
        reasoner counts as declined and the next one is asked.
        """


class DeployerSpec:
    """How a model becomes an endpoint."""

    @hookspec
    def linnix_deploy(self, spec: ModelSpec) -> Deployment | None:
        """Serve the model, or return None if it is not for this deployer. Idempotent."""

    @hookspec
    def linnix_probe(self, deployment: Deployment) -> Health:  # type: ignore[empty-body]
        """Ask the endpoint for a real answer and report what came."""

    @hookspec
    def linnix_undeploy(self, deployment: Deployment) -> None:
        """Stop serving; doing it twice is not an error."""

    @hookspec
    def linnix_deployments(self) -> Iterable[Deployment]:  # type: ignore[empty-body]
        """What this deployer serves now, as found, not as remembered."""


#: Which hooks a class of each kind may implement, and which it cannot do without.
SPECS: dict[Kind, tuple[type, ...]] = {
    "collectors": (Lifecycle, CollectorSpec),
    "handlers": (Lifecycle, HandlerSpec),
    "reasoners": (Lifecycle, ReasonerSpec),
    "deployers": (Lifecycle, DeployerSpec),
}
KINDS: tuple[Kind, ...] = ("collectors", "handlers", "reasoners", "deployers")
