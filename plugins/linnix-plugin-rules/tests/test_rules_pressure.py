"""Rules about pressure: of the machine and of cgroups, and who uses what is waited for."""

import pytest

from linnix_core import CgroupSample, Evidence, Pressure, SystemSample


def rule(of, resource, **keys):
    keys = {"threshold_pct": 40, "duration": 10} | keys
    more = ", ".join(f"{key}: {value}" for key, value in keys.items())
    return f"- {{name: p, detector: {of}_psi_{resource}, {more}}}"


def pressure(some, full, seconds=0.0):
    return Pressure(some, int(some * 1e4 * seconds), full, int(full * 1e4 * seconds))


def measured(host, times, *, make, every=5, some=80.0, full=60.0, resource="io"):
    """Samples whose average and whose totals say the same."""
    for n in range(times):
        sample = make()
        sample.ts_ns = host.ts_ns
        setattr(sample, f"psi_{resource}", pressure(some, full, n * every))
        host.records.append(sample)
        host.wait(every)


MACHINE = [lambda: SystemSample(1), lambda: CgroupSample("/", 1)]


@pytest.mark.parametrize("make", MACHINE, ids=["system", "root cgroup"])
@pytest.mark.parametrize(
    ("resource", "class_", "value", "name"),
    [
        ("cpu", "cpu_spin", 80, "psi_cpu_some"),
        ("memory", "oom_risk", 60, "psi_memory_full"),
        ("io", "io_saturation", 60, "psi_io_full"),
    ],
)
def test_pressure_of_the_machine(host, alerts_of, make, resource, class_, value, name):
    measured(host, 4, make=make, resource=resource)
    (alert,) = alerts_of(rule("system", resource), host.records)
    assert alert.class_ == class_
    assert alert.evidence == (
        Evidence(name, value, "%"),
        Evidence("threshold", 40, "%"),
        Evidence("window", 10, "s"),
    )


@pytest.mark.parametrize(
    ("threshold", "duration", "fires"), [(59, 15, True), (60, 15, False), (59, 16, False)]
)
def test_it_has_to_be_above_the_threshold_and_to_last(host, alerts_of, threshold, duration, fires):
    measured(host, 4, make=MACHINE[0])
    text = rule("system", "io", threshold_pct=threshold, duration=duration)
    assert bool(alerts_of(text, host.records)) is fires


def test_a_moment_without_pressure_starts_the_time_again(host, alerts_of):
    for _ in range(3):
        measured(host, 2, make=MACHINE[0])
        measured(host, 1, make=MACHINE[0], full=0.0)
    assert alerts_of(rule("system", "io"), host.records) == []


def test_stalls_since_the_sample_before_are_quicker_than_the_average(host, alerts_of):
    for n, average in enumerate((0.0, 20.0, 35.0)):
        stalled = Pressure(average, n * 900_000, average, n * 900_000)
        host.records.append(SystemSample(1, psi_io=stalled, ts_ns=host.ts_ns))
        host.wait(1)
    (alert,) = alerts_of(rule("system", "io", duration=2), host.records)
    assert alert.evidence[0].value == 90


@pytest.mark.parametrize(
    ("resource", "use", "unit"),
    [("cpu", {"cpu": 90}, "%"), ("memory", {"rss": 9}, "By"), ("io", {"write_bytes": 9}, "By/s")],
)
def test_who_uses_most_of_what_is_waited_for_is_named(host, alerts_of, resource, use, unit):
    worker, idler = host.seen("worker"), host.seen("idler")
    host.sample(worker, interval=1, **use)
    host.sample(idler, interval=1, cpu=1, rss=1, write_bytes=1)
    host.wait(1)
    measured(host, 4, make=MACHINE[1], resource=resource)
    (alert,) = alerts_of(rule("system", resource), host.records)
    assert alert.subject.key == worker.key
    assert alert.evidence[3].unit == unit


@pytest.mark.parametrize("resource", ["cpu", "memory", "io"])
def test_pressure_of_a_cgroup_is_its_own(host, alerts_of, resource):
    measured(host, 4, make=lambda: CgroupSample("/app", 1), every=5, resource=resource)
    (alert,) = alerts_of(rule("cgroup", resource), host.records)
    assert (alert.subject.key, alert.subject.cgroup) == (None, "/app")
    assert "in cgroup /app" in alert.message
    assert alerts_of(rule("system", resource), host.records) == []
    measured(host, 4, make=lambda: CgroupSample("/", 1), every=5, resource=resource)
    assert len(alerts_of(rule("cgroup", resource), host.records)) == 1


@pytest.mark.parametrize(("pattern", "fires"), [("/app*", True), ("/other", False)])
def test_match_chooses_cgroups(host, alerts_of, pattern, fires):
    measured(host, 4, make=lambda: CgroupSample("/app/web", 1))
    text = rule("cgroup", "io", match=f"{{cgroup: '{pattern}'}}")
    assert bool(alerts_of(text, host.records)) is fires


def test_the_processes_of_a_cgroup_are_to_blame_for_its_pressure(host, alerts_of):
    inside, outside = host.seen("inside"), host.seen("outside")
    host.sample(inside, interval=1, cpu=10, cgroup="/app/web")
    host.sample(outside, interval=1, cpu=90, cgroup="/application")
    host.wait(1)
    measured(host, 4, make=lambda: CgroupSample("/app", 1), resource="cpu")
    (alert,) = alerts_of(rule("cgroup", "cpu"), host.records)
    assert alert.subject.key == inside.key
