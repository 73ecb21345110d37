"""What has been attributed so far: counters of pairs, and the latest of what is worth telling."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import attrs

from linnix_core import Metric
from linnix_plugin_attribution.counters import Counters
from linnix_plugin_attribution.groups import Unit, deepest
from linnix_plugin_attribution.rounds import Resource, Round
from linnix_plugin_attribution.split import Reason
from linnix_plugin_attribution.stalls import Stall, stalls

__all__ = ["Attribution", "Ledger"]

#: Attributions that are remembered; the oldest are forgotten.
MAX_REMEMBERED = 4096

_Pair: TypeAlias = tuple[Resource, Unit, Unit]  # the offender, then the victim

_FAMILIES: dict[Resource, tuple[str, str]] = {
    "cpu": ("linnix_stall_induced_seconds_total", "CPU"),
    "memory": ("linnix_memory_stall_induced_seconds_total", "memory"),
    "io": ("linnix_io_stall_induced_seconds_total", "I/O"),
}


@attrs.frozen
class Attribution:
    """One group made another one wait, in one interval.

    ``stall_us`` is all that the victim waited then, ``attributed_us`` the offender's part.
    All parts of one stall have the same ``event_id``; ``id`` grows.
    """

    id: int
    event_id: str
    ts_ns: int
    resource: Resource
    victim: Unit
    offender: Unit
    stall_us: int
    attributed_us: int
    blame_score: float
    use_share: float
    forks: int
    short_jobs: int
    reason: Reason


class Ledger:
    """Adds rounds up. What was attributed always counts; what is large enough is remembered.

    There are at most ``max_pairs`` counters of pairs, and as many of victims.
    """

    def __init__(self, *, threshold_us: int = 100_000, max_pairs: int = MAX_REMEMBERED) -> None:
        self._threshold_us = threshold_us
        self._pairs: Counters[_Pair] = Counters(max_pairs)
        self._pressure: Counters[Unit] = Counters(max_pairs)
        self._remembered: deque[Attribution] = deque(maxlen=MAX_REMEMBERED)
        self.last_id = 0
        #: The time of the last round.
        self.last_ns = 0
        #: Groups of the last round, and whom they belong to.
        self.places: dict[str, Unit] = {}

    def add(self, round_: Round) -> list[Attribution]:
        """Count a round; the attributions of it that are large enough, largest first."""
        self.places = {path: growth.unit for path, growth in round_.groups.items()}
        self.last_ns = round_.ts_ns
        for path in deepest(round_.pressure_us) - {"/"}:
            self._pressure.add(self.places[path], round_.pressure_us[path], round_.ts_ns)
        told: list[Attribution] = []
        for stall in stalls(round_):
            told.extend(self._account(stall))
        self._remembered.extend(told)
        return sorted(told, key=lambda row: (-row.attributed_us, row.id))

    def _account(self, stall: Stall) -> Iterator[Attribution]:
        event_id = _event_id(stall)
        for offender, share in stall.split.shares.items():
            pair = (stall.resource, offender, stall.victim)
            self._pairs.add(pair, share.attributed_us, stall.ts_ns)
            if share.attributed_us < self._threshold_us:
                continue
            self.last_id += 1
            yield Attribution(
                self.last_id,
                event_id,
                stall.ts_ns,
                stall.resource,
                stall.victim,
                offender,
                stall.split.stall_us,
                share.attributed_us,
                share.blame_score,
                share.use_share,
                share.forks,
                share.short_jobs,
                share.reason,
            )

    def recent(
        self, since_ns: int, until_ns: int, *, victim: Unit | None = None, max_id: int | None = None
    ) -> list[Attribution]:
        """What is remembered of this time, both ends included, in the order of its ids."""
        return [
            row
            for row in self._remembered
            if since_ns <= row.ts_ns <= until_ns
            and (victim is None or row.victim == victim)
            and (max_id is None or row.id <= max_id)
        ]

    def metrics(self, node: str) -> Iterator[Metric]:
        """The counters, with the names and labels of the original Linnix for pods."""
        yield from _counters(
            "linnix_pod_psi_pressure_total",
            "us",
            "Microseconds in which some task of the group waited for a CPU",
            (
                ({**unit.labels("victim"), "node": node}, pressure_us)
                for unit, pressure_us in self._pressure.items()
            ),
        )
        for resource, (name, what) in _FAMILIES.items():
            yield from _counters(
                name,
                "s",
                f"Seconds of {what} stall of the victim that are attributed to the offender",
                (
                    ({**offender.labels("offender"), **victim.labels("victim")}, part_us / 1e6)
                    for (of, offender, victim), part_us in self._pairs.items()
                    if of == resource
                ),
            )
        yield Metric(
            "linnix_blame_series_evicted_total",
            self._pairs.evicted + self._pressure.evicted,
            kind="counter",
            help="Counters that had to be given up for the bound on their number",
        )


def _counters(
    name: str, unit: str, help_: str, series: Iterable[tuple[dict[str, str], float]]
) -> Iterator[Metric]:
    # Names that are alike once they are bounded and harmless make one series.
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for labels, value in series:
        key = tuple(labels.items())
        sums[key] = sums.get(key, 0) + value
    for items, total in sums.items():
        yield Metric(name, total, unit, "counter", dict(items), help_)


def _event_id(stall: Stall) -> str:
    """The same for the same stall, also when it is replayed."""
    told = f"{stall.ts_ns}\0{stall.resource}\0{stall.cgroup}"
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
