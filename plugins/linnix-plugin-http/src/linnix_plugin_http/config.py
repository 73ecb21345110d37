"""The keys of ``[handlers.http]``."""

from __future__ import annotations

import ipaddress
from typing import Any, ClassVar

import attrs

from linnix_core import Duration, Size
from linnix_plugin_http.tokens import Token

__all__ = ["HttpConfig", "is_loopback", "split_address"]


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:3000``, ``[::1]:3000`` or ``localhost:3000``.

    >>> split_address("[::1]:3000")
    ('::1', 3000)
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address needs brackets: [{host}]:{port}")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"expected an address such as 127.0.0.1:3000, got {address!r}")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_listen(_config: Any, _attribute: Any, value: str) -> None:
    if value:
        try:
            split_address(value)
        except ValueError as error:
            raise ValueError(f"listen: {error}") from None


def _at_least(least: int) -> Any:
    def check(_config: Any, attribute: Any, value: float) -> None:
        if value < least:
            raise ValueError(f"{attribute.name} must be at least {least}, got {value}")

    return check


@attrs.frozen
class HttpConfig:
    """What is served, where, and to whom."""

    ARG: ClassVar[str] = "listen"

    listen: str = attrs.field(
        default="127.0.0.1:3000",
        validator=_check_listen,
        metadata={"help": "address and port; empty: only the unix socket"},
    )
    # Paths that only the start needs are texts: of a `Path` the core asks that the account
    # which the run becomes can reach it too.
    unix_socket: str = attrs.field(
        default="", metadata={"help": "path of a unix socket to serve as well, mode 0660"}
    )
    unix_group: str = attrs.field(
        default="", metadata={"help": "group that may use the unix socket"}
    )
    tls_certificate: str = attrs.field(
        default="", metadata={"help": "PEM file with the certificate and its chain"}
    )
    tls_key: str = attrs.field(
        default="", metadata={"help": "PEM file with the key, if it is not with the certificate"}
    )
    tokens: tuple[Token, ...] = attrs.field(
        default=(), metadata={"help": "who may do what; see `linnix http token new`"}
    )
    allowed_hosts: tuple[str, ...] = attrs.field(
        default=(), metadata={"help": "names under which people reach this server"}
    )
    require_kernel: bool = attrs.field(
        default=True, metadata={"help": "/readyz fails while kernel events are not seen"}
    )
    dashboard: bool = attrs.field(default=True, metadata={"help": "serve the dashboard at /"})
    history: int = attrs.field(
        default=8192,
        validator=_at_least(1),
        metadata={"help": "records kept for streams that come back, or are slow"},
    )
    keep_alive: Duration = attrs.field(
        default=Duration(10.0),
        validator=_at_least(1),
        metadata={"help": "between two signs of life on a quiet stream"},
    )
    max_subscribers: int = attrs.field(
        default=128, validator=_at_least(1), metadata={"help": "streams at a time"}
    )
    max_connections: int = attrs.field(
        default=512, validator=_at_least(1), metadata={"help": "connections at a time"}
    )
    max_body: Size = attrs.field(
        default=Size(64 * 1024), validator=_at_least(1), metadata={"help": "of one request"}
    )
    max_page: int = attrs.field(
        default=10_000, validator=_at_least(1), metadata={"help": "items of one answer"}
    )

    def __attrs_post_init__(self) -> None:
        if not (self.listen or self.unix_socket):
            raise ValueError("listen must not be empty where there is no unix_socket")
        if self.tls_key and not self.tls_certificate:
            raise ValueError("tls_key needs a tls_certificate")
        if self.unix_group and not self.unix_socket:
            raise ValueError("unix_group needs a unix_socket")
