"""Where Ollama listens: what people write into OLLAMA_HOST, as an address."""

from __future__ import annotations

import re

from linnix_plugin_openai import parse_address

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "parse_host"]

DEFAULT_PORT = 11434
DEFAULT_HOST = f"http://127.0.0.1:{DEFAULT_PORT}"

#: What a server listens on when it listens everywhere; a client has to name one place.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104


def parse_host(text: str, *, plain_http: bool = False) -> str:
    """The address of an Ollama server, from an address or from the forms of OLLAMA_HOST.

    Without a scheme it is http, and without scheme and port the port is 11434. Raises
    ``ValueError`` with a clause that fits behind the name of a key.

    >>> parse_host("0.0.0.0"), parse_host("localhost:8080"), parse_host("https://example.com")
    ('http://127.0.0.1:11434', 'http://localhost:8080', 'https://example.com')
    """
    text = text.strip().strip("\"'").rstrip("/")
    scheme, found, rest = text.rpartition("://")
    host, path = re.fullmatch(r"([^/]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, ""
    if not found and not port:
        port = str(DEFAULT_PORT)
    host = _EVERYWHERE.get(name, name) + (f":{port}" if port else "")
    return parse_address(f"{scheme or 'http'}://{host}{path}", plain_http=plain_http)
