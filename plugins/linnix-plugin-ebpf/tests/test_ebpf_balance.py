"""Nothing is missed unnoticed: what the kernel emitted is what came and what was lost."""

import errno
import os
import subprocess
import threading

import pytest

from linnix_core import Loss, PluginUnavailable, ProcessTable, hookimpl
from linnix_plugin_ebpf import EbpfCollector, programs

#: Bytes of the record of a fork in a ring, with its header.
FORK_BYTES = 80


def balances(account):
    emitted, received, lost = account
    return emitted == received + sum(lost.values())


def count_events(seen):
    """Events that the kernel told."""
    return len(seen.events("fork", "exec", "exit", "oom", source="kernel"))


@pytest.fixture
def processes_forked():
    """How many processes and threads were made since the machine was started."""

    def read():
        with open("/proc/stat") as stat:
            (line,) = (line for line in stat if line.startswith("processes "))
        return int(line.split()[1])

    return read


# --- when all goes well -------------------------------------------------------------------


def test_of_thousands_of_forks_none_is_missing(start_collector, storm, processes_forked):
    before = processes_forked()
    running = start_collector(sample_interval=0.0)
    seen = running.begin()
    parent = storm(3000)
    seen.catch_up()
    running.end()
    forks = seen.events("fork", ppid=parent.pid)
    exits = seen.events("exit", ppid=parent.pid)
    assert len(forks) == len(exits) == 3000
    assert {event.key for event in forks} == {event.key for event in exits}
    assert all(balances(account) for account in seen.accounts)
    assert running.account == (
        count_events(seen),
        count_events(seen),
        {"ring_full": 0, "throttled": 0, "missed": 0},
    )
    assert len(seen.events("fork")) <= processes_forked() - before
    assert running.collector.linnix_health().status == "ok"


def test_several_processors_at_once_balance(start_collector, start):
    running = start_collector(sample_interval=0.02)
    seen = running.begin()
    loop = "for n in 1 2 3 4 5 6 7 8 9 10; do /bin/true & done; wait"
    shells = [
        subprocess.Popen(["sh", "-c", f"for r in 1 2 3 4 5 6 7 8; do {loop}; done"])
        for _ in range(4)
    ]
    assert [shell.wait() for shell in shells] == [0] * 4
    seen.catch_up()
    running.end()
    for shell in shells:
        forks = seen.events("fork", ppid=shell.pid)
        assert len(forks) == 80
        for fork in forks:
            life = seen.events("fork", "exec", "exit", pid=fork.pid, start_ns=fork.start_ns)
            assert [event.kind for event in life] == ["fork", "exec", "exit"]
    assert all(balances(account) for account in seen.accounts)
    assert running.account[:2] == (count_events(seen), count_events(seen))


def test_a_stop_in_the_middle_of_a_storm_has_a_last_account(start_collector, start_python):
    running = start_collector(sample_interval=0.0)
    seen = running.begin()
    storm = """
import os
print("ready", flush=True)
while True:
    if os.fork() == 0:
        os._exit(0)
    os.wait()
"""
    child = start_python(storm)
    seen.wait(lambda: len(seen.events("fork", ppid=child.pid)) > 500)
    running.end()
    assert child.poll() is None
    assert balances(running.account)
    assert running.account[:2] == (count_events(seen), count_events(seen))


class Keep:
    """A handler that keeps every record."""

    def __init__(self, config, context):
        self.records = []

    @hookimpl
    def linnix_handle(self, batch):
        self.records += batch


class TestInARun:
    @pytest.fixture
    def run(self, ebpf, linnix_runtime):
        kept = []

        class Keeper(Keep):
            def __init__(self, config, context):
                super().__init__(config, context)
                kept.append(self)

        def run(**options):
            agent = linnix_runtime(
                collectors={"ebpf": EbpfCollector},
                handlers={"keep": Keeper},
                options={"collectors.ebpf": options},
            )
            return agent, kept[0].records

        return run

    def test_every_loss_record_balances(self, run, storm):
        agent, records = run(sample_interval="100ms")
        parent = storm(2000)
        agent.stop()
        losses = [r for r in records if isinstance(r, Loss) and r.component == "collectors.ebpf"]
        assert {loss.why for loss in losses} == {"ring_full", "throttled", "missed"}
        for loss in losses:
            assert loss.emitted == loss.received + loss.dropped
            assert (loss.lost, loss.lost_total, loss.dropped) == (0, 0, 0)
        events = [r for r in records if r.type == "event" and r.source == "kernel"]
        assert losses[-1].received == len(events)
        children = [r for r in events if r.ppid == parent.pid and r.kind in ("fork", "exit")]
        assert len(children) == 4000

    def test_a_loss_is_shown_in_its_window(self, run, storm, make_group):
        agent, records = run(cgroup_rate=100)
        storm(500, group=make_group())
        agent.stop()
        losses = [r for r in records if isinstance(r, Loss) and r.why == "throttled"]
        for loss in losses:
            assert loss.emitted == loss.received + loss.dropped
        assert sum(loss.lost for loss in losses) == losses[-1].lost_total > 500
        events = [r for r in records if r.type == "event" and r.source == "kernel"]
        assert losses[-1].received == len(events)


