"""What this host must have for BCC, and what its kernel and headers can tell."""

from __future__ import annotations

import os
import re
from pathlib import Path

import attrs

from linnix_core import PluginUnavailable

__all__ = ["Host"]

# Bits of the kernel's include/uapi/linux/capability.h.
CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39

#: The first kernel with a ring buffer for BPF programs.
OLDEST_KERNEL = (5, 8)

#: The host's own namespaces, by their inodes (include/uapi/linux/nsfs.h).
_OF_THE_HOST = {"pid": "pid:[4026531836]", "user": "user:[4026531837]"}


@attrs.frozen
class Host:
    """A host, as far as files tell; ``root`` is where its file system begins."""

    root: Path = Path("/")
    release: str = attrs.field(factory=lambda: os.uname().release)

    def check(self) -> None:
        """Raise `PluginUnavailable` for the first thing that is missing."""
        version = re.match(r"(\d+)\.(\d+)", self.release)
        if version and (int(version[1]), int(version[2])) < OLDEST_KERNEL:
            raise PluginUnavailable(
                f"the kernel is {self.release}, and ring buffers for BPF came with 5.8",
                hint="use the collector psutil",
            )
        try:
            able = self._may_load_programs()
        except OSError as error:
            raise PluginUnavailable(
                f"processes cannot be read: {error}", hint="mount proc at /proc"
            ) from error
        if not able:
            raise PluginUnavailable(
                "BPF programs cannot be loaded without CAP_BPF and CAP_PERFMON", hint="run as root"
            )
        if not self._is_of_the_host("user"):
            raise PluginUnavailable(
                "BPF programs cannot be loaded with the capabilities of a user namespace",
                hint="run outside of it",
            )
        if self._clock_is_moved():
            raise PluginUnavailable(
                "the kernel reports times of the host's clock, and this time namespace has another",
                hint="run in the host's time namespace",
            )
        if not self._is_of_the_host("pid"):
            raise PluginUnavailable(
                "the kernel reports pids of the host, and this pid namespace has others",
                hint="run on the host, or in a container with the host's pid namespace",
            )
        if self.tracefs is None:
            raise PluginUnavailable(
                "the tracepoints cannot be read: tracefs is not mounted, or only root may read it",
                hint="mount -t tracefs nodev /sys/kernel/tracing",
            )
        if not self._has_headers():
            raise PluginUnavailable(
                f"the headers of the kernel are not in {self._modules / 'build'}",
                hint=f"apt install linux-headers-{self.release}",
            )

    @property
    def headers_release(self) -> str | None:
        """The release of the kernel that the headers are of; None if they do not say."""
        if not self._build.is_dir():
            # Those that the kernel itself carries, in kheaders.tar.xz.
            return self.release if self._has_headers() else None
        try:
            text = (self._build / "include/generated/utsrelease.h").read_text("utf-8", "replace")
        except OSError:
            return None
        found = re.search(r'UTS_RELEASE "([^"]*)"', text)
        return found and found[1]

    @property
    def headers_match(self) -> bool:
        """Whether the headers tell the layout of the structures of the running kernel."""
        return self.headers_release == self.release

    @property
    def tells_last_thread(self) -> bool:
        """Whether sched_process_exit tells if the whole process ends (since 6.16)."""
        return self.tracefs is not None and "group_dead" in self._format("sched_process_exit")

    @property
    def tracefs(self) -> Path | None:
        """Where tracepoints are described, or None."""
        for folder in ("sys/kernel/tracing", "sys/kernel/debug/tracing"):
            if os.access(self.root / folder / "events/sched/sched_process_exec/format", os.R_OK):
                return self.root / folder
        return None

    @property
    def _modules(self) -> Path:
        return self.root / "lib/modules" / self.release

    @property
    def _build(self) -> Path:
        # BCC looks there instead if this variable is set.
        named = os.environ.get("BCC_KERNEL_SOURCE")
        return Path(named) if named else self._modules / "build"

    def _has_headers(self) -> bool:
        return self._build.is_dir() or (self.root / "sys/kernel/kheaders.tar.xz").is_file()

    def _format(self, tracepoint: str) -> str:
        assert self.tracefs is not None
        return (self.tracefs / "events/sched" / tracepoint / "format").read_text("ascii")

    def _is_of_the_host(self, kind: str) -> bool:
        try:
            return str((self.root / "proc/self/ns" / kind).readlink()) == _OF_THE_HOST[kind]
        except OSError:
            return True  # a kernel without such namespaces

    def _clock_is_moved(self) -> bool:
        try:
            offsets = (self.root / "proc/self/timens_offsets").read_text("ascii")
        except OSError:
            return False  # a kernel without time namespaces
        found = re.search(r"^boottime\s+(\S+)\s+(\S+)", offsets, re.MULTILINE)
        return found is not None and found.groups() != ("0", "0")

    def _may_load_programs(self) -> bool:
        status = (self.root / "proc/self/status").read_text("utf-8", "replace")
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
        held = int(found[1], 16) if found else 0
        return bool(held >> CAP_SYS_ADMIN & 1 or (held >> CAP_BPF & held >> CAP_PERFMON & 1))
