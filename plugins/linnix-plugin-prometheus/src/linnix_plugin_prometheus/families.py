"""The families that are exported: made anew for each scrape, so what has died is gone.

The first ones have the names of the original Linnix, in its order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from linnix_core import ComponentStatus, Context, Metric, __version__, printable
from linnix_plugin_prometheus.executables import by_executable
from linnix_plugin_prometheus.latency import BOUNDS_S
from linnix_plugin_prometheus.naming import clean_labels, clean_value, family_name
from linnix_plugin_prometheus.tally import Labels, Moment, Snapshot, Tally
from linnix_plugin_prometheus.visibility import visibility

__all__ = ["Exposition"]

#: Seconds for which what was gathered is good: asking everybody costs more than a scrape should.
FRESH_S = 1.0

#: Series of one family, and families, that other plugins may have.
MAX_SERIES = 4096
MAX_FAMILIES = 512

_STATES = ("available", "running", "degraded", "unavailable", "failed", "stopped")
_COUNTERS = ("received", "handled", "dropped")

_BTF = Path("/sys/kernel/btf/vmlinux")

#: What the original calls the places that it reads the memory of processes from.
_RSS_OF_THE_MM = 2

#: Counters of the original that linnix-plugin-attribution gives, if it runs; and whether they
#: begin at zero or have labels only.
_GIVEN = (
    (
        "linnix_pod_psi_pressure",
        "Microseconds in which some task of the group waited for a CPU",
        False,
    ),
    (
        "linnix_stall_induced_seconds",
        "Seconds of CPU stall of the victim that are attributed to the offender",
        False,
    ),
    (
        "linnix_blame_series_evicted",
        "Counters that had to be given up for the bound on their number",
        True,
    ),
)


class Exposition(Collector):
    """Everything that there is to export, at most every `FRESH_S` seconds anew."""

    def __init__(self, context: Context, tally: Tally, began: Moment, *, top: int) -> None:
        self._context = context
        self._tally = tally
        self._top = top
        self._lock = threading.Lock()
        self._families: list[Family] = []
        self._made: float | None = None
        self._own = ProcessCollector(registry=None)
        self._began = self._cpu_since = began

    def collect(self) -> list[Family]:
        """The families in their order. Safe from any thread; one at a time gathers."""
        with self._lock:
            if self._made is None or time.monotonic() - self._made >= FRESH_S:
                self._families = self._gather()
                self._made = time.monotonic()
            return self._families

    def _gather(self) -> list[Family]:
        counted = self._tally.snapshot()
        components = self._context.components()
        foreign = Foreign(self._context.metrics())
        own_process = list(self._own.collect())
        families: dict[str, Family] = {}
        for family in (
            *self._of_the_original(counted, components, foreign, own_process),
            *_of_the_pipeline(counted),
            *_of_components(components),
            *_of_notices(counted, self._context),
            *by_executable(self._context.processes, self._top),
            *own_process,
        ):
            families[family.name] = family
        refused = foreign.refused
        for name, family in foreign.families.items():
            if name not in families:
                families[name] = family
            elif families[name] is not family:
                refused += len(family.samples)
        families["linnix_refused_series"] = _gauge(
            "linnix_refused_series",
            "Numbers of plugins that are not exported: too many, or not valid",
            refused,
        )
        return list(families.values())

    def _of_the_original(
        self,
        counted: Snapshot,
        components: Sequence[ComponentStatus],
        foreign: Foreign,
        own_process: Iterable[Family],
    ) -> Iterator[Family]:
        in_kernel = visibility(components, self._tally.kernel_event_seen).active
        yield _gauge(
            "linnix_kernel_instrumentation_active",
            "Whether the kernel's events of processes are being seen",
            in_kernel,
        )
        yield _counter("linnix_events", "Events of processes", counted.events)
        yield _gauge(
            "linnix_events_per_second",
            "Events of processes in the last whole second",
            counted.events_per_s,
        )
        yield _gauge(
            "linnix_alerts_active", "Incidents that are open", len(self._context.incidents.open())
        )
        yield _counter("linnix_alerts_emitted", "Alerts", counted.alerts)
        yield _counter(
            "linnix_dropped_events",
            "Records that did not get through a collector or a handler, whatever the reason",
            _sum(components, "dropped"),
        )
        yield _counter(
            "linnix_ringbuf_overflows",
            "Events for which the ring of the kernel had no room",
            _lost(counted, "ring_full"),
        )
        yield _counter(
            "linnix_rate_limited", "Events that were throttled", _lost(counted, "throttled")
        )
        yield _counter(
            "linnix_perf_poll_errors",
            "Failures of collectors",
            _sum([c for c in components if c.kind == "collectors"], "failures"),
        )
        yield _counter("linnix_lineage_hits", "Events whose parent is known", counted.parents_known)
        yield _counter(
            "linnix_lineage_misses", "Events whose parent is not known", counted.parents_unknown
        )
        yield _gauge(
            "linnix_context_queue_depth",
            "Records that wait in all queues",
            _sum(components, "queued"),
        )
        yield _gauge(
            "linnix_subscribers",
            "Streams of the API that are being read",
            foreign.total("linnix_http_subscribers"),
        )
        yield _gauge(
            "linnix_uptime_seconds",
            "Seconds since the agent began",
            time.monotonic() - self._began.monotonic_s,
        )
        yield _gauge(
            "linnix_kernel_btf_available", "Whether the kernel describes its types", _BTF.exists()
        )
        yield _gauge(
            "linnix_rss_probe_mode",
            "Where the kernel's events have the memory of processes from: 0 nowhere, 2 their mm",
            _RSS_OF_THE_MM if in_kernel else 0,
        )
        yield _gauge(
            "linnix_process_cpu_percent",
            "CPU that the agent itself uses, in percent of one core",
            self._cpu_percent(),
        )
        yield _gauge(
            "linnix_process_rss_bytes", "Memory that the agent itself has", _resident(own_process)
        )
        # Losses are not told by the kind of event, so this family has no series.
        yield _counter(
            "linnix_dropped_events_by_type", "Lost events by their type", labels=["event_type"]
        )
        for name, text, zero in _GIVEN:
            yield foreign.counter(name, text, zero)

    def _cpu_percent(self) -> float:
        since, self._cpu_since = self._cpu_since, Moment()
        elapsed_s = max(self._cpu_since.monotonic_s - since.monotonic_s, 1e-3)
        return round(100 * (self._cpu_since.cpu_s - since.cpu_s) / elapsed_s, 3)


class Foreign:
    """What other plugins say of themselves, under valid names and within bounds."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.families: dict[str, Family] = {}
        self.refused = 0
        self._series: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for metric in metrics:
            if not self._take(metric):
                self.refused += 1
        for name, series in self._series.items():
            family = self.families[name]
            sample = f"{name}_total" if family.type == "counter" else name
            for labels, value in series.items():
                family.add_sample(sample, dict(labels), value)

    def _take(self, metric: Metric) -> bool:
        name, factor = family_name(metric)
        try:
            value = float(metric.value) * factor
            labels = clean_labels(metric.labels)
        except (TypeError, ValueError, AttributeError, OverflowError):
            return False
        family = self.families.get(name)
        if family is None:
            if len(self.families) >= MAX_FAMILIES:
                return False
            make = _counter if metric.kind == "counter" else _gauge
            family = self.families[name] = make(name, _help(metric))
            self._series[name] = {}
        elif family.type != metric.kind:
            return False
        if metric.kind == "counter" and not value >= 0:
            return False
        series = self._series[name]
        key = tuple(sorted(labels))
        if key in series:
            # Names that are alike once they are harmless are one series.
            series[key] = series[key] + value if metric.kind == "counter" else value
            return True
        if len(series) >= MAX_SERIES:
            return False
        series[key] = value
        return True

    def counter(self, name: str, text: str, zero: bool) -> Family:
        """The counter of this name, if somebody gives it; else an empty or a zero one."""
        family = self.families.get(name)
        if family is not None and family.type == "counter":
            return family
        return _counter(name, text, 0 if zero else None)

    def total(self, name: str) -> float:
        """What everybody who gives a gauge of this name says, added up."""
        return sum(self._series.get(name, {}).values())


