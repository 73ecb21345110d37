"""Playing a recording with the command `linnix run`, and with handlers that take their time."""

import os
import signal
import threading
import time

import pytest

from linnix_core import ComponentStatus, decode, hookimpl
from linnix_core.testing.waiting import eventually
from linnix_plugin_replay import ReplayCollector

ALONE = ("run", "--no-plugins")


@pytest.fixture
def played():
    """The records of lines."""
    return lambda lines: list(map(decode, lines.splitlines()))


def test_the_run_ends_by_itself_and_well(write, linnix_records, linnix, finish, played):
    file = write("x.jsonl", linnix_records(2000))
    out, err = finish(linnix(*ALONE, "--collector", f"replay:{file}", "--handler", "jsonl:-"))
    assert [record.seq for record in played(out)] == list(range(1, 2001))
    assert "warning: collectors" not in err
    assert "could not be read" not in err


def test_nothing_of_today_comes_in_between(write, linnix_records, linnix, finish, played):
    file = write("x.jsonl", linnix_records(500))
    run = linnix("run", "--collector", f"replay:{file}", "--handler", "jsonl:-")
    out, _ = finish(run)
    observed = ("event", "sample", "cgroup", "system", "loss")
    assert sum(record.type in observed for record in played(out)) == 500


def test_without_an_argument_it_plays_what_the_handler_records_without_one(
    write, linnix_records, linnix, finish, played
):
    write("linnix.jsonl", linnix_records(10))
    out, _ = finish(linnix(*ALONE, "--collector", "replay", "--handler", "jsonl:-"))
    assert len(played(out)) == 10


def test_the_keys_can_stand_in_a_table(tmp_path, write, event, linnix, finish, played):
    for name in ("a.jsonl.1", "a.jsonl", "b.jsonl"):
        write(name, [event()])
    (tmp_path / "linnix.toml").write_text(
        '[collectors.replay]\npath = ["b.jsonl", "a.jsonl"]\nrotated = false\nspeed = 100000\n'
    )
    out, _ = finish(linnix(*ALONE, "--collector", "replay", "--handler", "jsonl:-"))
    assert [record.pid for record in played(out)] == [3, 2]


def test_one_run_plays_what_another_one_says(write, linnix_records, linnix, finish, played):
    file = write("x.jsonl", linnix_records(2000))
    near = linnix(*ALONE, "--collector", f"replay:{file}", "--handler", "jsonl:-")
    far = linnix(*ALONE, "--collector", "replay:-", "--handler", "jsonl:-", stdin=near.stdout)
    near.stdout.close()
    near.stdout = None
    out, _ = finish(far)
    assert len(played(out)) == 2000
    finish(near)


def test_standard_input_may_be_a_file(write, linnix_records, linnix, finish, played):
    with write("x.jsonl", linnix_records(100)).open("rb") as file:
        run = linnix(*ALONE, "--collector", "replay:-", "--handler", "jsonl:-", stdin=file)
        out, _ = finish(run)
    assert len(played(out)) == 100


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can open the files of others")
def test_a_run_that_gives_up_root_plays_what_root_could_open(
    write, linnix_records, linnix, finish, played
):
    records = linnix_records(3000)
    for name, some in (("x.jsonl.1", records[:1500]), ("x.jsonl", records[1500:])):
        file = write(name, some)
        file.chmod(0o600)
        os.chown(file, 65_533, 65_533)
    out, err = finish(linnix(*ALONE, "--collector", "replay:x.jsonl", "--handler", "jsonl:-"))
    assert len(played(out)) == 3000
    assert "x.jsonl" not in err


def test_what_could_not_be_read_is_told(tmp_path, lines_of, event, linnix, finish):
    (tmp_path / "x.jsonl").write_bytes(lines_of([event()]) + b"half a li")
    run = linnix(*ALONE, "--collector", "replay:x.jsonl", "--handler", "jsonl:-")
    out, err = finish(run)
    loss = decode(out.splitlines()[-1])
    assert (loss.component, loss.why, loss.lost) == ("collectors.replay", "unreadable", 1)
    assert "could not be read: 1, the first is" in err
    assert "x.jsonl line 2" in err


