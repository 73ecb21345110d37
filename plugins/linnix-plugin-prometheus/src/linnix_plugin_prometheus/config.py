"""The keys of ``[handlers.prometheus]``."""

from __future__ import annotations

import ipaddress
from typing import Any, ClassVar

import attrs

__all__ = ["PrometheusConfig", "split_address"]

#: Executables that may have series of their own: each has at most five.
MAX_TOP = 1000


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:9464``, ``[::1]:9464`` or ``localhost:9464``.

    Raises `ValueError` for what is no address, and for one that others could reach.

    >>> split_address("[::1]:9464")
    ('::1', 9464)
    """
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in host and bare == host) or not _is_port(port):
        raise ValueError(f"expected an address such as 127.0.0.1:9464, got {address!r}")
    if not _is_loopback(bare):
        raise ValueError(
            "must be an address of this machine only (127.0.0.1, [::1], localhost), because "
            f"nobody is asked who they are there; got {address!r}. To be scraped from "
            "elsewhere, use /metrics/prometheus of the handler http, with a token"
        )
    # By its number: what a name leads to is for others to change.
    return ("127.0.0.1" if bare == "localhost" else bare), int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_address(_config: Any, attribute: Any, value: str) -> None:
    if value:
        try:
            split_address(value)
        except ValueError as error:
            raise ValueError(f"{attribute.name}: {error}") from None


def _check_top(_config: Any, attribute: Any, value: int) -> None:
    if not 0 <= value <= MAX_TOP:
        raise ValueError(f"{attribute.name} must be from 0 to {MAX_TOP}, got {value}")


@attrs.frozen
class PrometheusConfig:
    """What is exported, and where besides the API."""

    ARG: ClassVar[str] = "metrics_listen"

    metrics_listen: str = attrs.field(
        default="",
        validator=_check_address,
        metadata={"help": "loopback address and port that serve health and metrics only"},
    )
    top: int = attrs.field(
        default=20,
        validator=_check_top,
        metadata={"help": "executables with series: so many by CPU and so many by memory"},
    )
    require_kernel: bool = attrs.field(
        default=True, metadata={"help": "/readyz fails while kernel events are not seen"}
    )
