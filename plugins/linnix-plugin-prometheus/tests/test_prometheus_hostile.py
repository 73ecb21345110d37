"""Names that processes and plugins choose: harmless, bounded, and gone with who had them."""

import os
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from linnix_core import Alert, Loss, Metric, ProcessEvent, ProcessSample
from linnix_core.testing.records import HOSTILE, hostile_records
from linnix_plugin_prometheus import families
from linnix_plugin_prometheus.naming import MAX_VALUE
from linnix_plugin_prometheus.tally import MAX_KEYS

CPU = "process_cpu_utilization_ratio"
RSS = "process_memory_usage_bytes"


def process(pid, exe, *, cpu=1.0, rss=10, comm="c", args=None):
    event = ProcessEvent("exec", pid=pid, start_ns=10**7, exe=exe, comm=comm, args=args)
    sample = ProcessSample(
        pid, 10**7, 10**9, comm, cpu_percent=cpu, rss_bytes=rss, threads=2, fds=3
    )
    return event, sample


def executables(exported, family=RSS):
    return {
        dict(labels)["process_executable_name"]: v for labels, v in exported.series(family).items()
    }


def test_processes_are_added_up_by_executable(told):
    exported = (
        told()
        .batch(*process(2, "/usr/bin/a", cpu=50.0), *process(3, "/opt/a (deleted)", cpu=30.0))
        .exported()
    )
    labels = {"process_executable_name": "a"}
    assert exported.value(RSS, **labels) == 20
    assert exported.value(CPU, **labels) == pytest.approx(0.8 / os.cpu_count(), abs=1e-6)
    assert exported.value("process_threads", **labels) == 4
    assert exported.value("process_file_descriptors", **labels) == 6
    assert exported.value("linnix_executable_processes", **labels) == 2


def test_top_bounds_the_executables(told):
    handler = told(top=2)
    handler.batch(
        *process(2, "/big", cpu=0.0, rss=100),
        *process(3, "/large", cpu=0.0, rss=90),
        *process(4, "/busy", cpu=99.0, rss=1),
        *process(5, "/lively", cpu=90.0, rss=2),
        *process(6, "/small", cpu=1.0, rss=3),
    )
    assert set(executables(handler.exported())) == {"big", "large", "busy", "lively"}


def test_top_zero_shows_none(told):
    assert executables(told(top=0).batch(*process(2, "/a")).exported()) == {}


def test_a_series_goes_when_its_last_process_dies(told):
    handler = told().batch(*process(2, "/a"), *process(3, "/b"))
    assert set(executables(handler.exported())) == {"a", "b"}
    handler.batch(ProcessEvent("exit", pid=2, start_ns=10**7))
    assert set(executables(handler.exported())) == {"b"}


def test_arguments_are_in_no_label(told):
    secret = "hunter2-in-the-arguments"
    handler = told().batch(*process(2, "/usr/bin/mysql", args=("mysql", f"-p{secret}")))
    assert secret not in handler.exported().text


def test_hostile_names_stay_within_their_line_in_both_formats(told):
    handler = told(top=1000)
    records = hostile_records()
    handler.batch(*records)
    for pid, name in enumerate(HOSTILE, 5000):
        handler.batch(*process(pid, f"/usr/bin/{name}", comm=name))
        handler.handler.linnix_alert(Alert(name, "low", name))
        handler.batch(Loss(name, name, 1, 1, 1))
    text = handler.exported().text
    assert all(ord(c) >= 32 or c == "\n" for c in text)
    openmetrics = handler.handler.render(openmetrics=True).decode()
    assert list(text_string_to_metric_families(openmetrics))
    for line in text.splitlines():
        assert line.startswith(("# ", "linnix_", "process_")), line
    values = [
        v
        for s in handler.exported().families.values()
        for p in s.samples
        for v in p.labels.values()
    ]
    assert max(map(len, values)) <= MAX_VALUE


