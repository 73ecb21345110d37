"""How well the anomaly detector does on labelled series that it was not tuned on, and its cost.

DIR is as for ``linnix anomaly score``. The threshold is the only thing that the benchmark fits, so:

* each half of the series (every second one by name) with a threshold from the other half;
* each folder of series with a threshold from all the other folders;
* the folder as a whole beside the windowed Gaussian, and with --peer beside the
  half-space trees of river;
* memory of a series, and processor time of a point.

    python plugins/linnix-plugin-anomaly/benchmarks/anomaly.py DIR [--peer]
"""

from __future__ import annotations

import argparse
import random
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

from linnix_plugin_anomaly.detector import Detector
from linnix_plugin_anomaly.gaussian import windowed_gaussian
from linnix_plugin_anomaly.labelled import Labelled, read_labelled
from linnix_plugin_anomaly.numenta import PROFILES, Scored, optimum
from linnix_plugin_anomaly.scoring import detected

SERIES = 50
POINTS = 2000


def row(name: str, series: Sequence[Scored], thresholds: Sequence[Scored] | None = None) -> None:
    """One line: the three profiles, each with the threshold that suits ``thresholds`` best."""
    cells = []
    for profile in PROFILES.values():
        given = optimum(thresholds, profile).threshold if thresholds is not None else None
        cells.append(f"{optimum(series, profile, given).score:9.1f}")
    print(f"{name:<44}{''.join(cells)}", flush=True)


def has_windows(series: Sequence[Scored]) -> bool:
    return any(each.windows for each in series)


def transfers(names: Sequence[str], scored: Sequence[Scored]) -> None:
    """Thresholds from one part of the series, scores on another."""
    halves = scored[0::2], scored[1::2]
    for i, name in enumerate(("first half", "second half")):
        row(f"{name}, its own threshold", halves[i])
        row(f"{name}, threshold of the other half", halves[i], halves[1 - i])
    folders = [name.rpartition("/")[0] for name in names]
    for folder in sorted(set(folders)):
        own = [each for of, each in zip(folders, scored, strict=True) if of == folder]
        others = [each for of, each in zip(folders, scored, strict=True) if of != folder]
        if has_windows(own) and has_windows(others):
            row(f"{folder}, threshold of the others", own, others)


def peer(series: Sequence[Labelled]) -> None:
    """River's half-space trees as they come, the values scaled as they need it."""
    from river import anomaly, compose, preprocessing

    def scores(values: Sequence[float]) -> Iterator[float]:
        model = compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=1))
        for value in values:
            yield model.score_one({"value": value})
            model.learn_one({"value": value})

    began = time.process_time()
    scored = [Scored(list(scores(each.values)), each.windows) for each in series]
    spent = time.process_time() - began
    points = sum(len(each.values) for each in series)
    row(f"river HalfSpaceTrees, {1e6 * spent / points:.0f} µs a point", scored)


def cost() -> None:
    """Memory and processor time on noise, once everything is filled."""
    generator = random.Random(1)
    values = [generator.lognormvariate(0, 1) for _ in range(POINTS)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    detectors = [Detector(warmup=360, hour_memory=480) for _ in range(SERIES)]
    for detector in detectors:
        for i, value in enumerate(values):
            detector.judge(i * 60.0, value)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{(after - before) / len(detectors) / 1024:.1f} KiB a series")
    best = float("inf")
    for _ in range(3):
        detector = Detector()
        began = time.process_time()
        for i in range(20 * POINTS):
            detector.judge(i * 60.0, values[i % POINTS])
        best = min(best, (time.process_time() - began) / (20 * POINTS))
    print(f"{1e6 * best:.1f} µs a point, the best of three")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description="Score the anomaly detector out of sample.")
    parser.add_argument("folder", type=Path, metavar="DIR", nargs="?", help="labelled series")
    parser.add_argument("--peer", action="store_true", help="half-space trees too (half a minute)")
    options = parser.parse_args()
    cost()
    if options.folder is None:
        return
    series, _ = read_labelled(options.folder)
    scored = [detected(each) for each in series]
    print(f"{'':<44}{''.join(f'{name:>9}' for name in PROFILES)}")
    row("all series", scored)
    baseline = [Scored(list(windowed_gaussian(each.values)), each.windows) for each in series]
    row("windowed Gaussian", baseline)
    transfers([each.name for each in series], scored)
    if options.peer:
        peer(series)


if __name__ == "__main__":
    main()
