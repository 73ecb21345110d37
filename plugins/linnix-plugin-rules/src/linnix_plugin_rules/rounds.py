"""Detectors that sum up what process trees use, a round of samples at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import attrs

from linnix_core import Evidence, ProcessSample
from linnix_plugin_rules.detector import Detector, Finding, key, positive_number, seconds
from linnix_plugin_rules.tree import Process, deepest, lineage, subtree_sums

__all__ = ["Round", "RoundDetector", "SubtreeCpu", "SubtreeRss"]

#: The core's unit of a size without "i" (IEC 80000-13).
MEGABYTE = 1_000_000


class Round:
    """All samples of one moment, and what the trees of these processes used."""

    def __init__(self, ts_ns: int, samples: Mapping[Process, ProcessSample]) -> None:
        self.ts_ns = ts_ns
        self._samples = samples
        self._parents = lineage(self._samples)

    @cached_property
    def cpu(self) -> Mapping[Process, float]:
        """Percent of one core by process, those of its living descendants included."""
        return self._sums(lambda sample: sample.cpu_percent)

    @cached_property
    def rss(self) -> Mapping[Process, float]:
        """Bytes, likewise. Memory that processes share counts for each of them."""
        return self._sums(lambda sample: sample.rss_bytes)

    @cached_property
    def sizes(self) -> Mapping[Process, float]:
        """How many were measured of each process and its descendants."""
        return self._sums(lambda _: 1)

    @cached_property
    def cpu_interval_ns(self) -> Mapping[Process, int]:
        """The time that all of them were measured over at least, for CPU."""
        shortest = {
            process: sample.interval_ns
            for process, sample in self._samples.items()
            if sample.cpu_percent is not None
        }
        for process, above in reversed(self._parents.items()):
            if above is not None and process in shortest:
                shortest[above] = min(shortest[process], shortest.get(above, shortest[process]))
        return shortest

    def lived(self, process: Process) -> bool:
        """Whether it lived then: its children may have outlived it long ago."""
        return process in self._samples or process.alive

    def _sums(self, measure: Callable[[ProcessSample], float | None]) -> Mapping[Process, float]:
        own = {process: measure(sample) or 0 for process, sample in self._samples.items()}
        return subtree_sums(own, self._parents)


@attrs.define
class RoundDetector(Detector):
    """Looks at all samples of one moment together."""

    @abstractmethod
    def on_round(self, samples: Round) -> Sequence[Finding]:
        """Judge one round of samples; each is later than the one before."""


@attrs.define(kw_only=True)
class _SubtreeUse(RoundDetector):
    """What a process and its living descendants use stays above a limit.

    Each process has a timer of its own, and only the deepest for which it has run out is
    meant: its ancestors are above the limit because of it.
    """

    threshold: float = key(positive_number)
    duration: float = key(seconds)

    name: ClassVar[str]
    unit: ClassVar[str]
    #: Of these, how many there are in what the threshold counts.
    units: ClassVar[int]

    _since_ns: dict[Process, int] = attrs.field(factory=dict, init=False)

    def start(self) -> None:
        self._since_ns = {}

    def on_round(self, samples: Round) -> Sequence[Finding]:
        now_ns, since_ns = samples.ts_ns, self._since_ns
        sums, limit = self._sums(samples), self.threshold * self.units
        self._since_ns = {
            process: since_ns[process] if process in since_ns else self._began(process, samples)
            for process, amount in sums.items()
            if amount > limit and samples.lived(process)
        }
        lasting = {
            process: began_ns
            for process, began_ns in self._since_ns.items()
            if now_ns - began_ns >= self.duration * 1e9
        }
        return [
            Finding(
                process,
                f"{self._message(sums[process])} for {self.duration:g} s by {process}"
                + (f", {samples.sizes[process]} processes" if samples.sizes[process] > 1 else ""),
                (
                    Evidence(self.name, round(sums[process], 1), self.unit),
                    Evidence("threshold", limit, self.unit),
                    Evidence("window", self.duration, "s"),
                    Evidence("processes", samples.sizes[process], "processes"),
                ),
            )
            for process in deepest(lasting)
        ]

    @abstractmethod
    def _sums(self, samples: Round) -> Mapping[Process, float]: ...

    @abstractmethod
    def _began(self, process: Process, samples: Round) -> int:
        """Since when it is above the limit, where it was not in the round before."""

    @abstractmethod
    def _message(self, amount: float) -> str: ...


@attrs.define(kw_only=True)
class SubtreeCpu(_SubtreeUse):
    """More than ``threshold`` percent of one core for ``duration`` seconds."""

    class_ = "cpu_spin"
    name, unit, units = "cpu", "%", 1

    def _sums(self, samples: Round) -> Mapping[Process, float]:
        return samples.cpu

    def _began(self, process: Process, samples: Round) -> int:
        # Its use is an average over the time since the round before.
        return samples.ts_ns - samples.cpu_interval_ns[process]

    def _message(self, amount: float) -> str:
        return f"CPU: {amount:.0f} % of one core, above {self.threshold:g} %"


@attrs.define(kw_only=True)
class SubtreeRss(_SubtreeUse):
    """More than ``threshold`` megabytes (10^6 bytes) resident for ``duration`` seconds."""

    class_ = "oom_risk"
    name, unit, units = "rss", "By", MEGABYTE

    def _sums(self, samples: Round) -> Mapping[Process, float]:
        return samples.rss

    def _began(self, process: Process, samples: Round) -> int:
        return samples.ts_ns

    def _message(self, amount: float) -> str:
        return f"memory: {amount / MEGABYTE:.0f} MB resident, above {self.threshold:g} MB"
