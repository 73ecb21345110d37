"""Which cases run together: sessions in a fixed order, the same for everybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import attrs

from evaluation import incidents, ordinary
from evaluation.cases import CLASSES, Case, Kind, Split, families
from evaluation.runner import available

__all__ = ["Session", "sessions"]

#: The modules that hold the families.
SOURCES = (incidents, ordinary)


#: Incidents in one lane: they take about as long as a leak.
SUDDEN = 8


@attrs.frozen
class Session:
    """One recording: lanes that run at once, of cases that run one after the other."""

    name: str
    lanes: tuple[tuple[Case, ...], ...]


def sessions(splits: Sequence[Split], what: str = "all") -> Iterator[Session]:
    """Without end, in one order: incidents, incidents beside ordinary work, ordinary work alone.

    Only those of some splits, and with ``what`` only those that have ``incidents``, those that are
    ``mixed``, or those of ``ordinary`` work alone; the others keep their numbers.
    """
    number = 0
    turns: Counter[tuple[Split, bool]] = Counter()
    both: tuple[Split, Split] = ("development", "held-out")
    while True:
        for split in both:
            for kind in ("incidents", "mixed", "ordinary"):
                number += 1
                alone = kind == "ordinary"
                turns[split, alone] += 1
                if split in splits and what in ("all", kind, *(() if alone else ("incidents",))):
                    name = f"{number:04}-{kind}-{split}"
                    yield Session(name, _lanes(kind, split, turns[split, alone]))


def _lanes(kind: str, split: Split, number: int) -> tuple[tuple[Case, ...], ...]:
    if kind == "ordinary":
        return tuple(
            tuple(_case(None, split, 9 * number + 3 * lane + n) for n in range(3))
            for lane in range(3)
        )
    sudden = [each for each in CLASSES if each != "oom_risk"]
    # As many as fit beside a leak, going on where the session before ended.
    first = tuple(
        _case(sudden[n % len(sudden)], split, n // len(sudden))
        for n in range(SUDDEN * number, SUDDEN * (number + 1))
    )
    # One more than there are, so that each session begins at another family.
    memory = tuple((_case("oom_risk", split, 4 * number + n),) for n in range(3))
    if kind == "mixed":
        # Ordinary work all the while, so that both get their share of every hour.
        beside = tuple(
            tuple(_case(None, split, 7000 + 8 * number + 4 * lane + n) for n in range(4))
            for lane in range(2)
        )
        return first, *memory, *beside
    return first, *memory


def _case(kind: Kind, split: Split, seed: int) -> Case:
    """The next family of this kind, in turn; another where its programs are missing."""
    among = list(families(kind, split))
    for n in range(len(among)):
        case = Case.of(among[(seed + n) % len(among)], seed)
        if available(case):
            return case
    raise LookupError(f"no program of {kind} is installed")
