"""Recording and replaying gives the same alerts, in every key that is not of the run itself."""

import json
import subprocess

import attrs
import pytest

from linnix_core import Loss
from linnix_core.testing.waiting import eventually
from linnix_plugin_jsonl import JsonlHandler
from linnix_plugin_replay import ReplayCollector
from linnix_plugin_rules import RulesHandler

RULES = """
- {name: storm, detector: fork_burst, threshold: 50, window_seconds: 5, cooldown: 20}
- {name: rate, detector: forks_per_sec, threshold: 20, duration: 2, cooldown: 10}
- {name: tree, detector: runaway_tree, threshold: 80, window_seconds: 10, cooldown: 30}
- {name: spin, detector: subtree_cpu_pct, threshold: 90, duration: 15, cooldown: 20}
- {name: memory, detector: subtree_rss_mb, threshold: 500, duration: 10, severity: low}
"""


@pytest.fixture
def rules(tmp_path):
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    return file


@pytest.fixture
def run(linnix_runtime, rules):
    """A run of the agent with the rules, recorded into a file."""

    def run(file, **parts):
        options = {"handlers.jsonl": {"path": file}, "handlers.rules": {"path": rules}}
        agent = linnix_runtime(
            handlers={"rules": RulesHandler, "jsonl": JsonlHandler},
            options=options | parts.pop("options", {}),
            **parts,
        )
        if "collectors" in parts:
            agent.run(60)
        assert agent.wait_idle(60)
        agent.stop()

    return run


@pytest.fixture
def alerts_of_both(run, alerts_in, tmp_path):
    """The alerts of a run with these records, and those of playing what it recorded."""

    def compare(records, *, path=None, **options):
        run(tmp_path / "then.jsonl", records=records)
        run(
            tmp_path / "again.jsonl",
            collectors={"replay": ReplayCollector},
            options={"collectors.replay": {"path": tmp_path / "then.jsonl", **options}},
        )
        return alerts_in(tmp_path / "then.jsonl"), alerts_in(tmp_path / "again.jsonl")

    return compare


def storm(host):
    """A shell forks for seconds, then another does; each is named once in a cooldown."""
    first, second = host.new("seen"), host.new("seen")
    for _ in range(3):
        host.forks(first, 300, every=0.01)
        host.wait(7)
        host.forks(second, 200, every=0.02)


def spin(host):
    """A tree of two keeps more than a core busy, rests, and begins again."""
    parent = host.new("seen")
    child = host.new("fork", parent)
    for percent in (60, 60, 60, 60, 60, 10, 60, 60, 60, 60, 60):
        host.wait(5)
        host.sample(parent, child, cpu_percent=percent + 0.123456789)


def memory(host):
    """A process grows, and is measured in rounds that the machine's own sample ends."""
    grown = host.new("seen", exe="/opt/größer", comm="größer")
    for megabytes in (400, 510, 600, 700, 800, 900):
        host.wait(5)
        host.sample(grown, rss_bytes=megabytes * 10**6, system=True)


def clock_set_back(host):
    """Two storms, and before the second one the clock is set back an hour."""
    shell = host.new("seen")
    host.forks(shell, 100, every=0.01)
    host.wait(-3600)
    host.forks(shell, 100, every=0.01)


def hostile(host):
    """A storm of a program whose name would like to be something else."""
    name = '\x1b[2J"}\n{"type":"alert"'
    shell = host.new("seen", comm=name, exe=f"/tmp/{name}", cgroup=f"/{name}")
    host.forks(shell, 100, every=0.01)


def boots(host):
    """A storm before and one after a reboot, by the same pid."""
    shell = host.new("seen")
    host.forks(shell, 100, every=0.01)
    before = len(host.records)
    host.wait(100)
    host.event("seen", shell)
    host.forks(shell, 100, every=0.01)
    for record in host.records[before:]:
        record.boot_id = "today"


