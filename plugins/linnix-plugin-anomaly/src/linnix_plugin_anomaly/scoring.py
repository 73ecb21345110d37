"""A folder of labelled series, scored: the detector of the handler beside the baseline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from linnix_plugin_anomaly.detector import Detector
from linnix_plugin_anomaly.gaussian import windowed_gaussian
from linnix_plugin_anomaly.labelled import Labelled
from linnix_plugin_anomaly.numenta import PROFILES, Scored, optimum, probation

__all__ = ["detected", "score_report"]


def detected(series: Labelled) -> Scored:
    """The scores of the detector, whose warm-up is the probation of the benchmark."""
    detector = Detector(warmup=probation(len(series.values)))
    judged = zip(series.times, series.values, strict=True)
    return Scored([detector.judge(*point).score for point in judged], series.windows)


def score_report(series: Sequence[Labelled]) -> dict[str, Any]:
    """What ``linnix anomaly score --json`` prints.

    ``microseconds_per_point`` is processor time of the detector. Raises ``ValueError``
    where no window is to be scored.
    """
    began = time.process_time()
    ours = [detected(each) for each in series]
    spent = time.process_time() - began
    baseline = [Scored(list(windowed_gaussian(each.values)), each.windows) for each in series]
    points = sum(len(each.values) for each in series)
    return {
        **_profiles(ours),
        "windowed_gaussian": _profiles(baseline),
        "microseconds_per_point": round(1e6 * spent / points, 2),
    }


def _profiles(series: Sequence[Scored]) -> dict[str, float]:
    return {name: round(optimum(series, each).score, 2) for name, each in PROFILES.items()}
