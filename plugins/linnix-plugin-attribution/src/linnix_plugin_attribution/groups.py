"""What people call a group, and where it is in the tree of cgroups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from linnix_core import printable

__all__ = ["Unit", "above", "deepest", "nearest", "unit_of"]

#: Levels that are climbed to find a group that was measured. Deeper ones count for the root.
_MAX_DEPTH = 64

#: Characters of a name in a label.
_MAX_LABEL = 256


class Unit(NamedTuple):
    """Who waits or makes others wait: a pod, or a cgroup by its path.

    All containers of a pod are one unit, so they never accuse each other.
    """

    cgroup: str
    namespace: str = ""
    pod: str = ""

    @property
    def name(self) -> str:
        """``namespace/pod``, or the path, which begins with a slash."""
        return f"{self.namespace}/{self.pod}" if self.pod else self.cgroup

    def labels(self, side: str) -> dict[str, str]:
        """For a metric or an alert, where ``side`` is ``victim`` or ``offender``."""
        if self.pod:
            return {
                f"{side}_pod": printable(self.pod, _MAX_LABEL),
                f"{side}_namespace": printable(self.namespace, _MAX_LABEL),
            }
        return {side: printable(self.cgroup, _MAX_LABEL)}


def unit_of(cgroup: str, labels: Mapping[str, str] | None) -> Unit:
    """The pod that the labels ``pod`` and ``namespace`` name, else the group itself."""
    pod = (labels or {}).get("pod")
    if pod:
        return Unit("", (labels or {}).get("namespace", ""), pod)
    return Unit(cgroup)


def nearest(cgroup: str, known: Collection[str]) -> str | None:
    """The group itself or the closest one above it that is known.

    >>> nearest("/a/b/c", {"/", "/a"}), nearest("/a", {"/b"})
    ('/a', None)
    """
    path = cgroup
    for _ in range(_MAX_DEPTH):
        if path in known:
            return path
        path = path[: path.rfind("/")] if "/" in path else ""
        if not path:
            break
    return "/" if "/" in known else None


def above(cgroup: str, known: Collection[str]) -> str | None:
    """The closest group above this one that is known; None for the root.

    >>> above("/a/b", {"/", "/a", "/a/b"}), above("/", {"/"})
    ('/a', None)
    """
    if cgroup == "/":
        return None
    return nearest(cgroup[: cgroup.rfind("/")] or "/", known)


def deepest(cgroups: Collection[str]) -> set[str]:
    """Those that have no other one of them below.

    >>> sorted(deepest({"/", "/a", "/a/b/c", "/d"}))
    ['/a/b/c', '/d']
    """
    return set(cgroups) - {above(cgroup, cgroups) for cgroup in cgroups}