def test_a_signal_ends_it_in_the_middle(write, event, linnix, finish, tmp_path):
    file = write("x.jsonl", [event(0), event(590)])
    run = linnix(
        *ALONE, "--collector", f"replay:{file}", "--set", "collectors.replay.speed=1",
        "--handler", "jsonl:out.jsonl",
    )  # fmt: skip
    out = tmp_path / "out.jsonl"
    eventually(lambda: out.exists() and out.read_bytes())
    run.send_signal(signal.SIGTERM)
    finish(run)
    assert len(out.read_bytes().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--collector", "replay:no.jsonl"), 3, "no.jsonl: there is no such file"),
        (
            ("--collector", "replay", "--set", "collectors.replay.speed=0"),
            2,
            'must be at least 0.01, or "max" for as fast as possible',
        ),
        (("--collector", "replay", "--set", "collectors.replay.speed=fast"), 2, "speed"),
        (("--collector", "replay", "--set", "collectors.replay.path=[]"), 2, "at least one file"),
        (("--collector", "replay", "--set", "collectors.replay.path=3"), 2, "expected a path"),
    ],
)
def test_mistakes_are_said_in_a_sentence(arguments, code, said, linnix):
    run = linnix(*ALONE, *arguments)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code
    assert said in err.decode()
    assert "Traceback" not in err.decode()


# --- handlers that take their time --------------------------------------------------------


class Slow:
    """A handler that takes records more slowly than they can be read."""

    def __init__(self, config, context):
        self.context = context

    taken = 0

    @hookimpl
    def linnix_handle(self, batch):
        time.sleep(0.003)
        Slow.taken += len(batch)


def test_a_handler_that_is_slow_gets_every_record(write, linnix_records, linnix_runtime, tmp_path):
    Slow.taken = 0
    file = write("x.jsonl", linnix_records(1000))
    file.write_bytes(file.read_bytes() * 50)
    agent = linnix_runtime(
        collectors={"replay": ReplayCollector},
        handlers={"slow": Slow},
        options={"collectors.replay": {"path": file}},
    )
    agent.run(60)
    agent.stop()
    assert Slow.taken == 50_000
    assert all(status.counters.get("dropped", 0) == 0 for status in agent.status())


def queued(count, code=""):
    return ComponentStatus(
        "handlers.slow", "handlers", "slow", "running", code, counters={"queued": count}
    )


def test_it_waits_while_records_wait_for_a_handler(
    write, linnix_records, make_collector, linnix_context
):
    # Read after each block, and once more for the end: what waits falls in between.
    answers = iter([5000, 4097, 4096, 4000, 300, 257, 256])
    asked = []

    def components():
        asked.append(next(answers))
        return [queued(0), queued(asked[-1])]

    context = linnix_context("collectors.replay", components=components)
    collector = make_collector(write("x.jsonl", linnix_records(800)), context=context)
    collector.linnix_start()

    class Sink:
        def emit_many(self, records):
            asked.append("records")

    collector.linnix_collect(Sink(), threading.Event())
    assert asked == ["records", 5000, 4097, 4096, "records", 4000, 300, 257, 256]


def test_it_does_not_wait_for_a_handler_that_hangs(write, event, make_collector, linnix_context):
    context = linnix_context("collectors.replay", components=lambda: [queued(9999, "stalled")])
    collector = make_collector(write("x.jsonl", [event()]), context=context)
    collector.linnix_start()

    class Sink:
        def emit_many(self, records):
            pass

    collector.linnix_collect(Sink(), threading.Event())


def test_a_stop_ends_the_wait_for_a_handler(write, event, make_collector, linnix_context):
    stop = threading.Event()

    def components():
        stop.set()
        return [queued(9999)]

    context = linnix_context("collectors.replay", components=components)
    collector = make_collector(write("x.jsonl", [event()]), context=context)
    collector.linnix_start()

    class Sink:
        def emit_many(self, records):
            pass

    collector.linnix_collect(Sink(), stop)


def test_a_reader_that_goes_away_ends_the_run(write, linnix_records, linnix):
    file = write("x.jsonl", linnix_records(5000))
    run = linnix(*ALONE, "--collector", f"replay:{file}", "--handler", "jsonl:-")
    run.stdout.readline()
    run.stdout.close()
    run.stdout = None
    _, err = run.communicate(timeout=60)
    assert run.returncode == 0, err.decode()
