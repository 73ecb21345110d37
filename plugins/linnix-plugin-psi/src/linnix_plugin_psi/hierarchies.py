"""Where cgroups are mounted, read from ``/proc/self/mountinfo`` (proc(5), cgroups(7))."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

__all__ = ["Hierarchy", "find_hierarchies"]

#: The controllers of version 1 whose files are read.
_USEFUL = frozenset({"cpu", "cpuacct", "memory"})

_OCTAL = re.compile(rb"\\([0-7]{3})")


@attrs.frozen
class Hierarchy:
    """A tree of cgroups: ``folder`` is where the group ``root`` is mounted.

    ``root`` is empty for ``/``, the usual case; a container that shares the machine's
    cgroup namespace sees a subtree only. ``controllers`` are those that may have files in it.
    """

    version: int
    folder: bytes
    root: bytes
    controllers: frozenset[str]

    def folder_of(self, path: bytes) -> bytes:
        """The folder of the group with this path, which begins with ``root``."""
        return self.folder + path[len(self.root) :]


def find_hierarchies(proc: Path) -> tuple[list[Hierarchy], int]:
    """Version 2 first, then those of version 1 that have something to tell.

    The second value counts mounts that show groups outside of this cgroup namespace: what
    /proc calls those groups cannot be told from their place in the mount. Of several mounts
    of one hierarchy the one nearest to its root counts. Raises ``OSError`` without /proc.
    """
    found: dict[frozenset[str] | None, Hierarchy] = {}
    outside = 0
    for hierarchy in _mounted(proc):
        if hierarchy.root.startswith(b"/.."):
            outside += 1
            continue
        key = hierarchy.controllers if hierarchy.version == 1 else None
        if key not in found or len(hierarchy.root) < len(found[key].root):
            found[key] = hierarchy
    return sorted(found.values(), key=lambda hierarchy: -hierarchy.version), outside


def _mounted(proc: Path) -> Iterator[Hierarchy]:
    for line in (proc / "self/mountinfo").read_bytes().split(b"\n"):
        # Optional fields stand before the dash, so their number varies. Blanks are escaped.
        mount, dash, system = line.partition(b" - ")
        if not dash:
            continue  # the end; in a chroot it may be all that there is
        fields = mount.split(b" ")
        kind, _, options = system.split(b" ", 2)
        if kind not in {b"cgroup", b"cgroup2"}:
            continue
        folder = _unescaped(fields[4])
        root = _unescaped(fields[3]).removesuffix(b"/")
        if not _is_on_top(folder, fields[2]):
            continue
        if kind == b"cgroup2":
            yield Hierarchy(2, folder, root, _offered(folder))
        elif controllers := _USEFUL.intersection(options.decode("utf-8", "replace").split(",")):
            yield Hierarchy(1, folder, root, controllers)


def _unescaped(field: bytes) -> bytes:
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), field)


def _is_on_top(folder: bytes, device: bytes) -> bool:
    """Whether nothing else has been mounted over it since."""
    try:
        found = os.stat(folder).st_dev  # noqa: PTH116 - pathlib knows no paths that are bytes
    except OSError:
        return False
    return device == b"%d:%d" % (os.major(found), os.minor(found))


def _offered(folder: bytes) -> frozenset[str]:
    """What version 2 offers; on a mixed machine most controllers are with version 1."""
    try:
        with open(folder + b"/cgroup.controllers", encoding="ascii") as file:  # noqa: PTH123
            return frozenset(file.read().split())
    except OSError:
        return _USEFUL
