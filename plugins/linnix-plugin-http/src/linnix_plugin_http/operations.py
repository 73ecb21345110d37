"""Operations of the API: declared once, for routing, for checking requests and for the document.

The ``ask`` argument of an operation is a `msgspec.Struct` whose fields are the parameters
of path and query, ``body`` one that the request's JSON is read into.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import attrs
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from linnix_plugin_http.tokens import Scope

if TYPE_CHECKING:
    from linnix_plugin_http.api import Api

__all__ = ["OPERATIONS", "Operation", "Problem", "Reply", "Where", "in_pieces", "operation"]

#: Items of a long list, and bytes of a long answer, that are dealt with at once.
PIECE_ITEMS = 200
PIECE_BYTES = 256 * 1024

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
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

    @cached_property
    def _query(self) -> dict[str, bool]:
        """Parameters of the query, and whether each may be given several times."""
        return {
            field.encode_name: get_origin(_bare(field.type)) is list
            for field in msgspec.structs.fields(self.ask)
            if field.encode_name not in self.path_parameters
        }

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
        known = self._query
        for name, value in request.query_params.multi_items():
            if name not in known:
                raise Problem(
                    400,
                    f"{self.path} has no parameter {name[:40]!r}",
                    hint=f"it has {', '.join(sorted(known)) or 'none'}",
                )
            if known[name]:
                given.setdefault(name, []).append(value)
            else:
                given[name] = value
        try:
            return msgspec.convert(given, self.ask, strict=False)
        except msgspec.ValidationError as error:
            raise _invalid(error, self.ask) from None


def _bare(hint: Any) -> Any:
    return getattr(hint, "__origin__", hint) if hasattr(hint, "__metadata__") else hint


#: What people call the types of JSON.
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def _invalid(error: Exception, shape: Any) -> Problem:
    """``limit: expected a whole number >= 1`` from what msgspec says; the hint has the choices."""
    message, _, place = str(error).rpartition(" - at `$.")
    text = re.sub("`(.+?)`", _in_words, (message or str(error)).removesuffix(", got `str`"))
    if not message:
        return Problem(400, text)
    name = place.rstrip("`")
    return Problem(400, f"{name}: {text[0].lower()}{text[1:]}", hint=_choices(shape, name))


def _in_words(found: re.Match[str]) -> str:
    kinds = [kind for kind in found[1].split(" | ") if kind != "null"] or ["null"]
    return " or ".join(_WORDS.get(kind, kind) for kind in kinds)


def _choices(shape: Any, name: str) -> str | None:
    for field in msgspec.structs.fields(shape):
        for kind in (field.type, *get_args(field.type)):
            if field.encode_name == name and get_origin(kind) is Literal:
                return f"one of {', '.join(get_args(kind))}"
    return None


async def _read(request: Request, shape: Any) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also what keeps forms of foreign pages out: they cannot send this without asking.
        raise Problem(415, "the body must be JSON", hint="Content-Type: application/json")
    try:
        return msgspec.json.decode(await request.body(), type=shape)
    except msgspec.ValidationError as error:
        raise _invalid(error, shape) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from None


def _encoded(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    value = function(**arguments)
    reply = value if isinstance(value, Reply) else Reply(value)
    if callable(reply.value):  # an ASGI application, such as a stream
        return reply.value
    return _answer(reply.value, reply.status, reply.headers)


def _answer(value: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    body = memoryview(value) if isinstance(value, msgspec.Raw) else _json.encode(value)
    return _Answer(body, status, headers=headers, media_type="application/json")


class _Answer(Response):
    """Sends a long body in pieces: what the other side has not taken yet is not copied for it."""

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if len(self.body) <= PIECE_BYTES:
            await super().__call__(scope, receive, send)
            return
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        for at in range(0, len(self.body), PIECE_BYTES):
            piece = self.body[at : at + PIECE_BYTES]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            # Streams are written in between, and whoever has gone is noticed.
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})


def in_pieces(make: Callable[[Sequence[_T]], list[Any]], items: Sequence[_T]) -> Any:
    """The JSON of the list that ``make`` makes of the items, to be put where an answer holds it.

    It is made of some items at a time: other threads have their turn in between, and there are
    never all of what is made.
    """
    found = bytearray(b"[]")
    for at in range(0, len(items), PIECE_ITEMS):
        # Over the bracket that ends what there is.
        end = len(found) - 1 if at else 0
        _json.encode_into(make(items[at : at + PIECE_ITEMS]), found, end)
        if at:
            found[end] = ord(",")
    return msgspec.Raw(found)


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
