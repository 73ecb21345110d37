"""Arithmetic of figures: intervals, bounds, percentiles."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

__all__ = ["percentile", "poisson_bound", "wilson"]


def wilson(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of Wilson (1927) for a share, which stays right for few and near 0 and 1.

    >>> tuple(round(bound, 4) for bound in wilson(20, 20))
    (0.8389, 1.0)
    """
    if not of:
        return 0.0, 1.0
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    share, square = hits / of, z * z
    middle = (share + square / (2 * of)) / (1 + square / of)
    reach = z / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def poisson_bound(events: int, confidence: float = 0.95) -> float:
    """The largest mean under which so few events, or fewer, are not rarer than 1 - confidence.

    One-sided and exact (Garwood 1936); for no event it is the rule of three.

    >>> round(poisson_bound(0), 3), round(poisson_bound(3), 3)
    (2.996, 7.754)
    """
    low, high = float(events), 2.0 * events + 20
    for _ in range(100):
        mean = (low + high) / 2
        term = share = math.exp(-mean)
        for n in range(1, events + 1):
            term *= mean / n
            share += term
        low, high = (mean, high) if share > 1 - confidence else (low, mean)
    return (low + high) / 2


def percentile(values: Sequence[float], share: float) -> float | None:
    """Between the two nearest ranks; None of nothing.

    >>> percentile([1, 2, 3, 4], 0.5)
    2.5
    """
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
