"""What waits to be sent: bounded, events apart from notices."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from linnix_core import ProcessEvent

__all__ = ["MAX_NOTICES", "Waiting"]

#: Alerts, incidents, insights and feedback that wait; then the oldest go.
MAX_NOTICES = 1024

#: About what the rest of an event, and a notice, take in OTLP.
EVENT_BYTES = 600
NOTICE_BYTES = 4000


class Waiting:
    """Two queues with one end: notices go first, and no flood of events pushes one out.

    A batch that was taken counts as waiting until `done`; `back` puts it first again.
    """

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._changed = threading.Condition()
        self._events: deque[Any] = deque()
        self._notices: deque[Any] = deque()
        self._hand: tuple[list[Any], list[Any]] = ([], [])
        self._woken = False

    def __len__(self) -> int:
        with self._changed:
            return len(self._events) + len(self._notices) + sum(map(len, self._hand))

    def put_events(self, events: Sequence[Any]) -> int:
        """Add events; how many of the oldest had to go for them."""
        with self._changed:
            self._events.extend(events)
            self._changed.notify_all()
            return _trim(self._events, self._max_events)

    def put_notice(self, notice: Any) -> int:
        """Add a notice; how many of the oldest had to go for it."""
        with self._changed:
            self._notices.append(notice)
            self._changed.notify_all()
            return _trim(self._notices, MAX_NOTICES)

    def take(self, most: int, most_bytes: int) -> list[Any]:
        """The next batch, empty if nothing waits; notices first. `done` or `back` follows.

        Of what is larger than ``most_bytes`` by itself, one alone is taken.
        """
        with self._changed:
            notices, left = _pop(self._notices, most, most_bytes)
            # Only what comes after all notices may follow them.
            room = most - len(notices) if not self._notices else 0
            events, _ = _pop(self._events, room, left, first=not notices)
            self._hand = (notices, events)
            return notices + events

    def done(self) -> None:
        """The batch needs nobody any more."""
        with self._changed:
            self._hand = ([], [])
            self._changed.notify_all()

    def back(self) -> tuple[int, int]:
        """The batch waits again, before the others; how many events and notices had to go."""
        with self._changed:
            notices, events = self._hand
            self._hand = ([], [])
            self._notices.extendleft(reversed(notices))
            self._events.extendleft(reversed(events))
            return _trim(self._events, self._max_events), _trim(self._notices, MAX_NOTICES)

    def clear(self) -> tuple[int, int]:
        """Give up everything; how many events and notices that were."""
        with self._changed:
            notices, events = self._hand
            lost = len(events) + len(self._events), len(notices) + len(self._notices)
            self._hand = ([], [])
            self._events.clear()
            self._notices.clear()
            self._changed.notify_all()
            return lost

    def wait(self, seconds: float, enough: int) -> None:
        """Until so many events wait, or any notice, or `wake` was called; or the time is over."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._woken or len(self._events) >= enough or bool(self._notices),
                max(seconds, 0.0),
            )
            self._woken = False

    def wake(self) -> None:
        """End a `wait`, or the next one."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def wait_empty(self, seconds: float) -> bool:
        """Until nothing waits or the time is over; whether nothing does."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._events or self._notices or any(self._hand)), max(seconds, 0.0)
            )


def _trim(queue: deque[Any], most: int) -> int:
    dropped = max(len(queue) - most, 0)
    for _ in range(dropped):
        queue.popleft()
    return dropped


def _pop(
    queue: deque[Any], most: int, most_bytes: int, *, first: bool = True
) -> tuple[list[Any], int]:
    """Some of the oldest, the ``first`` whatever its size; and how many bytes are left."""
    popped: list[Any] = []
    while queue and len(popped) < most:
        size = _size(queue[0])
        if size > most_bytes and (popped or not first):
            break
        popped.append(queue.popleft())
        most_bytes -= size
    return popped, most_bytes


def _size(record: Any) -> int:
    """About how many bytes it becomes."""
    if type(record) is ProcessEvent:
        texts = sum(map(len, record.args or ())) + len(record.cwd or "") + len(record.exe or "")
        return EVENT_BYTES + texts
    return NOTICE_BYTES
