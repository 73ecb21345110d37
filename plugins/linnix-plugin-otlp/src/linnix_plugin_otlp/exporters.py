"""The official exporters, and what became of what was given to them.

They try again by themselves within their timeout, but tell only whether it went well. Whether it
is worth keeping a batch, how long to wait, and how much of an accepted batch was refused is seen
here, in the answers that pass.

Of logs they carry an empty batch, whose request is replaced by ours where it leaves: encoding
through the SDK's log records, once for every try by gRPC, would cost three times as much.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import attrs

from linnix_plugin_otlp.config import OtlpConfig

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.sdk.metrics.export import MetricsData

__all__ = ["Exporters", "Outcome", "Seen", "make_exporters", "silence_sdk"]

#: Answers after which the same data may be sent once more (OTLP 1.x, "Failures").
RETRYABLE_HTTP = (429, 502, 503, 504)
RETRYABLE_GRPC = (
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNAVAILABLE",
    "DATA_LOSS",
)

#: The longest that a Collector can tell to keep away.
MAX_RETRY_AFTER_S = 300.0


@attrs.frozen
class Outcome:
    """What became of one export: ``refused`` items of it are lost for good, unless ``again``."""

    delivered: bool
    refused: int = 0
    #: The same may be sent once more, but not before so many seconds.
    again: bool = False
    retry_after_s: float = 0.0
    said: str = ""


@attrs.define
class Seen:
    """The last answer to one exporter, as it passed; used by one thread."""

    status: int | str | None = None
    retry_after_s: float = 0.0
    refused: int = 0
    said: str = ""
    #: What is to be sent instead of the exporter's own request, and whether it was.
    request: Any = None
    replaced: bool = False

    def clear(self) -> None:
        """Forget the answer, before the next one."""
        self.status, self.retry_after_s, self.refused, self.said = None, 0.0, 0, ""

    def carry(self, request: Any) -> None:
        """Begin an export of this request."""
        self.clear()
        self.request, self.replaced = request, False

    def outcome(self, delivered: bool, count: int) -> Outcome:
        """What it means for an export of so many items."""
        if delivered and self.request is not None and not self.replaced:
            said = "this version of the OpenTelemetry exporters is not known: nothing was sent"
            return Outcome(False, count, said=said)
        if delivered and isinstance(self.status, int) and self.status >= 300:
            # The exporter takes a redirection for success; it was not followed.
            delivered = False
        if delivered:
            refused = min(max(self.refused, 0), count)
            said = f"the Collector refused {refused} of {count}: {self.said}" if refused else ""
            return Outcome(True, refused, said=said)
        if self.status is None:
            return Outcome(False, again=True, said=self.said or "the Collector cannot be reached")
        if self.status in RETRYABLE_HTTP or self.status in RETRYABLE_GRPC:
            said = f"the Collector cannot take more now ({self.status})"
            return Outcome(False, again=True, retry_after_s=self.retry_after_s, said=said)
        return Outcome(False, count, said=f"the Collector refuses the data ({self.status})")


class Exporters:
    """Logs and metrics by one protocol. Not for several threads, except `shutdown`.

    ``logs`` and ``metrics`` are exporters of the SDK whose answers are seen by ``logs_seen`` and
    ``metrics_seen``; ``wire`` makes of a request what the first of them carries.
    """

    def __init__(
        self, logs: Any, logs_seen: Seen, metrics: Any, metrics_seen: Seen, wire: Callable[..., Any]
    ) -> None:
        self._logs, self._logs_seen = logs, logs_seen
        self._metrics, self._metrics_seen = metrics, metrics_seen
        self._wire = wire

    def logs(self, request: ExportLogsServiceRequest, count: int) -> Outcome:
        """Send so many log records, and wait for the answer."""
        self._logs_seen.carry(self._wire(request))
        return self._logs_seen.outcome(_delivered(self._logs.export(())), count)

    def metrics(self, data: MetricsData, count: int) -> Outcome:
        """Send so many data points, and wait for the answer."""
        self._metrics_seen.clear()
        return self._metrics_seen.outcome(_delivered(self._metrics.export(data)), count)

    def shutdown(self) -> None:
        """Stop trying again, and close."""
        self._logs.shutdown()
        self._metrics.shutdown()


def _delivered(result: Any) -> bool:
    return bool(result.name == "SUCCESS")


def make_exporters(config: OtlpConfig) -> Exporters:
    """Those of the configured protocol. Raises `ImportError` where they are not installed."""
    silence_sdk()
    if config.chosen_protocol == "grpc":
        # Else the library in C writes to the terminal, for instance when a Collector restarts.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from linnix_plugin_otlp.grpc_exporters import grpc_exporters

        return grpc_exporters(config)
    from linnix_plugin_otlp.http_exporters import http_exporters

    return http_exporters(config)


def silence_sdk() -> None:
    """Keep what the exporters log off the terminal: the handler says it, and only once."""
    logger = logging.getLogger("opentelemetry.exporter.otlp")
    if logger.propagate:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False


def headers_of(config: OtlpConfig) -> dict[str, str]:
    """The headers with their values, in lower case as gRPC wants them."""
    return {name.lower(): secret.reveal() for name, secret in config.headers.items()}


def retry_after_s(value: str | None) -> float:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110); 0 where it says nothing.

    >>> retry_after_s("7"), retry_after_s("soon"), retry_after_s(None)
    (7.0, 0.0, 0.0)
    """
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else 0.0


def refused(response: Any) -> tuple[int, str]:
    """How many items of an accepted export were not taken, and why, by its answer."""
    partial = response.partial_success
    count = getattr(partial, "rejected_log_records", 0) or getattr(
        partial, "rejected_data_points", 0
    )
    return int(count), str(partial.error_message)
