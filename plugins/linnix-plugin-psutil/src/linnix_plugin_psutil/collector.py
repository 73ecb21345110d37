"""The collector: its configuration, its polls, and what it says of itself."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

import attrs
import psutil

from linnix_core import Context, Health, PluginUnavailable, Record, hookimpl
from linnix_plugin_psutil.linux import LinuxReader
from linnix_plugin_psutil.portable import PortableReader
from linnix_plugin_psutil.reading import READ_ERRORS, Reader
from linnix_plugin_psutil.system import LinuxSystemReader, SystemReader
from linnix_plugin_psutil.tree import ProcessTree

__all__ = ["PsutilCollector", "PsutilConfig"]

_LINUX = sys.platform == "linux"

_UNPRIVILEGED = (
    "executable, working directory, I/O and descriptors of other users' processes are not "
    "readable without root"
    if _LINUX
    else "CPU, memory, arguments and descriptors of other users' processes are not readable "
    "without root"
)


@attrs.frozen
class PsutilConfig:
    """What is read in each poll, beside the processes themselves."""

    io: bool = attrs.field(
        default=True, metadata={"help": "read the storage I/O of each process, where allowed"}
    )
    fds: bool = attrs.field(
        default=False, metadata={"help": "count the open descriptors of each process"}
    )
    system: bool = attrs.field(default=True, metadata={"help": "measure the whole machine as well"})


class PsutilCollector:
    """Follow processes by comparing polls: needs no privileges, misses what is brief.

    ``reader`` is how processes are read; by default /proc on Linux and psutil elsewhere.
    """

    Config = PsutilConfig
    PRIVILEGES: ClassVar[str] = (
        "to read the executable, I/O and descriptors of other users' processes"
    )

    def __init__(
        self, config: PsutilConfig, context: Context, *, reader: Reader | None = None
    ) -> None:
        self._config = config
        self._clock = context.clock
        self._reader = reader or (LinuxReader() if _LINUX else PortableReader())
        self._tree = ProcessTree(self._reader, io=config.io, fds=config.fds)
        self._system = LinuxSystemReader() if _LINUX else SystemReader()

    @hookimpl
    def linnix_start(self) -> None:
        """See whether processes can be listed at all."""
        try:
            why = "" if list(self._reader.pids()) else "there are none"
        except READ_ERRORS as error:
            why = str(error)
        if why:
            raise PluginUnavailable(
                f"processes cannot be listed: {why}", hint="mount proc at /proc"
            )

    @hookimpl
    def linnix_poll(self) -> list[Record]:
        """Events, samples of the living, and one of the machine, all of the same time."""
        ts_ns, moment = self._clock.time_ns(), self._clock.monotonic()
        records = self._tree.poll(ts_ns, moment)
        if self._config.system:
            records.append(self._system.sample(ts_ns, moment, self._tree.count))
        return records

    @hookimpl
    def linnix_stop(self) -> None:
        """Close what was kept open between polls."""
        self._system.close()

    @hookimpl
    def linnix_health(self) -> Health:
        """Always ok; the limits are those of polling and of the rights of this user."""
        limits = [
            "processes that live shorter than the polling interval are not seen",
            "exit codes, signals and the CPU time of a whole life are not known",
        ]
        if os.geteuid() != 0:
            limits.append(_UNPRIVILEGED)
            if _LINUX and not os.path.exists("/proc/1/stat"):  # noqa: PTH110
                limits.append("processes of other users are hidden (proc is mounted with hidepid)")
        if self._config.io and not hasattr(psutil.Process, "io_counters"):
            limits.append("this system does not tell the I/O of a process")
        if unreadable := self._tree.unreadable:
            limits.append(f"processes that could not be read in the last poll: {unreadable}")
        if partly := self._tree.partly_read:
            limits.append(f"processes that could be read only in part in the last poll: {partly}")
        return Health(limits=tuple(limits))
