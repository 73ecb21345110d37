"""Questions to a server that are no JSON: files, forms, other methods than GET and POST."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from linnix_plugin_openai import Answered, Exchange

if TYPE_CHECKING:
    import httpx

__all__ = ["Wire"]


class Wire(Exchange):
    """An `Exchange` that sends any content with any method; ``headers`` go with everything.

    No redirect is followed: it is an answer like any other, and no key travels elsewhere.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, **keys: Any) -> None:
        super().__init__(url, **keys)
        self._http.headers.update(headers or {})
        # An exchange asks in JSON only; what is asked otherwise is put in its place.
        self._content = threading.local()
        self._http.event_hooks = {"request": [self._replace]}

    def send(
        self,
        method: str,
        url: str,
        timeout_s: float,
        content: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """The answer to that. Raises `NoAnswer`."""
        self._content.now = method, content, dict(headers or {})
        try:
            return self.post(url, {}, timeout_s)
        finally:
            self._content.now = None

    def _replace(self, request: httpx.Request) -> None:
        now = getattr(self._content, "now", None)
        if now is None:
            return
        import httpx

        method, content, headers = now
        kept = {
            name: value
            for name, value in request.headers.items()
            if name not in ("content-length", "content-type")
        }
        made = httpx.Request(method, request.url, headers={**kept, **headers}, content=content)
        request.method, request.headers, request.stream = method, made.headers, made.stream
