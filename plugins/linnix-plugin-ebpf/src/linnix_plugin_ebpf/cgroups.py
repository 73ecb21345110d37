"""The paths of cgroups from the ids that the kernel knows them by.

An id is the inode number of the group's folder. Those that exist at the start are found by
walking the hierarchy, later ones are told by the kernel when they are made.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from linnix_plugin_ebpf.wire import CGROUP_V1

__all__ = ["CgroupPaths"]

#: Paths that are kept at most.
MAX_PATHS = 65_536

#: Seconds between two walks for ids that nobody told.
WALK_EVERY_S = 5.0

_ESCAPE = re.compile(rb"\\([0-7]{3})")


class CgroupPaths:
    """What the groups are called, as ``/proc/PID/cgroup`` would show it.

    Where controllers of version 1 are in use and a process is in the root of version 2,
    its group of the first of ``controllers`` that is mounted names it: ``controller`` is that
    one, ``subsystem`` the kernel's index of it, ``hierarchy`` the number of its hierarchy.

    In a cgroup namespace of its own, where ``of_the_host`` is false, paths begin at the root of
    the namespace; groups outside of it have none.
    """

    def __init__(
        self,
        controllers: Mapping[str, int | None],
        *,
        mountinfo: str = "/proc/self/mountinfo",
        own: str = "/proc/self/cgroup",
        of_the_host: bool = True,
    ) -> None:
        self._of_the_host = of_the_host
        # Of several mounts the one that shows most: a container's shows its own part.
        mounts = dict(sorted(_mounts(_lines(mountinfo)), key=_root_length, reverse=True))
        numbers = dict(_hierarchies(_lines(own)))
        self.controller: str | None = None
        self.subsystem: int | None = None
        self.hierarchy = -1
        self._roots: list[tuple[int, bytes, bytes]] = []
        if b"" in mounts:
            self._roots.append((0, *mounts[b""]))
        for name, index in controllers.items():
            controller = name.encode()
            if index is not None and controller in mounts and numbers.get(controller):
                self.controller, self.subsystem = name, index
                self.hierarchy = numbers[controller]
                self._roots.append((CGROUP_V1, *mounts[controller]))
                break
        #: Path by id, of the groups that are known.
        self.paths: dict[int, str] = {}
        self._walked = -math.inf
        self._walk()

    def add(self, group: int, path: bytes) -> None:
        """The kernel has made or renamed a group."""
        if not self._of_the_host:
            # Its paths begin at the host's root: ours are found by looking, when one is needed.
            if group in self.paths:
                self.paths.clear()  # what is below it has another path now as well
            self._walked = -math.inf
            return
        former = self.paths.get(group)
        self._keep(group, path)
        if former not in {None, self.paths[group]}:
            self._walk()  # what is below it has another path now as well

    def _keep(self, group: int, path: bytes) -> None:
        if len(self.paths) >= MAX_PATHS:
            # Those that are still there are found again when they are asked for.
            self.paths.clear()
        self.paths[group] = path.decode("utf-8", "backslashreplace") or "/"

    def find(self, group: int) -> str | None:
        """The path of a group, or None where nobody knows it."""
        path = self.paths.get(group)
        if path is None and time.monotonic() - self._walked > WALK_EVERY_S:
            self._walk()
            path = self.paths.get(group)
        return path

    def _walk(self) -> None:
        self._walked = time.monotonic()
        for flag, root, folder in self._roots:
            for inode, path in _groups(folder, root):
                self._keep(inode | flag, path)


def _groups(folder: bytes, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Every group below a folder, with the inode that is its id."""
    try:
        yield os.stat(folder).st_ino, path or b"/"  # noqa: PTH116 - a path of bytes
    except OSError:
        return
    waiting = [(folder, path.rstrip(b"/"))]
    seen = 0
    while waiting and seen < MAX_PATHS // 2:
        folder, path = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below = path + b"/" + entry.name
                        seen += 1
                        yield entry.inode(), below
                        waiting.append((entry.path, below))
        except OSError:
            continue  # it was removed meanwhile, or is not ours to read


def _mounts(lines: list[bytes]) -> Iterator[tuple[bytes, tuple[bytes, bytes]]]:
    """Controller, or nothing for version 2, with the root that is mounted and where (proc(5))."""
    for line in lines:
        before, _, after = line.partition(b" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        place = _unescape(fields[3]), _unescape(fields[4])
        if place[0].startswith(b"/..") or not _is_on_top(place[1], fields[2]):
            continue  # outside of this cgroup namespace, or something else is mounted over it
        if kind[0] == b"cgroup2":
            yield b"", place
        elif kind[0] == b"cgroup":
            for option in kind[2].split(b","):
                yield option, place


def _is_on_top(folder: bytes, device: bytes) -> bool:
    try:
        found = os.stat(folder).st_dev  # noqa: PTH116 - a path of bytes
    except OSError:
        return False
    return device == b"%d:%d" % (os.major(found), os.minor(found))


def _root_length(mount: tuple[bytes, tuple[bytes, bytes]]) -> int:
    return len(mount[1][0])


def _hierarchies(lines: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """The number of the hierarchy of each controller, from ``/proc/self/cgroup``."""
    for line in lines:
        number, _, rest = line.partition(b":")
        for controller in rest.partition(b":")[0].split(b","):
            if controller:
                yield controller, int(number)


def _unescape(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field)


def _lines(path: str) -> list[bytes]:
    try:
        return Path(path).read_bytes().splitlines()
    except OSError:
        return []
