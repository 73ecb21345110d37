"""Alerts about unusual points: which series, how far from what, and how rare that is."""

from __future__ import annotations

from linnix_core import Alert, Evidence, IncidentClass, Subject, printable
from linnix_plugin_anomaly.detector import Judgement
from linnix_plugin_anomaly.measures import MEASURES, Measure
from linnix_plugin_anomaly.rounds import Point

__all__ = ["RULE", "anomaly_alert", "class_of", "worth_telling"]

#: The rule that these alerts name.
RULE = "anomaly"

#: Characters of a name in a message.
MAX_NAME = 80

#: CPU of one process, in percent of a core, from which "unusually much" is a spin.
_SPIN_PERCENT = 90.0

#: Share of time in which tasks wait for I/O from which "unusually much" is saturation.
_SATURATED_PERCENT = 40.0

#: Memory in use, in percent, from which "unusually much" is a risk.
_FULL_PERCENT = 92.0


def worth_telling(point: Point, judgement: Judgement) -> bool:
    """Whether the difference is large enough to matter, however rare it is."""
    return abs(point.value - judgement.expected) >= MEASURES[point.series.measure].least


def class_of(point: Point, judgement: Judgement) -> IncidentClass | None:
    """The class that the point itself justifies: unusual alone says nothing of the cause."""
    kind, measure, value = point.series.kind, point.series.measure, point.value
    if value <= judgement.expected:
        return None
    if kind == "exe" and measure == "cpu" and value >= _SPIN_PERCENT:
        return "cpu_spin"
    if measure == "psi_io" and value >= _SATURATED_PERCENT:
        return "io_saturation"
    if kind == "host" and measure == "memory_used" and value >= _FULL_PERCENT:
        return "oom_risk"
    return None


def anomaly_alert(point: Point, judgement: Judgement, threshold: float, subject: Subject) -> Alert:
    """The alert about a point that scored at least ``threshold``."""
    series = point.series
    measure = MEASURES[series.measure]
    width = max(judgement.rarity.edge(threshold), measure.least)
    above = point.value > judgement.expected
    limit = judgement.expected + (width if above else -width)
    when = "of late" if judgement.usual == "level" else "at this hour"
    class_ = class_of(point, judgement)
    return Alert(
        rule=RULE,
        class_=class_,
        severity="low" if class_ is None else "medium",
        message=(
            f"{measure.words} of {_whose(point)} is {_read(point.value, measure)}, "
            f"usually {_read(judgement.expected, measure)} {when} and not "
            f"{'above' if above else 'below'} {_read(limit, measure)}"
        ),
        subject=subject,
        evidence=(
            Evidence(series.measure, point.value, measure.unit),
            Evidence("limit", limit, measure.unit),
            Evidence("usual", judgement.expected, measure.unit),
            Evidence("surprise", round(judgement.surprise, 2), "1"),
        ),
        labels={"series": series.kind, "measure": series.measure, "usual": judgement.usual},
        ts_ns=point.ts_ns,
    )


def _whose(point: Point) -> str:
    series = point.series
    if series.kind == "host":
        return f"host {printable(series.host, MAX_NAME)}" if series.host else "this host"
    if series.kind == "cgroup":
        return f"cgroup {printable(series.name, MAX_NAME)}"
    return printable(series.name, MAX_NAME)


def _read(value: float, measure: Measure) -> str:
    return f"{value / measure.scale:,.1f} {measure.shown}".rstrip()