def _help(metric: Metric) -> str:
    return printable(str(metric.help), 512) or f"{clean_value(str(metric.name))} of a component"


# --- the others ---------------------------------------------------------------------------


def _of_the_pipeline(counted: Snapshot) -> Iterator[Family]:
    yield _labelled(
        _counter("linnix_records", "Records by type", labels=["type"]),
        counted.records_by_type,
    )
    yield _labelled(
        _counter(
            "linnix_process_events",
            "Events of processes by kind",
            labels=["kind"],
        ),
        counted.events_by_kind,
    )
    yield _labelled(
        _counter(
            "linnix_lost_records",
            "Records that did not get through a component, by reason; up to ten seconds old",
            labels=["component", "why"],
        ),
        counted.lost,
    )
    yield _labelled(
        _counter(
            "linnix_emitted_records",
            "Records that a source which counts for itself has made; up to ten seconds old",
            labels=["component"],
        ),
        counted.emitted,
    )
    lag = HistogramMetricFamily(
        "linnix_stage_latency_seconds",
        "From the time of an event, alert or incident until it was told to handlers, "
        "and from a told incident until its insight",
        labels=["stage"],
    )
    for stage, (buckets, count, sum_s) in counted.latency.items():
        bounds = [(str(bound), float(n)) for bound, n in zip(BOUNDS_S, buckets, strict=True)]
        lag.add_metric([stage], [*bounds, ("+Inf", float(count))], sum_s)
    yield lag


