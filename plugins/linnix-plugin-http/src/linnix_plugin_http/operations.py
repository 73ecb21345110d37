"""Operations of the API: declared once, for routing, for checking requests and for the document.

The ``ask`` argument of an operation is a `msgspec.Struct` whose fields are the parameters
of path and query, ``body`` one that the request's JSON is read into.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_origin, get_type_hints

import attrs
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from linnix_plugin_http.tokens import Scope

if TYPE_CHECKING:
    from linnix_plugin_http.api import Api

__all__ = ["OPERATIONS", "Operation", "Problem", "Reply", "Where", "operation"]

_F = TypeVar("_F", bound=Callable[..., Any])
_json = msgspec.json.Encoder()


class Problem(Exception):
    """A request that cannot be answered as it was asked; its message is a sentence."""

    def __init__(self, status: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint

    def response(self) -> Response:
        """As JSON, with the keys of `shapes.Refusal`."""
        return _answer({"error": str(self), "hint": self.hint}, self.status)


@attrs.frozen
class Reply:
    """An answer with something besides its value."""

    value: Any
    headers: dict[str, str] = attrs.field(factory=dict)
    status: int = 200


@attrs.frozen
class Where:
    """What an operation that streams needs of the headers."""

    accept: str
    last_event_id: str | None


@attrs.frozen
class Operation:
    """One method of one path."""

    method: str
    path: str
    function: Callable[..., Any]
    scope: Scope
    ask: Any
    body: Any
    returns: Any
    statuses: tuple[int, ...]
    media: str
    blocking: bool
    wants_where: bool
    tag: str

    @property
    def path_parameters(self) -> frozenset[str]:
        """Names of the parameters that are part of the path."""
        return frozenset(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    async def __call__(self, api: Api, request: Request) -> Any:
        """Answer a request. Raises `Problem`."""
        arguments: dict[str, Any] = {"api": api}
        if self.ask is not None:
            arguments["ask"] = self._asked(request)
        if self.body is not None:
            arguments["body"] = await _read(request, self.body)
        if self.wants_where:
            arguments["where"] = Where(
                request.headers.get("accept", ""), request.headers.get("last-event-id")
            )
        if self.blocking:
            value = await run_in_threadpool(_encoded, self.function, arguments)
        else:
            value = _encoded(self.function, arguments)
        return value

    def _asked(self, request: Request) -> Any:
        given: dict[str, Any] = dict(request.path_params)
        fields = {field.encode_name: field for field in msgspec.structs.fields(self.ask)}
        known = fields.keys() - self.path_parameters
        for name, value in request.query_params.multi_items():
            if name not in known:
                raise Problem(
                    400,
                    f"{self.path} has no parameter {name[:40]!r}",
                    hint=f"it has {', '.join(sorted(known)) or 'none'}",
                )
            if get_origin(_bare(fields[name].type)) is list:
                given.setdefault(name, []).append(value)
            else:
                given[name] = value
        try:
            return msgspec.convert(given, self.ask, strict=False)
        except msgspec.ValidationError as error:
            raise Problem(400, _said(error)) from None


def _bare(hint: Any) -> Any:
    return getattr(hint, "__origin__", hint) if hasattr(hint, "__metadata__") else hint


def _said(error: Exception) -> str:
    """``limit: expected int >= 1`` from what msgspec says."""
    message, _, place = str(error).rpartition(" - at `$.")
    text = (message or str(error)).replace("`", "")
    return f"{place.rstrip('`')}: {text[0].lower()}{text[1:]}" if message else text


async def _read(request: Request, shape: Any) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also what keeps forms of foreign pages out: they cannot send this without asking.
        raise Problem(415, "the body must be JSON", hint="Content-Type: application/json")
    try:
        return msgspec.json.decode(await request.body(), type=shape)
    except msgspec.ValidationError as error:
        raise Problem(400, _said(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from None


def _encoded(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    value = function(**arguments)
    reply = value if isinstance(value, Reply) else Reply(value)
    if callable(reply.value):  # an ASGI application, such as a stream
        return reply.value
    return _answer(reply.value, reply.status, reply.headers)


def _answer(value: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(_json.encode(value), status, headers=headers, media_type="application/json")


#: In the order in which their paths are tried.
OPERATIONS: list[Operation] = []


def operation(
    method: Literal["GET", "POST"],
    path: str,
    *,
    scope: Scope = "read",
    returns: Any = None,
    statuses: tuple[int, ...] = (),
    media: str = "application/json",
    blocking: bool = False,
) -> Callable[[_F], _F]:
    """Make a function an operation; its docstring is what the document says of it.

    ``blocking`` ones are called in a thread of a pool: they look at many things, or ask
    other plugins. ``returns`` stands for the annotation where that says `Reply`, and
    ``statuses`` are refusals of its own.
    """

    def register(function: _F) -> _F:
        hints = get_type_hints(function, include_extras=True)
        OPERATIONS.append(
            Operation(
                method=method,
                path=path,
                function=function,
                scope=scope,
                ask=hints.get("ask"),
                body=hints.get("body"),
                returns=returns if returns is not None else hints.get("return"),
                statuses=statuses,
                media=media,
                blocking=blocking,
                wants_where="where" in inspect.signature(function).parameters,
                tag=function.__module__.rpartition(".")[2],
            )
        )
        return function

    return register
