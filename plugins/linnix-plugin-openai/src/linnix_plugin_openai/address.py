"""Addresses of servers: which may be used, and what is asked there."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

__all__ = ["is_loopback", "join", "origin", "parse_address"]

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9a-fA-F:.]+")


def parse_address(text: str, *, plain_http: bool = False) -> str:
    """The address of a server: https, or http on this machine, or ``plain_http`` anywhere.

    Raises ``ValueError`` with a clause that fits behind the name of a key.

    >>> parse_address(" http://localhost:8090/v1/ ")
    'http://localhost:8090/v1'
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"is no address: {error}") from None
    if parts.username is not None:
        raise ValueError("must hold no user and no password: give a key as api_key")
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
        raise ValueError(f"must be https:// or http://, a host and maybe a port, got {text!r}")
    if parts.scheme == "http" and not plain_http and not is_loopback(host):
        raise ValueError(
            f"would send what this host does to {host} in clear text: "
            "use https, or allow it with plain_http = true"
        )
    # Put together anew, so that whoever parses it next sees the same host.
    host = f"[{host}]" if ":" in host else host
    where = f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")
    return where + parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else "")


def is_loopback(host: str) -> bool:
    """Whether a host of an address is this machine.

    >>> is_loopback("127.0.0.7"), is_loopback("localhost"), is_loopback("localhost.example.com")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def origin(url: str) -> str:
    """Scheme, host and port of an address: as much as people need to know which it is."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def join(url: str, path: str) -> str:
    """The address with another path; a query stays.

    >>> join("https://example.com/v1?version=2", "/v1/models")
    'https://example.com/v1/models?version=2'
    """
    return urlsplit(url)._replace(path=path).geturl()