def _of_components(components: Sequence[ComponentStatus]) -> Iterator[Family]:
    state = GaugeMetricFamily(
        "linnix_component_state",
        "1 for the state that a component is in",
        labels=["component", "state"],
    )
    info = InfoMetricFamily("linnix_component", "Which plugin a component is", labels=["component"])
    records = CounterMetricFamily(
        "linnix_component_records",
        "Records of a component: received = handled + dropped + queued",
        labels=["component", "outcome"],
    )
    queued = GaugeMetricFamily(
        "linnix_component_queued_records", "Records that wait for it", labels=["component"]
    )
    failures = CounterMetricFamily(
        "linnix_component_failures", "Calls of it that failed", labels=["component"]
    )
    for status in components:
        name = clean_value(status.component)
        for one in _STATES:
            state.add_metric([name, one], status.state == one)
        info.add_metric(
            [name],
            {
                "plugin": clean_value(status.plugin),
                "distribution": clean_value(status.distribution),
                "version": clean_value(status.version),
            },
        )
        for outcome in _COUNTERS:
            if outcome in status.counters:
                records.add_metric([name, outcome], status.counters[outcome])
        if "queued" in status.counters:
            queued.add_metric([name], status.counters["queued"])
        failures.add_metric([name], status.counters.get("failures", 0))
    build = InfoMetricFamily(
        "linnix_build", "The version of the agent", value={"version": __version__}
    )
    yield from (state, info, records, queued, failures, build)


def _of_notices(counted: Snapshot, context: Context) -> Iterator[Family]:
    yield _labelled(
        _counter("linnix_alerts", "Alerts by rule", labels=["rule", "severity"]),
        counted.alerts_by_rule,
    )
    yield _labelled(
        _counter(
            "linnix_incidents",
            "What became of incidents: opened, worse, updated, closed",
            labels=["class", "change"],
        ),
        counted.incidents,
    )
    still_open: dict[Labels, int] = {}
    for incident in context.incidents.open():
        key = (incident.class_ or "none", incident.severity)
        still_open[key] = still_open.get(key, 0) + 1
    yield _labelled(
        _gauge("linnix_open_incidents", "Incidents that are open", labels=["class", "severity"]),
        still_open,
    )
    yield _labelled(
        _counter("linnix_insights", "Explanations by reasoner", labels=["class", "reasoner"]),
        counted.insights,
    )
    yield _labelled(
        _counter("linnix_feedback", "What people said of incidents", labels=["verdict"]),
        counted.feedback,
    )


def _counter(
    name: str, text: str, value: float | None = None, labels: Sequence[str] = ()
) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value, labels=labels or None)


def _gauge(
    name: str, text: str, value: float | None = None, labels: Sequence[str] = ()
) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value, labels=labels or None)


def _labelled(
    family: CounterMetricFamily | GaugeMetricFamily, series: Mapping[Labels, int]
) -> Family:
    # What is alike once it is harmless is one series.
    sums: dict[Labels, int] = {}
    for values, count in series.items():
        clean = tuple(map(clean_value, values))
        sums[clean] = sums.get(clean, 0) + count
    for values_, count in sums.items():
        family.add_metric(values_, count)
    return family


def _sum(components: Iterable[ComponentStatus], counter: str) -> int:
    return sum(status.counters.get(counter, 0) for status in components)


def _lost(counted: Snapshot, why: str) -> int:
    return sum(total for (_, reason), total in counted.lost.items() if reason == why)


def _resident(own_process: Iterable[Family]) -> float | None:
    for family in own_process:
        if family.name == "process_resident_memory_bytes":
            return float(family.samples[0].value)
    return None
