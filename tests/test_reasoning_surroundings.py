"""The facts that are no alert: the tree below the subject, its cgroup, the machine, losses."""

from __future__ import annotations

import attrs
import pytest

from linnix_core import (
    CgroupSample,
    Evidence,
    Fact,
    Incident,
    Loss,
    Pressure,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    ProcessTable,
    Subject,
    SystemSample,
)
from linnix_core.reasoning import build_request
from linnix_core.surroundings import MAX_CGROUPS, Surroundings

NOW_NS = 10**18
S = 10**9
KEY = ProcessKey("b", 7, 0)


@pytest.fixture
def surroundings():
    return Surroundings()


def of(surroundings, cgroup=None, now_ns=NOW_NS):
    return {(f.name, f.unit): f.value for f in surroundings.facts(cgroup, now_ns)}


def system(**parts):
    return SystemSample(interval_ns=S, ts_ns=NOW_NS, **parts)


def group(cgroup="/app", **parts):
    return CgroupSample(cgroup, S, ts_ns=NOW_NS, **parts)


# --- the machine and the cgroups ----------------------------------------------------------


def test_of_the_machine_it_says_what_can_be_short(surroundings):
    surroundings.update(
        [
            system(
                cpus=4, cpu_percent=97.53, memory_total_bytes=8 * 2**30,
                memory_available_bytes=2 * 2**30, swap_total_bytes=2**30, swap_used_bytes=2**29,
                disk_read_bytes_per_s=5 * 2**20, disk_write_bytes_per_s=10.0,
                psi_cpu=Pressure(12.5, 1, 0.0), psi_memory=Pressure(3.25, 1, 1.5),
                psi_io=Pressure(40.0, 1, 20.0),
            )
        ]
    )  # fmt: skip
    assert of(surroundings) == {
        ("machine CPU", "%"): 97.5,
        ("cores", "cores"): 4,
        ("CPU stall, some", "%"): 12.5,
        ("memory stall, some", "%"): 3.2,
        ("memory stall, full", "%"): 1.5,
        ("I/O stall, some", "%"): 40.0,
        ("I/O stall, full", "%"): 20.0,
        ("memory available", "%"): 25.0,
        ("swap used", "%"): 50.0,
        ("disk reads", "MiB/s"): 5.0,
    }


def test_of_the_subjects_cgroup_it_says_how_near_its_limits_are(surroundings):
    surroundings.update(
        [
            group("/other", cpu_percent=1.0),
            group(
                cpu_percent=180.0, throttled_ns=S // 4, memory_bytes=90 * 2**20,
                memory_limit_bytes=100 * 2**20, memory_events={"oom_kill": 2, "max": 9},
                psi_memory=Pressure(30.0, 1, 25.0),
            ),
        ]
    )  # fmt: skip
    assert of(surroundings, "/app") == {
        ("cgroup CPU", "%"): 180.0,
        ("cgroup throttled", "%"): 25.0,
        ("cgroup memory", "MiB"): 90.0,
        ("cgroup memory limit", "MiB"): 100.0,
        ("cgroup memory used", "%"): 90.0,
        ("cgroup OOM kills", "kills"): 2,
        ("cgroup memory stall, some", "%"): 30.0,
        ("cgroup memory stall, full", "%"): 25.0,
    }
    assert of(surroundings, "/unknown") == of(surroundings) == {}


def test_what_is_not_known_is_not_said(surroundings):
    surroundings.update([system(), group(), group("/empty", memory_bytes=0)])
    assert of(surroundings, "/app") == {}
    assert of(surroundings, "/empty") == {("cgroup memory", "MiB"): 0.0}


def test_the_latest_sample_counts_and_an_old_one_does_not(surroundings):
    surroundings.update([system(cpu_percent=1.0), system(cpu_percent=2.0)])
    surroundings.update([group(cpu_percent=1.0), group(cpu_percent=3.0)])
    assert of(surroundings, "/app") == {("cgroup CPU", "%"): 3.0, ("machine CPU", "%"): 2.0}
    assert of(surroundings, "/app", NOW_NS + 61 * S) == {}


def test_losses_within_a_minute_are_summed(surroundings):
    surroundings.update(
        Loss("collectors.c", "ring_full", lost, 99, 10 * S, ts_ns=NOW_NS - ago * S)
        for lost, ago in ((5, 90), (3, 30), (4, 0), (0, 0))
    )
    assert of(surroundings) == {("records lost within a minute", "records"): 7}


def test_it_remembers_so_many_cgroups_and_those_that_were_measured_last(surroundings):
    surroundings.update(group(f"/{n}", cpu_percent=1.0) for n in range(MAX_CGROUPS))
    surroundings.update([group("/0", cpu_percent=2.0), group("/new", cpu_percent=2.0)])
    assert of(surroundings, "/0")
    assert of(surroundings, "/new")
    assert not of(surroundings, "/1")