@pytest.mark.parametrize(
    ("happened", "raised"),
    [
        (storm, {"storm", "rate", "tree"}),
        (spin, {"spin"}),
        (memory, {"memory"}),
        (clock_set_back, {"storm", "rate", "tree"}),
        (hostile, {"storm", "rate", "tree"}),
        (boots, {"storm", "rate", "tree"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_replay_raises_the_alerts_of_then(happened, raised, host, alerts_of_both):
    happened(host)
    then, again = alerts_of_both(host.records)
    assert {alert["rule"] for alert in then} == raised
    assert again == then


@pytest.mark.parametrize("seed", range(3))
def test_so_it_is_for_whatever_a_host_does(seed, linnix_records, alerts_of_both):
    then, again = alerts_of_both(linnix_records(6000, seed=seed))
    assert then
    assert again == then


def test_so_it_is_at_any_speed(host, alerts_of_both):
    storm(host)
    then, again = alerts_of_both(host.records, speed=1000)
    assert len(then) > 3
    assert again == then


def test_so_it_is_when_the_recorded_run_lost_records(host, alerts_of_both):
    # The loss of then is played as well, with its time.
    storm(host)
    middle = host.records[len(host.records) // 2]
    loss = Loss("collectors.test", "ring_full", 5, 5, 10**10, ts_ns=middle.ts_ns)
    host.records.insert(host.records.index(middle), loss)
    then, again = alerts_of_both(host.records)
    assert then
    assert again == then


def test_lines_that_cannot_be_read_change_nothing_else(run, host, alerts_in, tmp_path):
    storm(host)
    run(tmp_path / "then.jsonl", records=host.records)
    lines = (tmp_path / "then.jsonl").read_bytes().splitlines(keepends=True)
    for position in range(0, len(lines), 50):
        lines[position] = b"garbage\n" + lines[position]
    (tmp_path / "spoilt.jsonl").write_bytes(b"".join(lines))
    run(
        tmp_path / "again.jsonl",
        collectors={"replay": ReplayCollector},
        options={"collectors.replay": {"path": tmp_path / "spoilt.jsonl"}},
    )
    assert alerts_in(tmp_path / "again.jsonl") == alerts_in(tmp_path / "then.jsonl")


def test_what_is_recorded_of_a_replay_is_what_was_played(run, linnix_records, tmp_path):
    records = linnix_records(4000)
    run(tmp_path / "then.jsonl", records=records)
    run(
        tmp_path / "again.jsonl",
        collectors={"replay": ReplayCollector},
        options={"collectors.replay": {"path": tmp_path / "then.jsonl"}},
    )

    def read(name):
        lines = map(json.loads, (tmp_path / name).read_bytes().splitlines())
        observed = [line for line in lines if line["type"] not in ("alert", "incident")]
        for line in observed:
            del line["seq"], line["run_id"], line["host"]
        return observed

    assert read("again.jsonl") == read("then.jsonl")
    assert [line["ts_ns"] for line in read("again.jsonl")] == [r.ts_ns for r in records]


def test_real_processes_raise_the_same_alerts_again(linnix, finish, rules, alerts_in, tmp_path):
    rules.write_text(
        RULES
        + "- {name: small, detector: subtree_rss_mb, threshold: 5, duration: 0.2, cooldown: 600}\n"
    )
    then, again = tmp_path / "then.jsonl", tmp_path / "again.jsonl"
    handlers = ("--no-plugins", "--handler", f"rules:{rules}", "--handler")
    recording = linnix(
        "run", *handlers, f"jsonl:{then}",
        "--collector", "psutil", "--set", "collectors.psutil.interval=0.3",
    )  # fmt: skip
    eventually(lambda: then.exists() and b'"sample"' in then.read_bytes())
    # Not waited for, each stays a zombie, so that polling meets every one.
    children = [subprocess.Popen(["true"]) for _ in range(200)]
    try:
        eventually(lambda: then.read_bytes().count(b'"kind":"fork"') >= len(children))
        eventually(lambda: {"storm", "tree", "small"} <= {a["rule"] for a in alerts_in(then)})
    finally:
        for child in children:
            child.wait()
    finish(recording, interrupt=True)
    finish(linnix("run", *handlers, f"jsonl:{again}", "--collector", f"replay:{then}"))
    assert alerts_in(again) == alerts_in(then)


def test_the_keys_that_differ_are_those_of_the_run(run, host, tmp_path):
    storm(host)
    run(tmp_path / "then.jsonl", records=[attrs.evolve(r, host="elsewhere") for r in host.records])
    run(
        tmp_path / "again.jsonl",
        collectors={"replay": ReplayCollector},
        options={"collectors.replay": {"path": tmp_path / "then.jsonl"}},
    )

    def first(name):
        lines = map(json.loads, (tmp_path / name).read_bytes().splitlines())
        return next(line for line in lines if line["type"] == "alert")

    then, again = first("then.jsonl"), first("again.jsonl")
    differ = {key for key in then if then[key] != again[key]}
    assert {"id", "run_id"} <= differ <= {"id", "run_id", "seq", "host"}
