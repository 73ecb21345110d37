"""What is read from the samples: one number for each measure of a host, a cgroup, a program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from linnix_core import CgroupSample, Pressure, ProcessSample, SystemSample

__all__ = ["MEASURES", "Kind", "Measure", "of_cgroup", "of_host", "of_process"]

#: What a series is about. A program is every process of one executable together.
Kind: TypeAlias = Literal["host", "cgroup", "exe"]

_MEBI = 2.0**20


class Measure(NamedTuple):
    """How a measure is called and counted, and the least difference that is worth an alert.

    People read it divided by ``scale``, followed by ``shown``.
    """

    words: str
    unit: str
    least: float
    scale: float = 1.0
    shown: str = "%"


#: Every measure by its name in states, labels and evidence. Percentages of CPU are of one
#: core for cgroups and programs and of the whole machine for the host.
MEASURES = {
    "cpu": Measure("CPU", "%", 5.0),
    "memory_used": Measure("memory in use", "%", 3.0),
    "memory": Measure("memory", "By", 32 * _MEBI, _MEBI, "MiB"),
    "swap_used": Measure("swap in use", "%", 3.0),
    "load": Measure("load", "1", 1.0, shown=""),
    "processes": Measure("processes", "processes", 10.0, shown=""),
    "disk_read": Measure("disk reads", "By/s", _MEBI, _MEBI, "MiB/s"),
    "disk_write": Measure("disk writes", "By/s", _MEBI, _MEBI, "MiB/s"),
    "net_receive": Measure("network receipt", "By/s", _MEBI / 4, _MEBI, "MiB/s"),
    "net_transmit": Measure("network transmission", "By/s", _MEBI / 4, _MEBI, "MiB/s"),
    "throttled": Measure("throttling", "%", 2.0),
    "psi_cpu": Measure("waiting for CPU", "%", 3.0),
    "psi_memory": Measure("waiting for memory", "%", 2.0),
    "psi_io": Measure("waiting for I/O", "%", 3.0),
}

_Amounts: TypeAlias = Iterator[tuple[str, float]]


def of_host(sample: SystemSample) -> _Amounts:
    """What one sample of the machine says, where it is known."""
    if sample.cpu_percent is not None:
        yield "cpu", sample.cpu_percent
    if sample.memory_total_bytes and sample.memory_available_bytes is not None:
        yield "memory_used", 100 * (1 - sample.memory_available_bytes / sample.memory_total_bytes)
    if sample.swap_total_bytes and sample.swap_used_bytes is not None:
        yield "swap_used", 100 * sample.swap_used_bytes / sample.swap_total_bytes
    if sample.load1 is not None:
        yield "load", sample.load1
    if sample.processes is not None:
        yield "processes", sample.processes
    if sample.disk_read_bytes_per_s is not None:
        yield "disk_read", sample.disk_read_bytes_per_s
    if sample.disk_write_bytes_per_s is not None:
        yield "disk_write", sample.disk_write_bytes_per_s
    if sample.net_receive_bytes_per_s is not None:
        yield "net_receive", sample.net_receive_bytes_per_s
    if sample.net_transmit_bytes_per_s is not None:
        yield "net_transmit", sample.net_transmit_bytes_per_s
    yield from _pressures(sample.psi_cpu, sample.psi_memory, sample.psi_io)


def of_cgroup(sample: CgroupSample) -> _Amounts:
    """What one sample of a cgroup says, where it is known."""
    if sample.cpu_percent is not None:
        yield "cpu", sample.cpu_percent
    if sample.memory_bytes is not None:
        yield "memory", sample.memory_bytes
    if sample.throttled_ns is not None and sample.interval_ns > 0:
        yield "throttled", 100 * sample.throttled_ns / sample.interval_ns
    yield from _pressures(sample.psi_cpu, sample.psi_memory, sample.psi_io)


def of_process(sample: ProcessSample) -> _Amounts:
    """What one sample of a process adds to its program, where it is known."""
    if sample.cpu_percent is not None:
        yield "cpu", sample.cpu_percent
    if sample.rss_bytes is not None:
        yield "memory", sample.rss_bytes
    seconds = sample.interval_ns / 1e9
    if seconds > 0 and sample.read_bytes is not None:
        yield "disk_read", sample.read_bytes / seconds
    if seconds > 0 and sample.write_bytes is not None:
        yield "disk_write", sample.write_bytes / seconds


def _pressures(cpu: Pressure | None, memory: Pressure | None, io: Pressure | None) -> _Amounts:
    if cpu is not None:
        yield "psi_cpu", cpu.some_avg10
    if memory is not None:
        yield "psi_memory", memory.some_avg10
    if io is not None:
        yield "psi_io", io.some_avg10
