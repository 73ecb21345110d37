"""The handler: its configuration, and when it learns, tells and saves."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from linnix_core import (
    Alert,
    Batch,
    Context,
    Duration,
    Health,
    Metric,
    ProcessSample,
    Subject,
    hookimpl,
)
from linnix_plugin_anomaly.licence import require_licence

if TYPE_CHECKING:
    from linnix_plugin_anomaly.detector import Judgement
    from linnix_plugin_anomaly.learnt import Learnt
    from linnix_plugin_anomaly.rounds import Point, Rounds

__all__ = ["AnomalyConfig", "AnomalyHandler"]

#: Where what was learnt is kept, in the folder of the component.
STATE_FILE = "learnt.json"

#: Days over which the mean of an hour of the day is formed.
HOUR_MEMORY_DAYS = 8

#: With fewer points nothing is known.
LEAST_WARMUP = 30


def _one_second(instance: object, field: attrs.Attribute[Duration], value: Duration) -> None:
    if not 1 <= value <= 3600:
        raise ValueError(f"{field.name} must be between 1s and 1h")


def _positive(instance: object, field: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{field.name} must be above 0")


@attrs.frozen
class AnomalyConfig:
    """How fine, how sure, how many, how durable."""

    resolution: Duration = attrs.field(
        default=Duration(60.0),
        validator=_one_second,
        metadata={"help": "samples of so long make one point of a series"},
    )
    warmup: Duration = attrs.field(
        default=Duration(6 * 3600.0),
        validator=_positive,
        metadata={"help": "so long a series is only learnt from (at least 30 points)"},
    )
    threshold: float = attrs.field(
        default=4.0,
        validator=_positive,
        metadata={"help": "surprise from which a point is an alert: 4 is one in 10,000"},
    )
    max_series: int = attrs.field(
        default=2048,
        validator=_positive,
        metadata={"help": "series at most, some 15 KiB each; the quietest makes room"},
    )
    save_every: Duration = attrs.field(
        default=Duration(300.0),
        validator=_positive,
        metadata={"help": "what was learnt is written that often, and at the end"},
    )


class AnomalyHandler:
    """Learn what is usual for host, cgroups and programs, and tell what is not."""

    Config = AnomalyConfig

    def __init__(self, config: AnomalyConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._learnt: Learnt | None = None
        self._rounds: Rounds | None = None
        self._path: Path | None = None
        self._saved_at = 0.0
        self._unsaved = False
        self._trouble = ""
        # What health and metrics tell: they must not wait for a save.
        self._known = self._warm = self._left_out = self._points = self._alerts = 0
        # The stop may come from another thread.
        self._lock = threading.Lock()

    @hookimpl
    def linnix_start(self, context: Context) -> None:
        """Ask for the license, and go on from what was learnt before."""
        require_licence(context)
        # Only now: the models take a moment to import.
        from linnix_plugin_anomaly.learnt import Learnt, StateWrong
        from linnix_plugin_anomaly.rounds import Rounds

        config = self._config
        interval_ns = round(config.resolution * 1e9)
        learnt = Learnt(
            interval_ns,
            warmup=max(LEAST_WARMUP, round(config.warmup / config.resolution)),
            hour_memory=round(HOUR_MEMORY_DAYS * 3600 / config.resolution),
            max_series=config.max_series,
        )
        try:
            self._path = context.data_dir / STATE_FILE
            learnt.load(self._path)
        except StateWrong as error:
            context.logger.warning("%s; learning begins anew", error)
        except OSError as error:
            self._trouble = f"what is learnt cannot be kept: {error.strerror}"
        self._rounds = Rounds(interval_ns, config.max_series, self._program)
        self._learnt = learnt
        self._known, self._warm = len(learnt), learnt.warm
        self._saved_at = context.clock.monotonic()

    @hookimpl
    def linnix_handle(self, batch: Batch) -> list[Alert]:
        """Take records in; alerts about the rounds that they complete."""
        alerts: list[Alert] = []
        with self._lock:
            if self._rounds is None:
                return alerts
            for record in batch:
                points = list(self._rounds.add(record))
                if points:
                    alerts += self._judge(points)
        return alerts

    def _judge(self, points: list[Point]) -> list[Alert]:
        from linnix_plugin_anomaly.alerts import anomaly_alert, worth_telling

        assert self._learnt is not None
        assert self._rounds is not None
        most: dict[tuple[str, str, str], tuple[Point, Judgement]] = {}
        self._unsaved = True
        # Those of the host first, which are few, where there is not room for all.
        for point in sorted(points, key=lambda point: point.series.kind != "host"):
            judgement = self._learnt.judge(point)
            self._points += 1
            if judgement is None or judgement.score < self._config.threshold:
                continue
            if not worth_telling(point, judgement):
                continue
            # One alert about one thing, with what is rarest about it.
            whose = point.series[:3]
            if whose not in most or judgement.score > most[whose][1].score:
                most[whose] = point, judgement
        self._known, self._warm = len(self._learnt), self._learnt.warm
        self._left_out = self._learnt.left_out + self._rounds.left_out
        self._alerts += len(most)
        return [
            anomaly_alert(point, judgement, self._config.threshold, self._subject(point))
            for point, judgement in most.values()
        ]

    def _program(self, sample: ProcessSample) -> str:
        process = self._context.processes.get(sample.key)
        return (process.exe if process is not None else None) or sample.comm

    def _subject(self, point: Point) -> Subject:
        kind, name = point.series.kind, point.series.name
        if kind == "cgroup":
            return Subject(cgroup=name)
        process = None if point.key is None else self._context.processes.get(point.key)
        if process is None:
            return Subject(key=point.key, exe=name if name.startswith("/") else None, comm=name)
        return Subject(point.key, process.exe, process.comm, process.cgroup)

    @hookimpl
    def linnix_flush(self) -> None:
        """Save what was learnt, now and then."""
        now = self._context.clock.monotonic()
        with self._lock:
            if now - self._saved_at >= self._config.save_every:
                self._save(now)

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """Save what was learnt."""
        with self._lock:
            self._save(self._context.clock.monotonic())

    def _save(self, now: float) -> None:
        self._saved_at = now
        if self._learnt is None or self._path is None or not self._unsaved:
            return
        try:
            self._learnt.save(self._path)
        except OSError as error:
            # A full disk passes, and what is known in memory goes on.
            self._trouble = f"what is learnt cannot be kept: {error.strerror}"
        else:
            self._trouble, self._unsaved = "", False

    @hookimpl
    def linnix_health(self) -> Health:
        """Degraded while nothing can be saved; the limits say what is not known yet."""
        limits = ["a program or cgroup that disappears is not noticed"]
        if self._warm < self._known or not self._known:
            limits.append(f"{self._known - self._warm} of {self._known} series are warming up")
        if self._left_out:
            limits.append(
                f"{self._left_out} points had no room: max_series is {self._config.max_series}"
            )
        return Health("degraded" if self._trouble else "ok", self._trouble, tuple(limits))

    @hookimpl
    def linnix_metrics(self) -> list[Metric]:
        """How much is known, and how much was told."""
        return [
            Metric("linnix_anomaly_series", self._known, help="series that are known"),
            Metric("linnix_anomaly_series_warm", self._warm, help="series that can score"),
            Metric("linnix_anomaly_points", self._points, kind="counter", help="points judged"),
            Metric("linnix_anomaly_alerts", self._alerts, kind="counter", help="alerts raised"),
        ]
