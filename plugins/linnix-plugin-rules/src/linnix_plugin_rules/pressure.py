"""Detectors of pressure: the share of time in which work waits for CPU, memory or storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import attrs

from linnix_core import CgroupSample, Evidence, Pressure, SystemSample, printable
from linnix_plugin_rules.detector import Detector, Finding, key, percent, seconds
from linnix_plugin_rules.rounds import Round
from linnix_plugin_rules.tree import Subtree

__all__ = [
    "CgroupPsiCpu",
    "CgroupPsiIo",
    "CgroupPsiMemory",
    "Groups",
    "PressureDetector",
    "SystemPsiCpu",
    "SystemPsiIo",
    "SystemPsiMemory",
]

#: Samples of one moment by cgroup. The machine is the root of all.
Groups: TypeAlias = Mapping[str, CgroupSample | SystemSample]

ROOT = "/"

#: By resource: which processes are to blame, those that use most of what.
USED: dict[str, str] = {"cpu": "cpu", "memory": "rss", "io": "io"}
UNITS = {"cpu": "%", "rss": "By", "io": "By/s"}


class _Watched(NamedTuple):
    """The stall time at the latest sample, and since when there has been too much of it."""

    ts_ns: int
    total_us: int
    since_ns: int | None


@attrs.define(kw_only=True)
class PressureDetector(Detector):
    """Pressure above ``threshold_pct`` percent for ``duration`` seconds.

    Pressure is the larger of the kernel's average over ten seconds and of the share of the
    time since the sample before, which is quicker to rise.
    """

    filters: ClassVar[tuple[str, ...]] = ("cgroup",)

    threshold_pct: float = key(percent)
    duration: float = key(seconds)

    resource: ClassVar[Literal["cpu", "memory", "io"]]
    #: Whether some tasks waited, or all of them.
    of: ClassVar[Literal["some", "full"]] = "full"

    _watched: dict[str, _Watched] = attrs.field(factory=dict, init=False, eq=False, repr=False)

    def start(self) -> None:
        """Begin with nothing known."""
        self._watched = {}

    def on_groups(self, ts_ns: int, groups: Groups, latest: Round | None) -> Iterator[Finding]:
        """Judge samples of one moment; ``latest`` tells what processes used of late."""
        before = self._watched
        # The machine and the cgroups may be measured at different times.
        self._watched = before if set(groups) <= {ROOT} else {
            group: watched for group, watched in before.items() if group in groups or group == ROOT
        }  # fmt: skip
        for group, sample in groups.items():
            pressure: Pressure | None = getattr(sample, f"psi_{self.resource}")
            if pressure is None or not self._meant(group):
                continue
            share, began_ns = self._share(ts_ns, group, pressure)
            if share is None or share <= self.threshold_pct:
                since_ns = None
            else:
                since_ns = self._since(group, began_ns)
            total_us = getattr(pressure, f"{self.of}_total_us") or 0
            self._watched[group] = _Watched(ts_ns, total_us, since_ns)
            if (
                share is not None
                and since_ns is not None
                and ts_ns - since_ns >= self.duration * 1e9
            ):
                yield self._finding(group, share, latest)

    def _meant(self, group: str) -> bool:
        if self.scope == "host":
            return group == ROOT
        return group != ROOT and self.selection.has_group(group)

    def _share(self, ts_ns: int, group: str, pressure: Pressure) -> tuple[float | None, int]:
        """The pressure, and since when it has been like this at least."""
        average: float | None = getattr(pressure, f"{self.of}_avg10")
        total_us: int | None = getattr(pressure, f"{self.of}_total_us")
        before = self._watched.get(group)
        if average is None or total_us is None or before is None or ts_ns <= before.ts_ns:
            return average, ts_ns
        share = (total_us - before.total_us) * 1e5 / (ts_ns - before.ts_ns)
        share = min(share, 100.0)
        return (share, before.ts_ns) if share > average else (average, ts_ns)

    def _since(self, group: str, began_ns: int) -> int:
        before = self._watched.get(group)
        if before is None or before.since_ns is None:
            return began_ns
        return before.since_ns

    def _finding(self, group: str, share: float, latest: Round | None) -> Finding:
        name = {"cpu": "CPU", "memory": "memory", "io": "I/O"}[self.resource]
        message = (
            f"{name} pressure: {'some' if self.of == 'some' else 'all'} work waited "
            f"{share:.0f} % of the time, above {self.threshold_pct:g} % for {self.duration:g} s"
        )
        if group != ROOT:
            message += f" in cgroup {printable(group, limit=120)}"
        evidence = (
            Evidence(f"psi_{self.resource}_{self.of}", round(share, 1), "%"),
            Evidence("threshold", self.threshold_pct, "%"),
            Evidence("window", self.duration, "s"),
        )
        measure = USED[self.resource]
        worst = None if latest is None else self._worst(latest, measure, group)
        cgroup = None if group == ROOT else group
        if worst is None:
            return Finding(None, message, evidence, about=group, cgroup=cgroup)
        used = Evidence(f"offender_{measure}", round(worst.by_offender, 1), UNITS[measure])
        message += f"; most of it is used by {worst.offender}"
        return Finding(worst.offender, message, (*evidence, used), about=group)

    @staticmethod
    def _worst(latest: Round, measure: str, group: str) -> Subtree | None:
        below = group.rstrip("/") + "/"
        return latest.heaviest(
            measure,
            lambda p: group == ROOT or f"{p.cgroup}/".startswith(below),
        )


@attrs.define(kw_only=True)
class SystemPsiCpu(PressureDetector):
    """Some work on the machine waits for a CPU."""

    class_ = "cpu_spin"
    resource, of = "cpu", "some"
    filters = ()


@attrs.define(kw_only=True)
class SystemPsiMemory(PressureDetector):
    """All work on the machine waits for memory."""

    class_ = "oom_risk"
    resource = "memory"
    filters = ()


@attrs.define(kw_only=True)
class SystemPsiIo(PressureDetector):
    """All work on the machine waits for storage."""

    class_ = "io_saturation"
    resource = "io"
    filters = ()


@attrs.define(kw_only=True)
class CgroupPsiCpu(PressureDetector):
    """Some work in a cgroup waits for a CPU."""

    class_ = "cpu_spin"
    scopes = ("cgroup",)
    resource, of = "cpu", "some"


@attrs.define(kw_only=True)
class CgroupPsiMemory(PressureDetector):
    """All work in a cgroup waits for memory."""

    class_ = "oom_risk"
    scopes = ("cgroup",)
    resource = "memory"


@attrs.define(kw_only=True)
class CgroupPsiIo(PressureDetector):
    """All work in a cgroup waits for storage."""

    class_ = "io_saturation"
    scopes = ("cgroup",)
    resource = "io"
