"""When a record is due: as recorded, several times faster, or at once."""

from __future__ import annotations

from linnix_core import Clock, Record
from linnix_plugin_replay.config import Speed

__all__ = ["Pace"]

#: Recorded nanoseconds after which a pause is none: the host slept, or its clock was set.
MAX_PAUSE_NS = 600 * 10**9

#: Records come nearly in order; one that is older than this shows that the clock was set back.
SET_BACK_NS = 60 * 10**9

#: Seconds by which it may be late before it stops trying to catch up.
MAX_LATE_S = 1.0


class Pace:
    """Follows the time in the records; nothing is waited for between two recorded runs."""

    def __init__(self, speed: Speed, clock: Clock) -> None:
        self._speed = None if speed == "max" else float(speed)
        self._clock = clock
        self._run_id: str | None = None
        self._last_ns = 0
        self._due = 0.0

    def seconds_until(self, record: Record) -> float:
        """How long to wait before the record is handed over; 0 or less is not at all."""
        if self._speed is None:
            return 0.0
        now = self._clock.monotonic()
        passed_ns = record.ts_ns - self._last_ns
        self._due = max(self._due, now - MAX_LATE_S)
        if record.run_id != self._run_id:
            self._run_id, self._last_ns, self._due = record.run_id, record.ts_ns, now
        elif passed_ns > 0 or passed_ns < -SET_BACK_NS:
            self._last_ns = record.ts_ns
            if 0 < passed_ns <= MAX_PAUSE_NS:
                self._due += passed_ns / 1e9 / self._speed
        return self._due - now
