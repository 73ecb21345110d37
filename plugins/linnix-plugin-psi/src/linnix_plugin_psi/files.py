"""The files of one cgroup: admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel.

Every file is opened beside a descriptor of the group's folder, so that all that is read
belongs to one group, even if another of the same name takes its place meanwhile.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import attrs

from linnix_core import CgroupSample, Pressure
from linnix_plugin_psi.hierarchies import Hierarchy

__all__ = [
    "Counter",
    "Usage",
    "fill",
    "fill_pressure",
    "parse_limit",
    "parse_pairs",
    "parse_pressure",
]

T = TypeVar("T")

#: Nanoseconds, by device and inode of the group that they were read from: a new group has a
#: new inode, so a key stands for the life of one group in one hierarchy.
Counter: TypeAlias = dict[tuple[int, int], int]

#: Version 1 has a number for no limit: the largest that is whole pages. No machine comes near.
_UNLIMITED = 2**62

_STALL = rb"avg10=([0-9]+\.[0-9]+) \S+ \S+ total=([0-9]+)\n"
_PRESSURE = re.compile(rb"some %s(?:full %s)?" % (_STALL, _STALL))


@attrs.define(eq=False)
class Usage:
    """What only grows while a group lives, read at the monotonic ``moment``."""

    moment: float
    cpu: Counter = attrs.field(factory=dict)
    throttled: Counter = attrs.field(factory=dict)


def fill(
    sample: CgroupSample, usage: Usage, hierarchy: Hierarchy, folder: int, group: tuple[int, int]
) -> None:
    """Add what a hierarchy knows of a group; ``folder`` is a descriptor of its folder.

    What cannot be read, because it is gone or not offered, stays as it was.
    """
    if hierarchy.version == 2:
        cpu = _read(folder, "cpu.stat", parse_pairs) or {}
        if "usage_usec" in cpu:
            usage.cpu[group] = cpu["usage_usec"] * 1000
        if "throttled_usec" in cpu:
            usage.throttled[group] = cpu["throttled_usec"] * 1000
        if "memory" in hierarchy.controllers:
            _fill_memory(sample, folder)
        fill_pressure(sample, folder, ".pressure")
        return
    if "cpuacct" in hierarchy.controllers:
        used = _read(folder, "cpuacct.usage", int)
        if used is not None:
            usage.cpu[group] = used
    if "cpu" in hierarchy.controllers:
        cpu = _read(folder, "cpu.stat", parse_pairs) or {}
        if "throttled_time" in cpu:
            usage.throttled[group] = cpu["throttled_time"]
    if "memory" in hierarchy.controllers:
        _fill_memory_v1(sample, folder)


def fill_pressure(sample: CgroupSample, folder: int, suffix: str = "") -> None:
    """Add the pressure files of a group, or without a suffix those of /proc/pressure."""
    sample.psi_cpu = _read(folder, f"cpu{suffix}", parse_pressure)
    # They are there together or not at all, and a miss costs as much as a read.
    if sample.psi_cpu is not None:
        sample.psi_memory = _read(folder, f"memory{suffix}", parse_pressure)
        sample.psi_io = _read(folder, f"io{suffix}", parse_pressure)


def _fill_memory(sample: CgroupSample, folder: int) -> None:
    sample.memory_bytes = _read(folder, "memory.current", int)
    # The root has none of them, nor has a group for which the controller is not enabled.
    if sample.memory_bytes is not None:
        sample.memory_limit_bytes = _read(folder, "memory.max", parse_limit)
        sample.memory_events = _read(folder, "memory.events", parse_pairs)


def _fill_memory_v1(sample: CgroupSample, folder: int) -> None:
    sample.memory_bytes = _read(folder, "memory.usage_in_bytes", int)
    sample.memory_limit_bytes = _read(folder, "memory.limit_in_bytes", parse_limit)
    events = {}
    control = _read(folder, "memory.oom_control", parse_pairs) or {}
    if "oom_kill" in control:
        events["oom_kill"] = control["oom_kill"]
    # Not the "max" of version 2: it also counts charges in advance that did not fit, whereupon
    # the page that was needed did.
    failed = _read(folder, "memory.failcnt", int)
    if failed is not None:
        events["failcnt"] = failed
    sample.memory_events = events or None


def parse_pressure(raw: bytes) -> Pressure:
    r"""A pressure file (accounting/psi.rst); ``full`` may be missing, as of CPUs before 5.13.

    >>> parse_pressure(b"some avg10=1.50 avg60=0.00 avg300=0.00 total=42\n").some_total_us
    42
    """
    found = _PRESSURE.match(raw)
    if found is None:
        raise ValueError(f"no pressure in {raw!r}")
    some, total, full, full_total = found.groups()
    if full is None:
        return Pressure(float(some), int(total))
    return Pressure(float(some), int(total), float(full), int(full_total))


def parse_pairs(raw: bytes) -> dict[str, int]:
    r"""A flat keyed file.

    >>> parse_pairs(b"oom 0\noom_kill 1\n")
    {'oom': 0, 'oom_kill': 1}
    """
    words = raw.decode("ascii").split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def parse_limit(raw: bytes) -> int | None:
    r"""A limit in bytes, or None where there is none, in the words of either version.

    >>> parse_limit(b"65536\n"), parse_limit(b"max\n"), parse_limit(b"9223372036854771712\n")
    (65536, None, None)
    """
    if raw.strip() == b"max":
        return None
    limit = int(raw)
    return None if limit >= _UNLIMITED else limit


def _read(folder: int, name: str, parse: Callable[[bytes], T]) -> T | None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            return parse(os.read(file, 4096))
        finally:
            os.close(file)
    except (OSError, ValueError):
        return None
