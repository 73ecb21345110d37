"""The collector: lines become records again, and come when they are due."""

from __future__ import annotations

import zlib
from collections import deque
from threading import Event

from linnix_core import (
    Alert,
    Context,
    Feedback,
    Health,
    Incident,
    Insight,
    Record,
    Sink,
    decode,
    hookimpl,
)
from linnix_plugin_replay.blocks import MAX_LINE_BYTES, read_lines
from linnix_plugin_replay.config import ReplayConfig
from linnix_plugin_replay.pace import Pace
from linnix_plugin_replay.parts import STANDARD_INPUT, Part, open_parts
from linnix_plugin_replay.tally import Tally

__all__ = ["ReplayCollector"]

#: Seconds by which a record may come early, so that many share one wait.
SLACK_S = 0.01

#: Records that may wait for one handler while more are read, and when everything was.
MAX_WAITING = 4096
MAX_WAITING_AT_END = 256

#: Seconds between two looks at what still waits.
LOOK_EVERY_S = 0.002

#: The first moment that ``ts_ns`` cannot be: a signed 64-bit number, as everybody stores it.
END_OF_TIME_NS = 2**63


class ReplayCollector:
    """Play back recorded JSON lines, as fast as possible or as fast as they were recorded."""

    Config = ReplayConfig

    def __init__(self, config: ReplayConfig, context: Context) -> None:
        # Absolute, so that a later change of the working directory moves nothing.
        self._paths = [path if path == STANDARD_INPUT else path.absolute() for path in config.paths]
        self._rotated = config.rotated
        self._pace = Pace(config.speed, context.clock)
        self._logger = context.logger
        self._components = context.components
        self._parts: deque[Part] = deque()
        self._tally = Tally()

    @hookimpl
    def linnix_start(self) -> None:
        """Find and open every file."""
        for path in self._paths:
            self._parts += open_parts(path, rotated=self._rotated)

    @hookimpl
    def linnix_collect(self, sink: Sink, stop: Event) -> None:
        """Play one file after the other, then return."""
        try:
            while self._parts and not stop.is_set():
                self._play(self._parts.popleft(), sink, stop)
            self._wait_for_handlers(MAX_WAITING_AT_END, stop)
        finally:
            # Not before: a loss is of today, and would tell those who go by the time of the
            # records that the clock was set.
            if self._tally.unreadable:
                sink.lost("unreadable", self._tally.unreadable)
            self._logger.info("%s", self._tally.summary())
            for trouble in self._tally.troubles():
                self._logger.warning("%s", trouble)

    @hookimpl
    def linnix_health(self) -> Health:
        """Always ok; the limits tell what was not played."""
        limits = list(self._tally.troubles())
        if self._tally.results:
            limits.append(self._tally.summary())
        return Health(limits=tuple(limits))

    @hookimpl
    def linnix_stop(self) -> None:
        """Close what was not played; a part that is being played is closed by its player."""
        while self._parts:
            self._parts.popleft().close()

    # --- inside -----------------------------------------------------------------------

    def _play(self, part: Part, sink: Sink, stop: Event) -> None:
        number = 0
        try:
            for lines in read_lines(part, stop):
                if stop.is_set():
                    return
                self._play_lines(part.name, number, lines, sink, stop)
                number += len(lines)
        except (OSError, EOFError, zlib.error) as error:
            if not stop.is_set():
                self._tally.refuse(f"{part.name} after line {number}", str(error))
        finally:
            part.close()

    def _play_lines(
        self, name: str, before: int, lines: list[bytes], sink: Sink, stop: Event
    ) -> None:
        due: list[Record] = []
        for number, line in enumerate(lines, before + 1):
            try:
                record = self._read(line)
            except ValueError as error:
                self._tally.refuse(f"{name} line {number}", str(error))
                continue
            if record is None:
                continue
            pause_s = self._pace.seconds_until(record)
            if pause_s > SLACK_S:
                self._hand_over(due, sink, stop)
                due = []
                if stop.wait(pause_s):
                    return
            due.append(record)
        self._hand_over(due, sink, stop)

    def _read(self, line: bytes) -> Record | None:
        """The record to play, or None for a line without one. Raises ``ValueError``."""
        if not line or line.isspace():
            return None
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
        record = decode(line)
        self._tally.meet(record)
        if isinstance(record, Alert | Incident | Insight | Feedback):
            self._tally.results += 1
            return None
        if not 0 < record.ts_ns < END_OF_TIME_NS:
            raise ValueError("ts_ns is missing or no time")
        return record

    def _hand_over(self, records: list[Record], sink: Sink, stop: Event) -> None:
        if records:
            sink.emit_many(records)
            self._tally.played += len(records)
            self._wait_for_handlers(MAX_WAITING, stop)

    def _wait_for_handlers(self, most: int, stop: Event) -> None:
        """Wait until no handler has more than ``most`` records to take.

        The queue of a handler drops records when it is full: right for what happens now, and
        wrong for a recording, which can come as fast as it likes.
        """
        while not stop.is_set() and any(
            status.counters.get("queued", 0) > most and status.code != "stalled"
            for status in self._components()
        ):
            stop.wait(LOOK_EVERY_S)
