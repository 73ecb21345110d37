"""The application: operations, the dashboard, and what other plugins offer."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import linnix_plugin_http.routes  # noqa: F401 - registers the operations
from linnix_core import Mount
from linnix_plugin_http.api import Api
from linnix_plugin_http.openapi import document
from linnix_plugin_http.operations import OPERATIONS, Operation, Problem
from linnix_plugin_http.pages import PREFIX, Pages

__all__ = ["App"]

#: Seconds for which the mounts of other plugins are taken as known.
MOUNTS_S = 10.0

#: Without a token: they say whether the agent is there, and are files that everybody has.
_OPEN = frozenset({"/healthz", "/readyz", "/", "/dashboard", "/favicon.ico"})

#: Who would answer what nobody answers here.
_ELSEWHERE = {
    "/metrics/prometheus": "linnix-plugin-prometheus",
    "/attribution": "linnix-plugin-attribution",
}


class App:
    """Finds who answers a request (ASGI 3)."""

    def __init__(self, api: Api, logger: logging.Logger) -> None:
        self._api = api
        self._logger = logger
        self._pages = Pages() if api.config.dashboard else None
        self._mounts: Sequence[Mount] = ()
        self._mounts_due = 0.0
        self._document: bytes | None = None
        self._plain: dict[str, list[Operation]] = {}
        self._patterns: list[tuple[re.Pattern[str], list[Operation]]] = []
        by_path: dict[str, list[Operation]] = {}
        for each in OPERATIONS:
            by_path.setdefault(each.path, []).append(each)
        for path, operations in by_path.items():
            if "{" in path:
                pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
                self._patterns.append((re.compile(pattern), operations))
            else:
                self._plain[path] = operations

    def required(self, method: str, path: str) -> str | None:
        """The scope that a request needs; None for none."""
        if path in _OPEN or path.startswith(PREFIX):
            return None
        for each in self._operations(path)[0]:
            if each.method == method:
                return each.scope
        return "read" if method in ("GET", "HEAD") else "act"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began = False

        async def watched(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            answer = await self._answer(scope, Request(scope, receive))
            await answer(scope, receive, watched)
        except ClientDisconnect:
            return
        except Problem as problem:
            if began:
                raise
            await problem.response()(scope, receive, watched)
        except Exception:
            self._logger.exception("%s %s failed", scope["method"], scope["path"])
            if not began:
                said = {"error": "something went wrong here", "hint": "the agent's log says what"}
                await JSONResponse(said, 500)(scope, receive, watched)

    async def _answer(self, scope: Scope, request: Request) -> ASGIApp:
        path, method = scope["path"], scope["method"]
        if path == "/openapi.json":
            if method not in ("GET", "HEAD"):
                return _not_allowed(["GET"])
            if self._document is None:
                self._document = await run_in_threadpool(document)
            return Response(self._document, media_type="application/json")
        operations, parameters = self._operations(path)
        if operations:
            for each in operations:
                if each.method == method or (each.method == "GET" and method == "HEAD"):
                    scope["path_params"] = parameters
                    answer: ASGIApp = await each(self._api, request)
                    return answer
            return _not_allowed([each.method for each in operations])
        if self._pages is not None and (page := self._pages.serve(request)) is not None:
            return page if method in ("GET", "HEAD") else _not_allowed(["GET"])
        # What needs no token is the dashboard's alone.
        mount = None if self.required(method, path) is None else await self._mounted(path)
        if mount is None:
            raise _unknown(path)
        return _Below(mount)

    def _operations(self, path: str) -> tuple[list[Operation], dict[str, str]]:
        if path in self._plain:
            return self._plain[path], {}
        for pattern, operations in self._patterns:
            if match := pattern.fullmatch(path):
                return operations, match.groupdict()
        return [], {}

    async def _mounted(self, path: str) -> Mount | None:
        found = _covering(self._mounts, path)
        if found is None and time.monotonic() >= self._mounts_due:
            self._mounts = await run_in_threadpool(self._api.context.mounts)
            self._mounts_due = time.monotonic() + MOUNTS_S
            found = _covering(self._mounts, path)
        return found


class _Below:
    """An application below the path that it is mounted at."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = self._mount.path.rstrip("/")
        path = scope["path"] if scope["path"] != prefix else f"{prefix}/"
        below = {**scope, "root_path": scope.get("root_path", "") + prefix, "path": path}
        await self._mount.app(below, receive, send)


def _covering(mounts: Sequence[Mount], path: str) -> Mount | None:
    """The one with the longest path that the path is, or is below of."""
    fitting = [
        mount
        for mount in mounts
        if path == (prefix := mount.path.rstrip("/")) or path.startswith(f"{prefix}/")
    ]
    return max(fitting, key=lambda mount: len(mount.path), default=None)


def _not_allowed(methods: Sequence[str]) -> Response:
    names = ", ".join(dict.fromkeys((*methods, *(["HEAD"] if "GET" in methods else []))))
    response = Problem(405, f"only {names} is possible here").response()
    response.headers["allow"] = names
    return response


def _unknown(path: str) -> Problem:
    if path in _ELSEWHERE:
        package = _ELSEWHERE[path]
        return Problem(
            404, f"{path} is served by {package}, which does not run", hint=f"pip install {package}"
        )
    return Problem(404, "Not found", hint="/openapi.json lists what there is")