# --- a ring that is full ------------------------------------------------------------------


def test_what_a_full_ring_has_no_room_for_is_counted(start_collector, storm):
    size = 262_144
    running = start_collector(ring_size=size, sample_interval=0.0)
    parent = storm(2500)  # nobody reads yet
    seen = running.begin()
    seen.wait(lambda: running.seen.accounts)
    emitted, received, lost = running.account
    assert emitted == received + sum(lost.values())
    assert emitted >= 5000
    assert 0 < received <= size // FORK_BYTES
    assert lost["ring_full"] == emitted - received
    # Afterwards everything comes through again.
    again = storm(20)
    seen.catch_up()
    assert len(seen.events("fork", ppid=parent.pid)) <= received
    assert len(seen.events("fork", ppid=again.pid)) == 20
    running.end()
    assert balances(running.account)
    assert running.account[1] == count_events(seen)
    assert running.account[2]["ring_full"] == lost["ring_full"]


def test_a_full_ring_is_a_state_with_a_reason_and_a_next_step(start_collector, storm):
    running = start_collector(ring_size=4096)
    storm(300)
    seen = running.begin()
    seen.wait(lambda: running.seen.accounts)
    running.end()  # others on this machine may fill so small a ring again and again
    health = running.collector.linnix_health()
    lost = running.account[2]["ring_full"]
    assert health.status == "degraded"
    assert health.reason == (
        f"{lost} events were lost because the ring was full (a larger ring_size helps)"
    )
    # What was lost before is no news the next time.
    assert running.collector.linnix_health().status == "ok"


def test_what_happened_unseen_is_made_up_for(start_collector, storm, start):
    """Nobody lives for ever in the process table because an exit was lost."""
    died = start("cat")
    # Small enough for the storm, and large enough for what others do afterwards.
    running = start_collector(ring_size=65_536, sample_interval=0.05)
    storm(1000)
    died.kill()
    died.wait()
    born = start("cat", "-u", "-")
    seen = running.begin()
    table = ProcessTable()
    exit_ = seen.event("exit", pid=died.pid)
    found = seen.wait(lambda: seen.events("seen", pid=born.pid))[0]
    table.update(seen.records)
    assert exit_.source == found.source == "polled"
    assert exit_.duration_ns > 0
    assert table.view.find(died.pid) is None
    process = table.view.find(born.pid)
    assert (process.args, process.comm, process.parent.pid) == (
        ("cat", "-u", "-"),
        "cat",
        os.getpid(),
    )
    # From here on it is known: its end is told once, by the kernel.
    born.kill()
    born.wait()
    seen.catch_up()
    assert [event.source for event in seen.events("exit", pid=born.pid)] == ["kernel"]


def test_what_happened_unseen_is_made_up_for_without_measuring(start_collector, storm, start):
    died = start("cat")
    running = start_collector(ring_size=4096, sample_interval=0.0)
    storm(300)
    died.kill()
    died.wait()
    born = start("cat")
    seen = running.begin()
    assert seen.event("exit", pid=died.pid).source == "polled"
    assert seen.wait(lambda: seen.events("seen", pid=born.pid))
    assert {record.type for record in seen.records} == {"event"}


