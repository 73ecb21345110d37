"""What this machine has to offer: asked before anything is loaded, so that what is missing
can be named with the way to get it."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from linnix_core import PluginUnavailable

__all__ = ["check", "counts_delay", "counts_io", "limits"]

BTF = "/sys/kernel/btf/vmlinux"
PROC = "/proc"
#: Here where the kernel was built with CONFIG_TASK_IO_ACCOUNTING.
IO_COUNTERS = "/proc/self/io"
#: Here where it was built with CONFIG_SCHED_INFO.
DELAY_COUNTERS = "/proc/self/schedstat"

#: The first kernel with ring buffers, task iterators and CLOCK_BOOTTIME for programs.
OLDEST_KERNEL = (5, 8)

#: include/uapi/linux/capability.h
_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}

#: The inodes of the host's own namespaces (include/uapi/linux/nsfs.h).
_OF_THE_HOST = {"pid": 0xEFFF_FFFC, "user": 0xEFFF_FFFD, "cgroup": 0xEFFF_FFFB}


def check(*, btf: str = BTF, proc: str = PROC, release: str | None = None) -> None:
    """Raise `PluginUnavailable` for the first thing that is missing."""
    if sys.platform != "linux":
        raise PluginUnavailable("eBPF is a part of Linux", hint="use the psutil collector")
    if sys.byteorder != "little":
        raise PluginUnavailable("the kernel programs are built for little-endian processors")
    release = platform.release() if release is None else release
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if version < OLDEST_KERNEL:
        raise PluginUnavailable(
            f"Linux {release} is too old: 5.8 brought what is needed",
            hint="pip install linnix-plugin-bcc",
        )
    if not os.access(btf, os.R_OK):
        raise PluginUnavailable(
            f"the kernel does not describe its types (BTF): there is no readable {btf}",
            hint="use a kernel built with CONFIG_DEBUG_INFO_BTF, or pip install linnix-plugin-bcc",
        )
    try:
        missing = _missing_capabilities(f"{proc}/self/status")
    except OSError as error:
        raise PluginUnavailable(
            f"processes cannot be read: {error}", hint="mount proc at /proc"
        ) from error
    if missing:
        raise PluginUnavailable(
            f"needs {' and '.join(missing)}",
            hint="run as root, or give the service AmbientCapabilities=CAP_BPF CAP_PERFMON",
        )
    if not _is_of_the_host("pid", proc):
        raise PluginUnavailable(
            "the kernel reports pids of the host, and this pid namespace has others",
            hint="run on the host, or in a container with the host's pid namespace",
        )
    if _clock_is_moved(proc):
        raise PluginUnavailable(
            "the kernel reports times of the host's clock, and this time namespace has another",
            hint="run in the host's time namespace",
        )


def why_forbidden(proc: str = PROC) -> str:
    """What to look at where the kernel forbids what the capabilities allow."""
    if not _is_of_the_host("user", proc):
        return "the capabilities of a user namespace do not count: run outside of it"
    return (
        "a seccomp filter, as of containers, a security module or the kernel's lockdown may "
        "forbid bpf(2); linnix -v doctor shows what the kernel said"
    )


def counts_io(file: str = IO_COUNTERS) -> bool:
    """Whether this kernel counts the storage I/O of processes."""
    return Path(file).exists()


def counts_delay(file: str = DELAY_COUNTERS) -> bool:
    """Whether this kernel counts for how long processes wait for a CPU."""
    return Path(file).exists()


def limits(*, proc: str = PROC, io: str = IO_COUNTERS, delay: str = DELAY_COUNTERS) -> list[str]:
    """What is different here, in sentences for people."""
    found = []
    if not in_host_cgroups(proc):
        found.append(
            "this is not the host's cgroup namespace: groups outside of it have no name (run the "
            "container with the host's cgroup namespace)"
        )
    if not counts_io(io):
        found.append("the kernel does not count the storage I/O of processes: it is not known")
    if not counts_delay(delay):
        found.append("the kernel does not count how long processes wait for a CPU: not known")
    return found


def in_host_cgroups(proc: str = PROC) -> bool:
    """Whether the paths of cgroups here are those of the host."""
    return _is_of_the_host("cgroup", proc)


def _is_of_the_host(kind: str, proc: str) -> bool:
    try:
        return Path(proc, "self/ns", kind).stat().st_ino == _OF_THE_HOST[kind]
    except OSError:
        return True  # a kernel without such namespaces


def _clock_is_moved(proc: str) -> bool:
    try:
        offsets = Path(proc, "self/timens_offsets").read_text("ascii")
    except OSError:
        return False  # before Linux 5.6 there were none
    found = re.search(r"^boottime\s+(\S+)\s+(\S+)", offsets, re.MULTILINE)
    return found is not None and found.groups() != ("0", "0")


def _missing_capabilities(status: str) -> list[str]:
    # Bytes: the name of this process may be of any.
    found = re.search(rb"^CapEff:\s*([0-9a-f]+)", Path(status).read_bytes(), re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    if effective >> _CAPABILITIES["CAP_SYS_ADMIN"] & 1:
        return []
    return [name for name in ("CAP_BPF", "CAP_PERFMON") if not effective >> _CAPABILITIES[name] & 1]
