"""The keys of ``[handlers.otlp]``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias
from urllib.parse import urlsplit

import attrs

from linnix_core import Duration, Secret

__all__ = ["Compression", "EventKind", "OtlpConfig", "Protocol", "Temporality"]

EventKind: TypeAlias = Literal["seen", "fork", "exec", "exit", "oom"]
Protocol: TypeAlias = Literal["http", "grpc"]
Compression: TypeAlias = Literal["none", "gzip"]
Temporality: TypeAlias = Literal["cumulative", "delta"]

#: Processes, and control groups, that may have series of their own.
MAX_TOP = 1000

# What both HTTP and gRPC take as the name of a header (RFC 9110, and the rules of gRPC metadata).
_HEADER = re.compile(r"[A-Za-z0-9_.-]+")


def _is_url(_config: Any, attribute: Any, value: str) -> None:
    if not value:
        return
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{attribute.name} must begin with http:// or https:// and name a host, "
            "such as http://127.0.0.1:4318"
        )
    if parts.username is not None or parts.password is not None:
        # Not shown: it holds a password.
        raise ValueError(f"{attribute.name} must not hold a password: use headers for that")


def _are_headers(_config: Any, attribute: Any, value: dict[str, Secret]) -> None:
    for name, secret in value.items():
        if not _HEADER.fullmatch(name):
            raise ValueError(f"{attribute.name}: {name!r} is no name of a header")
        if not (secret.reveal().isascii() and secret.reveal().isprintable()):
            raise ValueError(f"{attribute.name}: the value of {name} is no printable ASCII")


def _at_least(least: float) -> Any:
    def check(_config: Any, attribute: Any, value: float) -> None:
        if value < least:
            raise ValueError(f"{attribute.name} must be at least {least:g}, got {value:g}")

    return check


def _check_top(_config: Any, attribute: Any, value: int) -> None:
    if not 0 <= value <= MAX_TOP:
        raise ValueError(f"{attribute.name} must be from 0 to {MAX_TOP}, got {value}")


@attrs.frozen
class OtlpConfig:
    """Where the Collector is, what it gets, and what waits while it does not answer."""

    ARG: ClassVar[str] = "endpoint"

    endpoint: str = attrs.field(
        default="",
        validator=_is_url,
        metadata={"help": "URL of the Collector; empty: OTEL_EXPORTER_OTLP_ENDPOINT, else local"},
    )
    protocol: Protocol | None = attrs.field(
        default=None,
        metadata={"help": "http (protobuf) or grpc; else OTEL_EXPORTER_OTLP_PROTOCOL, else http"},
    )
    headers: dict[str, Secret] = attrs.field(
        factory=dict,
        validator=_are_headers,
        metadata={"help": "headers of each request, such as Authorization, by reference"},
    )
    ca_file: Path | None = attrs.field(
        default=None, metadata={"help": "certificates of who may have signed the Collector's"}
    )
    client_certificate: Path | None = attrs.field(
        default=None, metadata={"help": "certificate to show the Collector (mutual TLS)"}
    )
    client_key: Path | None = attrs.field(
        default=None, metadata={"help": "private key of client_certificate"}
    )
    compression: Compression | None = attrs.field(
        default=None, metadata={"help": "none or gzip; else OTEL_EXPORTER_OTLP_COMPRESSION"}
    )
    timeout: Duration = attrs.field(
        default=Duration(10),
        validator=_at_least(0.1),
        metadata={"help": "one export, with what the SDK tries again within it"},
    )
    batch_size: int = attrs.field(
        default=512, validator=_at_least(1), metadata={"help": "log records of one export"}
    )
    delay: Duration = attrs.field(
        default=Duration(1),
        validator=_at_least(0.01),
        metadata={"help": "the longest that a batch waits to become full"},
    )
    max_queue: int = attrs.field(
        default=8192,
        validator=_at_least(1),
        metadata={"help": "events that may wait; more of them push out the oldest"},
    )
    events: tuple[EventKind, ...] = attrs.field(
        default=("seen", "fork", "exec", "exit", "oom"),
        metadata={"help": "kinds of process events to export"},
    )
    arguments: bool = attrs.field(
        default=True, metadata={"help": "export the (redacted) arguments of processes"}
    )
    metrics_interval: Duration = attrs.field(
        default=Duration(30), metadata={"help": "between two exports of metrics; 0: none"}
    )
    temporality: Temporality | None = attrs.field(
        default=None,
        metadata={
            "help": "cumulative or delta counters; "
            "else OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, else cumulative"
        },
    )
    top: int = attrs.field(
        default=20,
        validator=_check_top,
        metadata={"help": "processes, and cgroups, with series: so many by CPU and by memory"},
    )
    resource: dict[str, str] = attrs.field(
        factory=dict, metadata={"help": "more resource attributes, such as service.name"}
    )

    def __attrs_post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("client_certificate goes with client_key: set both, or neither")

    @property
    def chosen_protocol(self) -> Protocol:
        """What is configured, else what the environment says, else HTTP."""
        if self.protocol is not None:
            return self.protocol
        return "grpc" if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc" else "http"

    @property
    def chosen_temporality(self) -> Temporality:
        """What is configured, else what the environment says, else cumulative."""
        if self.temporality is not None:
            return self.temporality
        said = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "")
        return "delta" if said.strip().lower() == "delta" else "cumulative"
