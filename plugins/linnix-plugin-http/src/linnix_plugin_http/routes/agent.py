"""The agent itself: status, components, losses, metrics, and the machine that it runs on."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from linnix_plugin_http.__about__ import __version__
from linnix_plugin_http.api import Api, as_json
from linnix_plugin_http.living import k8s_of
from linnix_plugin_http.operations import operation
from linnix_plugin_http.routes.health import BTF, active
from linnix_plugin_http.shapes import (
    AgentMetrics,
    ComponentInfo,
    LossReport,
    MountInfo,
    Probes,
    Queue,
    Reasoner,
    SlackStats,
    Status,
    System,
    SystemHistory,
    TopCpu,
    TopMemory,
)
from linnix_plugin_http.state import mem_percent

#: Losses that have a counter of their own in the reference.
_RING = ("ring_full",)
_THROTTLED = ("throttled",)


@operation("GET", "/status", blocking=True)
def status(api: Api) -> Status:
    """The run in one answer."""
    state, found = api.state, api.instrumentation()
    measure = api.measure()
    view = api.context.processes
    components = api.components()
    reasoners = [each.name for each in components if each.kind == "reasoners"]
    hour_ago = time.time_ns() - 3600 * 10**9
    recent = api.context.incidents.recent(api.config.max_page)
    return Status(
        version=_version(components),
        host=api.context.host,
        run_id=api.context.run_id,
        uptime_s=round(state.uptime_s, 3),
        offline=False,
        cpu_pct=state.usage.cpu_percent(),
        rss_mb=None if (rss := _rss_bytes()) is None else round(rss / 2**20, 1),
        events_per_sec=state.events_per_s,
        events_total=state.events,
        rb_overflows=_lost(api, _RING),
        rate_limited=_lost(api, _THROTTLED),
        dropped_events_total=_lost(api),
        perf_poll_errors=_failures(components),
        kernel_version=platform.release(),
        aya_version=None,
        transport=found.transport,
        kernel_instrumentation=active(found.active),
        active_rules=_active_rules(api),
        top_rss=[
            TopMemory(
                pid=p.pid,
                comm=p.comm,
                k8s=k8s_of(p.labels),
                mem_percent=measure.memory_percent(p) or 0.0,
                rss_bytes=p.sample.rss_bytes,
            )
            for p in view.top(5, by=lambda sample: sample.rss_bytes)
            if p.sample is not None and p.sample.rss_bytes is not None
        ],
        top_cpu=[
            TopCpu(pid=p.pid, comm=p.comm, k8s=k8s_of(p.labels), cpu_percent=p.sample.cpu_percent)
            for p in view.top(5, by=lambda sample: sample.cpu_percent)
            if p.sample is not None and p.sample.cpu_percent is not None
        ],
        probes=Probes(rss_probe=_rss_probe(components), btf=BTF.exists()),
        reasoner=Reasoner(
            configured=bool(reasoners), endpoint=None, timeout_ms=None, names=reasoners
        ),
        processes=len(view),
        incidents_open=sum(each.closed_ns is None for each in recent),
        incidents_last_1h=sum(each.updated_ns >= hour_ago for each in recent),
        feedback_entries=state.feedback_total,
        slack_stats=SlackStats(),
        subscribers=len(api.stream),
        components=dict(Counter(each.state for each in components)),
    )


@operation("GET", "/system")
def system(api: Api) -> System:
    """The machine, from the latest samples; ``null`` where nothing measures it."""
    ts_ns, known = api.state.system()

    def pressure(of: str, field: str) -> float | None:
        found = known.get(f"psi_{of}")
        value: float | None = getattr(found, field, None)
        return value

    return System(
        timestamp=None if ts_ns is None else ts_ns / 1e9,
        host=api.context.host,
        cpus=known.get("cpus"),
        cpu_percent=known.get("cpu_percent"),
        mem_percent=mem_percent(known),
        memory_total_bytes=known.get("memory_total_bytes"),
        memory_available_bytes=known.get("memory_available_bytes"),
        swap_total_bytes=known.get("swap_total_bytes"),
        swap_used_bytes=known.get("swap_used_bytes"),
        load_avg=[known.get(name) for name in ("load1", "load5", "load15")],
        processes=known.get("processes"),
        disk_read_bytes=known.get("disk_read_bytes_per_s"),
        disk_write_bytes=known.get("disk_write_bytes_per_s"),
        net_rx_bytes=known.get("net_receive_bytes_per_s"),
        net_tx_bytes=known.get("net_transmit_bytes_per_s"),
        psi_cpu_some_avg10=pressure("cpu", "some_avg10"),
        psi_memory_some_avg10=pressure("memory", "some_avg10"),
        psi_memory_full_avg10=pressure("memory", "full_avg10"),
        psi_io_some_avg10=pressure("io", "some_avg10"),
        psi_io_full_avg10=pressure("io", "full_avg10"),
    )


@operation("GET", "/system/history")
def history(api: Api) -> SystemHistory:
    """Ten minutes of the machine and of the run, a point for each second with a sample."""
    return SystemHistory(timestamp=time.time(), points=api.state.points())


@operation("GET", "/plugins")
def plugins(api: Api) -> list[ComponentInfo]:
    """Every component of the run: its state, why, and its counters."""
    return [
        ComponentInfo(
            **{
                name: getattr(each, name)
                for name in ComponentInfo.__struct_fields__
                if name not in ("limits", "counters")
            },
            limits=list(each.limits),
            counters=dict(each.counters),
        )
        for each in api.components()
    ]


@operation("GET", "/mounts", blocking=True)
def mounts(api: Api) -> list[MountInfo]:
    """Pages and routes of other plugins; those that have a title are for people."""
    return [MountInfo(path=each.path, title=each.title) for each in api.context.mounts()]


@operation("GET", "/loss")
def loss(api: Api) -> LossReport:
    """Where records got lost since the run began: the queues balance exactly."""
    return LossReport(
        lost_total=_lost(api),
        by_component=api.state.losses_by_component(),
        queues=[
            Queue(
                component=each.component,
                **{
                    name: each.counters.get(name, 0)
                    for name in ("received", "handled", "dropped", "queued")
                },
            )
            for each in api.components()
            if "received" in each.counters
        ],
        windows=[as_json(each) for each in api.state.loss_windows()],
        stream={
            "subscribers": len(api.stream),
            "dropped_subscribers": api.stream.dropped_subscribers,
            "lost_records": api.stream.lost_records,
        },
        evicted_processes=api.context.processes.evicted,
    )


@operation("GET", "/metrics", blocking=True)
def metrics(api: Api) -> AgentMetrics:
    """The agent's own numbers as JSON; ``/metrics/prometheus`` is linnix-plugin-prometheus's."""
    state = api.state
    rss = _rss_bytes()
    components = api.components()
    return AgentMetrics(
        cpu_percent=state.usage.cpu_percent(),
        rss=None if rss is None else rss // 1024,
        subscribers=len(api.stream),
        queue_depth=sum(each.counters.get("queued", 0) for each in components),
        dropped_events_total=_lost(api),
        alerts_active=len(api.context.incidents.open()),
        uptime_seconds=round(state.uptime_s, 3),
        events_per_sec=state.events_per_s,
        events_total=state.events,
        perf_poll_errors=_failures(components),
        rate_limited=_lost(api, _THROTTLED),
        alerts_emitted=state.alerts_total,
        alerts_generated=state.alerts_total,
        lineage_hits=state.events - state.orphans,
        lineage_misses=state.orphans,
        drops_by_type=[],
        rss_probe_mode=_rss_probe(components),
        kernel_btf_available=BTF.exists(),
        slack_sent=0,
        slack_failed=0,
        insights=state.insights_total,
        plugins=[
            {
                "name": each.name,
                "value": each.value,
                "unit": each.unit,
                "kind": each.kind,
                "labels": dict(each.labels),
                "help": each.help,
            }
            for each in api.metrics()
        ],
    )


def _lost(api: Api, whys: tuple[str, ...] | None = None) -> int:
    found: Mapping[str, Mapping[str, int]] = api.state.losses_by_component()
    return sum(
        lost
        for reasons in found.values()
        for why, lost in reasons.items()
        if whys is None or why in whys
    )


def _failures(components: list[Any]) -> int:
    """Of collectors, which is what the reference counts."""
    return sum(c.counters.get("failures", 0) for c in components if c.kind == "collectors")


def _version(components: list[Any]) -> str:
    return next((c.version for c in components if c.name == "http" and c.version), __version__)


def _rss_probe(components: list[Any]) -> str:
    """Where memory comes from: samples of whichever collector runs."""
    running = [c for c in components if c.kind == "collectors" and c.state == "running"]
    return "samples" if running else "disabled"


def _active_rules(api: Api) -> int | None:
    """What whoever has rules says of them."""
    return next((int(each.value) for each in api.metrics() if each.name == "rules_active"), None)


def _rss_bytes() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
