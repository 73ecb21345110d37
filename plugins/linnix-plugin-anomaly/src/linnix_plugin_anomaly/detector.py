"""One series, one point at a time: what was expected, and how unusual is what came."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Literal, NamedTuple, TypeAlias

from river.stats import Mean

from linnix_plugin_anomaly.rarity import Rarity

__all__ = ["Detector", "Judgement", "Usual"]

#: What a value is compared with: the level of late, or that of this hour of other days.
Usual: TypeAlias = Literal["level", "hour"]

#: Deviations below this share of the value are the rounding of floating point.
_ROUNDING = 1e-12

#: Larger values are taken for this, so that every sum stays finite.
_LARGEST = 1e150

_HOUR_S = 3600
_HOURS = 24


class Judgement(NamedTuple):
    """What a point means. ``surprise`` 3 is one in a thousand; see `Rarity`.

    ``score`` is the surprise where it is news: the warm-up is over, and nothing within
    the rest was as surprising. It is 0 otherwise, so that an anomaly scores when it is
    first seen and when it gets worse. ``usual`` and ``expected`` tell against what, and
    ``rarity`` ranks deviations from it.
    """

    score: float
    surprise: float
    expected: float
    usual: Usual
    rarity: Rarity


class Detector:
    """Unusual values of one series, without labels and within bounded memory.

    Running means (`river.stats.Mean`, their weight bounded so that they follow) say what
    to expect: one of late, over twice the ``warmup``, and one for each hour of the day,
    over ``hour_memory`` points in that hour. The deviation from each is ranked among its
    own earlier ones, and the more surprising of the two counts.

    ``warmup`` is a number of points: so many come before the first that can score, and
    four tenths of it are the rest in which only what is more surprising scores again.
    """

    __slots__ = (
        "_began_s", "_by_hour", "_by_level", "_hour_memory", "_hours", "_level", "_level_memory",
        "_recent", "_rest", "_seen", "_warmup",
    )  # fmt: skip

    def __init__(self, *, warmup: int = 750, hour_memory: int = 100) -> None:
        self._warmup = warmup
        self._rest = max(2, warmup * 2 // 5)
        self._level_memory = max(2, 2 * warmup)
        self._hour_memory = max(2, hour_memory)
        self._seen = 0
        self._began_s = 0.0
        self._level = Mean()
        self._hours: list[Mean | None] = [None] * _HOURS
        self._by_level = Rarity()
        self._by_hour = Rarity()
        # Surprises within the rest that no later one reached, the largest first.
        self._recent: deque[tuple[int, float]] = deque()

    @property
    def warm(self) -> bool:
        """Whether points can score already."""
        return self._seen >= self._warmup

    def judge(self, ts_s: float, value: float) -> Judgement:
        """Take the next point in: a finite value at a moment in seconds since the epoch."""
        if abs(value) > _LARGEST:
            value = math.copysign(_LARGEST, value)
        warm = self.warm
        if not self._seen or ts_s < self._began_s:
            self._began_s = ts_s
        level = self._level
        expected = level.get() if self._seen else value
        surprise = self._by_level.add(_deviation(value, expected))
        usual: Usual = "level"
        rarity = self._by_level
        _learn(level, value, self._level_memory)
        slot = int(ts_s // _HOUR_S) % _HOURS
        hour = self._hours[slot]
        if hour is None:
            hour = self._hours[slot] = Mean()
        elif ts_s - self._began_s >= _HOURS * _HOUR_S:
            # Only now it is the hour of another day.
            by_hour = self._by_hour.add(_deviation(value, hour.get()))
            if by_hour > surprise:
                surprise, usual, expected, rarity = by_hour, "hour", hour.get(), self._by_hour
        _learn(hour, value, self._hour_memory)
        news = self._news(surprise)
        self._seen += 1
        return Judgement(surprise if warm and news else 0.0, surprise, expected, usual, rarity)

    def _news(self, surprise: float) -> bool:
        recent = self._recent
        if recent and recent[0][0] <= self._seen - self._rest:
            recent.popleft()
        news = not recent or surprise > recent[0][1]
        while recent and recent[-1][1] <= surprise:
            recent.pop()
        recent.append((self._seen, surprise))
        return news

    def state(self) -> dict[str, Any]:
        """Everything that was learnt, as JSON has it."""
        return {
            "seen": self._seen,
            "began_s": self._began_s,
            "level": _mean_state(self._level),
            "hours": [hour and _mean_state(hour) for hour in self._hours],
            "by_level": self._by_level.state(),
            "by_hour": self._by_hour.state(),
            "recent": [list(each) for each in self._recent],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else; the detector
        is then to be thrown away.
        """
        self._seen = _whole(state["seen"])
        self._began_s = _number(state["began_s"])
        self._level = _mean(state["level"])
        hours = [hour and _mean(hour) for hour in state["hours"]]
        if len(hours) != _HOURS:
            raise ValueError("a day has 24 hours")
        self._hours = hours
        self._by_level = Rarity.from_state(state["by_level"])
        self._by_hour = Rarity.from_state(state["by_hour"])
        recent = [(_whole(moment), _number(surprise)) for moment, surprise in state["recent"]]
        # A shorter warm-up than before has a shorter rest.
        oldest = self._seen - self._rest
        self._recent = deque(each for each in recent if oldest <= each[0] < self._seen)


def _deviation(value: float, expected: float) -> float:
    deviation = abs(value - expected)
    return deviation if deviation > _ROUNDING * (abs(value) + abs(expected)) else 0.0


def _learn(mean: Mean, value: float, memory: int) -> None:
    # With its weight bounded, the mean of all values becomes that of the late ones.
    if mean.n >= memory:
        mean.n = memory - 1.0
    mean.update(value)


def _mean_state(mean: Mean) -> list[float]:
    return [mean.n, mean.get()]


def _mean(state: list[float]) -> Mean:
    weight, value = state
    made = Mean()
    if _number(weight) > 0:
        made.update(_number(value), weight)
    return made


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a whole number, got {value!r}")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"expected a number, got {value!r}")
    return float(value)  # type: ignore[arg-type]
