"""The windowed Gaussian: the baseline of the Numenta benchmark, computed beside ours."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

__all__ = ["windowed_gaussian"]

#: Points of the window, as the benchmark has it.
_WINDOW = 1000

#: The deviation that stands for none.
_NO_DEVIATION = 1e-6


def windowed_gaussian(values: Iterable[float], window: int = _WINDOW) -> Iterator[float]:
    """One minus the tail probability of each value under the normal distribution of those
    in the window before it; 0 for the first."""
    held: deque[float] = deque()
    origin = total = squares = 0.0
    for count, value in enumerate(values):
        if held:
            mean = total / len(held)
            deviation = math.sqrt(max(squares / len(held) - mean * mean, 0.0)) or _NO_DEVIATION
            yield 1 - 0.5 * math.erfc(abs(value - origin - mean) / deviation / math.sqrt(2))
        else:
            # Sums of distances from a value of the series lose fewer digits.
            origin = value
            yield 0.0
        held.append(value)
        total += value - origin
        squares += (value - origin) ** 2
        if len(held) > window:
            gone = held.popleft() - origin
            total -= gone
            squares -= gone * gone
        if count % window == window - 1:
            # What rounding has left in the sums must not stay.
            origin = sum(held) / len(held)
            total = math.fsum(each - origin for each in held)
            squares = math.fsum((each - origin) ** 2 for each in held)
