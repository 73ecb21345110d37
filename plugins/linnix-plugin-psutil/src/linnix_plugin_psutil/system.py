"""The whole machine between two polls: processors, memory, disks, network, pressure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
import psutil

from linnix_core import Pressure, SystemSample
from linnix_plugin_psutil.reading import READ_ERRORS, attempt

__all__ = ["SystemReader", "parse_pressure"]


@attrs.define(eq=False)
class _Counters:
    """What only grows, read at the monotonic ``moment``. Pairs are in and out, in bytes."""

    moment: float
    cpu: tuple[float, float] | None
    disks: Mapping[str, tuple[int, int]]
    networks: Mapping[str, tuple[int, int]]


class SystemReader:
    """Makes a `SystemSample` of each poll; rates begin with the second one.

    Disks and network interfaces count where a device is behind them, so that what passes
    through a volume or a bridge is not counted twice. Where none has a device, as in a
    container, all of them count except the loopback interface.
    """

    def __init__(self, *, pressure: str = "/proc/pressure", sysfs: str = "/sys") -> None:
        self._pressure = Path(pressure)
        self._sysfs = Path(sysfs)
        self._before: _Counters | None = None
        #: Of the names seen last in a folder of sysfs, those that count.
        self._real: dict[str, tuple[list[str], list[str]]] = {}

    def sample(self, ts_ns: int, moment: float, processes: int) -> SystemSample:
        """The machine now; a field that cannot be read is None."""
        memory = attempt(psutil.virtual_memory)
        swap = attempt(psutil.swap_memory)
        load = attempt(os.getloadavg) or (None, None, None)
        sample = SystemSample(
            interval_ns=0,
            cpus=attempt(psutil.cpu_count),
            memory_total_bytes=None if memory is None else memory.total,
            memory_available_bytes=None if memory is None else memory.available,
            swap_total_bytes=None if swap is None else swap.total,
            swap_used_bytes=None if swap is None else swap.used,
            load1=load[0],
            load5=load[1],
            load15=load[2],
            processes=processes,
            psi_cpu=self._stalled("cpu"),
            psi_memory=self._stalled("memory"),
            psi_io=self._stalled("io"),
            ts_ns=ts_ns,
        )
        now = _Counters(moment, attempt(_cpu_seconds), self._disks(), self._networks())
        before, self._before = self._before, now
        if before is not None and moment > before.moment:
            _fill_rates(sample, before, now)
        return sample

    def _stalled(self, resource: str) -> Pressure | None:
        try:
            return parse_pressure((self._pressure / resource).read_text("ascii"))
        except READ_ERRORS:  # no such file, or the kernel was started with psi=0
            return None

    def _disks(self) -> dict[str, tuple[int, int]]:
        counters = attempt(psutil.disk_io_counters, perdisk=True, nowrap=False) or {}
        return {
            name: (counters[name].read_bytes, counters[name].write_bytes)
            for name in self._with_device("block", counters)
        }

    def _networks(self) -> dict[str, tuple[int, int]]:
        counters = attempt(psutil.net_io_counters, pernic=True, nowrap=False) or {}
        names = [name for name in counters if name not in {"lo", "lo0"}]
        return {
            name: (counters[name].bytes_recv, counters[name].bytes_sent)
            for name in self._with_device("class/net", names)
        }

    def _with_device(self, folder: str, names: Iterable[str]) -> list[str]:
        names = list(names)
        known = self._real.get(folder)
        if known is None or known[0] != names:
            # sysfs writes the slash of a name such as cciss/c0d0 as an exclamation mark.
            real = [
                name
                for name in names
                if (self._sysfs / folder / name.replace("/", "!") / "device").exists()
            ]
            # What a name stands for does not change as long as it is there.
            known = self._real[folder] = (names, real or names)
        return known[1]


def parse_pressure(text: str) -> Pressure:
    """A file of /proc/pressure (kernel: Documentation/accounting/psi.rst).

    >>> parse_pressure("some avg10=1.50 avg60=0.00 avg300=0.00 total=42\\n").some_total_us
    42
    """
    stalled = {}
    for line in text.splitlines():
        who, *pairs = line.split()
        values = dict(pair.split("=") for pair in pairs)
        stalled[who] = float(values["avg10"]), int(values["total"])
    return Pressure(*stalled["some"], *stalled.get("full", (None, None)))


def _cpu_seconds() -> tuple[float, float]:
    """Busy and all seconds of all processors; waiting for a disk is idle, as in top(1)."""
    times = psutil.cpu_times()._asdict()
    # Linux counts the time of guests a second time, within user and nice.
    every = sum(spent for name, spent in times.items() if not name.startswith("guest"))
    return every - times["idle"] - times.get("iowait", 0.0), every


def _fill_rates(sample: SystemSample, before: _Counters, now: _Counters) -> None:
    elapsed_s = now.moment - before.moment
    sample.interval_ns = round(elapsed_s * 1e9)
    if before.cpu is not None and now.cpu is not None:
        every = now.cpu[1] - before.cpu[1]
        if every > 0:
            busy = now.cpu[0] - before.cpu[0]
            sample.cpu_percent = min(max(100.0 * busy / every, 0.0), 100.0)
    sample.disk_read_bytes_per_s, sample.disk_write_bytes_per_s = _rates(
        before.disks, now.disks, elapsed_s
    )
    sample.net_receive_bytes_per_s, sample.net_transmit_bytes_per_s = _rates(
        before.networks, now.networks, elapsed_s
    )


def _rates(
    before: Mapping[str, tuple[int, int]], now: Mapping[str, tuple[int, int]], elapsed_s: float
) -> tuple[float, float] | tuple[None, None]:
    """Growth per second of what was there both times; a counter that shrank began anew."""
    both = before.keys() & now.keys()
    if not both:
        return None, None
    came = sum(max(now[name][0] - before[name][0], 0) for name in both)
    went = sum(max(now[name][1] - before[name][1], 0) for name in both)
    return came / elapsed_s, went / elapsed_s
