"""The scoring of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015, arXiv:1510.03336).

Each labelled window pays once, for the first detection in it: close to 1 at its left edge,
near 0 at its right. A detection outside costs up to 1, less shortly after a window. The
first 15 % of a series, at most 750 points, are probation and count for nothing. A profile
weighs the three; one threshold for all series is the best for the profile. On the scale,
0 is a detector that never detects and 100 one that detects each window at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import attrs

__all__ = ["PROFILES", "Profile", "Result", "Scored", "optimum", "probation", "scaled_sigmoid"]


class Profile(NamedTuple):
    """What a window that was detected, one that was missed and a false alarm weigh."""

    detected: float
    missed: float
    false: float


#: The application profiles of the benchmark.
PROFILES = {
    "standard": Profile(1.0, 1.0, 0.11),
    "low_fp": Profile(1.0, 1.0, 0.22),
    "low_fn": Profile(1.0, 2.0, 0.11),
}


class Result(NamedTuple):
    """The best score on the scale from 0 to 100, and the threshold that makes it."""

    score: float
    threshold: float


@attrs.frozen
class Scored:
    """The anomaly score of each point of one series, and its windows by first and last index."""

    scores: Sequence[float]
    windows: Sequence[tuple[int, int]]


class _Point(NamedTuple):
    score: float
    worth: float
    window: tuple[int, int] | None


def probation(points: int) -> int:
    """How many points at the beginning of a series of so many count for nothing."""
    return math.floor(min(0.15 * points, 0.15 * 5000))


def scaled_sigmoid(position: float) -> float:
    """What a detection is worth: ``position`` -1 is the left edge of a window, 0 its right."""
    return 2 / (1 + math.exp(5 * position)) - 1 if position < 3 else -1.0


def optimum(series: Sequence[Scored], profile: Profile, threshold: float | None = None) -> Result:
    """The score of a profile with the best threshold for it, or with the one that is given.

    Raises ``ValueError`` where no window is to be scored.
    """
    points = [point for i, each in enumerate(series) for point in _points(i, each)]
    points.sort(key=lambda point: -point.score)
    best_in = {p.window: -profile.missed for p in points if p.window is not None}
    if not best_in:
        raise ValueError("there is no labelled window to be scored")
    null = -profile.missed * len(best_in)
    perfect = profile.detected * len(best_in)
    total = null
    best = Result(null, math.inf)
    for score, group in groupby(points, key=lambda point: point.score):
        if threshold is not None and score < threshold:
            break
        for _, worth, window in group:
            if window is None:
                total += profile.false * worth
            elif (gained := profile.detected * worth) > best_in[window]:
                total += gained - best_in[window]
                best_in[window] = gained
        if threshold is not None or total > best.score:
            best = Result(total, score)
    return Result(100 * (best.score - null) / (perfect - null), best.threshold)


def _points(number: int, series: Scored) -> list[_Point]:
    """What each point after the probation is worth as a detection."""
    start = probation(len(series.scores))
    windows = sorted(series.windows)
    points = []
    coming = 0
    before: tuple[int, int] | None = None
    for i, score in enumerate(series.scores):
        while coming < len(windows) and i > windows[coming][1]:
            before = windows[coming]
            coming += 1
        within = windows[coming] if coming < len(windows) and i >= windows[coming][0] else None
        if i < start:
            continue
        if within is not None:
            first, last = within
            worth = scaled_sigmoid((i - last - 1) / (last - first + 1)) / scaled_sigmoid(-1)
            points.append(_Point(score, worth, (number, first)))
        else:
            points.append(_Point(score, _worth_after(before, i), None))
    return points


def _worth_after(window: tuple[int, int] | None, i: int) -> float:
    if window is None:
        return -1.0
    first, last = window
    # A window of a single point has no length to be close to.
    return scaled_sigmoid((i - last) / (last - first)) if last > first else -1.0
