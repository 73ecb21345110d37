"""What the handler makes of samples: series, alerts, and a memory that outlives the run."""

import json
import logging
import random

import attrs
import pytest

from linnix_core import (
    Batch,
    CgroupSample,
    Pressure,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    ProcessTable,
    ProcessView,
    SystemSample,
)
from linnix_plugin_anomaly import AnomalyConfig, AnomalyHandler
from linnix_plugin_anomaly.learnt import Learnt
from linnix_plugin_anomaly.measures import of_cgroup, of_host, of_process
from linnix_plugin_anomaly.rounds import Point, Rounds, Series

SECOND_NS = 10**9
BEGAN_NS = 1_767_225_600 * SECOND_NS
BOOT = "b" * 32


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now_s = 0.0

    def time_ns(self):
        return BEGAN_NS

    def monotonic(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def start(linnix_context, clock):
    """Start a handler with points of a second and 50 of them to warm up."""
    started = []

    def make(**options):
        config = {"resolution": 1.0, "warmup": 50.0, "threshold": 2.0} | options
        parts = {"processes": config.pop("processes", ProcessView()), "clock": clock}
        context = linnix_context("handlers.anomaly", **parts)
        handler = AnomalyHandler(AnomalyConfig(**config), context)
        handler.linnix_start(context)
        started.append(handler)
        return handler

    return make


def system(second, **measured):
    return SystemSample(SECOND_NS, ts_ns=BEGAN_NS + second * SECOND_NS, host="h", **measured)


def cgroup(second, path="/web", **measured):
    ts_ns = BEGAN_NS + second * SECOND_NS
    return CgroupSample(path, SECOND_NS, ts_ns=ts_ns, host="h", **measured)


def process(second, pid=7, comm="worker", **measured):
    ts_ns = BEGAN_NS + second * SECOND_NS
    return ProcessSample(pid, 0, SECOND_NS, comm, ts_ns=ts_ns, host="h", boot_id=BOOT, **measured)


def around(usual, count=200, seed=1):
    generator = random.Random(seed)
    return [usual + generator.random() for _ in range(count)]


def alerts_of(handler, records):
    return [alert for record in records for alert in handler.linnix_handle(Batch((record,)))]


def cpu(percents):
    return [system(i, cpu_percent=percent) for i, percent in enumerate(percents)]


SPIKE = [*around(10.0), 95.0, 10.0, 10.0]


def test_an_alert_says_which_series_and_how_far_from_what(start):
    (alert,) = alerts_of(start(), cpu(SPIKE))
    assert alert.rule == "anomaly"
    assert (alert.class_, alert.severity) == (None, "low")
    assert alert.message.startswith("CPU of host h is 95.0 %, usually 10.")
    assert "% of late and not above 1" in alert.message
    value, limit, usual, surprise = alert.evidence
    assert (value.name, value.value, value.unit) == ("cpu", 95.0, "%")
    assert usual.value == pytest.approx(10.5, abs=0.3)
    assert usual.value + 5 <= limit.value < 95
    assert surprise.value > 2
    assert alert.labels == {"series": "host", "measure": "cpu", "usual": "level"}
    assert alert.ts_ns == BEGAN_NS + 201 * SECOND_NS


def test_less_than_usual_is_told_too(start):
    (alert,) = alerts_of(start(), cpu([*around(60.0), 2.0, 60.0]))
    assert "not below" in alert.message
    assert alert.evidence[1].value < 60


def test_rare_but_small_is_not_worth_an_alert(start):
    assert not alerts_of(start(), cpu([*around(10.0), 14.0, 10.0]))


def test_a_higher_threshold_asks_for_a_rarer_value(start):
    assert alerts_of(start(threshold=3.0), cpu(SPIKE))
    assert not alerts_of(start(threshold=6.0), cpu(SPIKE))


def test_nothing_is_told_while_a_series_warms_up(start):
    assert not alerts_of(start(warmup=300.0), cpu(SPIKE))


def test_samples_are_averaged_over_the_resolution(start):
    # One second in sixty at 95 is an average of 12.
    usual = around(10.0, count=6000)
    usual[5400] = 95.0
    assert not alerts_of(start(resolution=60.0, warmup=1800.0), cpu(usual))
    usual[5400:5460] = [95.0] * 60
    assert alerts_of(start(resolution=60.0, warmup=1800.0), cpu(usual))


def test_one_alert_about_one_thing_with_what_is_rarest(start):
    quiet = [system(i, cpu_percent=p, load1=p / 100) for i, p in enumerate(around(10.0))]
    loud = [system(200, cpu_percent=20.0, load1=50.0), system(201)]
    (alert,) = alerts_of(start(), [*quiet, *loud])
    assert alert.labels["measure"] == "load"


def test_a_cgroup_is_its_own_series(start):
    handler = start()
    quiet = [
        cgroup(i, path, cpu_percent=p) for i, p in enumerate(around(10.0)) for path in ("/a", "/b")
    ]
    (alert,) = alerts_of(handler, [*quiet, cgroup(200, "/a", cpu_percent=90.0), cgroup(201)])
    assert alert.subject.cgroup == "/a"
    assert "CPU of cgroup /a is 90.0 %" in alert.message


def test_processes_of_one_executable_are_one_program(start):
    table = ProcessTable()
    for pid in (7, 8):
        table.update([
            ProcessEvent(
                "seen", pid, 0, comm="w", exe="/usr/bin/web", cgroup="/web", boot_id=BOOT
            )
        ])  # fmt: skip
    handler = start(processes=ProcessView(table))
    quiet = [process(i, pid, cpu_percent=p) for i, p in enumerate(around(10.0)) for pid in (7, 8)]
    loud = [process(200, 7, cpu_percent=10.0), process(200, 8, cpu_percent=140.0)]
    (alert,) = alerts_of(handler, [*quiet, *loud, process(201)])
    assert alert.message.startswith("CPU of /usr/bin/web is 150.0 %, usually 2")
    # The process that had most of it answers for the program.
    assert alert.subject.key == ProcessKey(BOOT, 8, 0)
    assert (alert.subject.exe, alert.subject.cgroup) == ("/usr/bin/web", "/web")


def test_a_process_that_is_not_known_goes_by_its_name(start):
    quiet = [process(i, cpu_percent=p) for i, p in enumerate(around(10.0))]
    (alert,) = alerts_of(start(), [*quiet, process(200, cpu_percent=60.0), process(201)])
    assert (alert.subject.comm, alert.subject.exe) == ("worker", None)


@pytest.mark.parametrize(
    ("record", "usual", "unusual", "expected"),
    [
        (process, {"cpu_percent": 10.0}, {"cpu_percent": 99.0}, "cpu_spin"),
        (process, {"cpu_percent": 10.0}, {"cpu_percent": 60.0}, None),
        (process, {"cpu_percent": 190.0}, {"cpu_percent": 95.0}, None),
        (cgroup, {"cpu_percent": 10.0}, {"cpu_percent": 99.0}, None),
        (system, {"psi_io": Pressure(1.0, 0)}, {"psi_io": Pressure(70.0, 0)}, "io_saturation"),
        (system, {"psi_io": Pressure(1.0, 0)}, {"psi_io": Pressure(20.0, 0)}, None),
        (
            system,
            {"memory_total_bytes": 100, "memory_available_bytes": 50},
            {"memory_total_bytes": 100, "memory_available_bytes": 3},
            "oom_risk",
        ),
        (
            system,
            {"memory_total_bytes": 100, "memory_available_bytes": 50},
            {"memory_total_bytes": 100, "memory_available_bytes": 20},
            None,
        ),
    ],
)
def test_a_class_only_where_the_value_justifies_it(start, record, usual, unusual, expected):
    quiet = [record(i, **usual) for i in range(200)]
    (alert,) = alerts_of(start(), [*quiet, record(200, **unusual), record(201, **usual)])
    assert alert.class_ == expected
    assert alert.severity == ("medium" if expected else "low")


def test_names_are_made_safe_to_show(start):
    evil = "/x\x1b[2J\nroot"
    quiet = [cgroup(i, evil, cpu_percent=p) for i, p in enumerate(around(10.0))]
    (alert,) = alerts_of(start(), [*quiet, cgroup(200, evil, cpu_percent=90.0), cgroup(201)])
    assert "\\x1b[2J\\x0aroot" in alert.message


def test_what_was_learnt_outlives_the_run(start, tmp_path):
    handler = start()
    alerts_of(handler, cpu(around(10.0)))
    handler.linnix_stop(0.0)
    later = [attrs.evolve(each, ts_ns=each.ts_ns + 3600 * SECOND_NS) for each in cpu([95.0, 10.0])]
    assert alerts_of(start(), later)
    (file,) = tmp_path.rglob("learnt.json*")
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["version"] == 1


def test_it_is_saved_as_often_as_is_said(start, clock, tmp_path):
    handler = start(save_every=60.0)
    alerts_of(handler, cpu([1.0, 1.0]))
    clock.now_s = 59.0
    handler.linnix_flush()
    assert not list(tmp_path.rglob("learnt.json"))
    clock.now_s = 60.0
    handler.linnix_flush()
    assert list(tmp_path.rglob("learnt.json"))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"version":2}',
        b'{"version":1,"interval_ns":1000000000}',
        b'{"version":1,"interval_ns":5,"series":[]}',
        b'{"version":1,"interval_ns":1000000000,"series":[["h","host","","cpu",0,{}]]}',
        b'{"version":1,"interval_ns":1000000000,"series":[["h","moon","","cpu",0,{}]]}',
        b'{"version":1,"interval_ns":1000000000,"series":[["h",[],"","cpu",0,{}]]}',
        b'{"version":1,"interval_ns":1000000000,"series":7}',
    ],
    ids=range(13),
)  # fmt: skip
def test_a_file_that_is_no_state_is_reported_and_replaced(start, tmp_path, caplog, content):
    handler = start()
    alerts_of(handler, cpu(around(10.0)))
    handler.linnix_stop(0.0)
    (file,) = tmp_path.rglob("learnt.json")
    whole = file.read_bytes()
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        again = start()
    assert "learning begins anew" in caplog.text
    alerts_of(again, cpu(around(10.0)))
    again.linnix_stop(0.0)
    assert file.read_bytes() == whole


