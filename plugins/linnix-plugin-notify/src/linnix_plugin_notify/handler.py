"""What every sink's handler has in common: configuration, start and stop, health, metrics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any, ClassVar

import attrs

from linnix_core import (
    Context,
    Duration,
    Feedback,
    Health,
    Incident,
    Insight,
    Metric,
    Severity,
    hookimpl,
)
from linnix_plugin_notify.delivery import Delivery
from linnix_plugin_notify.outbox import Outbox
from linnix_plugin_notify.pages import PageBook
from linnix_plugin_notify.routing import Route, Router
from linnix_plugin_notify.sinks import Sink

__all__ = ["FILE_NAME", "NotifyConfig", "NotifyHandler"]

#: The outbox in the component's data folder.
FILE_NAME = "outbox.db"

_SECOND_NS = 10**9


def _some(instance: object, attribute: attrs.Attribute[Duration], value: Duration) -> None:
    if value <= 0:
        raise ValueError(f"{attribute.name} must be more than nothing, got {value:g}")


def _enough(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value < 16:
        raise ValueError(f"{attribute.name} must be at least 16, got {value}")


def _distinct(
    instance: object, attribute: attrs.Attribute[tuple[Route, ...]], value: tuple[Route, ...]
) -> None:
    names = [route.name for route in value]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{attribute.name} has two routes called {twice[0]!r}")


@attrs.frozen(kw_only=True)
class NotifyConfig:
    """The keys that every sink has."""

    min_severity: Severity = attrs.field(
        default="medium",
        metadata={"help": "incidents of at least this severity, where there are no routes"},
    )
    per_hour: int = attrs.field(
        default=30,
        validator=attrs.validators.ge(1),
        metadata={"help": "incidents told in an hour at most, where there are no routes"},
    )
    routes: tuple[Route, ...] = attrs.field(
        default=(),
        validator=_distinct,
        metadata={"help": "who is told of what: the first that matches"},
    )
    resolve_after: Duration = attrs.field(
        default=Duration(0.0),
        metadata={"help": "how long an incident must be over before that is told"},
    )
    update_every: Duration = attrs.field(
        default=Duration(60.0),
        metadata={"help": "between two updates of a message that tell nothing but newer numbers"},
    )
    give_up_after: Duration = attrs.field(
        default=Duration(86_400.0),
        validator=_some,
        metadata={"help": "age at which an incident that nobody could be told of is dropped"},
    )
    timeout: Duration = attrs.field(
        default=Duration(10.0),
        validator=_some,
        metadata={"help": "how long the service may take to answer"},
    )
    max_pages: int = attrs.field(
        default=1000,
        validator=_enough,
        metadata={"help": "incidents in the outbox at most; the oldest go first"},
    )

    def all_routes(self) -> tuple[Route, ...]:
        """The routes, or the one that stands for having none."""
        default = Route(name="all", min_severity=self.min_severity, per_hour=self.per_hour)
        return self.routes or (default,)


class NotifyHandler:
    """Tell people of incidents through one service; a sink's handler inherits from it.

    It has a ``Config`` that inherits from `NotifyConfig`, and says in `open_sink` how to
    reach the service and in `default_target` where messages go that no route sends elsewhere.
    """

    Config: ClassVar[type[NotifyConfig]]

    @classmethod
    def open_sink(cls, config: Any, logger: logging.Logger) -> Sink:
        """The service, ready to take messages; raises `PluginUnavailable`. Sends nothing yet."""
        raise NotImplementedError

    @classmethod
    def default_target(cls, config: Any) -> str:  # noqa: ARG003
        """Where messages go by default, as the sink's ``to``; empty if it has one place only."""
        return ""

    def __init__(self, config: NotifyConfig, context: Context) -> None:
        self.config = config
        self.context = context
        self._delivery: Delivery | None = None
        self._sink: Sink | None = None
        self._lock = threading.Lock()

    @hookimpl
    def linnix_start(self) -> None:
        """Open the service and the outbox, with what runs before have left in there."""
        config = self.config
        sink = self.open_sink(config, self.context.logger)
        book = PageBook(
            Router(config.all_routes()),
            to=self.default_target(config),
            updates=sink.updates,
            resolve_after_ns=int(config.resolve_after * _SECOND_NS),
            update_every_ns=int(config.update_every * _SECOND_NS),
            give_up_ns=int(config.give_up_after * _SECOND_NS),
            limit=config.max_pages,
        )
        try:
            outbox = Outbox(self.context.data_dir / FILE_NAME, self.context.logger)
        except BaseException:
            sink.close()
            raise
        self._sink = sink
        self._delivery = Delivery(
            book,
            outbox,
            sink,
            clock=self.context.clock,
            logger=self.context.logger,
            name=self.context.component,
        )

    @hookimpl
    def linnix_ready(self) -> None:
        """Begin to deliver."""
        if self._delivery is not None:
            self._delivery.start()

    @hookimpl
    def linnix_incident(self, incident: Incident) -> None:
        """An incident changed: note it, and tell whom it concerns."""
        self._take(incident)

    @hookimpl
    def linnix_insight(self, insight: Insight) -> None:
        """An incident was explained: say so in its message."""
        self._take(insight)

    @hookimpl
    def linnix_feedback(self, feedback: Feedback) -> None:
        """A person judged an incident: show it in its message."""
        self._take(feedback)

    @hookimpl
    def linnix_flush(self) -> None:
        """Have everything on disk."""
        if self._delivery is not None:
            self._delivery.flush()

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """Deliver what is due until then; the next run goes on with the rest."""
        if self._delivery is not None:
            self._delivery.stop(deadline)

    @hookimpl
    def linnix_health(self) -> Health:
        """Degraded while a service or the disk does not take messages."""
        delivery = self._delivery
        if delivery is None:
            return Health()
        limits = []
        waiting, held = delivery.waiting()
        lost = delivery.lost()
        if held:
            limits.append(f"{held} incidents wait for the limit of their route")
        if untold := sum(lost.values()):
            limits.append(f"nobody was told of {untold} incidents of this run")
        if doubled := delivery.counts["possible_duplicates"]:
            limits.append(f"{doubled} messages may have arrived twice")
        problems = delivery.problems(3 * self.config.timeout)
        if not problems:
            return Health(limits=tuple(limits))
        said = "; ".join(problems)
        return Health("degraded", f"{said}; {waiting} incidents wait", tuple(limits))

    @hookimpl
    def linnix_metrics(self) -> Iterable[Metric]:
        """Messages by what became of them, pages that wait and pages that were lost."""
        delivery = self._delivery
        if delivery is None:
            return []
        counts, (waiting, held) = delivery.counts, delivery.waiting()

        def counter(name: str, count: float, help_: str, **labels: str) -> Metric:
            return Metric(f"notify_{name}", count, "{message}", "counter", labels, help_)

        changes = ("opened", "updated", "explained", "worse", "reopened", "resolved")
        return [
            *(
                counter(
                    "delivered_messages", counts[f"delivered_{each}"],
                    "Messages that the service took", change=each,
                )
                for each in changes
            ),
            counter("failed_deliveries", counts["failures"], "Deliveries that are tried again"),
            counter("refused_messages", counts["refused"], "Messages that the service refused"),
            counter(
                "possible_duplicates", counts["possible_duplicates"],
                "Messages that were sent again and may have arrived before",
            ),
            *(
                counter("untold_incidents", count, "Incidents nobody was told of", why=why)
                for why, count in sorted(delivery.lost().items())
            ),
            Metric("notify_waiting_incidents", waiting, "{incident}", help="Incidents to be told"),
            Metric("notify_held_incidents", held, "{incident}", help="Waiting for a route's limit"),
        ]  # fmt: skip

    def _take(self, notice: Incident | Insight | Feedback) -> None:
        if self._delivery is not None:
            self._delivery.take(notice)