def test_rules_and_reasons_beyond_the_bound_are_other_ones(told):
    handler = told()
    for number in range(MAX_KEYS + 10):
        handler.handler.linnix_alert(Alert(f"rule {number}", "low", "m"))
    handler.batch(*(Loss("c", f"why {n}", 1, 1, 1) for n in range(MAX_KEYS + 10)))
    exported = handler.exported()
    assert exported.value("linnix_alerts_total", rule="other", severity="other") == 10
    assert exported.value("linnix_alerts_emitted_total") == MAX_KEYS + 10
    assert len(exported.series("linnix_lost_records_total")) == MAX_KEYS


@pytest.mark.parametrize(
    ("metric", "name", "value"),
    [
        (Metric("jsonl_written_bytes", 5, "By", "counter"), "linnix_jsonl_written_bytes_total", 5),
        (Metric("model.latency", 250, "ms"), "linnix_model_latency_seconds", 0.25),
        (Metric("cache_hits", 50, "%"), "linnix_cache_hits_ratio", 0.5),
        (Metric("size", 2, "KiBy"), "linnix_size_bytes", 2048),
        (Metric("sqlite_rows", 3, "{row}"), "linnix_sqlite_rows", 3),
        (Metric("rows_total", 3), "linnix_rows", 3),
        (Metric("total", 3, "1", "counter"), "linnix_total", 3),
        (Metric("x" * 115 + "_total_number", 3, "1", "counter"), f"linnix_{'x' * 115}_total", 3),
        (Metric("linnix_processes", 7, "{process}"), "linnix_processes", 7),
        (Metric("linnix_waits_total", 7, "us", "counter"), "linnix_waits_total", 7),
    ],
)
def test_what_plugins_count_gets_a_valid_name_and_base_units(told, metric, name, value):
    assert told(metrics=[metric]).exported().value(name) == value


def test_a_plugin_cannot_speak_for_the_agent(told):
    exported = told(
        metrics=[
            Metric("linnix_events_total", 10**9, "1", "counter"),
            Metric("linnix_subscribers", 7),
        ]
    ).exported()
    assert exported.value("linnix_events_total") == 0
    assert exported.value("linnix_subscribers") == 0
    assert exported.value("linnix_refused_series") == 2


def test_numbers_that_are_none_are_refused_and_counted(told):
    exported = told(
        metrics=[
            Metric("a", "many"),
            Metric("b", None),
            Metric("c", -1, "1", "counter"),
            Metric("d", float("nan"), "1", "counter"),
            Metric("e", 1, labels=None),
            Metric("f", 1),
            Metric("f", 1, "1", "counter"),
        ]
    ).exported()
    assert exported.value("linnix_refused_series") == 6
    assert exported.value("linnix_f") == 1


def test_series_of_one_plugin_are_bounded(told, monkeypatch):
    monkeypatch.setattr(families, "MAX_SERIES", 5)
    monkeypatch.setattr(families, "MAX_FAMILIES", 2)
    exported = told(
        metrics=[
            *(Metric("pairs", 1, labels={"pair": str(n)}) for n in range(9)),
            Metric("second", 1),
            Metric("third", 1),
        ]
    ).exported()
    assert len(exported.series("linnix_pairs")) == 5
    assert exported.value("linnix_refused_series") == 5


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
@given(
    st.lists(
        st.builds(
            Metric,
            name=st.one_of(
                st.text(max_size=12),
                st.text(string.ascii_lowercase + "_1", max_size=6),
                st.sampled_from(["linnix_events", "linnix_x_total", "x_bucket", "le"]),
            ),
            value=st.floats(),
            unit=st.sampled_from(["s", "ms", "By", "%", "1", "{x}"]),
            kind=st.sampled_from(["counter", "gauge"]),
            labels=st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=3),
            help=st.text(max_size=20),
        ),
        max_size=8,
    )
)
def test_whatever_plugins_say_the_exposition_stays_valid(told, metrics):
    handler = told(metrics=metrics)
    exported = handler.exported()
    names = [line.split()[2] for line in exported.text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    series = [line.rpartition(" ")[0] for line in exported.text.splitlines() if line[0] != "#"]
    assert len(series) == len(set(series))
    openmetrics = handler.handler.render(openmetrics=True).decode()
    assert openmetrics.endswith("# EOF\n")
    assert list(text_string_to_metric_families(openmetrics))
