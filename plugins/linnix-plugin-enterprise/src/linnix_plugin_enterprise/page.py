"""``/features`` as an ASGI application: the table as a page, as text and as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

from linnix_core import printable
from linnix_plugin_enterprise.features import (
    HEADER,
    Feature,
    Running,
    as_cells,
    as_document,
    as_text,
)
from linnix_plugin_enterprise.judging import Verdict

__all__ = ["FeaturesPage"]

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]


class FeaturesPage:
    """Answers GET with the table that ``table`` makes.

    Browsers get a page. The dashboard opens pages by a link, which cannot carry a token: what
    asks with one gets text instead. Everybody else gets JSON.
    """

    def __init__(self, table: Callable[[], tuple[Any, ...]]) -> None:
        self._table = table

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served here, not {scope['type']}")
        status, kind, body = await asyncio.to_thread(self._respond, scope)
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        sent = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": sent})

    def _respond(self, scope: _Message) -> tuple[int, str, bytes]:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "application/json", b'{"error": "only GET is possible here"}'
        below = scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        if below == "features.css":
            return 200, "text/css", Path(__file__).with_name("features.css").read_bytes()
        if below:
            return 404, "application/json", b'{"error": "there is nothing"}'
        rows, verdict, running = self._table()
        headers = {name.lower(): value for name, value in scope.get("headers", ())}
        if b"text/html" not in headers.get(b"accept", b""):
            document = as_document(rows, verdict, running)
            return 200, "application/json", json.dumps(document).encode()
        if b"authorization" in headers:
            text = as_text(rows, verdict, running)
            return 200, "text/plain; charset=utf-8", text.encode()
        return 200, "text/html; charset=utf-8", _page(rows, verdict, running).encode()


def _page(rows: Sequence[Feature], verdict: Verdict, running: Running) -> str:
    header = "".join(f"<th>{name.capitalize()}</th>" for name in HEADER)
    body = "\n".join(
        "<tr>" + "".join(_cell(cell) for cell in as_cells(row)) + "</tr>" for row in rows
    )
    said = f"{verdict.state}: {verdict.reason}" if verdict.reason else verdict.state
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Features &ndash; Linnix</title>
<link rel="stylesheet" href="/features/features.css">
<h1>Features</h1>
<p class="{verdict.state}">License {escape(printable(said))}</p>
<table><thead><tr>{header}</tr></thead>
<tbody>
{body}
</tbody></table>
<p><a href="/">Dashboard</a></p>
</html>
"""


def _cell(text: str) -> str:
    words = ("enterprise", "no", "unknown")
    kind = f' class="{text}"' if text in words else ""
    return f"<td{kind}>{escape(printable(text))}</td>"
