"""OTLP over HTTP, as protobuf."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from typing import Any

import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)

from linnix_core import printable
from linnix_plugin_otlp.config import OtlpConfig
from linnix_plugin_otlp.exporters import Exporters, Seen, headers_of, refused, retry_after_s

__all__ = ["http_exporters"]

_COMPRESSIONS = {"none": Compression.NoCompression, "gzip": Compression.Gzip, None: None}

#: Four times as fast as the highest, and hardly larger.
GZIP_LEVEL = 4

#: Bytes of an answer that is looked at: it says what was refused, and is small.
MAX_ANSWER = 64 * 1024


class _Session(requests.Session):
    """Looks at every answer before the exporter does."""

    def __init__(self, seen: Seen, response: Any) -> None:
        super().__init__()
        self._seen = seen
        self._response = response
        # Else ~/.netrc would have a say, and replace a configured Authorization.
        self.auth = _as_it_is

    def request(self, *args: Any, **options: Any) -> requests.Response:
        seen = self._seen
        seen.clear()
        if isinstance(self.verify, str):
            # Else REQUESTS_CA_BUNDLE of the environment would win over the configured file.
            options["verify"] = self.verify
        if seen.request is not None:
            options["data"] = _compressed(seen.request, options.get("headers") or {})
            seen.replaced = True
        try:
            answer = super().request(*args, **options)
        except requests.RequestException as error:
            # Its text has the whole address and the names of objects; its class says enough.
            seen.said = f"the Collector cannot be reached ({type(error).__name__})"
            raise
        seen.status = answer.status_code
        seen.retry_after_s = retry_after_s(answer.headers.get("Retry-After"))
        if answer.status_code == requests.codes.ok and len(answer.content) <= MAX_ANSWER:
            try:
                seen.refused, said = refused(self._response.FromString(answer.content))
                seen.said = printable(said, 200)
            except DecodeError:
                pass  # accepted all the same
        return answer


def _compressed(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body as the exporter's own headers announce it."""
    encoding = {name.lower(): value for name, value in headers.items()}.get("content-encoding")
    if encoding == "gzip":
        return gzip.compress(body, GZIP_LEVEL)
    return zlib.compress(body) if encoding == "deflate" else body


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def http_exporters(config: OtlpConfig) -> Exporters:
    """The two exporters over HTTP."""
    logs_seen, metrics_seen = Seen(), Seen()
    base = config.endpoint.rstrip("/")
    common: dict[str, Any] = {
        "certificate_file": _text(config.ca_file),
        "client_certificate_file": _text(config.client_certificate),
        "client_key_file": _text(config.client_key),
        "headers": headers_of(config),
        "timeout": config.timeout,
        "compression": _COMPRESSIONS[config.compression],
    }
    return Exporters(
        OTLPLogExporter(
            endpoint=f"{base}/v1/logs" if base else None,
            session=_Session(logs_seen, ExportLogsServiceResponse),
            **common,
        ),
        logs_seen,
        OTLPMetricExporter(
            endpoint=f"{base}/v1/metrics" if base else None,
            session=_Session(metrics_seen, ExportMetricsServiceResponse),
            **common,
        ),
        metrics_seen,
        ExportLogsServiceRequest.SerializeToString,
    )


def _text(path: Any) -> str | None:
    return None if path is None else str(path.expanduser())
