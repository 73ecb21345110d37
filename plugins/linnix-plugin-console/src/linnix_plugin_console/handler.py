"""The console handler: which display suits, and the thread that keeps it up to date."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Protocol, TextIO

from linnix_core import (
    Alert,
    Batch,
    Context,
    Health,
    Incident,
    Insight,
    Loss,
    PluginUnavailable,
    hookimpl,
)
from linnix_plugin_console.config import ConsoleConfig
from linnix_plugin_console.lines import clock_time, count, span
from linnix_plugin_console.tally import Tally

__all__ = ["ConsoleHandler"]


class Display(Protocol):
    """One way to show a run. ``tick`` has a thread of its own; the rest is the handler's."""

    @property
    def every_s(self) -> float: ...
    @property
    def problem(self) -> str: ...
    def batch(self, batch: Batch, losses: Sequence[Loss]) -> None: ...
    def alert(self, alert: Alert) -> None: ...
    def incident(self, incident: Incident) -> None: ...
    def insight(self, insight: Insight) -> None: ...
    def tick(self) -> None: ...
    def close(self, last_word: str, wait_s: float) -> None: ...


class ConsoleHandler:
    """Show a run on the terminal: a live view there, plain lines anywhere else."""

    Config = ConsoleConfig
    #: Writing to standard output is its purpose, as the conformance kit needs to know.
    USES_STDOUT = True

    def __init__(self, config: ConsoleConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._tally = Tally()
        self._ended = threading.Event()
        self._display: Display | None = None
        self._thread: threading.Thread | None = None
        self._started_s = 0.0

    @hookimpl
    def linnix_start(self) -> None:
        """Choose the display by what standard output is now."""
        self._started_s = self._context.clock.monotonic()
        self._display = self._choose(sys.stdout)

    @hookimpl
    def linnix_ready(self) -> None:
        """Begin to draw."""
        assert self._display is not None
        self._thread = threading.Thread(
            target=self._keep, args=(self._display,), name="linnix-console", daemon=True
        )
        self._thread.start()

    @hookimpl
    def linnix_handle(self, batch: Batch) -> None:
        """Count; whatever is drawn is drawn elsewhere."""
        losses = self._tally.add(batch)
        if self._display is not None:
            self._display.batch(batch, losses)

    @hookimpl
    def linnix_alert(self, alert: Alert) -> None:
        """Show an alert."""
        self._tally.alerts += 1
        if self._display is not None:
            self._display.alert(alert)

    @hookimpl
    def linnix_incident(self, incident: Incident) -> None:
        """Show an incident."""
        self._tally.incidents += incident.change == "opened"
        if self._display is not None:
            self._display.incident(incident)

    @hookimpl
    def linnix_insight(self, insight: Insight) -> None:
        """Show an insight."""
        if self._display is not None:
            self._display.insight(insight)

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """Give the terminal back and leave the last word on it."""
        self._ended.set()
        if self._display is None:
            return
        if self._thread is not None:
            self._thread.join(max(deadline - time.monotonic(), 0))
        self._display.close(self._last_word(), max(deadline - time.monotonic(), 0))

    @hookimpl
    def linnix_health(self) -> Health:
        """Degraded once nothing can be shown any more."""
        if self._display is not None and self._display.problem:
            return Health("degraded", self._display.problem)
        return Health()

    def _choose(self, stdout: TextIO | None) -> Display:
        if stdout is None:
            raise PluginUnavailable("standard output is closed", hint="redirect it to a file")
        terminal = stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        if self._config.mode == "live" and not terminal:
            raise PluginUnavailable(
                "the live view needs a terminal that can move its cursor",
                hint='set mode = "auto", which prints plain lines where there is none',
            )
        live = self._config.mode == "live" or (
            self._config.mode == "auto" and terminal and _in_foreground(stdout)
        )
        if live:
            # Importing rich takes about 50 ms, which a pipe need not wait for.
            from linnix_plugin_console.live import LiveDisplay

            return LiveDisplay(self._config, self._context, self._tally, stdout)
        from linnix_plugin_console.plain import PlainDisplay

        return PlainDisplay(self._config, self._context, self._tally, stdout)

    def _keep(self, display: Display) -> None:
        display.tick()
        while not self._ended.wait(display.every_s) and not display.problem:
            display.tick()

    def _last_word(self) -> str:
        lasted = span(self._context.clock.monotonic() - self._started_s)
        parts = (
            count(sum(self._tally.events().values()), "event"),
            count(self._tally.alerts, "alert"),
            count(self._tally.incidents, "incident"),
            f"{self._tally.lost:,} lost",
        )
        now = clock_time(self._context.clock.time_ns())
        return f"{now} followed {count(len(self._context.processes), 'process')} for {lasted}: " + (
            ", ".join(parts)
        )


def _in_foreground(stream: TextIO) -> bool:
    """Whether the shell gave this process the terminal: a job started with & must not take it."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True
