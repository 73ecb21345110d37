"""Server-sent events (HTML standard, section 9.2): one response that does not end by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from linnix_plugin_http.stream import Beginning, Filter, Stream

__all__ = ["RETRY_MS", "PushResponse", "StreamResponse", "event"]

#: How long a client waits before it comes back.
RETRY_MS = 2000

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def event(name: str, data: Any) -> bytes:
    """An event without a number: it is no record, and nothing to come back to."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


_ALIVE = b": keep-alive\n"
_BYE = event("bye", {"reason": "the agent stops"})


class _Endless:
    """Writes chunks until the other side or this one has had enough."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it (ASGI 3)."""
        # First of all: whoever has seen the head of the answer misses nothing from then on.
        began = self._subscribe()
        subscriber = began.subscriber
        subscriber.abort = scope.get("linnix_abort", subscriber.abort)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["method"] != "HEAD":
                gone = asyncio.create_task(_gone(receive))
                writing = asyncio.create_task(self._write(began, send))
                try:
                    await asyncio.wait({gone, writing}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (gone, writing):
                        task.cancel()
                        with suppress(asyncio.CancelledError, OSError):
                            await task
            # Where the connection has ended, nobody gets to see this.
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._stream.unsubscribe(subscriber)

    def _subscribe(self) -> Beginning:
        raise NotImplementedError

    async def _write(self, began: Beginning, send: Send) -> None:
        raise NotImplementedError


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _push(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


class StreamResponse(_Endless):
    """The records that one client wants, from now on or from where it left off."""

    def __init__(
        self,
        stream: Stream,
        wanted: Filter,
        *,
        hello: dict[str, Any],
        last_id: int | None = None,
        same_run: bool = True,
        keep_alive_s: float = 10.0,
    ) -> None:
        super().__init__(stream)
        self._wanted = wanted
        self._hello = hello
        self._last_id = last_id
        self._same_run = same_run
        self._keep_alive_s = keep_alive_s

    def _subscribe(self) -> Beginning:
        return self._stream.subscribe(self._wanted, self._last_id, self._same_run)

    async def _write(self, began: Beginning, send: Send) -> None:
        stream, subscriber = self._stream, began.subscriber
        loop = asyncio.get_running_loop()
        await _push(send, self._greeting(began))
        silent_until = loop.time() + self._keep_alive_s
        while not subscriber.dropped:
            # Before the look: what comes after it wakes again.
            subscriber.wake.clear()
            chunk = stream.take(subscriber)
            if chunk:
                await _push(send, chunk)
            elif stream.closed:
                await _push(send, _BYE)
                return
            elif await _woken(subscriber.wake, silent_until - loop.time()):
                # What woke them may be for others only, who knows how long.
                continue
            else:
                # Of what was not for them they need not ask again.
                seen = stream.seen(subscriber)
                await _push(send, _ALIVE + (b"\n" if seen is None else b"id: %d\n\n" % seen))
            silent_until = loop.time() + self._keep_alive_s

    def _greeting(self, began: Beginning) -> bytes:
        said = {**self._hello, "newest": began.newest, "oldest": began.oldest}
        greeting = b"retry: %d\n" % RETRY_MS
        if self._last_id is None:
            # So that who is cut off before anything came misses nothing, either.
            greeting += b"id: %d\n" % began.newest
        greeting += event("hello", said)
        if began.why:
            missing = {"after": self._last_id, "lost": began.lost, "why": began.why}
            greeting += event("lost", missing)
        return greeting


class PushResponse(_Endless):
    """What ``make`` returns, again every ``every_s`` seconds."""

    def __init__(
        self, stream: Stream, make: Callable[[], Awaitable[bytes]], *, every_s: float
    ) -> None:
        super().__init__(stream)
        self._make = make
        self._every_s = every_s

    def _subscribe(self) -> Beginning:
        # A place in the stream without wanting any record: it counts, and is woken at the end.
        return self._stream.subscribe(Filter(types=frozenset()), None)

    async def _write(self, began: Beginning, send: Send) -> None:
        stream, subscriber = self._stream, began.subscriber
        await _push(send, b"retry: %d\n\n" % RETRY_MS)
        loop = asyncio.get_running_loop()
        while not stream.closed:
            due = loop.time() + self._every_s
            await _push(send, await self._make())
            while not stream.closed and (left := due - loop.time()) > 0:
                subscriber.wake.clear()
                stream.take(subscriber)
                await _woken(subscriber.wake, left)
        await _push(send, _BYE)


async def _woken(wake: asyncio.Event, seconds: float) -> bool:
    try:
        # Not `wait_for`: that makes a task each time (before Python 3.12).
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return False
    return True