def test_a_state_that_cannot_be_written_is_told_and_learning_goes_on(start, tmp_path):
    handler = start()
    alerts_of(handler, cpu(around(10.0)))
    (folder,) = tmp_path.rglob("handlers.anomaly")
    # A folder in the place of the file stands for a disk that takes nothing.
    (folder / "learnt.json").mkdir()
    handler.linnix_stop(0.0)
    health = handler.linnix_health()
    assert health.status == "degraded"
    assert "cannot be kept" in health.reason
    assert [each.name for each in folder.iterdir()] == ["learnt.json"]
    assert alerts_of(handler, cpu(SPIKE)[199:])


def test_no_more_series_than_is_said_and_the_rest_is_counted(start):
    handler = start(max_series=3)
    for second in range(3):
        for i in range(10):
            handler.linnix_handle(Batch((cgroup(second, f"/{i}", cpu_percent=1.0),)))
    # Seven in each of the two rounds that are over.
    metrics = {each.name: each.value for each in handler.linnix_metrics()}
    assert metrics["linnix_anomaly_series"] == 3
    assert "14 points had no room: max_series is 3" in handler.linnix_health().limits


def test_a_new_series_takes_the_place_of_one_that_is_quiet_but_of_none_in_use():
    learnt = Learnt(SECOND_NS, warmup=5, hour_memory=10, max_series=2)

    def judge(name, second):
        point = Point(Series("h", "cgroup", name, "cpu"), second * SECOND_NS, 1.0, None)
        return learnt.judge(point) is not None

    assert judge("/old", 1)
    assert judge("/used", 5)
    assert judge("/new", 5)
    assert not judge("/more", 5)
    assert judge("/used", 6)
    assert len(learnt) == 2


