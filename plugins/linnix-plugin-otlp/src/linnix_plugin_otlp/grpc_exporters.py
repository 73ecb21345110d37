"""OTLP over gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

from linnix_core import printable
from linnix_plugin_otlp.config import OtlpConfig
from linnix_plugin_otlp.exporters import MAX_RETRY_AFTER_S, Exporters, Seen, headers_of, refused

__all__ = ["grpc_exporters"]

_COMPRESSIONS = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip, None: None}


class _Client:
    """A stub that looks at every answer before the exporter does."""

    def __init__(self, stub: Any, seen: Seen) -> None:
        self._stub = stub
        self._seen = seen

    def Export(self, **call: Any) -> Any:  # noqa: N802 - the name in the protocol
        seen = self._seen
        seen.clear()
        if seen.request is not None:
            call["request"] = seen.request
            seen.replaced = True
        try:
            answer = self._stub.Export(**call)
        except grpc.RpcError as error:
            seen.status = error.code().name
            seen.retry_after_s = _retry_after_s(error)
            if seen.status == "UNAVAILABLE" and not seen.retry_after_s:
                seen.status, seen.said = None, "the Collector cannot be reached (UNAVAILABLE)"
            elif seen.status == "RESOURCE_EXHAUSTED" and not seen.retry_after_s:
                # OTLP: worth another try only with RetryInfo. Without, a message is too large.
                seen.status = "RESOURCE_EXHAUSTED, for good"
            raise
        seen.status = "OK"
        seen.refused, said = refused(answer)
        seen.said = printable(said, 200)
        return answer


class _LogExporter(OTLPLogExporter):
    """Makes every stub a watched one."""

    seen: Seen

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]
        self._client: Any = _Client(self._client, self.seen)


class _MetricExporter(OTLPMetricExporter):
    """The same for metrics."""

    seen: Seen

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]
        self._client: Any = _Client(self._client, self.seen)


def grpc_exporters(config: OtlpConfig) -> Exporters:
    """The two exporters over gRPC."""
    logs_seen, metrics_seen = Seen(), Seen()
    common: dict[str, Any] = {
        "endpoint": config.endpoint or None,
        "credentials": _credentials(config),
        "headers": headers_of(config) or None,
        "timeout": config.timeout,
        "compression": _COMPRESSIONS[config.compression],
    }
    if config.endpoint:
        common["insecure"] = config.endpoint.startswith("http://")
    return Exporters(
        _watched(_LogExporter, logs_seen, common),
        logs_seen,
        _watched(_MetricExporter, metrics_seen, common),
        metrics_seen,
        lambda request: request,
    )


def _watched(cls: Any, seen: Seen, options: dict[str, Any]) -> Any:
    exporter = cls.__new__(cls)
    # Before it is built, because building it makes its first stub.
    exporter.seen = seen
    exporter.__init__(**options)
    return exporter


def _credentials(config: OtlpConfig) -> Any:
    files = (config.ca_file, config.client_key, config.client_certificate)
    if not any(files):
        return None
    roots, key, chain = (_bytes(path) for path in files)
    return grpc.ssl_channel_credentials(roots, key, chain)


def _bytes(path: Path | None) -> bytes | None:
    return None if path is None else path.expanduser().read_bytes()


def _retry_after_s(error: Any) -> float:
    for name, value in error.trailing_metadata() or ():
        if name == "google.rpc.retryinfo-bin":
            delay = RetryInfo.FromString(value).retry_delay
            seconds = delay.seconds + delay.nanos / 1e9
            return float(min(max(seconds, 0.0), MAX_RETRY_AFTER_S))
    return 0.0
