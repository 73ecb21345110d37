"""What is served, as ASGI applications: the metrics, and health beside them."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import attrs

from linnix_plugin_prometheus.visibility import Visibility

__all__ = ["MetricsApp", "OperationalApp"]

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]

_PLAIN = "text/plain; charset=utf-8"

#: The two formats, each in the version that every Prometheus reads.
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@attrs.frozen
class Answer:
    """One response."""

    status: int
    body: bytes
    content_type: str = _PLAIN
    allow: str = ""


class MetricsApp:
    """Answers GET with every family, in the format that is asked for.

    ``render`` makes the body in OpenMetrics if its argument is true, else in the text format;
    it is called in another thread, for it asks every component.
    """

    def __init__(self, render: Callable[[bool], bytes], logger: logging.Logger) -> None:
        self._render = render
        self._logger = logger

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one request (ASGI 3)."""
        _only_http(scope)
        await _send(scope, send, await self.answer(scope))

    async def answer(self, scope: _Message) -> Answer:
        """The response to one request."""
        if scope["method"] not in ("GET", "HEAD"):
            return _not_get()
        openmetrics = wants_openmetrics(_header(scope, b"accept"))
        try:
            body = await asyncio.to_thread(self._render, openmetrics)
        except Exception:
            self._logger.exception("the metrics could not be gathered")
            return Answer(500, b"the metrics could not be gathered; the agent's log says why\n")
        return Answer(200, body, OPENMETRICS if openmetrics else TEXT)


class OperationalApp:
    """Health and metrics and nothing else, for requests that name this machine as their host."""

    def __init__(
        self,
        metrics: MetricsApp,
        seen: Callable[[], Visibility],
        *,
        require_kernel: bool,
    ) -> None:
        self._metrics = metrics
        self._seen = seen
        self._require_kernel = require_kernel

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one request (ASGI 3)."""
        _only_http(scope)
        await _send(scope, send, await self._answer(scope))

    async def _answer(self, scope: _Message) -> Answer:
        if not _is_address(_header(scope, b"host")):
            # Its page has a foreign name that now leads here: DNS rebinding.
            return Answer(421, b"ask for an address, such as 127.0.0.1, or for localhost\n")
        path = scope["path"]
        if path in ("/metrics/prometheus", "/metrics"):
            return await self._metrics.answer(scope)
        if path not in ("/healthz", "/readyz"):
            return Answer(404, b"here are /metrics/prometheus, /healthz and /readyz\n")
        if scope["method"] not in ("GET", "HEAD"):
            return _not_get()
        return self._ready() if path == "/readyz" else self._healthy()

    def _healthy(self) -> Answer:
        return _json(200, {"status": "ok", **_instrumentation(self._seen())})

    def _ready(self) -> Answer:
        seen = self._seen()
        ready = seen.active or not self._require_kernel
        told: dict[str, Any] = {"ready": ready, **_instrumentation(seen)}
        if seen.reason:
            told["reason"] = seen.reason
        return _json(200 if ready else 503, told)


def _instrumentation(seen: Visibility) -> dict[str, str]:
    return {
        "kernel_instrumentation": "active" if seen.active else "unavailable",
        "transport": seen.transport,
    }


def wants_openmetrics(accept: str) -> bool:
    """Whether the first format of ``Accept`` that is known here is OpenMetrics 1.

    >>> wants_openmetrics("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    True
    >>> wants_openmetrics("text/plain, application/openmetrics-text")
    False
    """
    for entry in accept.lower().split(","):
        media, *parameters = (part.strip() for part in entry.split(";"))
        values = dict(p.partition("=")[::2] for p in parameters)
        if values.get("q", "1").strip('0."') == "":
            continue
        if media == "application/openmetrics-text":
            if values.get("version", "1").startswith("1"):
                return True
        elif media in ("text/plain", "text/*", "*/*"):
            return False
    return False


def _header(scope: _Message, name: bytes) -> str:
    # Latin-1 has a character for every byte.
    return b",".join(value for key, value in scope["headers"] if key == name).decode("latin-1")


def _is_address(host: str) -> bool:
    name = host.rpartition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() == "localhost"
    return True


def _only_http(scope: _Message) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"only HTTP is served here, not {scope['type']}")


def _not_get() -> Answer:
    return Answer(405, b"only GET is possible here\n", allow="GET, HEAD")


def _json(status: int, document: Any) -> Answer:
    return Answer(status, json.dumps(document).encode(), "application/json")


async def _send(scope: _Message, send: _Send, answer: Answer) -> None:
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
    if answer.allow:
        headers.append((b"allow", answer.allow.encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})
