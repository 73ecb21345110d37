"""What is kept of samples between two exports of metrics, and how counters count."""

import otlp_specimens as specimens
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_plugin_otlp import gathering as module
from linnix_plugin_otlp.births import Births
from linnix_plugin_otlp.gathering import Gathering
from linnix_plugin_otlp.resources import Origin

BIRTHS = Births({specimens.BOOT: specimens.BOOTED_NS})
HERE = Origin("web-1", specimens.BOOT, "run-1")
BEGAN_NS = specimens.NOW_NS - 60 * 10**9


def make(**options):
    return Gathering(
        BIRTHS, **{"top": 20, "delta": False, "cpus": 2, "began_ns": BEGAN_NS, **options}
    )


def tell(gathering, name, components=()):
    """What is told now of one metric."""
    values = gathering.values(components, HERE, specimens.NOW_NS)
    return [value for value in values if value.point.series.name == name]


def at(second, **more):
    return specimens.process_sample(ts_ns=specimens.NOW_NS + second * 10**9, **more)


def test_storage_io_is_added_up_over_all_samples_also_those_between_two_exports():
    gathering = make()
    gathering.add([at(1, read_bytes=100), at(2, read_bytes=20), at(3, read_bytes=3)])
    read, _ = tell(gathering, "process.disk.io")
    assert (read.point.value, read.since_ns) == (123, specimens.NOW_NS)
    gathering.add([at(4, read_bytes=1000)])
    assert tell(gathering, "process.disk.io")[0].point.value == 1123


def test_io_that_was_not_known_for_a_while_is_not_forgotten():
    gathering = make()
    gathering.add([at(1, read_bytes=100), at(2, read_bytes=None), at(3, read_bytes=1)])
    assert tell(gathering, "process.disk.io")[0].point.value == 101


def test_a_process_without_a_new_sample_has_no_series():
    gathering = make()
    gathering.add([at(1)])
    assert len(tell(gathering, "process.memory.usage")) == 1
    assert tell(gathering, "process.memory.usage") == []


def test_a_process_that_is_seen_no_more_is_forgotten():
    gathering = make()
    gathering.add([at(1, read_bytes=100)])
    for _ in range(module.FORGET_AFTER + 1):
        gathering.values((), HERE, specimens.NOW_NS)
    gathering.add([at(9, read_bytes=1)])
    assert tell(gathering, "process.disk.io")[0].point.value == 1


def test_losses_are_told_in_every_export_since_the_run_began():
    gathering = make()
    gathering.add([specimens.loss()])
    for _ in range(2):
        (lost,) = tell(gathering, "linnix.records.lost")
        assert (lost.point.value, lost.since_ns) == (5, BEGAN_NS)


def test_what_the_kernel_counts_begins_nobody_knows_when():
    gathering = make()
    gathering.add([specimens.cgroup_sample()])
    values = gathering.values((), HERE, specimens.NOW_NS)
    since = {value.point.series.name: value.since_ns for value in values}
    assert since["linnix.cgroup.memory.events"] == 0
    assert since["linnix.cgroup.cpu.throttled.time"] == specimens.NOW_NS - 10**9


def test_only_so_many_processes_have_series_by_cpu_and_by_memory():
    gathering = make(top=3)
    gathering.add(
        [at(1, pid=pid, cpu_percent=float(pid), rss_bytes=1000 - pid) for pid in range(1, 101)]
    )
    told = tell(gathering, "process.memory.usage")
    assert {dict(each.point.series.attributes)["process.pid"] for each in told} == {
        1, 2, 3, 98, 99, 100,
    }  # fmt: skip


def test_without_top_no_process_has_a_series():
    gathering = make(top=0)
    gathering.add(specimens.every_sample())
    names = {v.point.series.name for v in gathering.values((), HERE, specimens.NOW_NS)}
    assert not [name for name in names if name.startswith(("process.", "linnix.cgroup"))]
    assert "linnix.system.cpu.utilization" in names


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_SAMPLED", 10)
    monkeypatch.setattr(module, "MAX_LOSSES", 10)
    gathering = make(top=1000)
    gathering.add([at(1, pid=pid) for pid in range(100)])
    gathering.add([specimens.loss(why=str(n)) for n in range(100)])
    assert len(tell(gathering, "process.memory.usage")) == 10
    gathering.add([specimens.loss(why="3", lost_total=9)])
    told = tell(gathering, "linnix.records.lost")
    assert len(told) == 10
    assert 9 in [each.point.value for each in told]


def test_differences_count_from_what_was_delivered_not_from_what_was_tried():
    gathering = make(delta=True)
    gathering.add([specimens.loss(lost_total=5)])
    assert tell(gathering, "linnix.records.lost")[0].point.value == 5
    gathering.add([specimens.loss(lost_total=7)])
    (again,) = tell(gathering, "linnix.records.lost")
    assert (again.point.value, again.since_ns) == (7, BEGAN_NS)
    gathering.delivered()
    gathering.add([specimens.loss(lost_total=8, ts_ns=specimens.NOW_NS + 1)])
    (more,) = tell(gathering, "linnix.records.lost")
    assert (more.point.value, more.since_ns) == (1, specimens.NOW_NS)


def test_a_counter_of_unknown_age_has_no_first_difference():
    gathering = make(delta=True)
    gathering.add([specimens.cgroup_sample(memory_events={"oom": 40})])
    assert tell(gathering, "linnix.cgroup.memory.events") == []
    gathering.delivered()
    gathering.add([specimens.cgroup_sample(memory_events={"oom": 42})])
    assert tell(gathering, "linnix.cgroup.memory.events")[0].point.value == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=1, max_size=20))
def test_delivered_differences_add_up_to_the_total(steps):
    gathering, arrived, total = make(delta=True), 0.0, 0
    for more, arrives in [*steps, (0, True)]:
        total += more
        gathering.add([specimens.loss(lost_total=total)])
        (told,) = tell(gathering, "linnix.records.lost")
        if arrives:
            gathering.delivered()
            arrived += told.point.value
    assert arrived == pytest.approx(total)


@pytest.mark.parametrize(("said", "is_delta"), [("delta", True), ("cumulative", False)])
def test_the_environment_chooses_the_temporality(monkeypatch, said, is_delta):
    from linnix_plugin_otlp import OtlpConfig

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", said)
    assert (OtlpConfig().chosen_temporality == "delta") is is_delta
    assert OtlpConfig(temporality="cumulative").chosen_temporality == "cumulative"
