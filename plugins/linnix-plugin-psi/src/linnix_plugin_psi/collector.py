"""The collector: its configuration, its polls, and what it says of itself."""

from __future__ import annotations

import errno
import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from linnix_core import CgroupSample, Context, Health, PluginUnavailable, hookimpl
from linnix_plugin_psi.hierarchies import Hierarchy, find_hierarchies
from linnix_plugin_psi.tree import CgroupTree

__all__ = ["PsiCollector", "PsiConfig"]

#: The inode of the first cgroup namespace (include/uapi/linux/nsfs.h of the kernel).
_MACHINE_NAMESPACE = 0xEFFFFFFB


def _positive(instance: object, field: attrs.Attribute[int], value: int) -> None:
    if value < 1:
        raise ValueError(f"{field.name} must be at least 1")


def _patterns(instance: object, field: attrs.Attribute[list[str]], value: list[str]) -> None:
    for pattern in value:
        if not pattern.startswith(("/", "*")):
            raise ValueError(f"{field.name}: {pattern!r} matches no path; begin it with / or *")


@attrs.frozen
class PsiConfig:
    """Which groups are sampled. In a pattern ``*`` stands for any text, slashes too."""

    include: list[str] = attrs.field(
        factory=list,
        validator=_patterns,
        metadata={"help": "only groups whose path matches one of these patterns"},
    )
    exclude: list[str] = attrs.field(
        factory=list,
        validator=_patterns,
        metadata={"help": "no groups whose path matches one of these patterns"},
    )
    max_groups: int = attrs.field(
        default=1000,
        validator=_positive,
        metadata={"help": "sample no more than these, nearest to the root first"},
    )


class PsiCollector:
    """Measure what every cgroup uses and waits for: pressure, CPU, throttling, memory.

    ``proc`` is where /proc is.
    """

    Config = PsiConfig

    def __init__(self, config: PsiConfig, context: Context, *, proc: Path = Path("/proc")) -> None:
        self._config = config
        self._clock = context.clock
        self._proc = proc
        self._tree: CgroupTree | None = None
        self._limits: tuple[str, ...] = ()

    @hookimpl
    def linnix_start(self) -> None:
        """Find the hierarchies; what is mounted later is not looked for."""
        try:
            hierarchies, outside = find_hierarchies(self._proc)
        except OSError as error:
            raise PluginUnavailable(
                f"it is not known where cgroups are mounted: {error}",
                hint="mount proc at /proc (cgroups are a feature of Linux)",
            ) from error
        pressure = self._proc / "pressure"
        apart = _is_apart(self._proc / "self/ns/cgroup")
        absent = _why_absent(pressure)
        if not hierarchies and (apart or absent):
            raise PluginUnavailable(
                f"no cgroup hierarchy can be read, and {absent or 'the root has no pressure'}",
                hint="mount -t cgroup2 none /sys/fs/cgroup"
                + (", or run in the cgroup namespace of the machine" if apart else ""),
            )
        self._limits = tuple(_limits(hierarchies, outside=outside, apart=apart, absent=absent))
        self._tree = CgroupTree(
            hierarchies,
            machine=None if apart or absent else str(pressure),
            max_groups=self._config.max_groups,
            wanted=_choice(self._config),
            monotonic=self._clock.monotonic,
        )

    @hookimpl
    def linnix_poll(self) -> Sequence[CgroupSample]:
        """A sample of each group, all of the same time."""
        return () if self._tree is None else self._tree.poll(self._clock.time_ns())

    @hookimpl
    def linnix_health(self) -> Health:
        """Always ok; the limits are what this kernel, its mounts and the configuration hide."""
        limits = list(self._limits)
        if self._tree is not None and (left_out := self._tree.left_out):
            limits.append(
                f"{left_out} or more groups are not sampled: max_groups is "
                f"{self._config.max_groups}, and the nearest to the root come first"
            )
        if self._tree is not None and (unreadable := self._tree.unreadable):
            limits.append(f"groups that could not be opened in the last poll: {unreadable}")
        return Health(limits=tuple(limits))


def _choice(config: PsiConfig) -> Callable[[str], bool]:
    include = _any_of(config.include or ["*"])
    exclude = _any_of(config.exclude)
    return lambda path: bool(include(path)) and not exclude(path)


def _any_of(patterns: Sequence[str]) -> Callable[[str], object]:
    # Without a pattern it must match nothing, and the empty expression matches everything.
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)").match


def _is_apart(namespace: Path) -> bool:
    """Whether this process has a cgroup namespace of its own, as in most containers."""
    try:
        return namespace.stat().st_ino != _MACHINE_NAMESPACE
    except OSError:
        return False  # before Linux 4.6 there were none


def _why_absent(pressure: Path) -> str | None:
    """Why there is no pressure; None if there is."""
    try:
        (pressure / "cpu").read_bytes()
    except FileNotFoundError:
        return "this kernel offers no pressure (psi=1 on its command line, or CONFIG_PSI)"
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return "pressure is turned off (psi=1 on the command line of the kernel)"
        return f"pressure cannot be read: {error}"
    return None


def _limits(
    hierarchies: Sequence[Hierarchy], *, outside: int, apart: bool, absent: str | None
) -> Iterator[str]:
    unified = any(hierarchy.version == 2 for hierarchy in hierarchies)
    offered = frozenset[str]().union(*(hierarchy.controllers for hierarchy in hierarchies))
    if absent:
        yield absent
    elif not unified:
        yield "the pressure of single groups is not known: cgroup version 2 is not mounted"
    if not unified and "cpuacct" not in offered:
        yield "the CPU use of groups is not known: no cpuacct controller is mounted"
    if "cpu" not in offered:
        yield "throttling is not known: no cpu controller is mounted"
    if "memory" not in offered:
        yield "the memory of groups is not known: no memory controller is mounted"
    if apart:
        yield "groups outside of this cgroup namespace are not seen, and / is its root"
    if outside:
        yield f"mounts from outside of this cgroup namespace are not read: {outside}"