def test_a_series_is_not_judged_by_a_small_part_of_a_round():
    rounds = Rounds(60 * SECOND_NS, 100, lambda sample: sample.comm)
    assert not list(rounds.add(system(59, cpu_percent=1.0)))
    assert not list(rounds.add(system(60, cpu_percent=1.0)))


def test_a_clock_that_was_set_back_begins_a_new_round():
    rounds = Rounds(SECOND_NS, 100, lambda sample: sample.comm)
    assert not list(rounds.add(system(1000, cpu_percent=1.0)))
    assert not list(rounds.add(system(10, cpu_percent=2.0)))
    (point,) = rounds.add(system(11, cpu_percent=3.0))
    assert point.value == 2.0


def test_what_is_not_known_is_no_number():
    assert list(of_host(system(0))) == []
    assert list(of_cgroup(cgroup(0))) == []
    assert list(of_process(process(0))) == []


def test_every_measure_of_the_samples_is_read():
    stalled = Pressure(7.0, 0)
    host = system(
        0, cpu_percent=1.0, memory_total_bytes=200, memory_available_bytes=50,
        swap_total_bytes=10, swap_used_bytes=1, load1=2.0, processes=3,
        disk_read_bytes_per_s=4.0, disk_write_bytes_per_s=5.0, net_receive_bytes_per_s=6.0,
        net_transmit_bytes_per_s=7.0, psi_cpu=stalled, psi_memory=stalled, psi_io=stalled,
    )  # fmt: skip
    assert dict(of_host(host)) == {
        "cpu": 1.0, "memory_used": 75.0, "swap_used": 10.0, "load": 2.0, "processes": 3,
        "disk_read": 4.0, "disk_write": 5.0, "net_receive": 6.0, "net_transmit": 7.0,
        "psi_cpu": 7.0, "psi_memory": 7.0, "psi_io": 7.0,
    }  # fmt: skip
    group = cgroup(0, cpu_percent=1.0, memory_bytes=2, throttled_ns=SECOND_NS // 4)
    assert dict(of_cgroup(group)) == {"cpu": 1.0, "memory": 2, "throttled": 25.0}
    one = process(0, cpu_percent=1.0, rss_bytes=2, read_bytes=3, write_bytes=4)
    assert dict(of_process(one)) == {"cpu": 1.0, "memory": 2, "disk_read": 3, "disk_write": 4}


def test_health_says_what_is_not_known_yet(start):
    handler = start()
    alerts_of(handler, cpu([1.0] * 10))
    assert "1 of 1 series are warming up" in handler.linnix_health().limits
    alerts_of(handler, [system(10 + i, cpu_percent=1.0) for i in range(100)])
    assert not any("warming" in limit for limit in handler.linnix_health().limits)


@pytest.mark.parametrize(
    ("option", "value"),
    [("resolution", 0.5), ("resolution", 7200.0), ("warmup", 0.0), ("threshold", 0.0),
     ("max_series", 0), ("save_every", 0.0)],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_named(option, value):
    with pytest.raises(ValueError, match=option):
        AnomalyConfig(**{option: value})


def test_in_a_run_its_alert_becomes_an_incident(linnix_runtime):
    options = {"resolution": "1s", "warmup": "50s", "threshold": 2.0}
    agent = linnix_runtime(
        handlers={"anomaly": AnomalyHandler},
        options={"handlers.anomaly": options},
        records=cpu(SPIKE),
    )
    assert agent.wait_idle(10)
    (incident,) = agent.incidents.recent()
    assert incident.rules == ("anomaly",)
    assert incident.summary.startswith("CPU of host testhost is 95.0 %")
