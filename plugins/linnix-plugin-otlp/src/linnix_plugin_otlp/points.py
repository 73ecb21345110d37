"""Samples, losses and components' numbers as points of metrics: pure functions.

A name of the semantic conventions is used only where it means exactly what was measured, with
the instrument and the unit that it has there; all others begin with ``linnix.``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, TypeAlias

from linnix_core import CgroupSample, Loss, Metric, Pressure, ProcessSample, SystemSample
from linnix_plugin_otlp.births import Births
from linnix_plugin_otlp.mapping import LABELS

__all__ = [
    "Instrument",
    "Point",
    "Series",
    "cgroup_points",
    "component_points",
    "loss_points",
    "process_points",
    "system_points",
]

Instrument: TypeAlias = Literal["gauge", "updowncounter", "counter"]

Labels: TypeAlias = tuple[tuple[str, str | int], ...]

#: Labels of one series of a component, and characters of their values.
MAX_LABELS = 16
MAX_VALUE = 256

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.\-/]+")


class Series(NamedTuple):
    """What the values of a metric are told apart by."""

    name: str
    unit: str
    instrument: Instrument
    attributes: Labels = ()


class Point(NamedTuple):
    """One value of a series."""

    series: Series
    value: float
    help: str = ""


def process_points(sample: ProcessSample, births: Births, cpus: int) -> Iterator[Point]:
    """Of one process, on a machine with so many cores.

    Its storage I/O is what was added up over its samples.
    """
    created = births.created(sample.boot_id, sample.start_ns)
    who: Labels = (
        ("process.pid", sample.pid),
        ("process.creation.time", created)
        if created is not None
        else ("linnix.process.start_ns", sample.start_ns),
    )
    if sample.comm:
        who += (("linnix.process.comm", sample.comm),)
    if sample.cgroup is not None:
        who += (("process.linux.cgroup", sample.cgroup),)
    who += _labelled(sample.labels)

    def point(
        name: str, unit: str, instrument: Instrument, value: float | None, *more: tuple[str, str]
    ) -> Iterator[Point]:
        if value is not None:
            yield Point(Series(name, unit, instrument, who + more), value)

    if sample.cpu_percent is not None:
        share = sample.cpu_percent / 100 / cpus
        yield from point("process.cpu.utilization", "1", "gauge", share)
    yield from point("process.memory.usage", "By", "updowncounter", sample.rss_bytes)
    yield from point("process.thread.count", "{thread}", "updowncounter", sample.threads)
    yield from point(
        "process.unix.file_descriptor.count", "{file_descriptor}", "updowncounter", sample.fds
    )
    for direction, amount in (("read", sample.read_bytes), ("write", sample.write_bytes)):
        yield from point(
            "process.disk.io", "By", "counter", amount, ("disk.io.direction", direction)
        )


def cgroup_points(sample: CgroupSample) -> Iterator[Point]:
    """Of one control group, whose throttled time was added up over its samples."""
    who: Labels = (("linnix.cgroup", sample.cgroup), *_labelled(sample.labels))

    def point(
        name: str, unit: str, instrument: Instrument, value: float | None, *more: tuple[str, str]
    ) -> Iterator[Point]:
        if value is not None:
            yield Point(Series(f"linnix.cgroup.{name}", unit, instrument, who + more), value)

    cpu = None if sample.cpu_percent is None else sample.cpu_percent / 100
    throttled = None if sample.throttled_ns is None else sample.throttled_ns / 1e9
    yield from point("cpu.usage", "{cpu}", "gauge", cpu)
    yield from point("cpu.throttled.time", "s", "counter", throttled)
    yield from point("memory.usage", "By", "updowncounter", sample.memory_bytes)
    yield from point("memory.limit", "By", "updowncounter", sample.memory_limit_bytes)
    for event, count in (sample.memory_events or {}).items():
        yield from point(
            "memory.events", "{event}", "counter", count, ("linnix.memory.event", event)
        )
    for resource, pressure in _pressures(sample):
        yield from _pressure_points("linnix.cgroup.pressure", who, resource, pressure)


def system_points(sample: SystemSample) -> Iterator[Point]:
    """Of the whole machine."""

    def point(
        name: str, unit: str, instrument: Instrument, value: float | None, *more: tuple[str, str]
    ) -> Iterator[Point]:
        if value is not None:
            yield Point(Series(name, unit, instrument, more), value)

    share = None if sample.cpu_percent is None else sample.cpu_percent / 100
    yield from point("linnix.system.cpu.utilization", "1", "gauge", share)
    yield from point("system.cpu.logical.count", "{cpu}", "updowncounter", sample.cpus)
    yield from point("system.memory.limit", "By", "updowncounter", sample.memory_total_bytes)
    yield from point(
        "system.memory.linux.available", "By", "updowncounter", sample.memory_available_bytes
    )
    used, total = sample.swap_used_bytes, sample.swap_total_bytes
    if used is not None and total is not None:
        for state, amount in (("used", used), ("free", total - used)):
            yield from point(
                "system.paging.usage", "By", "updowncounter", amount, ("system.paging.state", state)
            )
    for minutes, load in ((1, sample.load1), (5, sample.load5), (15, sample.load15)):
        yield from point(f"linnix.system.load_average.{minutes}m", "{thread}", "gauge", load)
    yield from point("linnix.system.process.count", "{process}", "updowncounter", sample.processes)
    for name, ways in (
        (
            "disk",
            (("read", sample.disk_read_bytes_per_s), ("write", sample.disk_write_bytes_per_s)),
        ),
        (
            "network",
            (
                ("receive", sample.net_receive_bytes_per_s),
                ("transmit", sample.net_transmit_bytes_per_s),
            ),
        ),
    ):
        for direction, rate in ways:
            yield from point(
                f"linnix.system.{name}.io.rate",
                "By/s",
                "gauge",
                rate,
                (f"{name}.io.direction", direction),
            )
    for resource, pressure in _pressures(sample):
        yield from _pressure_points("linnix.system.pressure", (), resource, pressure)


def _pressures(sample: CgroupSample | SystemSample) -> Iterator[tuple[str, Pressure]]:
    for resource in ("cpu", "memory", "io"):
        pressure = getattr(sample, f"psi_{resource}")
        if pressure is not None:
            yield resource, pressure


def _pressure_points(name: str, who: Labels, resource: str, pressure: Pressure) -> Iterator[Point]:
    for tasks, share, total_us in (
        ("some", pressure.some_avg10, pressure.some_total_us),
        ("full", pressure.full_avg10, pressure.full_total_us),
    ):
        of = (*who, ("linnix.resource", resource), ("linnix.stalled", tasks))
        if share is not None:
            yield Point(Series(f"{name}.utilization", "1", "gauge", of), share / 100)
        if total_us is not None:
            yield Point(Series(f"{name}.time", "s", "counter", of), total_us / 1e6)


def loss_points(loss: Loss) -> Iterator[Point]:
    """What did not get through a component, and what its source says it made."""
    component = ("linnix.component", loss.component)
    yield Point(
        Series("linnix.records.lost", "{record}", "counter", (component, ("linnix.why", loss.why))),
        loss.lost_total,
    )
    # What counts for itself says nothing of handling or queues.
    if loss.emitted is not None and loss.handled is None:
        yield Point(
            Series("linnix.records.emitted", "{record}", "counter", (component,)), loss.emitted
        )


def component_points(metric: Metric) -> Iterator[Point]:
    """A number that a component gives of itself; its name begins with ``linnix``."""
    name = _NOT_IN_A_NAME.sub("_", metric.name)[:200]
    if not name.startswith("linnix"):
        name = f"linnix.{name}"
    labels = tuple(
        (f"linnix.{_NOT_IN_A_NAME.sub('_', str(label))}", str(value)[:MAX_VALUE])
        for label, value in list(metric.labels.items())[:MAX_LABELS]
    )
    yield Point(Series(name, metric.unit, metric.kind, labels), metric.value, metric.help)


def _labelled(labels: Mapping[str, str] | None) -> Labels:
    return tuple(
        (LABELS.get(name) or f"linnix.label.{name}", value)
        for name, value in (labels or {}).items()
    )
