"""The dashboard's files, read once at the start and served from memory."""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

import attrs
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["Pages"]

#: Only these are served, each with the type that browsers insist on (`nosniff`).
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}

#: Where files other than the page itself are.
PREFIX = "/assets/"


@attrs.frozen
class _File:
    body: bytes
    media: str
    etag: str


class Pages:
    """``index.html`` at ``/`` and ``/dashboard``, every other file below ``/assets/``."""

    def __init__(self, folder: Traversable | None = None) -> None:
        root = folder or resources.files("linnix_plugin_http") / "dashboard"
        self._files = dict(_read(root, "")) if root.is_dir() else {}

    def serve(self, request: Request) -> Response | None:
        """The file that a path names, or None. Browsers ask each time, and get a short answer."""
        path = request.url.path
        if path in ("/", "/dashboard"):
            name = "index.html"
        elif path.startswith(PREFIX):
            name = path[len(PREFIX) :]
        else:
            return None
        file = self._files.get(name)
        if file is None:
            return None
        headers = {"etag": file.etag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers={**headers, "content-type": file.media})


def _read(folder: Traversable, prefix: str) -> list[tuple[str, _File]]:
    found = []
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            found += _read(entry, f"{name}/")
            continue
        media = _TYPES.get("." + entry.name.rpartition(".")[2])
        if media is not None:
            body = entry.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:32]
            found.append((name, _File(body, media, f'"{digest}"')))
    return found
