"""The families of the original Linnix, and what each of ours says."""

import pytest

from linnix_core import (
    Alert,
    ComponentStatus,
    Feedback,
    Incident,
    Insight,
    Loss,
    Metric,
    ProcessEvent,
    __version__,
)

#: Names and types in the order of the original's golden file.
GOLDEN = [
    ("linnix_kernel_instrumentation_active", "gauge"),
    ("linnix_events_total", "counter"),
    ("linnix_events_per_second", "gauge"),
    ("linnix_alerts_active", "gauge"),
    ("linnix_alerts_emitted_total", "counter"),
    ("linnix_dropped_events_total", "counter"),
    ("linnix_ringbuf_overflows_total", "counter"),
    ("linnix_rate_limited_total", "counter"),
    ("linnix_perf_poll_errors_total", "counter"),
    ("linnix_lineage_hits_total", "counter"),
    ("linnix_lineage_misses_total", "counter"),
    ("linnix_context_queue_depth", "gauge"),
    ("linnix_subscribers", "gauge"),
    ("linnix_uptime_seconds", "gauge"),
    ("linnix_kernel_btf_available", "gauge"),
    ("linnix_rss_probe_mode", "gauge"),
    ("linnix_process_cpu_percent", "gauge"),
    ("linnix_process_rss_bytes", "gauge"),
    ("linnix_dropped_events_by_type_total", "counter"),
    ("linnix_pod_psi_pressure_total", "counter"),
    ("linnix_stall_induced_seconds_total", "counter"),
    ("linnix_blame_series_evicted_total", "counter"),
]

#: Those that have labels only, and so no series where nothing happened.
WITHOUT_SERIES = {
    "linnix_dropped_events_by_type_total",
    "linnix_pod_psi_pressure_total",
    "linnix_stall_induced_seconds_total",
}


def status(component, plugin="", state="running", **counters):
    kind, name = component.split(".")
    return ComponentStatus(
        component, kind, name, state, "", "because", plugin=plugin, counters=counters
    )


def loss(why, total, **counters):
    return Loss("collectors.ebpf", why, lost=total, lost_total=total, window_ns=1, **counters)


def types(text):
    return [tuple(line.split()[2:]) for line in text.splitlines() if line.startswith("# TYPE")]


def test_the_families_of_the_original_come_first_in_its_order(told):
    assert types(told().exported().text)[: len(GOLDEN)] == GOLDEN


@pytest.mark.parametrize("name", [n for n, _ in GOLDEN if n not in WITHOUT_SERIES])
def test_a_family_without_labels_has_its_one_series_from_the_start(told, name):
    assert list(told().exported().series(name)) == [()]


def test_every_family_has_help_and_no_name_twice(told):
    text = told().exported().text
    helped = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert helped == [name for name, _ in types(text)]
    assert len(helped) == len(set(helped))
    assert all(len(line.split()) > 3 for line in text.splitlines() if line.startswith("# HELP"))


def test_events_are_counted_by_kind_and_by_whether_their_parent_is_known(told):
    exported = (
        told()
        .batch(
            ProcessEvent("seen", pid=1, start_ns=0),
            ProcessEvent("fork", pid=2, start_ns=10**7, ppid=1, parent_start_ns=0),
            ProcessEvent("exec", pid=2, start_ns=10**7, ppid=1, parent_start_ns=0),
        )
        .exported()
    )
    assert exported.value("linnix_events_total") == 3
    assert exported.value("linnix_process_events_total", kind="fork") == 1
    assert exported.value("linnix_records_total", type="event") == 3
    assert exported.value("linnix_lineage_hits_total") == 2
    assert exported.value("linnix_lineage_misses_total") == 1


def test_events_per_second_are_those_of_the_last_whole_second(told, monkeypatch):
    now = [100.2]
    handler = told()
    monkeypatch.setattr("linnix_plugin_prometheus.tally.time.monotonic", lambda: now[0])
    handler.batch(*(ProcessEvent("fork", pid=p, start_ns=10**7) for p in range(1, 8)))
    now[0] = 101.1
    assert handler.exported().value("linnix_events_per_second") == 7
    now[0] = 102.0
    assert handler.exported().value("linnix_events_per_second") == 0


def test_losses_have_a_counter_for_each_component_and_reason(told):
    handler = told(
        components=[
            status("collectors.ebpf", "ebpf", received=10, handled=6, dropped=3, queued=1),
            status("handlers.jsonl", received=6, handled=4, dropped=0, queued=2, failures=1),
        ]
    )
    handler.batch(loss("ring_full", 3, emitted=20, received=15, dropped=5))
    handler.batch(
        loss("ring_full", 7, emitted=40, received=30, dropped=10),
        loss("throttled", 3, emitted=40, received=30, dropped=10),
    )
    exported = handler.exported()
    why = {"component": "collectors.ebpf"}
    assert exported.value("linnix_lost_records_total", why="ring_full", **why) == 7
    assert exported.value("linnix_lost_records_total", why="throttled", **why) == 3
    assert exported.value("linnix_emitted_records_total", **why) == 40
    assert exported.value("linnix_ringbuf_overflows_total") == 7
    assert exported.value("linnix_rate_limited_total") == 3
    assert exported.value("linnix_dropped_events_total") == 3
    assert exported.value("linnix_context_queue_depth") == 3
    for outcome, count in (("received", 10), ("handled", 6), ("dropped", 3)):
        assert exported.value("linnix_component_records_total", outcome=outcome, **why) == count
    assert exported.value("linnix_component_queued_records", **why) == 1


