"""How one stall is split: arithmetic without time, groups or state.

Weights are those of the original Linnix: a neighbour's part of what all used, plus how many
forks and how many short jobs it made, each counting at most as much as using everything.
Times are whole microseconds, so that what is split adds up exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

import attrs

__all__ = ["Activity", "Reason", "Share", "Split", "split"]

Reason: TypeAlias = Literal[
    "high_cpu_contention",
    "fork_storm",
    "short_job_churn",
    "high_io_contention",
    "memory_growth",
]

K = TypeVar("K")

#: Forks, and jobs shorter than a second, that weigh as much as using everything: within
#: ``FULL_SCORE_S`` seconds, and proportionally fewer in a shorter interval.
FULL_FORKS = 100
FULL_SHORT_JOBS = 50
FULL_SCORE_S = 15.0

#: Rounds in which what somebody cannot have caused is handed to the others.
_PASSES = 8


@attrs.frozen
class Activity:
    """What a group did while another one waited.

    ``use`` is CPU time in microseconds, or bytes. ``at_most_us`` is the most that it can have
    caused, where that is known: whoever makes others wait for a CPU runs meanwhile.
    """

    use: float = 0.0
    forks: int = 0
    short_jobs: int = 0
    at_most_us: int | None = None


class Share(NamedTuple):
    """What one neighbour is charged with, and from which numbers.

    ``use_share`` is its part of what all others used, 0 to 1; ``blame_score`` is its weight
    times the seconds that the victim waited.
    """

    attributed_us: int
    blame_score: float
    use_share: float
    forks: int
    short_jobs: int
    reason: Reason


@attrs.frozen
class Split(Generic[K]):
    """A stall in parts: the four of them add up to ``stall_us`` exactly.

    ``shares`` begins with the largest. ``by_limit_us`` is what the victim's own limit
    explains, ``by_itself_us`` what its own threads or I/O do; ``unexplained_us`` is what
    nobody who was measured can have caused, and what rounding down left.
    """

    stall_us: int
    shares: Mapping[K, Share]
    by_limit_us: int
    by_itself_us: int
    unexplained_us: int


def split(
    stall_us: int,
    others: Mapping[K, Activity],
    *,
    seconds: float = FULL_SCORE_S,
    itself: Activity | None = None,
    by_limit_us: int = 0,
    use_reason: Reason = "high_cpu_contention",
) -> Split[K]:
    """Split a stall among the groups that were active in the same ``seconds``.

    ``itself`` is what the victim used that competes with its own waiting; its forks and short
    jobs never count. Keys must have an order, which decides between equals.

    >>> parts = split(1_000_000, {"bomb": Activity(10, forks=400), "steady": Activity(20)})
    >>> {name: (share.attributed_us, share.reason) for name, share in parts.shares.items()}
    {'bomb': (666666, 'fork_storm'), 'steady': (333333, 'high_cpu_contention')}
    """
    itself = itself or Activity()
    by_limit_us = min(max(by_limit_us, 0), stall_us)
    everyone = [*others.values(), itself]
    total = math.fsum([activity.use for activity in everyone])
    per_fork = FULL_SCORE_S / seconds / FULL_FORKS
    per_job = FULL_SCORE_S / seconds / FULL_SHORT_JOBS
    scores = [
        (
            activity.use / total if total else 0.0,
            min(activity.forks * per_fork, 1.0),
            min(activity.short_jobs * per_job, 1.0),
        )
        for activity in everyone
    ]
    weights = [use + forks + short_jobs for use, forks, short_jobs in scores]
    weights[-1] = scores[-1][0]
    bounds = [activity.at_most_us for activity in everyone]
    *parts, by_itself_us = _fill(stall_us - by_limit_us, weights, bounds)
    # Every key is there once, so what stands behind it is never compared.
    charged = sorted(
        (-part, key, index)
        for index, (part, key) in enumerate(zip(parts, others, strict=True))
        if part
    )
    shares = {
        key: Share(
            -minus_part,
            weights[index] * stall_us / 1e6,
            scores[index][0],
            everyone[index].forks,
            everyone[index].short_jobs,
            _reason(scores[index], use_reason),
        )
        for minus_part, key, index in charged
    }
    explained_us = by_limit_us + by_itself_us + sum(parts)
    return Split(stall_us, shares, by_limit_us, by_itself_us, stall_us - explained_us)


def _reason(scores: tuple[float, float, float], use_reason: Reason) -> Reason:
    use, forks, short_jobs = scores
    if use >= forks and use >= short_jobs:
        return use_reason
    return "fork_storm" if forks >= short_jobs else "short_job_churn"


def _fill(amount: int, weights: Sequence[float], bounds: Sequence[int | None]) -> list[int]:
    """Parts by weight, none above its bound; what is above goes to the others by theirs."""
    parts = [0] * len(weights)
    open_ = [index for index, weight in enumerate(weights) if weight > 0]
    for _ in range(_PASSES):
        total = math.fsum([weights[index] for index in open_])
        full = []
        for index in open_:
            parts[index] = part = int(amount * (weights[index] / total))
            bound = bounds[index]
            if bound is not None and part > bound:
                parts[index] = bound
                full.append(index)
        if not full:
            break
        amount -= sum([parts[index] for index in full])
        at_bound = set(full)
        open_ = [index for index in open_ if index not in at_bound]
    return parts
