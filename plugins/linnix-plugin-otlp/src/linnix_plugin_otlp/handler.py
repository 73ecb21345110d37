"""The handler: what is for the Collector waits here; a thread of its own sends it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from typing import Any

from linnix_core import (
    Alert,
    Batch,
    Context,
    Feedback,
    Health,
    Incident,
    Insight,
    Metric,
    PluginUnavailable,
    ProcessEvent,
    RecordsLost,
    hookimpl,
)
from linnix_plugin_otlp.births import Births, this_boot
from linnix_plugin_otlp.config import OtlpConfig

__all__ = ["OtlpHandler"]

#: Seconds that the flush at the end of a run waits for the Collector.
LAST_FLUSH_S = 1.0


class OtlpHandler:
    """Export events, alerts, incidents and metrics to an OpenTelemetry Collector."""

    Config = OtlpConfig

    def __init__(self, config: OtlpConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._kinds = frozenset(config.events)
        self._sender: Any = None

    @hookimpl
    def linnix_start(self) -> None:
        """Look whether everything is there. Nothing is sent yet, and nobody has to answer."""
        _check_installed(self._config)
        _check_environment(self._config)
        _check_files(self._config)
        # The SDK costs a fifth of a second to import: only those pay who use it.
        from linnix_plugin_otlp.exporters import make_exporters
        from linnix_plugin_otlp.gathering import Gathering
        from linnix_plugin_otlp.resources import Origin
        from linnix_plugin_otlp.sending import Sender
        from linnix_plugin_otlp.waiting import Waiting

        config, context = self._config, self._context
        boots = this_boot()
        births = Births(boots)
        self._waiting = Waiting(config.max_queue)
        self._gathering = Gathering(
            births,
            top=config.top,
            delta=config.chosen_temporality == "delta",
            cpus=os.cpu_count() or 1,
            began_ns=context.clock.time_ns(),
        )
        self._sender = Sender(
            config,
            births,
            self._waiting,
            self._gathering,
            here=Origin(context.host, next(iter(boots), ""), context.run_id),
            make_exporters=make_exporters,
            components=context.metrics,
            now_ns=context.clock.time_ns,
            logger=context.logger,
        )

    @hookimpl
    def linnix_ready(self) -> None:
        """Begin to send."""
        self._sender.start()

    @hookimpl
    def linnix_handle(self, batch: Batch) -> None:
        """Put events in the queue and take note of samples; `RecordsLost` for a full queue."""
        kinds = self._kinds
        events = [r for r in batch if type(r) is ProcessEvent and r.kind in kinds]
        if self._config.metrics_interval:
            self._gathering.add(batch)
        dropped = self._waiting.put_events(events) if events else 0
        if dropped:
            self._sender.count_lost(dropped, 0)
            raise RecordsLost(dropped, "queue_full", self._sender.full())

    @hookimpl
    def linnix_alert(self, alert: Alert) -> None:
        """Send an alert soon."""
        self._notice(alert)

    @hookimpl
    def linnix_incident(self, incident: Incident) -> None:
        """Send an incident soon."""
        self._notice(incident)

    @hookimpl
    def linnix_insight(self, insight: Insight) -> None:
        """Send an insight soon."""
        self._notice(insight)

    @hookimpl
    def linnix_feedback(self, feedback: Feedback) -> None:
        """Send what a person said soon."""
        self._notice(feedback)

    @hookimpl
    def linnix_flush(self) -> None:
        """Say what was lost meanwhile; at the end of a run, wait a moment for the rest."""
        if self._sender is None:
            return
        if self._context.stop.is_set():
            self._waiting.wake()
            self._waiting.wait_empty(LAST_FLUSH_S)
        lost, why, said = self._sender.lost()
        if lost:
            raise RecordsLost(lost, why, said)

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """Send what waits until the deadline; the rest is counted and said."""
        if self._sender is not None:
            self._sender.stop(deadline)

    @hookimpl
    def linnix_health(self) -> Health:
        """Degraded while the Collector does not take what it gets."""
        limits = ("headers go to the Collector unencrypted",) if self._unencrypted() else ()
        trouble = "" if self._sender is None else self._sender.trouble
        if trouble:
            waiting = len(self._waiting)
            return Health("degraded", f"{trouble}; {waiting} records wait", limits)
        return Health("ok", limits=limits)

    @hookimpl
    def linnix_metrics(self) -> Iterable[Metric]:
        """Records that were exported, that were lost, that wait; and exports that failed."""
        sender = self._sender
        if sender is None:
            return ()
        return (
            Metric(
                "otlp_exported_records",
                sender.exported,
                "{record}",
                "counter",
                help="Events and notices that the Collector took",
            ),
            Metric(
                "otlp_lost_records",
                sender.events_lost + sender.notices_lost,
                "{record}",
                "counter",
                help="Events and notices that the Collector did not get",
            ),
            Metric(
                "otlp_waiting_records",
                len(self._waiting),
                "{record}",
                help="Events and notices that wait for the Collector",
            ),
            Metric(
                "otlp_failed_exports",
                sender.failed_exports,
                "{export}",
                "counter",
                help="Exports that failed, with all that the SDK tried",
            ),
        )

    # --- inside -----------------------------------------------------------------------

    def _notice(self, notice: Any) -> None:
        if dropped := self._waiting.put_notice(notice):
            self._sender.count_lost(0, dropped)

    def _unencrypted(self) -> bool:
        config = self._config
        return bool(config.headers) and config.endpoint.startswith("http://")


def _check_installed(config: OtlpConfig) -> None:
    if config.chosen_protocol == "grpc" and not (
        importlib.util.find_spec("grpc") and _has_grpc_exporter()
    ):
        raise PluginUnavailable(
            "OTLP over gRPC is not installed", hint="pip install 'linnix-plugin-otlp[grpc]'"
        )


def _has_grpc_exporter() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.grpc") is not None
    except ModuleNotFoundError:
        return False


def _check_environment(config: OtlpConfig) -> None:
    if config.endpoint or config.chosen_protocol == "grpc":  # which takes HOST:PORT, too
        return
    for signal in ("", "LOGS_", "METRICS_"):
        name = f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT"
        value = os.environ.get(name, "")
        # It is not shown: there may be a password in it.
        if value and not value.startswith(("http://", "https://")):
            raise PluginUnavailable(
                f"{name} does not begin with http:// or https://",
                hint="correct it, or set endpoint, such as http://localhost:4318",
            )


def _check_files(config: OtlpConfig) -> None:
    for name in ("ca_file", "client_certificate", "client_key"):
        path = getattr(config, name)
        if path is None:
            continue
        if not (path.expanduser().is_file() and os.access(path.expanduser(), os.R_OK)):
            raise PluginUnavailable(
                f"{name} cannot be read: {path}", hint="name a PEM file that the agent may read"
            )
