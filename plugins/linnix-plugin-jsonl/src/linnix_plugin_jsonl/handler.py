"""The handler: which records become lines, and what happens to those that cannot yet."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from linnix_core import (
    Alert,
    Batch,
    Context,
    Feedback,
    Health,
    Incident,
    Insight,
    Metric,
    PluginUnavailable,
    RecordsLost,
    encode,
    hookimpl,
)
from linnix_plugin_jsonl.config import STANDARD_OUTPUT, JsonlConfig
from linnix_plugin_jsonl.output import NotWritten, Output, because
from linnix_plugin_jsonl.rotating import RotatingFile
from linnix_plugin_jsonl.standard_output import StandardOutput

__all__ = ["MAX_WAITING", "JsonlHandler"]

#: Notices kept while they cannot be written; then the oldest go.
MAX_WAITING = 1024


class JsonlHandler:
    """Append every record as one JSON line to a file that rotates, or to standard output."""

    Config = JsonlConfig

    def __init__(self, config: JsonlConfig, context: Context) -> None:
        self._logger = context.logger
        self._name = config.path
        self._types = frozenset(config.types)
        self._output = _output(config, context)
        self._waiting: deque[bytes] = deque()
        self._failing = ""
        self._records_lost = 0
        self._notices_lost = 0
        self._stopped = False
        # Start and stop come from other threads than the rest; a write must never meet a
        # descriptor that was closed under it and already means another file.
        self._lock = threading.Lock()

    @hookimpl
    def linnix_start(self) -> None:
        """Open the output. A full disk is no reason not to start: every write tries again."""
        with self._lock:
            try:
                self._output.open()
            except OSError as error:
                self._fails(str(because(error, self._name)))

    @hookimpl
    def linnix_handle(self, batch: Batch) -> None:
        """Write the batch; `RecordsLost` counts what did not get into the output."""
        lines = self._chosen(batch)
        if not lines:
            return
        with self._lock:
            try:
                self._append(lines)
            except NotWritten as failure:
                lost = len(lines) - failure.written
                self._records_lost += lost
                raise RecordsLost(lost, failure.why, str(failure)) from failure

    @hookimpl
    def linnix_alert(self, alert: Alert) -> None:
        """Write an alert, now or once it is possible again."""
        self._notice(alert)

    @hookimpl
    def linnix_incident(self, incident: Incident) -> None:
        """Write an incident, now or once it is possible again."""
        self._notice(incident)

    @hookimpl
    def linnix_insight(self, insight: Insight) -> None:
        """Write an insight, now or once it is possible again."""
        self._notice(insight)

    @hookimpl
    def linnix_feedback(self, feedback: Feedback) -> None:
        """Write what a person said, now or once it is possible again."""
        self._notice(feedback)

    @hookimpl
    def linnix_flush(self) -> None:
        """Try again what waits, and force to disk what the policy says."""
        with self._lock:
            self._write_waiting()
            self._output.sync()

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """Write what waits, sync, close; a write that still hangs is left alone."""
        if not self._lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            return
        try:
            if self._stopped:
                return
            with contextlib.suppress(PluginUnavailable):
                self._write_waiting()
            self._stopped = True
            if self._waiting:
                self._logger.warning(
                    "%d notices were not written",
                    len(self._waiting),
                )
                self._notices_lost += len(self._waiting)
                self._waiting.clear()
            self._output.close()
        finally:
            self._lock.release()

    @hookimpl
    def linnix_health(self) -> Health:
        """Degraded while lines do not get written, or not as they should be."""
        troubles = [self._failing] if self._failing else []
        troubles += self._output.troubles
        said = list(troubles)
        if self._notices_lost:
            said.append(f"{self._notices_lost} notices were lost")
        return Health("degraded" if troubles else "ok", "; ".join(said))

    @hookimpl
    def linnix_metrics(self) -> Iterable[Metric]:
        """Bytes, rotations, losses, and what waits for room."""
        return (
            Metric(
                "jsonl_written_bytes",
                self._output.bytes_written,
                "By",
                "counter",
                help="Bytes of lines written",
            ),
            Metric(
                "jsonl_rotations",
                self._output.rotations,
                "{rotation}",
                "counter",
                help="Files given their final name",
            ),
            Metric(
                "jsonl_lost_records",
                self._records_lost + self._notices_lost,
                "{record}",
                "counter",
                help="Records that could not be written",
            ),
            Metric(
                "jsonl_waiting_records",
                len(self._waiting),
                "{record}",
                help="Alerts, incidents, insights and feedback that wait until writing works again",
            ),
        )

    # --- inside -----------------------------------------------------------------------

    def _chosen(self, batch: Batch) -> Sequence[bytes]:
        if not self._types:
            return batch.lines()
        chosen = [index for index, record in enumerate(batch) if record.type in self._types]
        if not chosen:
            return ()  # and nothing was encoded for it
        lines = batch.lines()
        return [lines[index] for index in chosen]

    def _notice(self, notice: Alert | Incident | Insight | Feedback) -> None:
        if self._types and notice.type not in self._types:
            return
        with self._lock:
            self._waiting.append(encode(notice))
            self._write_waiting()
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popleft()
                self._notices_lost += 1

    def _write_waiting(self) -> None:
        if self._waiting:
            try:
                self._append(())
            except NotWritten:
                return  # they go on waiting, and the health says why

    def _append(self, lines: Sequence[bytes]) -> None:
        """Write what waits and then the lines; `NotWritten` speaks of the lines alone."""
        if self._stopped:
            raise NotWritten(0, "stopped", f"{self._name} is closed")
        waiting = len(self._waiting)
        try:
            self._output.append([*self._waiting, *lines] if waiting else lines)
        except NotWritten as failure:
            for _ in range(min(failure.written, waiting)):
                self._waiting.popleft()
            failure.written = max(failure.written - waiting, 0)
            self._fails(str(failure))
            raise
        except PluginUnavailable as gone:
            self._failing = str(gone)  # the core is told, and says so itself
            raise
        self._waiting.clear()
        if self._failing:
            self._logger.info("writing to %s again", self._name)
            self._failing = ""

    def _fails(self, why: str) -> None:
        if not self._failing:
            self._logger.warning("%s", why)
        self._failing = why


def _output(config: JsonlConfig, context: Context) -> Output:
    if config.path == STANDARD_OUTPUT:
        return StandardOutput()
    return RotatingFile(
        # Absolute, so that a later change of the working directory moves nothing.
        Path(config.path).expanduser().absolute(),
        max_bytes=config.max_bytes,
        max_age_ns=round(config.max_age * 1e9),
        max_total_bytes=config.max_total_bytes,
        fsync=config.fsync,
        now_ns=context.clock.time_ns,
    )
