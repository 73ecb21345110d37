"""What happens as plain lines, for files, pipes, journals and dumb terminals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from linnix_core import (
    Alert,
    Batch,
    ComponentStatus,
    Context,
    Incident,
    Insight,
    Loss,
    ProcessEvent,
    printable,
)
from linnix_plugin_console.config import ConsoleConfig
from linnix_plugin_console.lines import (
    alert_line,
    clock_time,
    component_line,
    count,
    event_line,
    incident_line,
    insight_line,
    limit_line,
    loss_line,
    rate,
)
from linnix_plugin_console.tally import Rates, Tally
from linnix_plugin_console.writer import LineWriter

__all__ = ["PlainDisplay"]

_FINE = ("available", "running")


class PlainDisplay:
    """One line per alert, incident, insight, loss and change of a component."""

    #: Seconds between two looks at the components and the time for a summary.
    every_s = 1.0

    def __init__(
        self, config: ConsoleConfig, context: Context, tally: Tally, stream: TextIO
    ) -> None:
        self._config = config
        self._context = context
        self._tally = tally
        self._writer = LineWriter(stream)
        self._following = False
        self._states: dict[str, tuple[str, str]] = {}
        self._limited: set[str] = set()
        self._summed_s = context.clock.monotonic()
        self._rates = Rates(config.summary, self._summed_s)

    @property
    def problem(self) -> str:
        """Why nothing is shown any more, or nothing."""
        return self._writer.problem

    def batch(self, batch: Batch, losses: Sequence[Loss]) -> None:
        """Print the losses, and the events where they are wanted."""
        lines = [loss_line(loss) for loss in losses]
        if self._config.events and not self.problem:
            lines += [event_line(record) for record in batch if isinstance(record, ProcessEvent)]
        self._writer.write(lines)

    def alert(self, alert: Alert) -> None:
        """Print it."""
        self._writer.write([alert_line(alert)])

    def incident(self, incident: Incident) -> None:
        """Print that it opened, got worse or closed; an update says nothing new."""
        if incident.change != "updated":
            self._writer.write([incident_line(incident)])

    def insight(self, insight: Insight) -> None:
        """Print it."""
        self._writer.write([insight_line(insight)])

    def tick(self) -> None:
        """Print what is due: the first word, components that changed, a summary."""
        now_s = self._context.clock.monotonic()
        lines = []
        if not self._following and len(self._context.processes):
            self._following = True
            self._summed_s = now_s
            lines.append(self._first_word())
        components = self._context.components()
        lines += self._changes(components)
        if self._following:
            lines += self._blind_spots(components)
        due = self._summed_s + self._config.summary
        if self._following and self._config.summary and now_s >= due:
            self._summed_s = now_s
            lines.append(self._summary(now_s))
        self._writer.write(lines)

    def close(self, last_word: str, wait_s: float) -> None:
        """Print how the run went."""
        self._writer.write([last_word], wait_s=wait_s)

    def _first_word(self) -> str:
        running = [
            printable(status.name)
            for status in self._context.components()
            if status.kind == "collectors" and status.state in ("running", "degraded")
        ]
        host = f" on {printable(self._context.host)}" if self._context.host else ""
        through = f" with {', '.join(running)}" if running else ""
        return f"{self._now()} following {self._processes()}{host}{through}"

    def _summary(self, now_s: float) -> str:
        rates = self._rates.update(now_s, self._tally.events())
        return (
            f"{self._now()} following {self._processes()}, "
            f"{rate(sum(rates.values()))} events/s, {self._tally.lost:,} lost"
        )

    def _changes(self, components: Sequence[ComponentStatus]) -> list[str]:
        # A run that ends stops its components; that is no news.
        if self._context.stop.is_set():
            return []
        lines = []
        for status in components:
            state = ("", "") if status.state in _FINE else (status.state, status.code)
            # A reason may hold counts that move on, so it is no change by itself.
            if state != self._states.get(status.component, ("", "")):
                lines.append(component_line(self._context.clock.time_ns(), status))
            self._states[status.component] = state
        return lines

    def _blind_spots(self, components: Sequence[ComponentStatus]) -> list[str]:
        """What each collector does not see, the first time that it says so."""
        lines = []
        for status in components:
            if status.kind == "collectors" and status.component not in self._limited:
                said = [limit_line(self._context.clock.time_ns(), status, limit)
                        for limit in status.limits]  # fmt: skip
                if said:
                    self._limited.add(status.component)
                lines += said
        return lines

    def _processes(self) -> str:
        return count(len(self._context.processes), "process")

    def _now(self) -> str:
        return clock_time(self._context.clock.time_ns())
