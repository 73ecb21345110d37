"""The cgroups that exist now, read from the root down and compared with the last time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from linnix_core import CgroupSample
from linnix_plugin_psi.files import Counter, Usage, fill, fill_pressure
from linnix_plugin_psi.hierarchies import Hierarchy

__all__ = ["CgroupTree"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class CgroupTree:
    """Makes one sample of each group, in however many hierarchies it is.

    A group is its path, as /proc/PID/cgroup shows it. At most ``max_groups`` of those that
    are ``wanted`` are sampled, the nearest to the root first: they count what the groups
    below them use. ``machine`` is the folder with the pressure of the root, or None where
    the root is not that of the machine.

    Of the last poll, ``left_out`` tells how many more groups were met but not sampled, and
    ``unreadable`` how many folders could not be opened.
    """

    def __init__(
        self,
        hierarchies: Sequence[Hierarchy],
        *,
        machine: str | None,
        max_groups: int,
        wanted: Callable[[str], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self._hierarchies = hierarchies
        self._machine = machine
        self._max_groups = max_groups
        self._wanted = wanted
        self._monotonic = monotonic
        self._used: dict[bytes, Usage] = {}
        self._denied = 0
        self.left_out = 0
        self.unreadable = 0

    def poll(self, ts_ns: int) -> list[CgroupSample]:
        """A sample of each group; what it used since is known from its second one on."""
        samples: list[CgroupSample] = []
        used: dict[bytes, Usage] = {}
        left_out = self._denied = 0
        levels = self._roots()
        while levels:
            depth = min(levels)
            for path, hierarchies in levels.pop(depth).items():
                name = path.decode("utf-8", "backslashreplace")
                wanted = self._wanted(name)
                if len(samples) == self._max_groups:
                    left_out += wanted
                    continue
                sample = CgroupSample(name, interval_ns=0, ts_ns=ts_ns)
                usage = Usage(self._monotonic())
                for hierarchy in hierarchies:
                    below = self._visit(path, hierarchy, sample if wanted else None, usage)
                    for child in below:
                        level = levels.setdefault(depth + 1, {})
                        level.setdefault(path.rstrip(b"/") + b"/" + child, []).append(hierarchy)
                if path == b"/" and wanted:
                    self._fill_machine(sample)
                if _knows_something(sample, usage):
                    _compare(sample, self._used.get(path), usage)
                    samples.append(sample)
                    used[path] = usage
        self._used = used
        self.left_out, self.unreadable = left_out, self._denied
        return samples

    def _roots(self) -> dict[int, dict[bytes, list[Hierarchy]]]:
        """Where each hierarchy begins, by its distance from the root of all."""
        levels: dict[int, dict[bytes, list[Hierarchy]]] = {}
        if self._machine is not None:
            levels[0] = {b"/": []}
        for hierarchy in self._hierarchies:
            level = levels.setdefault(hierarchy.root.count(b"/"), {})
            level.setdefault(hierarchy.root or b"/", []).append(hierarchy)
        return levels

    def _visit(
        self, path: bytes, hierarchy: Hierarchy, sample: CgroupSample | None, usage: Usage
    ) -> list[bytes]:
        """Fill the sample of a group, if one is wanted; the names of the groups below it."""
        try:
            folder = os.open(hierarchy.folder_of(path), _FOLDER)
        except FileNotFoundError:
            return []
        except OSError:
            self._denied += 1
            return []
        try:
            status = os.fstat(folder)
            if sample is not None:
                fill(sample, usage, hierarchy, folder, (status.st_dev, status.st_ino))
            if status.st_nlink == 2:
                return []  # each folder in it would be one more, and looking costs much more
            with os.scandir(folder) as entries:
                return [
                    os.fsencode(entry.name)
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                ]
        except OSError:
            return []  # it is being removed
        finally:
            os.close(folder)

    def _fill_machine(self, sample: CgroupSample) -> None:
        """The root's pressure; not every kernel and no version 1 shows it beside its files."""
        if self._machine is None or sample.psi_cpu is not None:
            return
        try:
            folder = os.open(self._machine, _FOLDER)
        except OSError:
            return
        try:
            fill_pressure(sample, folder)
        finally:
            os.close(folder)


def _knows_something(sample: CgroupSample, usage: Usage) -> bool:
    return bool(
        usage.cpu
        or usage.throttled
        or sample.memory_bytes is not None
        or sample.psi_cpu is not None
    )


def _compare(sample: CgroupSample, before: Usage | None, now: Usage) -> None:
    if before is None or now.moment <= before.moment:
        return
    sample.interval_ns = round((now.moment - before.moment) * 1e9)
    used_ns = _growth(before.cpu, now.cpu)
    sample.cpu_percent = None if used_ns is None else 100.0 * used_ns / sample.interval_ns
    sample.throttled_ns = _growth(before.throttled, now.throttled)


def _growth(before: Counter, now: Counter) -> int | None:
    """The most that any hierarchy has counted since: a process may be in some of them only.

    None for a group that was not there before, and where a counter was set back.
    """
    grown = [
        count - before[group]
        for group, count in now.items()
        if group in before and count >= before[group]
    ]
    return max(grown) if grown else None
