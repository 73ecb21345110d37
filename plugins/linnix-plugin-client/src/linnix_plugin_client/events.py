"""Server-sent events that survive the loss of the connection."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import attrs
import httpx
from httpx_sse import ServerSentEvent, SSEError, connect_sse

from linnix_core import LinnixError
from linnix_plugin_client.agent import Agent, NoAnswer, not_linnix, read, without_none
from linnix_plugin_client.shown import count

__all__ = ["Event", "bounded", "follow"]

#: Seconds without a sign of life: agents send a comment at least every ten.
SILENCE_S = 35.0

#: Seconds between two attempts: the first, and the most it grows to.
RETRY_S = (0.5, 10.0)

#: Bytes that may come without the end of a line.
MAX_LINE = 8 * 2**20


@attrs.frozen
class Event:
    """One event: its name (``message`` where it has none) and its data."""

    name: str
    data: dict[str, Any]


def follow(
    agent: Agent,
    path: str,
    query: Mapping[str, Any],
    *,
    say: Callable[[str], None],
) -> Generator[Event, None, None]:
    """The events at ``path``, for ever: after a break from where it was, as far as kept.

    Each connection begins with an event ``hello``. The first one must succeed. Later breaks
    are told to ``say`` once and mended, and so are records that the agent no longer has; an
    agent that refuses ends it with that error.
    """
    last_id, run_id = "", None
    connected, broken = False, False
    pause = RETRY_S[0]
    while True:
        why = f"the agent at {agent.url} has ended the stream"
        try:
            with _connected(agent, path, {**query, "run": run_id}, last_id) as source:
                if broken:
                    say("the agent is back")
                connected, broken, pause = True, False, RETRY_S[0]
                for sse in source:
                    last_id = sse.id or last_id
                    if sse.retry is not None:
                        pause = min(sse.retry / 1000, RETRY_S[1])
                    if not sse.data:
                        continue
                    event = Event(sse.event, _decoded(agent, sse.data))
                    if event.name == "hello":
                        run_id = event.data["run_id"]
                    elif event.name == "bye":
                        why = f"the agent at {agent.url} has ended the stream: {_reason(event)}"
                    elif event.name == "lost":
                        say(_lost(event))
                    yield event
        except NoAnswer as error:
            if not connected:
                raise
            why = str(error)
        if not broken:
            broken = True
            say(f"{why}; trying again until it is back")
        wait(pause)
        pause = min(max(pause, 0.05) * 2, RETRY_S[1])


def wait(seconds: float) -> None:
    """Wait about so long: an agent that is back is not asked by all clients at once."""
    time.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311


def _decoded(agent: Agent, data: str) -> dict[str, Any]:
    document = None
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(data)
    if not isinstance(document, dict):
        raise not_linnix(agent, "an event is no JSON object")
    return document


def _reason(event: Event) -> str:
    return str(event.data.get("reason") or "no reason given")


def _lost(event: Event) -> str:
    number, why = event.data.get("lost"), event.data.get("why")
    many = "Records" if number is None else f"Up to {count(number, 'record')}"
    return f"{many} in between cannot be had any more: {why or 'no reason given'}"


@contextlib.contextmanager
def _connected(
    agent: Agent, path: str, query: Mapping[str, Any], last_id: str
) -> Iterator[Iterator[ServerSentEvent]]:
    # Not on a connection that is left from before: its other end may be about to go.
    headers = {"connection": "close", **({"last-event-id": last_id} if last_id else {})}
    timeout = httpx.Timeout(agent.timeout_s, read=SILENCE_S)
    with (
        agent.complaining(),
        connect_sse(
            agent.http, "GET", path, params=without_none(query), headers=headers, timeout=timeout
        ) as source,
    ):
        response = source.response
        if not response.is_success:
            agent.check(response, read(response))
        bounded(response)
        try:
            yield source.iter_sse()
        except httpx.ReadTimeout:
            raise NoAnswer(
                f"the agent at {agent.url} has been silent for {SILENCE_S:g} s"
            ) from None
        except SSEError:
            raise not_linnix(agent, f"{path} is no stream of events") from None


def bounded(response: httpx.Response) -> None:
    """Have a response broken off that goes on and on without the end of a line."""
    stream = response.stream
    if isinstance(stream, httpx.SyncByteStream):
        response.stream = _ShortLines(stream)


class _ShortLines(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream) -> None:
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        length = 0
        for part in self._inner:
            end = max(part.rfind(b"\n"), part.rfind(b"\r"))
            length = length + len(part) if end < 0 else len(part) - end
            if length > MAX_LINE:
                raise LinnixError(f"an event is longer than {MAX_LINE >> 20} MiB")
            yield part

    def close(self) -> None:
        self._inner.close()