def test_events_and_samples_of_processes_are_none_of_its_business(surroundings):
    surroundings.update([ProcessEvent("fork", 1, 0), ProcessSample(1, 0, S)])
    assert of(surroundings) == {}


# --- the tree -----------------------------------------------------------------------------


def event(kind, pid, *, ago_s=0.0, **parts):
    return ProcessEvent(kind, pid, pid * S, boot_id="b", ts_ns=NOW_NS - int(ago_s * S), **parts)


def child(pid, *, exe=None, ended_ago_s=None, life_s=0.002):
    records = [event("fork", pid, ppid=7, parent_start_ns=0)]
    if exe:
        records.append(event("exec", pid, exe=exe, comm=exe.rpartition("/")[2]))
    if ended_ago_s is not None:
        records.append(event("exit", pid, ago_s=ended_ago_s, duration_ns=int(life_s * S)))
    return records


def request_of(*records, sample=None, surroundings=None, **parts):
    table = ProcessTable()
    root = attrs.evolve(event("seen", 7, comm="make", exe="/bin/make"), start_ns=0)
    table.update([root, *(sample or ())])
    for group_ in records:
        table.update(group_)
    incident = Incident(
        "f", "high", "s", "fork_storm", Subject(KEY, cgroup="/app"), updated_ns=NOW_NS, **parts
    )
    return build_request(incident, table.view, surroundings=surroundings)


def facts_of(request, process="P1"):
    return {f.name: (f.value, f.unit) for f in request.facts if f.process == process}


def test_of_the_tree_it_says_who_lives_and_who_ended_how_soon_and_as_what():
    request = request_of(
        *(child(pid) for pid in range(100, 103)),
        *(child(pid, ended_ago_s=1) for pid in range(200, 206)),
        *(child(pid, exe="/bin/true", ended_ago_s=1, life_s=0.5) for pid in range(300, 303)),
        child(400, exe="/bin/false", ended_ago_s=1, life_s=9.0),
        child(500, ended_ago_s=30),
    )
    facts = facts_of(request)
    assert facts["descendants alive"] == (3, "processes")
    assert facts["descendants that ended lately"] == (10, "processes")
    assert facts["their median life"] == (0.002, "s")
    assert facts["share with an exec"] == (40, "%")
    assert facts["programs"] == (2, "programs")


def test_of_a_process_without_a_tree_nothing_is_said():
    assert facts_of(request_of()) == {"alerts": (1, "alerts")}


def test_storage_is_said_per_second_and_only_where_there_is_some():
    sample = ProcessSample(
        7, 0, 2 * S, cpu_percent=0.0, read_bytes=8 * 2**20, write_bytes=100, boot_id="b"
    )
    facts = facts_of(request_of(sample=[sample]))
    assert facts["reads"] == (4.0, "MiB/s")
    assert "writes" not in facts
    assert facts["CPU"] == (0.0, "%")


def test_who_moves_most_is_among_the_processes():
    busy = [
        record
        for pid in range(100, 120)
        for record in (
            event("seen", pid),
            ProcessSample(pid, pid * S, S, cpu_percent=50.0, rss_bytes=2**30, boot_id="b"),
        )
    ]
    writer = [
        event("seen", 50),
        ProcessSample(50, 50 * S, S, cpu_percent=0.1, write_bytes=2**30, boot_id="b"),
    ]
    request = request_of(busy, writer)
    chosen = {process.key.pid: process.id for process in request.processes}
    assert facts_of(request, chosen[50])["writes"] == (1024.0, "MiB/s")


def test_bytes_of_the_evidence_are_said_in_mebibytes():
    evidence = (
        Evidence("rss_growth", 3 * 2**20, "By/s"),
        Evidence("limit", 2**29, "By"),
        Evidence("small", 100, "By"),
    )
    facts = facts_of(request_of(evidence=evidence))
    assert facts["rss_growth"] == (3.0, "MiB/s")
    assert facts["limit"] == (512.0, "MiB")
    assert facts["small"] == (100, "By")


def test_the_weightiest_facts_come_first():
    surroundings = Surroundings()
    surroundings.update([system(cpu_percent=50.0), group(cpu_percent=1.0)])
    request = request_of(
        child(100),
        [ProcessSample(100, 100 * S, S, cpu_percent=9.0, boot_id="b")],
        sample=[ProcessSample(7, 0, S, cpu_percent=5.0, boot_id="b")],
        surroundings=surroundings,
        evidence=(Evidence("forks", 812, "forks"),),
    )
    assert [(f.name, f.process) for f in request.facts] == [
        ("forks", "P1"),
        ("alerts", "P1"),
        ("descendants alive", "P1"),
        ("CPU", "P1"),
        ("cgroup CPU", None),
        ("machine CPU", None),
        ("CPU", "P2"),
    ]
    assert isinstance(request.facts[0], Fact)
