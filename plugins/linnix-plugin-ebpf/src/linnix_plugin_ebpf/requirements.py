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
STATUS = "/proc/self/status"
PID_NAMESPACE = "/proc/self/ns/pid"
#: Here where the kernel was built with CONFIG_TASK_IO_ACCOUNTING.
IO_COUNTERS = "/proc/self/io"
#: Here where it was built with CONFIG_SCHED_INFO.
DELAY_COUNTERS = "/proc/self/schedstat"

#: The first kernel with ring buffers, task iterators and CLOCK_BOOTTIME for programs.
OLDEST_KERNEL = (5, 8)

#: include/uapi/linux/capability.h
_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}

#: The inode of the first pid namespace: PROC_PID_INIT_INO in include/linux/proc_ns.h.
_FIRST_PID_NAMESPACE = 0xEFFF_FFFC

_INNER_NAMESPACE = (
    "this is not the host's pid namespace: pids are those of the host, and what only /proc "
    "tells is missing (run the container with the host's pid namespace)"
)


def check(*, btf: str = BTF, status: str = STATUS, release: str | None = None) -> None:
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
    missing = _missing_capabilities(status)
    if missing:
        raise PluginUnavailable(
            f"needs {' and '.join(missing)}",
            hint="run as root, or give the service AmbientCapabilities=CAP_BPF CAP_PERFMON",
        )


def counts_io(file: str = IO_COUNTERS) -> bool:
    """Whether this kernel counts the storage I/O of processes."""
    return Path(file).exists()


def counts_delay(file: str = DELAY_COUNTERS) -> bool:
    """Whether this kernel counts for how long processes wait for a CPU."""
    return Path(file).exists()


def limits(
    *, namespace: str = PID_NAMESPACE, io: str = IO_COUNTERS, delay: str = DELAY_COUNTERS
) -> list[str]:
    """What is different here, in sentences for people."""
    try:
        inner = Path(namespace).stat().st_ino != _FIRST_PID_NAMESPACE
    except OSError:
        inner = False
    found = [_INNER_NAMESPACE] if inner else []
    if not counts_io(io):
        found.append("the kernel does not count the storage I/O of processes: it is not known")
    if not counts_delay(delay):
        found.append("the kernel does not count how long processes wait for a CPU: not known")
    return found


def _missing_capabilities(status: str) -> list[str]:
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", Path(status).read_text("ascii"), re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    if effective >> _CAPABILITIES["CAP_SYS_ADMIN"] & 1:
        return []
    return [name for name in ("CAP_BPF", "CAP_PERFMON") if not effective >> _CAPABILITIES[name] & 1]
