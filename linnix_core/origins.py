"""What was around a process, and where it came from: for people who look at an incident later."""

from __future__ import annotations

import re
from collections.abc import Sequence

from linnix_core.processes import Process, ProcessView
from linnix_core.records import IncidentProcess, Origin, ProcessKey

__all__ = ["origin_of", "tree_around"]

#: How many of the tree an incident carries.
MAX_ANCESTORS = 16
MAX_DESCENDANTS = 16

#: Descendants that are looked at; a storm has thousands, each as good as the other.
MAX_LOOKED_AT = 1024

_CRON = frozenset({"cron", "crond", "anacron", "atd", "fcron"})
_SSH = frozenset({"sshd", "sshd-session", "dropbear"})

#: Names that container runtimes give to the cgroup of a container: docker and podman with
#: cgroupfs and with systemd, containerd and CRI-O under the kubelet, LXC.
_CONTAINER = re.compile(
    r"(?:^|/)(?:docker|cri-containerd|crio|libpod)-(?P<scope>[0-9a-f]{12,64})(?:\.scope)?(?:/|$)"
    r"|/(?:docker|libpod|kubepods[^/]*/(?:[^/]+/)?pod[^/]+)/(?P<folder>[0-9a-f]{12,64})(?:/|$)"
    r"|/lxc(?:\.payload)?[./](?P<lxc>[^/]+)"
)
_UNIT = re.compile(r"(?P<service>[^/]+\.service)(?:/|$)|(?P<session>session-[^/]+\.scope)(?:/|$)")


def tree_around(key: ProcessKey, processes: ProcessView) -> tuple[IncidentProcess, ...]:
    """A process with those above and the largest of those below it.

    The oldest ancestor comes first, descendants last, those with the most memory first. Empty
    where the process is not known.
    """
    subject = processes.get(key)
    if subject is None:
        return ()
    below = processes.descendants(key, limit=MAX_LOOKED_AT)
    below.sort(key=_rss, reverse=True)
    above = processes.ancestors(key)[:MAX_ANCESTORS]
    return (
        *(_told(process, "ancestor") for process in reversed(above)),
        _told(subject, "subject"),
        *(_told(process, "descendant") for process in below[:MAX_DESCENDANTS]),
    )


def origin_of(tree: Sequence[IncidentProcess]) -> Origin | None:
    """What began it: the nearest cron or SSH daemon above it, else its container or unit.

    A user's shell and a job of cron belong to the unit of their daemon, which says less than
    the daemon does; so the ancestors are asked first.
    """
    line = [process for process in tree if process.relation != "descendant"]
    for process in reversed(line[:-1]):
        if process.comm in _CRON:
            return Origin("cron", process.comm, process.key)
        if process.comm in _SSH:
            return Origin("ssh", process.comm, process.key)
    cgroup = line[-1].cgroup if line else None
    if not cgroup:
        return None
    if found := _CONTAINER.search(cgroup):
        return Origin("container", next(filter(None, found.groups())))
    units = list(_UNIT.finditer(cgroup))
    if not units:
        return None
    # The innermost: a service of a user's manager is within that manager's own.
    found = units[-1]
    if found["service"]:
        return Origin("service", found["service"])
    return Origin("session", found["session"])


def _rss(process: Process) -> int:
    sample = process.sample
    return 0 if sample is None or sample.rss_bytes is None else sample.rss_bytes


def _told(process: Process, relation: str) -> IncidentProcess:
    sample = process.sample
    return IncidentProcess(
        key=process.key,
        relation=relation,  # type: ignore[arg-type]
        parent=process.parent,
        comm=process.comm,
        exe=process.exe,
        args=process.args,
        uid=process.uid,
        cgroup=process.cgroup,
        cpu_percent=None if sample is None else sample.cpu_percent,
        rss_bytes=None if sample is None else sample.rss_bytes,
        ended_ns=process.ended_ns,
    )
