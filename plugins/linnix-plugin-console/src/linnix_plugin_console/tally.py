"""How much of what came: counts, rates, losses, and the machine as it was last measured."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from linnix_core import Loss, ProcessEvent, ProcessSample, Record, SystemSample

__all__ = ["Rates", "Tally"]

#: What the header of the live view shows of a machine.
_MEASURES = (
    "cpu_percent",
    "memory_total_bytes",
    "memory_available_bytes",
    "load1",
    "psi_cpu",
    "psi_memory",
    "psi_io",
)


class Tally:
    """Counts in the handler's thread, read in the thread that shows them.

    Counts of events leave out ``seen``: such a process was there before anyone looked.
    """

    def __init__(self) -> None:
        self.alerts = 0
        self.incidents = 0
        #: Grows when the process table may look different.
        self.moves = 0
        self._lock = threading.Lock()
        self._events = {"seen": 0, "fork": 0, "exec": 0, "exit": 0, "oom": 0}
        self._losses: dict[tuple[str, str], int] = {}
        self._machine: SystemSample | None = None

    def add(self, records: Iterable[Record]) -> list[Loss]:
        """Count a batch and return the losses that it reports."""
        losses = []
        with self._lock:
            events = self._events
            moves = 0
            for record in records:
                kind = type(record)
                if kind is ProcessEvent:
                    events[record.kind] += 1  # type: ignore[union-attr]
                    moves = 1
                elif kind is ProcessSample:
                    moves = 1
                elif isinstance(record, Loss):
                    self._losses[record.component, record.why] = record.lost_total
                    if record.lost:
                        losses.append(record)
                elif isinstance(record, SystemSample):
                    self._measure(record)
            self.moves += moves
        return losses

    def events(self) -> dict[str, int]:
        """Events so far, by kind."""
        with self._lock:
            counts = dict(self._events)
        del counts["seen"]
        return counts

    def losses(self) -> dict[tuple[str, str], int]:
        """Records lost so far, by component and reason."""
        with self._lock:
            return {where: count for where, count in self._losses.items() if count}

    @property
    def lost(self) -> int:
        """Records lost so far, of all components together."""
        return sum(self.losses().values())

    @property
    def machine(self) -> SystemSample | None:
        """The latest of every measure: several collectors may each know a part."""
        return self._machine

    def _measure(self, sample: SystemSample) -> None:
        known: dict[str, Any] = {
            name: value for name in _MEASURES if (value := getattr(sample, name)) is not None
        }
        self._machine = attrs.evolve(self._machine or SystemSample(interval_ns=0), **known)


class Rates:
    """Events per second of each kind, over the last ``window_s`` seconds.

    >>> rates = Rates(5.0, now=0.0)
    >>> rates.update(2.0, {"fork": 8})
    {'fork': 4.0}
    >>> rates.update(10.0, {"fork": 8})
    {'fork': 0.0}
    """

    def __init__(self, window_s: float, now: float) -> None:
        self._window_s = window_s
        self._points: deque[tuple[float, Mapping[str, int]]] = deque([(now, {})])

    def update(self, now: float, counts: Mapping[str, int]) -> dict[str, float]:
        """Take what was counted by ``now``, in seconds of any clock that never goes back."""
        points = self._points
        points.append((now, counts))
        while len(points) > 2 and points[1][0] <= now - self._window_s:
            points.popleft()
        then, before = points[0]
        elapsed = now - then
        if elapsed <= 0:
            return dict.fromkeys(counts, 0.0)
        return {kind: (count - before.get(kind, 0)) / elapsed for kind, count in counts.items()}
