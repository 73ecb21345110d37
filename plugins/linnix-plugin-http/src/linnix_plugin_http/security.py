"""Who gets in: Host and Origin, tokens, and what one request may cost.

Outermost of the application, so that nothing that is behind it has to remember any of this.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from linnix_plugin_http.operations import Problem
from linnix_plugin_http.tokens import ANYONE, Token, allowed_by

__all__ = ["CSP", "Gate"]

#: No inline script or style, nothing from elsewhere, no frame around it.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)

#: Seconds in which the body of a request has to be there.
BODY_S = 20.0

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": CSP,
}
_SAFE = frozenset({"GET", "HEAD"})


class Gate:
    """Lets through to ``app`` what may pass.

    ``scope["linnix_scopes"]`` holds what the caller may do. ``required`` says which of it a
    request needs, None for nothing; ``local`` whether only this machine can come here.
    ``names`` are the hosts that people may call this server; None for a unix socket.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        required: Callable[[str, str], str | None],
        tokens: Iterable[Token],
        names: Iterable[str] | None,
        local: bool,
        max_body: int,
    ) -> None:
        self._app = app
        self._required = required
        self._tokens = tuple(tokens)
        self._names = None if names is None else frozenset(name.lower() for name in names)
        self._anyone = ANYONE if local else frozenset({"read"})
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        began = False

        async def guarded_send(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                ours = MutableHeaders(raw=list(message.setdefault("headers", [])))
                for name, value in _HEADERS.items():
                    ours.setdefault(name, value)
                ours.setdefault("cache-control", "no-store")
                ours.setdefault("date", formatdate(usegmt=True))
                message["headers"] = ours.raw
            await send(message)

        try:
            self._check_host(headers)
            self._check_origin(scope["method"], headers)
            scope["linnix_scopes"] = self._admit(scope, headers)
            self._check_length(headers)
            await self._app(scope, self._bounded(receive), guarded_send)
        except Problem as problem:
            if began:
                raise
            response = problem.response()
            if problem.status == 401:
                response.headers["www-authenticate"] = 'Bearer realm="linnix"'
            if problem.status in (408, 413):
                # What still comes of it is nobody's.
                response.headers["connection"] = "close"
            await response(scope, receive, guarded_send)

    # --- where it comes from ----------------------------------------------------------

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """A page of a foreign name that leads here (DNS rebinding) says that name."""
        if self._names is None:
            return
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if name.lower().rstrip(".") in self._names or _is_address(name):
            return
        raise Problem(
            421,
            f"this server is not called {name[:100]!r}",
            hint="allowed_hosts names those that people reach it under",
        )

    @staticmethod
    def _check_origin(method: str, headers: Mapping[str, str]) -> None:
        """Pages of other origins may look at nothing and change nothing."""
        if method in _SAFE:
            return
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if origin is not None and urlsplit(origin).netloc != headers.get("host", ""):
            foreign = True
        if foreign:
            raise Problem(
                403,
                "requests of other pages are not taken",
                hint="a proxy in front of this server has to pass Host on",
            )

    # --- who it is --------------------------------------------------------------------

    def _admit(self, scope: Scope, headers: Mapping[str, str]) -> frozenset[str]:
        required = self._required(scope["method"], scope["path"])
        scopes = self._anyone
        if self._tokens:
            kind, _, given = headers.get("authorization", "").partition(" ")
            scopes = frozenset()
            if kind.lower() == "bearer" and given:
                scopes = allowed_by(self._tokens, given.strip())
            if required is not None and not scopes:
                raise Problem(401, "a token is needed", hint="Authorization: Bearer TOKEN")
        if required is not None and required not in scopes:
            raise Problem(403, f"this needs a token with the scope {required}")
        return scopes

    # --- what it brings ---------------------------------------------------------------

    def _check_length(self, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:20]) > self._max_body:
            raise self._too_large()

    def _too_large(self) -> Problem:
        return Problem(413, f"a body has at most {self._max_body} bytes", hint="max_body")

    def _bounded(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        taken = 0
        more = True

        async def bounded() -> Message:
            nonlocal taken, more
            if not more:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), BODY_S)
            except TimeoutError:
                raise Problem(408, f"the body did not come within {BODY_S:g} s") from None
            taken += len(message.get("body", b""))
            more = bool(message.get("more_body", False))
            if taken > self._max_body:
                raise self._too_large()
            return message

        return bounded


def _is_address(name: str) -> bool:
    """Whether it is an address: whoever says that has asked no name server."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