def test_a_sink_that_lets_the_collector_wait_costs_nothing_that_the_ring_can_hold(
    start_collector, storm
):
    running = start_collector(ring_size=64 << 20, sample_interval=0.0)
    blocked, go_on = threading.Event(), threading.Event()

    class Blocking(type(running.seen)):
        def emit_many(self, records):
            if any(r.kind == "fork" for r in records):
                blocked.set()
                assert go_on.wait(30)
            super().emit_many(records)

    running.seen = Blocking()
    running.begin()
    first = storm(1)
    assert blocked.wait(30)
    parent = storm(2000)
    go_on.set()
    running.seen.catch_up()
    running.end()
    assert len(running.seen.events("fork", ppid=first.pid)) == 1
    assert len(running.seen.events("exit", ppid=parent.pid)) == 2000
    assert running.account[2] == {"ring_full": 0, "throttled": 0, "missed": 0}
    assert balances(running.account)


# --- one group that says too much ---------------------------------------------------------


def test_a_storm_in_one_group_hides_no_other(start_collector, storm, make_group, start):
    loud, quiet = make_group(), make_group()
    running = start_collector(cgroup_rate=200, sample_interval=0.0)
    seen = running.begin()
    parent = storm(2000, group=loud)
    others = [start(*quiet.inside("cat")).pid for _ in range(20)]
    for pid in others:
        seen.event("exec", pid=pid, comm="cat")
    running.end()
    came = len(seen.events("fork", "exit", ppid=parent.pid))
    _, received, lost = running.account
    assert balances(running.account)
    assert received == count_events(seen)
    assert lost["ring_full"] == 0
    # What came is what the bucket held, and what was refilled while the storm went on.
    assert 200 - 10 < came < 4000
    assert lost["throttled"] >= 4000 - came
    health = running.collector.linnix_health()
    assert health.status == "degraded"
    said, _, named = health.reason.partition("; most of cgroup ")
    assert said == f"{lost['throttled']} events were throttled (cgroup_rate)"
    # Somebody else on this machine may be louder still.
    throttled = running.collector._programs.throttled_groups()
    by_path = {running.collector._cgroups.find(group): count for group, count in throttled.items()}
    assert by_path[loud.path] >= 4000 - came
    assert by_path[named] == max(by_path.values())


def test_a_rate_of_nothing_is_no_limit(start_collector, storm, make_group):
    running = start_collector(cgroup_rate=0)
    seen = running.begin()
    parent = storm(1000, group=make_group())
    seen.catch_up()
    running.end()
    assert len(seen.events("fork", "exit", ppid=parent.pid)) == 2000
    assert running.account[2]["throttled"] == 0


# --- a sink that fails, and a collector that is called again ------------------------------


def test_a_sink_that_fails_loses_nothing(start_collector, storm, start):
    running = start_collector(sample_interval=0.0)
    there_before = start("cat")

    class Failing:
        """Fails the first time that there is something, like a pipeline that is torn down."""

        def emit_many(self, records):
            if records:
                raise RuntimeError("no room")

        def balance(self, emitted, received, lost):
            pass

    parent = storm(50)
    for _ in range(3):
        running.begin(Failing())
        running.join()
    assert [str(error) for error in running.raised] == ["no room"] * 3
    running.begin()
    running.seen.catch_up()
    running.end()
    assert len(running.seen.events("seen", pid=os.getpid())) == 1
    assert len(running.seen.events("fork", ppid=parent.pid)) == 50
    assert len(running.seen.events("exit", ppid=parent.pid)) == 50
    assert len(running.seen.events("fork", pid=there_before.pid)) == 1
    assert running.account[:2] == (count_events(running.seen),) * 2
    assert balances(running.account)


def descriptors():
    return sorted(os.readlink(entry.path) for entry in os.scandir("/proc/self/fd"))


def test_a_start_that_fails_leaves_nothing_open(ebpf, make_collector, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    before = descriptors()
    monkeypatch.setattr(programs, "Ring", refuse)
    collector = make_collector()
    with pytest.raises(PluginUnavailable, match=r"cannot be opened: .*allocate memory") as error:
        collector.linnix_start()
    assert "ring_size" in error.value.hint
    collector.linnix_stop()
    assert descriptors() == before


def test_starting_and_stopping_leaves_nothing_open(ebpf, make_collector):
    def cycle():
        collector = make_collector()
        collector.linnix_start()
        collector.linnix_stop()
        collector.linnix_stop()  # twice is once

    cycle()
    before = descriptors()
    for _ in range(5):
        cycle()
    assert descriptors() == before
    with open("/proc/self/maps") as maps:
        assert "bpf-map" not in maps.read()
