"""What happens, as it happens."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.concurrency import run_in_threadpool

from linnix_core import Alert
from linnix_plugin_http.api import Api, as_json
from linnix_plugin_http.operations import Problem, Reply, Where, in_pieces, operation
from linnix_plugin_http.routes.alerts import Between, found
from linnix_plugin_http.routes.processes import Selection, chosen
from linnix_plugin_http.sse import PushResponse, StreamResponse
from linnix_plugin_http.stream import KINDS, TYPES, Filter

__all__ = ["filter_of"]

#: Seconds between two looks at the living.
LIVE_S = 2.0

#: Processes of one look, where nobody asks for another number.
LIVE_PROCESSES = 1000

_SSE = "text/event-stream"


class Streamed(Struct, kw_only=True):
    """Which records."""

    type: Annotated[
        str,
        Meta(description=f"comma separated: all, {', '.join((*TYPES, *KINDS))}"),
    ] = "event"
    pid: Annotated[str | None, Meta(description="comma separated")] = None
    comm: Annotated[str, Meta(max_length=256, description="may have * and ?")] | None = None
    cgroup: (
        Annotated[str, Meta(max_length=4096, description="it and those below; may have * and ?")]
        | None
    ) = None
    last_event_id: Annotated[
        str | None, Meta(description="like the header Last-Event-ID, for clients that set none")
    ] = None
    run: Annotated[
        str | None, Meta(description="run_id in which that id was seen, from the event hello")
    ] = None


class AlertsAsked(Between, kw_only=True):
    """Which alerts, and from where on."""

    last_event_id: str | None = None
    run: str | None = None


def filter_of(ask: Streamed) -> Filter:
    """What a request wants to read. Raises `Problem`."""
    names = frozenset(part.strip() for part in ask.type.split(",") if part.strip())
    if "all" in names:
        names = (names | frozenset(TYPES)) - {"all"}
    if strange := sorted(names - {*TYPES, *KINDS}) or ([] if names else [""]):
        raise Problem(
            400,
            f"type: {strange[0][:40]!r} is no type of record",
            hint=f"all, {', '.join((*TYPES, *KINDS))}",
        )
    pids = None
    if ask.pid is not None:
        parts = ask.pid.split(",")
        if not all(p.isascii() and p.isdigit() and len(p) < 11 for p in parts):
            raise Problem(400, f"pid: expected numbers and commas, got {ask.pid[:80]!r}")
        pids = frozenset(map(int, parts))
    return Filter(types=names, pids=pids, comm=ask.comm, cgroup=ask.cgroup)


@operation("GET", "/events", media=_SSE, returns=str)
@operation("GET", "/stream", media=_SSE, returns=str)
def stream(api: Api, ask: Streamed, where: Where) -> Any:
    """Records as server-sent events; their ``id`` is the number of the record in the run.

    ``hello`` comes first (run_id, host, newest, oldest), ``lost`` when the history no longer has
    all that came after ``Last-Event-ID``, ``bye`` when the agent stops. An event of a process
    is called by its kind, any other record by its type.
    """
    return _streamed(api, filter_of(ask), where, ask.last_event_id, ask.run)


@operation("GET", "/alerts", returns=list[Alert], blocking=True)
def alerts(api: Api, ask: AlertsAsked, where: Where) -> Reply:
    """Alerts: as they come (server-sent events), or with ``Accept: application/json`` a list."""
    if "application/json" in where.accept and _SSE not in where.accept:
        return Reply([as_json(alert) for alert in found(api, ask)])
    wanted = Filter(types=frozenset({"alert"}))
    return Reply(_streamed(api, wanted, where, ask.last_event_id, ask.run))


@operation("GET", "/processes/live", media=_SSE, returns=str, blocking=True)
def live(api: Api, ask: Selection) -> Any:
    """Every two seconds an event ``processes`` with those who live, at most 1000 by default."""
    ask.limit = ask.limit or LIVE_PROCESSES
    chosen(api, ask)  # what is wrong is said before it begins

    def look() -> bytes:
        page, total, measure = chosen(api, ask)
        data = {
            "event": "update",
            "total": total,
            "processes": in_pieces(measure.shapes, page),
        }
        return b"event: processes\ndata: %b\n\n" % msgspec.json.encode(data)

    async def make() -> bytes:
        return await run_in_threadpool(look)

    _room(api)
    return PushResponse(api.stream, make, every_s=LIVE_S)


def _streamed(
    api: Api, wanted: Filter, where: Where, last_id: str | None, run: str | None
) -> StreamResponse:
    given = where.last_event_id if where.last_event_id is not None else last_id
    number = None
    if given:
        if not (given.isascii() and given.isdigit() and len(given) < 20):
            raise Problem(400, f"Last-Event-ID: expected a number, got {given[:40]!r}")
        number = int(given)
    _room(api)
    return StreamResponse(
        api.stream,
        wanted,
        hello={"run_id": api.context.run_id, "host": api.context.host},
        last_id=number,
        same_run=run in (None, api.context.run_id),
        keep_alive_s=api.config.keep_alive,
    )


def _room(api: Api) -> None:
    if len(api.stream) >= api.config.max_subscribers:
        raise Problem(
            503,
            f"{len(api.stream)} streams are being read already",
            hint="max_subscribers allows more",
        )
