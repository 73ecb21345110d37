"""``/attribution`` as an ASGI application: one question, one JSON document."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

__all__ = ["AttributionApp"]

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]


class AttributionApp:
    """Answers GET with what ``answer`` makes of the query; its ``ValueError`` is the client's."""

    def __init__(self, answer: Callable[[Mapping[str, str]], Mapping[str, Any]]) -> None:
        self._answer = answer

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served here, not {scope['type']}")
        status, document = self._respond(scope)
        body = json.dumps(document).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body}
        )

    def _respond(self, scope: _Message) -> tuple[int, Mapping[str, Any]]:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, {"error": "only GET is possible here"}
        try:
            query = parse_qsl(
                scope.get("query_string", b"").decode("ascii"),
                keep_blank_values=True,
                max_num_fields=16,
            )
            return 200, self._answer(dict(query))
        except ValueError as error:
            return 400, {"error": str(error)}
