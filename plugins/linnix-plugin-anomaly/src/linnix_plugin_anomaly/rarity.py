"""How rare a deviation is among those before it: what makes unlike series comparable."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["Rarity"]

#: Bins in an octave: neighbours differ by 6 %.
_GRID = 12

#: Octaves that are kept, down from the largest deviation; the lowest bin takes what is smaller.
_OCTAVES = 20
_SPAN = _OCTAVES * _GRID

#: Deviations that are counted before all counts are halved, so that the old fade.
_MEMORY = 16_384

_DECADES_PER_BIN = math.log10(2) / _GRID

#: The exponents that a finite number can have.
_EXPONENTS = range(-1100, 1100)


class Rarity:
    """Counts of the deviations of one series, on a grid that is fine relative to their size.

    The surprise of a deviation is ``-log10`` of the share of earlier ones that were as
    large: 3 is one in a thousand. It assumes no distribution and knows no unit. What is
    larger than everything before continues the scale with one for each factor of ten.
    """

    __slots__ = ("_bins", "_exponent", "_largest", "_octaves", "_total")

    def __init__(self) -> None:
        # From small to large: counts of the bins, and of the octaves, whose sums are quick.
        self._bins = [0.0] * _SPAN
        self._octaves = [0.0] * _OCTAVES
        self._total = 0.0
        # The exponent of two of the highest octave, and the highest bin that was ever filled.
        self._exponent: int | None = None
        self._largest = 0

    def add(self, deviation: float) -> float:
        """Count a deviation (finite, not negative) and return how surprising it was."""
        if self._total >= _MEMORY:
            self._fill([count / 2 for count in self._bins])
        place, surprise = 0, 0.0
        if deviation > 0:
            place = self._place(deviation)
            surprise = self._surprise(place)
            self._largest = max(self._largest, place)
        self._bins[place] += 1
        self._octaves[place // _GRID] += 1
        self._total += 1
        return surprise

    def edge(self, surprise: float) -> float:
        """The smallest deviation that is at least so surprising now, to a bin."""
        if self._exponent is None:
            return 0.0
        place = next((p for p in range(_SPAN) if self._surprise(p) >= surprise), _SPAN)
        if place == _SPAN:
            missing = max(surprise - self._surprise(_SPAN), 0.0)
            place += math.ceil(missing / _DECADES_PER_BIN)
        octaves = (place - _SPAN) / _GRID + self._exponent
        return float(2.0 ** max(_EXPONENTS.start, min(octaves, 1000.0)))

    def _surprise(self, place: int) -> float:
        octave = place // _GRID + 1
        larger = sum(self._octaves[octave:]) + sum(self._bins[place + 1 : _GRID * octave])
        if place < _SPAN:
            larger += 0.5 * self._bins[place]
        surprise = math.log10((self._total + 1) / (larger + 0.5))
        if place > self._largest:
            surprise += (place - self._largest) * _DECADES_PER_BIN
        return surprise

    def _place(self, deviation: float) -> int:
        # By mantissa and exponent: twice a deviation is exactly an octave above it.
        mantissa, exponent = math.frexp(deviation)
        within = _SPAN + math.floor(_GRID * math.log2(mantissa))
        if self._exponent is None:
            # There is no scale yet that it could be beyond.
            self._exponent, self._largest = exponent, within
        elif exponent > self._exponent:
            self._raise_to(exponent)
        return max(0, within + _GRID * (exponent - self._exponent))

    def _raise_to(self, exponent: int) -> None:
        up = _GRID * (exponent - (self._exponent or 0))
        kept = self._bins[up + 1 :]
        lowest = sum(self._bins[: up + 1])
        self._fill([lowest, *kept, *([0.0] * (_SPAN - 1 - len(kept)))])
        self._largest = max(self._largest - up, 0)
        self._exponent = exponent

    def _fill(self, bins: list[float]) -> None:
        self._bins = bins
        self._octaves = [sum(bins[i : i + _GRID]) for i in range(0, _SPAN, _GRID)]
        self._total = sum(bins)

    def state(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        filled = {str(place): count for place, count in enumerate(self._bins) if count}
        return {"exponent": self._exponent, "largest": self._largest, "bins": filled}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Rarity:
        """What `state` gave; ``ValueError``, ``KeyError`` or ``TypeError`` for anything else."""
        made = cls()
        exponent, largest, filled = state["exponent"], state["largest"], state["bins"]
        if exponent is not None and (type(exponent) is not int or exponent not in _EXPONENTS):
            raise ValueError("exponent is not one of a finite number")
        if type(largest) is not int or not 0 <= largest < _SPAN:
            raise ValueError("largest is not the place of a bin")
        bins = [0.0] * _SPAN
        for place, count in filled.items():
            if not 0 <= int(place) < _SPAN or not 0 < float(count) <= _MEMORY:
                raise ValueError("a bin is out of bounds")
            bins[int(place)] = float(count)
        made._fill(bins)
        if not made._total <= _MEMORY:
            raise ValueError("there is more than can have been counted")
        made._exponent, made._largest = exponent, largest
        return made
