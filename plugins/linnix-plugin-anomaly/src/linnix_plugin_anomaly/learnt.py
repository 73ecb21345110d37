"""What was learnt of all series: a bounded number of detectors, and their file."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, get_args

from linnix_core import LinnixError
from linnix_plugin_anomaly.detector import Detector, Judgement
from linnix_plugin_anomaly.measures import MEASURES, Kind
from linnix_plugin_anomaly.rounds import Point, Series

__all__ = ["Learnt", "StateWrong"]

#: What the file says it is; another number is another format.
VERSION = 1

#: No larger file is read.
MAX_STATE_BYTES = 512 * 2**20


#: What reading a document that is none of ours may raise.
_MALFORMED = (
    ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


class StateWrong(LinnixError):
    """A file that is not the state of these series; it is left as it is until the next save."""


class Learnt:
    """A detector for each series, at most ``max_series``.

    A new series takes the place of the one that has been quiet the longest, unless all are
    in use: then it is left out and counted, so that what is new cannot drive out what is known.
    """

    def __init__(self, interval_ns: int, warmup: int, hour_memory: int, max_series: int) -> None:
        self._interval_ns = interval_ns
        self._warmup = warmup
        self._hour_memory = hour_memory
        self._max_series = max_series
        # The one that was fed the longest ago first, with the end of that round.
        self._detectors: OrderedDict[Series, tuple[Detector, int]] = OrderedDict()
        self.left_out = 0

    def __len__(self) -> int:
        """How many series are known."""
        return len(self._detectors)

    @property
    def warm(self) -> int:
        """How many of them can score."""
        return sum(detector.warm for detector, _ in self._detectors.values())

    def judge(self, point: Point) -> Judgement | None:
        """What a point means in its series, or None where there is no room for the series."""
        known = self._detectors.get(point.series)
        if known is None:
            if not self._make_room(point.ts_ns):
                self.left_out += 1
                return None
            detector = self._detector()
        else:
            detector = known[0]
        self._detectors[point.series] = detector, point.ts_ns
        self._detectors.move_to_end(point.series)
        return detector.judge((point.ts_ns - self._interval_ns) / 1e9, point.value)

    def _make_room(self, now_ns: int) -> bool:
        if len(self._detectors) < self._max_series:
            return True
        _, fed_ns = next(iter(self._detectors.values()))
        if 0 <= now_ns - fed_ns <= self._interval_ns:
            return False
        self._detectors.popitem(last=False)
        return True

    def _detector(self) -> Detector:
        return Detector(warmup=self._warmup, hour_memory=self._hour_memory)

    def save(self, path: Path) -> None:
        """Write everything to ``path`` (0600), which is whole at every moment. Raises OSError."""
        series = [[*key, fed, made.state()] for key, (made, fed) in self._detectors.items()]
        document = {"version": VERSION, "interval_ns": self._interval_ns, "series": series}
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, separators=(",", ":"), allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def load(self, path: Path) -> None:
        """Go on from a saved file, if there is one. Raises `StateWrong`, having changed nothing."""
        try:
            with path.open("rb") as file:
                content = file.read(MAX_STATE_BYTES + 1)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateWrong(f"cannot read {path}: {error.strerror}") from None
        if len(content) > MAX_STATE_BYTES:
            raise StateWrong(f"{path} is larger than {MAX_STATE_BYTES >> 20} MiB")
        try:
            self._detectors = self._restored(json.loads(content))
        except _MALFORMED as error:
            raise StateWrong(f"{path} does not hold what was learnt: {error}") from None

    def _restored(self, document: Any) -> OrderedDict[Series, tuple[Detector, int]]:
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']!r}, expected {VERSION}")
        if document["interval_ns"] != self._interval_ns:
            raise ValueError("it was learnt with another interval")
        restored: OrderedDict[Series, tuple[Detector, int]] = OrderedDict()
        for host, kind, name, measure, fed_ns, state in document["series"][-self._max_series :]:
            known = kind in get_args(Kind) and measure in MEASURES
            if not known or not all(isinstance(text, str) for text in (host, name)):
                raise ValueError("a series has no name")
            if type(fed_ns) is not int:
                raise ValueError("a series has no moment")
            detector = self._detector()
            detector.restore(state)
            restored[Series(host, kind, name, measure)] = detector, fed_ns
        return restored
