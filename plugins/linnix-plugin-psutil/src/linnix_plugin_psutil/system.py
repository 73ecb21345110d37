"""The whole machine between two polls: processors, memory, disks, network, pressure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import attrs
import psutil

from linnix_core import Pressure, SystemSample
from linnix_plugin_psutil.reading import READ_ERRORS, attempt

__all__ = ["LinuxSystemReader", "SystemReader", "parse_pressure"]


#: Of each device, the bytes that came in and went out.
Counts: TypeAlias = Mapping[str, tuple[int, int]]

#: Bytes, or what is not known.
Amounts: TypeAlias = tuple[int | None, int | None]

#: The sectors of /proc/diskstats, whatever those of the disk are (Documentation/admin-guide/
#: iostats.rst).
_SECTOR = 512

_PIECE = 1 << 16
#: One for each: what a search begins with is found several times faster than a choice.
_SIZES = [
    re.compile(rb"%s: +(\d+) kB" % name)
    for name in (b"MemTotal", b"MemAvailable", b"SwapTotal", b"SwapFree")
]
_STALL = r"avg10=(\S+) .*total=(\d+)"
_PRESSURE = re.compile(rf"some {_STALL}\s*(?:full {_STALL})?")


@attrs.define(eq=False)
class _Counters:
    """What only grows, read at the monotonic ``moment``. Pairs are in and out, in bytes."""

    moment: float
    cpu: tuple[float, float] | None
    disks: Counts
    networks: Counts


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

    def close(self) -> None:
        """Give back what is kept open between two samples: here nothing."""

    def sample(self, ts_ns: int, moment: float, processes: int) -> SystemSample:
        """The machine now; a field that cannot be read is None."""
        memory, swap = self._memory()
        load = attempt(os.getloadavg) or (None, None, None)
        sample = SystemSample(
            interval_ns=0,
            cpus=attempt(psutil.cpu_count),
            memory_total_bytes=memory[0],
            memory_available_bytes=memory[1],
            swap_total_bytes=swap[0],
            swap_used_bytes=swap[1],
            load1=load[0],
            load5=load[1],
            load15=load[2],
            processes=processes,
            psi_cpu=self._stalled("cpu"),
            psi_memory=self._stalled("memory"),
            psi_io=self._stalled("io"),
            ts_ns=ts_ns,
        )
        now = _Counters(moment, attempt(self._cpu), self._disks(), self._networks())
        before, self._before = self._before, now
        if before is not None and moment > before.moment:
            _fill_rates(sample, before, now)
        return sample

    def _stalled(self, resource: str) -> Pressure | None:
        try:
            return parse_pressure(self._pressure_of(resource))
        except READ_ERRORS:  # no such file, or the kernel was started with psi=0
            return None

    def _disks(self) -> Counts:
        counters = attempt(self._disk_counters) or {}
        return {name: counters[name] for name in self._with_device("block", counters)}

    def _networks(self) -> Counts:
        counters = attempt(self._network_counters) or {}
        names = [name for name in counters if name not in {"lo", "lo0"}]
        return {name: counters[name] for name in self._with_device("class/net", names)}

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

    # --- where the numbers come from ------------------------------------------------------

    def _memory(self) -> tuple[Amounts, Amounts]:
        """Total and available memory, total and used swap."""
        memory, swap = attempt(psutil.virtual_memory), attempt(psutil.swap_memory)
        return (
            (None, None) if memory is None else (memory.total, memory.available),
            (None, None) if swap is None else (swap.total, swap.used),
        )

    def _cpu(self) -> tuple[float, float]:
        """Busy and all seconds of all processors; waiting for a disk is idle, as in top(1)."""
        times = psutil.cpu_times()._asdict()
        # Linux counts the time of guests a second time, within user and nice.
        every = sum(spent for name, spent in times.items() if not name.startswith("guest"))
        return every - times["idle"] - times.get("iowait", 0.0), every

    def _disk_counters(self) -> Counts:
        counters = psutil.disk_io_counters(perdisk=True, nowrap=False)
        return {name: (disk.read_bytes, disk.write_bytes) for name, disk in counters.items()}

    def _network_counters(self) -> Counts:
        counters = psutil.net_io_counters(pernic=True, nowrap=False)
        return {name: (card.bytes_recv, card.bytes_sent) for name, card in counters.items()}

    def _pressure_of(self, resource: str) -> str:
        return (self._pressure / resource).read_text("ascii")


class LinuxSystemReader(SystemReader):
    """The same from the files of /proc, which stay open: a fifth of the time, every second.

    psutil opens a dozen files for these numbers, and takes apart all that is in them.
    """

    def __init__(self, *, proc: str = "/proc", sysfs: str = "/sys") -> None:
        super().__init__(pressure=f"{proc}/pressure", sysfs=sysfs)
        self._proc = proc
        self._files: dict[str, int] = {}

    def close(self) -> None:
        """Give the files back; another sample would open them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _read(self, name: str) -> bytes:
        descriptor = self._files.get(name)
        if descriptor is None:
            descriptor = os.open(f"{self._proc}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            self._files[name] = descriptor
        # A read may give less than there is without being at the end.
        text = piece = os.pread(descriptor, _PIECE, 0)
        while piece:
            piece = os.pread(descriptor, _PIECE, len(text))
            text += piece
        return text

    def _memory(self) -> tuple[Amounts, Amounts]:
        text = attempt(self._read, "meminfo") or b""
        found = [size.search(text) for size in _SIZES]
        memory, available, swap, free = [each and int(each[1]) * 1024 for each in found]
        used = None if swap is None or free is None else swap - free
        return (memory, available), (swap, used)

    def _cpu(self) -> tuple[float, float]:
        # cpu user nice system idle iowait irq softirq steal guest guest_nice, in ticks
        ticks = [int(field) for field in self._read("stat").split(b"\n", 1)[0].split()[1:9]]
        every = sum(ticks)
        return every - ticks[3] - ticks[4], every

    def _disk_counters(self) -> Counts:
        rows = [line.split(None, 10) for line in self._read("diskstats").splitlines()]
        return {os.fsdecode(row[2]): (int(row[5]) * _SECTOR, int(row[9]) * _SECTOR) for row in rows}

    def _network_counters(self) -> Counts:
        counters = {}
        for line in self._read("net/dev").splitlines()[2:]:
            name, _, rest = line.rpartition(b":")
            fields = rest.split(None, 9)
            counters[os.fsdecode(name.strip())] = int(fields[0]), int(fields[8])
        return counters

    def _pressure_of(self, resource: str) -> str:
        return self._read(f"pressure/{resource}").decode("ascii")


def parse_pressure(text: str) -> Pressure:
    """A file of /proc/pressure (kernel: Documentation/accounting/psi.rst).

    >>> parse_pressure("some avg10=1.50 avg60=0.00 avg300=0.00 total=42\\n").some_total_us
    42
    """
    found = _PRESSURE.match(text)
    if found is None:
        raise ValueError(f"no pressure in {text!r}")
    some, total, full, full_total = found.groups()
    if full is None:
        return Pressure(float(some), int(total))
    return Pressure(float(some), int(total), float(full), int(full_total))


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
    before: Counts, now: Counts, elapsed_s: float
) -> tuple[float, float] | tuple[None, None]:
    """Growth per second of what was there both times; a counter that shrank began anew."""
    both = before.keys() & now.keys()
    if not both:
        return None, None
    came = sum(max(now[name][0] - before[name][0], 0) for name in both)
    went = sum(max(now[name][1] - before[name][1], 0) for name in both)
    return came / elapsed_s, went / elapsed_s
