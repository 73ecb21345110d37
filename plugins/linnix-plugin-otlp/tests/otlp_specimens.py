"""One record of each type, with everything in it that a mapper can meet."""

from linnix_core import (
    Alert,
    CgroupSample,
    Evidence,
    Fact,
    Feedback,
    Incident,
    Insight,
    Loss,
    Metric,
    Origin,
    Pressure,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    Subject,
    SystemSample,
)

BOOT = "b0075eed-0000-4000-8000-000000000000"
BOOTED_NS = 1_795_300_000_000_000_000
NOW_NS = 1_795_342_530_000_000_000
STAMP = {"host": "web-1", "run_id": "run-1", "boot_id": BOOT}
PSI = Pressure(12.5, 2_000_000, 3.0, 500_000)
SUBJECT = Subject(
    key=ProcessKey(BOOT, 4242, 42_000_000_000_000),
    exe="/usr/bin/cc1",
    comm="cc1",
    cgroup="/system.slice/ci.service",
)
EVIDENCE = (Evidence("forks", 812.0, "{fork}"), Evidence("limit", 100.0, "{fork}"))


def event(kind="exec", **more):
    return ProcessEvent(
        kind,
        pid=4242,
        start_ns=42_000_000_000_000,
        ppid=4000,
        parent_start_ns=41_000_000_000_000,
        uid=1000,
        gid=1000,
        comm="cc1",
        exe="/usr/bin/cc1",
        args=("cc1", "-O2", "x.c"),
        cwd="/build",
        cgroup="/system.slice/ci.service",
        labels={"container": "c0ffee", "pod": "ci-0", "team": "tools"},
        ts_ns=NOW_NS,
        seq=7,
        **more,
        **STAMP,
    )


def ending():
    return event(
        "exit",
        truncated=True,
        signal=9,
        duration_ns=1_500_000_000,
        cpu_ns=250_000_000,
        max_rss_bytes=4096,
    )


def alert():
    return Alert(
        rule="fork_storm",
        severity="high",
        message="cc1 forks 812 times a second",
        class_="fork_storm",
        subject=SUBJECT,
        evidence=EVIDENCE,
        actions=("stop the build",),
        labels={"unit": "ci.service"},
        id="a-1",
        ts_ns=NOW_NS,
        seq=8,
        **STAMP,
    )


def incident(change="opened"):
    return Incident(
        fingerprint="f00d",
        severity="high",
        summary="cc1 forks 812 times a second",
        class_="fork_storm",
        subject=SUBJECT,
        change=change,
        rules=("fork_storm",),
        evidence=EVIDENCE,
        peak=EVIDENCE[:1],
        actions=("stop the build",),
        origin=Origin("service", "ci.service"),
        alerts=3,
        opened_ns=NOW_NS - 10**10,
        updated_ns=NOW_NS,
        closed_ns=NOW_NS if change == "closed" else None,
        id="i-1",
        ts_ns=NOW_NS,
        seq=9,
        **STAMP,
    )


def insight():
    return Insight(
        class_="fork_storm",
        confidence=0.8,
        primary_process="P1",
        why="cc1 was started too often",
        actions=("stop the build",),
        incident="i-1",
        reasoner="rules",
        facts=(Fact("forks", 812.0, "{fork}", "P1", "f1"),),
        id="n-1",
        ts_ns=NOW_NS,
        seq=10,
        **STAMP,
    )


def feedback():
    return Feedback(
        incident="i-1",
        verdict="noise",
        note="a known build",
        by="ann",
        id="v-1",
        ts_ns=NOW_NS,
        seq=11,
        **STAMP,
    )


def every_log_record():
    return [
        event("seen"),
        event("fork"),
        event("exec"),
        ending(),
        event("oom"),
        alert(),
        *map(incident, ("opened", "worse", "updated", "closed")),
        insight(),
        feedback(),
    ]


def process_sample(**more):
    return ProcessSample(
        **{
            "pid": 4242,
            "start_ns": 42_000_000_000_000,
            "interval_ns": 10**9,
            "comm": "cc1",
            "cpu_percent": 150.0,
            "rss_bytes": 1 << 20,
            "threads": 3,
            "fds": 8,
            "state": "R",
            "read_bytes": 100,
            "write_bytes": 10,
            "cgroup": "/system.slice/ci.service",
            "labels": {"pod": "ci-0"},
            "ts_ns": NOW_NS,
            **STAMP,
            **more,
        }
    )


def cgroup_sample(**more):
    return CgroupSample(
        **{
            "cgroup": "/system.slice/ci.service",
            "interval_ns": 10**9,
            "cpu_percent": 75.0,
            "throttled_ns": 5 * 10**8,
            "memory_bytes": 1 << 20,
            "memory_limit_bytes": 1 << 30,
            "memory_events": {"oom": 1, "high": 2},
            "psi_cpu": PSI,
            "psi_memory": PSI,
            "psi_io": PSI,
            "labels": {"pod": "ci-0"},
            "ts_ns": NOW_NS,
            **STAMP,
            **more,
        }
    )


def system_sample():
    return SystemSample(
        interval_ns=10**9,
        cpus=2,
        cpu_percent=80.0,
        memory_total_bytes=8 << 30,
        memory_available_bytes=1 << 30,
        swap_total_bytes=1 << 30,
        swap_used_bytes=1 << 20,
        load1=3.0,
        load5=2.0,
        load15=1.0,
        processes=200,
        disk_read_bytes_per_s=1e6,
        disk_write_bytes_per_s=2e6,
        net_receive_bytes_per_s=3e6,
        net_transmit_bytes_per_s=4e6,
        psi_cpu=PSI,
        psi_memory=PSI,
        psi_io=PSI,
        ts_ns=NOW_NS,
        **STAMP,
    )


def loss(**more):
    return Loss(
        **{
            "component": "collectors.ebpf",
            "why": "ring_full",
            "lost": 3,
            "lost_total": 5,
            "window_ns": 10**10,
            "emitted": 105,
            "received": 100,
            "dropped": 5,
            "ts_ns": NOW_NS,
            **STAMP,
            **more,
        }
    )


def every_sample():
    return [process_sample(), cgroup_sample(), system_sample(), loss()]


def component_metrics():
    return [
        Metric("jsonl_written_bytes", 4096, "By", "counter", {"component": "handlers.jsonl"}, "B"),
        Metric("linnix_queue", 3, "{record}"),
    ]