def test_a_queue_that_counts_its_losses_is_no_source_that_counts_for_itself(told):
    handler = told()
    handler.batch(loss("queue_full", 3, emitted=9, received=9, handled=6, dropped=3, queued=0))
    assert handler.exported().series("linnix_emitted_records_total") == {}


def test_each_component_shows_its_state_and_failures(told):
    exported = told(
        components=[
            status("collectors.ebpf", "ebpf", "unavailable", failures=4),
            status("handlers.jsonl", "jsonl"),
        ]
    ).exported()
    for state in ("available", "running", "degraded", "unavailable", "failed", "stopped"):
        of_ebpf = {"component": "collectors.ebpf", "state": state}
        assert exported.value("linnix_component_state", **of_ebpf) == (state == "unavailable")
    assert exported.value("linnix_component_state", component="handlers.jsonl", state="running")
    assert exported.value("linnix_component_failures_total", component="collectors.ebpf") == 4
    assert exported.value("linnix_perf_poll_errors_total") == 4
    assert exported.value("linnix_build_info", version=__version__) == 1


@pytest.mark.parametrize(
    ("plugin", "state", "source", "seen"),
    [
        ("ebpf", "running", "kernel", 1),
        ("bcc", "degraded", "kernel", 1),
        ("ebpf", "running", "polled", 0),
        ("ebpf", "unavailable", "kernel", 0),
        ("psutil", "running", "polled", 0),
        ("of-somebody-else", "running", "kernel", 1),
    ],
)
def test_kernel_instrumentation_is_a_collector_that_sees(told, plugin, state, source, seen):
    handler = told(components=[status("collectors.mine", plugin, state)])
    handler.batch(ProcessEvent("fork", pid=2, start_ns=10**7, source=source))
    exported = handler.exported()
    assert exported.value("linnix_kernel_instrumentation_active") == seen
    assert exported.value("linnix_rss_probe_mode") == 2 * seen


def test_alerts_incidents_insights_and_feedback_are_counted(told):
    handler = told()
    tell = handler.handler
    tell.linnix_alert(Alert("fork_storm", "high", "m"))
    tell.linnix_alert(Alert("fork_storm", "high", "m"))
    tell.linnix_incident(Incident("f", "high", "s", class_="fork_storm", id="i1"))
    tell.linnix_incident(Incident("f", "high", "s", change="closed", id="i1"))
    tell.linnix_insight(Insight("fork_storm", 0.9, None, "w", (), "i1", "heuristics"))
    tell.linnix_feedback(Feedback("i1", "useful"))
    exported = handler.exported()
    assert exported.value("linnix_alerts_emitted_total") == 2
    assert exported.value("linnix_alerts_total", rule="fork_storm", severity="high") == 2
    for class_, change in (("fork_storm", "opened"), ("none", "closed")):
        labels = {"class": class_, "change": change}
        assert exported.value("linnix_incidents_total", **labels) == 1
    labels = {"class": "fork_storm", "reasoner": "heuristics"}
    assert exported.value("linnix_insights_total", **labels) == 1
    assert exported.value("linnix_feedback_total", verdict="useful") == 1
    assert exported.value("linnix_stage_latency_seconds_count", stage="insight") == 1


def test_what_components_give_under_names_of_the_original_takes_their_place(told):
    labels = {"offender": "/a", "victim": "/b", "component": "handlers.attribution"}
    exported = told(
        metrics=[
            Metric("linnix_stall_induced_seconds_total", 1.5, "s", "counter", labels),
            Metric("linnix_blame_series_evicted_total", 2, "1", "counter"),
            Metric("http_subscribers", 3, "{subscriber}"),
        ]
    ).exported()
    assert exported.value("linnix_stall_induced_seconds_total", **labels) == 1.5
    assert exported.value("linnix_blame_series_evicted_total") == 2
    assert exported.value("linnix_subscribers") == 3
    assert types(exported.text)[: len(GOLDEN)] == GOLDEN


def test_the_agent_shows_what_it_uses_itself(told):
    exported = told().exported()
    assert exported.value("linnix_process_rss_bytes") > 10**6
    assert exported.value("linnix_process_cpu_percent") >= 0
    assert exported.value("linnix_uptime_seconds") > 0
    assert exported.value("process_cpu_seconds_total") > 0
