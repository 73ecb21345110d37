"""What running processes use, added up by executable, for the largest of them.

The names are those of the OpenTelemetry conventions for processes (``process.cpu.utilization``
with ``process.executable.name`` …) as they are written for Prometheus, but for ``_count``, which
Prometheus keeps for histograms.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable

import attrs
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from linnix_core import Process, ProcessView
from linnix_plugin_prometheus.naming import executable_name

__all__ = ["by_executable"]

#: Processes that are looked at: so many that use most CPU, and so many with most memory. Who
#: has more of them has those of the sums only.
MAX_PROCESSES = 1024

_LABEL = "process_executable_name"


@attrs.define
class _Use:
    processes: int = 0
    cpu_percent: float = 0.0
    rss_bytes: int = 0
    threads: int = 0
    fds: int = 0


_FAMILIES: tuple[tuple[str, str, Callable[[_Use], float]], ...] = (
    (
        "process_cpu_utilization_ratio",
        "CPU of the machine that processes of this executable use, 0 to 1",
        lambda use: round(use.cpu_percent / 100 / (os.cpu_count() or 1), 6),
    ),
    (
        "process_memory_usage_bytes",
        "Memory that processes of this executable have (RSS)",
        lambda use: use.rss_bytes,
    ),
    (
        "process_threads",
        "Threads of processes of this executable",
        lambda use: use.threads,
    ),
    (
        "process_file_descriptors",
        "Descriptors that processes of this executable have open, as far as they can be seen",
        lambda use: use.fds,
    ),
    (
        "linnix_executable_processes",
        "Processes of this executable that were measured",
        lambda use: use.processes,
    ),
)


def by_executable(processes: ProcessView, top: int) -> list[Family]:
    """The families of the ``top`` executables by CPU and as many by memory; none for 0."""
    if not top:
        return []
    uses = _uses(
        {
            process.key: process
            for process in (
                *processes.top(MAX_PROCESSES, by=lambda sample: sample.cpu_percent),
                *processes.top(MAX_PROCESSES, by=lambda sample: sample.rss_bytes),
            )
        }.values()
    )
    shown = {
        *heapq.nlargest(top, uses, key=lambda name: (uses[name].cpu_percent, name)),
        *heapq.nlargest(top, uses, key=lambda name: (uses[name].rss_bytes, name)),
    }
    families: list[Family] = []
    for name, text, measure in _FAMILIES:
        family = GaugeMetricFamily(name, text, labels=[_LABEL])
        for executable in sorted(shown):
            family.add_metric([executable], measure(uses[executable]))
        families.append(family)
    return families


def _uses(processes: Iterable[Process]) -> dict[str, _Use]:
    uses: dict[str, _Use] = {}
    for process in processes:
        sample = process.sample
        if sample is None:
            continue
        use = uses.setdefault(executable_name(process), _Use())
        use.processes += 1
        use.cpu_percent += sample.cpu_percent or 0.0
        use.rss_bytes += sample.rss_bytes or 0
        use.threads += sample.threads or 0
        use.fds += sample.fds or 0
    return uses
