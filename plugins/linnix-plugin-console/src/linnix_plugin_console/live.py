"""The live view: the whole terminal while the run lasts, a short account after it."""

from __future__ import annotations

import atexit
import sys
import threading
from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment

from linnix_core import Alert, Batch, Context, Incident, Insight, Loss, Process, ProcessSample
from linnix_plugin_console.config import ConsoleConfig
from linnix_plugin_console.lines import alert_line, incident_line, insight_line
from linnix_plugin_console.news import News
from linnix_plugin_console.stderr import HeldStderr
from linnix_plugin_console.tally import Rates, Tally
from linnix_plugin_console.view import Line, Picture, compose
from linnix_plugin_console.writer import LineWriter

__all__ = ["LiveDisplay"]

#: Over how many seconds rates are averaged: a glance, and most poll intervals.
_RATE_WINDOW_S = 5.0


class LiveDisplay:
    """Draws from its own thread, once per ``refresh``."""

    def __init__(
        self, config: ConsoleConfig, context: Context, tally: Tally, stream: TextIO
    ) -> None:
        self.every_s = config.refresh
        self._top = config.top
        self._context = context
        self._tally = tally
        self._writer = LineWriter(stream)
        self._news = News()
        self._account: deque[tuple[int, str]] = deque(maxlen=12)
        self._last_alerts: deque[tuple[int, str]] = deque(maxlen=6)
        self._started_s = context.clock.monotonic()
        self._rates = Rates(_RATE_WINDOW_S, self._started_s)
        self._busiest: list[Process] = []
        self._moves = -1
        self._problem = ""
        self._lock = threading.Lock()
        # Whether this is a terminal is decided already; rich would ask the environment.
        self._console = Console(
            file=stream, force_terminal=True, force_interactive=True, force_jupyter=False
        )
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._stderr = HeldStderr(sys.stderr)
        atexit.register(self._restore)
        self._live.start()
        self._stderr.hold()

    @property
    def problem(self) -> str:
        """Why nothing is shown any more, or nothing."""
        return self._problem or self._writer.problem

    def batch(self, batch: Batch, losses: Sequence[Loss]) -> None:
        """Leave the counts to the next redraw."""

    def alert(self, alert: Alert) -> None:
        """Show it with the next redraw."""
        self._news.alert(alert)
        self._last_alerts.append((alert.ts_ns, alert_line(alert)))

    def incident(self, incident: Incident) -> None:
        """Show it with the next redraw."""
        self._news.incident(incident)
        if incident.change != "updated":
            self._account.append((incident.ts_ns, incident_line(incident)))

    def insight(self, insight: Insight) -> None:
        """Show it with the next redraw."""
        self._news.insight(insight)
        self._account.append((insight.ts_ns, insight_line(insight)))

    def tick(self) -> None:
        """Draw the whole screen anew, in the size that the terminal has now."""
        try:
            self._draw()
        except OSError as error:
            self._writer.fail(error)
            self._restore()
        except Exception as error:  # noqa: BLE001 - whatever it is, the terminal goes back
            self._problem = f"the view cannot be drawn: {type(error).__name__}: {error}"
            self._restore()

    def close(self, last_word: str, wait_s: float) -> None:
        """Leave the terminal as it was, with the last news and the last word below the prompt."""
        self._restore(wait_s)
        atexit.unregister(self._restore)
        account = sorted([*self._account, *self._last_alerts], key=itemgetter(0))
        self._writer.write([line for _, line in account] + [last_word], wait_s=wait_s)

    def _restore(self, wait_s: float = 1.0) -> None:
        # Whoever draws right now may hang on a terminal that was stopped with Ctrl-S.
        if not self._lock.acquire(timeout=wait_s):
            return
        try:
            self._live.stop()
        except OSError as error:
            self._writer.fail(error)
        finally:
            self._lock.release()
            self._stderr.release()

    def _draw(self) -> None:
        picture = self._picture()
        with self._lock:
            if self._live.is_started:
                width, height = self._console.size
                frame = _Frame(compose(picture, width, height), self._console.encoding)
                self._live.update(frame, refresh=True)

    def _picture(self) -> Picture:
        context = self._context
        now_s = context.clock.monotonic()
        if self._moves != self._tally.moves:
            # Copying the table costs about 10 µs per process: only when it may have changed.
            self._moves = self._tally.moves
            self._busiest = context.processes.top(self._top, by=_cpu)
        events = self._tally.events()
        return Picture(
            host=context.host,
            uptime_s=now_s - self._started_s,
            processes=len(context.processes),
            rates=self._rates.update(now_s, events),
            oom_kills=events["oom"],
            losses=self._tally.losses(),
            machine=self._tally.machine,
            components=context.components(),
            busiest=self._busiest,
            stories=self._news.stories(),
            alerts=self._news.alerts(),
            messages=self._stderr.latest(),
        )


def _cpu(sample: ProcessSample) -> float | None:
    return sample.cpu_percent


class _Frame:
    """Finished lines as something that rich can draw."""

    def __init__(self, lines: Sequence[Line], encoding: str) -> None:
        self._lines = lines
        self._encoding = encoding

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._lines:
            for text, style, _ in line:
                # A terminal's locale may lack letters that a process has in its name.
                yield Segment(text.encode(self._encoding, "replace").decode(self._encoding), style)
            yield Segment.line()
