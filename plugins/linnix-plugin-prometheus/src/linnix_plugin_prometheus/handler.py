"""The handler: counts what it is told, and offers everybody's numbers to Prometheus."""

from __future__ import annotations

import threading
from typing import Any

from linnix_core import Alert, Batch, Context, Feedback, Health, Incident, Insight, Mount, hookimpl
from linnix_plugin_prometheus.app import MetricsApp, OperationalApp
from linnix_plugin_prometheus.config import PrometheusConfig
from linnix_plugin_prometheus.listener import Listener
from linnix_plugin_prometheus.tally import Moment, Tally
from linnix_plugin_prometheus.visibility import Visibility, visibility

__all__ = ["PrometheusHandler"]


class PrometheusHandler:
    """Serve metrics of the agent and its components for Prometheus."""

    Config = PrometheusConfig

    def __init__(self, config: PrometheusConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._tally = Tally()
        self._began = Moment()
        self._exposition: Any = None
        self._lock = threading.Lock()
        self._app = MetricsApp(self.render, context.logger)
        self._listener: Listener | None = None

    @property
    def port(self) -> int | None:
        """Where ``metrics_listen`` is served; None where it is not."""
        return None if self._listener is None else self._listener.port

    def render(self, openmetrics: bool = False) -> bytes:
        """Every family, in OpenMetrics 1.0 or in the text format 0.0.4."""
        # The library costs a tenth of a second to import: only those pay who are scraped.
        from prometheus_client import generate_latest
        from prometheus_client.openmetrics import exposition

        from linnix_plugin_prometheus.families import Exposition

        with self._lock:
            if self._exposition is None:
                self._exposition = Exposition(
                    self._context, self._tally, self._began, top=self._config.top
                )
        if openmetrics:
            body: bytes = exposition.generate_latest(self._exposition)  # type: ignore[no-untyped-call]
            return body
        return generate_latest(self._exposition)

    @hookimpl
    def linnix_start(self, context: Context) -> None:
        """Take the address of the second listener, if there is to be one."""
        if self._config.metrics_listen:
            app = OperationalApp(self._app, self._seen, require_kernel=self._config.require_kernel)
            self._listener = Listener(self._config.metrics_listen, app)

    @hookimpl
    def linnix_ready(self) -> None:
        """Serve what was taken."""
        if self._listener is not None:
            self._listener.start()

    @hookimpl
    def linnix_handle(self, batch: Batch) -> None:
        """Count a batch."""
        self._tally.batch(batch, self._context.clock.time_ns())

    @hookimpl
    def linnix_alert(self, alert: Alert) -> None:
        """Count an alert."""
        self._tally.alert(alert, self._context.clock.time_ns())

    @hookimpl
    def linnix_incident(self, incident: Incident) -> None:
        """Count what became of an incident."""
        self._tally.incident(incident, self._context.clock.time_ns())

    @hookimpl
    def linnix_insight(self, insight: Insight) -> None:
        """Count an explanation."""
        self._tally.insight(insight)

    @hookimpl
    def linnix_feedback(self, feedback: Feedback) -> None:
        """Count what a person said."""
        self._tally.feedback(feedback)

    @hookimpl
    def linnix_http(self) -> list[Mount]:
        """The metrics, for whoever serves HTTP."""
        return [Mount("/metrics/prometheus", self._app, "Metrics for Prometheus")]

    @hookimpl
    def linnix_health(self) -> Health:
        """Whether the second listener serves."""
        if self._listener is not None and self._listener.ended:
            return Health("failed", f"{self._config.metrics_listen} is served no more")
        return Health()

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """Stop serving."""
        if self._listener is not None:
            self._listener.stop(deadline)

    def _seen(self) -> Visibility:
        return visibility(self._context.components(), self._tally.kernel_event_seen)
