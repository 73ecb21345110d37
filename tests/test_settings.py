"""Settings: durations, sizes and secrets as people write them, and what every key does.

Architecture, section 8: a key that does nothing is a defect. Each test of an effect is
marked with its key, and the last test fails for a key without one.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnix_core import (
    Alert,
    Answer,
    PluginUnavailable,
    ProcessEvent,
    Secret,
    hookimpl,
)
from linnix_core.config import AgentSettings, Reserved
from linnix_core.errors import RequiredComponentFailed
from linnix_core.settings import parse_duration, parse_size
from linnix_core.testing.waiting import eventually

#: Seconds after which something that should have happened will not happen any more.
HANG_S = 60.0

# --- durations ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0.0),
        (2, 2.0),
        (0.25, 0.25),
        ("2", 2.0),
        ("0.5", 0.5),
        ("250ms", 0.25),
        ("10s", 10.0),
        ("5m", 300.0),
        ("12h", 43_200.0),
        ("7d", 604_800.0),
        ("1m30s", 90.0),
        ("1h 30m", 5400.0),
        (" 1.5 ", 1.5),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_a_text_with_units(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "", "s", "5 parsecs", "-5s", "5S", "1e3", "5,5s", "10s!", "s10", None, True, [5], {"s": 5},
        -1, -0.5, float("inf"), float("nan"), "9" * 400,
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_duration_is_refused(written):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(written)


@given(days=st.integers(0, 99), hours=st.integers(0, 99), ms=st.integers(0, 9999))
def test_the_parts_of_a_duration_add_up(days, hours, ms):
    seconds = days * 86_400 + hours * 3600 + ms / 1000
    assert parse_duration(f"{days}d{hours}h{ms}ms") == pytest.approx(seconds)


# --- sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (10, 10),
        ("10", 10),
        ("10B", 10),
        ("1kB", 1000),
        ("64KiB", 65_536),
        ("64kib", 65_536),
        ("100MB", 100_000_000),
        ("1.5 MB", 1_500_000),
        ("2.3GB", 2_300_000_000),
        ("0.5GiB", 536_870_912),
        ("1TiB", 2**40),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_a_size_is_a_number_of_bytes_or_a_text_with_a_unit(written, size):
    assert parse_size(written) == size
    assert type(parse_size(written)) is int


@pytest.mark.parametrize(
    "written",
    ["", "B", "5iB", "5 MiX", "5K", "-1", -1, 1.5, "1.5", "0.3B", "1e3", True, None, [1]],
    ids=str,
)
def test_what_is_no_size_is_refused(written):
    with pytest.raises(ValueError, match="expected a size such as '64KiB'"):
        parse_size(written)


@settings(deadline=None)
@given(amount=st.integers(0, 10**6), places=st.integers(0, 3))
def test_decimal_sizes_are_exact(amount, places):
    text = f"{amount // 10**places}.{amount % 10**places:0{places}}" if places else str(amount)
    assert parse_size(f"{text}kB") == amount * 1000 // 10**places


# --- secrets ------------------------------------------------------------------------------


def test_a_secret_comes_from_a_variable_a_file_or_a_text(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", "of the variable ")
    file = tmp_path / "key"
    file.write_text("of the file\r\n")
    given_ = {"env KEY": {"env": "KEY"}, f"file {file}": {"file": str(file)}}
    made = {source: Secret.resolve(value) for source, value in given_.items()}
    assert [secret.reveal() for secret in made.values()] == ["of the variable ", "of the file"]
    assert [secret.source for secret in made.values()] == list(given_)
    assert Secret.resolve("plain").reveal() == "plain"
    assert Secret.resolve(made["env KEY"]) is made["env KEY"]


def test_a_file_of_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text("value")
    assert Secret.resolve({"file": "~/key"}).reveal() == "value"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"env": "NOT_SET"}, "the environment variable NOT_SET is not set"),
        ({"file": "/does/not/exist"}, "cannot read the secret: .*No such file"),
        ({"env": "A", "file": "b"}, "expected { env"),
        ({"env": 3}, "expected { env"),
        ({"vault": "x"}, "expected { env"),
        ({}, "expected { env"),
        (["hunter2"], "expected { env"),
        (12345, "expected { env"),
        (None, "expected { env"),
    ],
)
def test_what_is_no_secret_is_refused_without_showing_it(value, said):
    with pytest.raises(ValueError, match=said) as error:
        Secret.resolve(value)
    assert "hunter2" not in str(error.value)
    assert "12345" not in str(error.value)


def test_a_file_that_is_no_text_is_refused_without_showing_it(tmp_path):
    (tmp_path / "key").write_bytes(b"hunter2\xff")
    with pytest.raises(ValueError, match="cannot read the secret") as error:
        Secret.resolve({"file": str(tmp_path / "key")})
    assert "hunter2" not in str(error.value)


def test_a_secret_does_not_show_itself():
    secret = Secret("hunter2", source="env KEY")
    shown = f"{secret} {secret!r} {secret!s:>20} {[secret]}"
    assert "hunter2" not in shown
    assert "Secret(env KEY)" in shown


def test_equal_secrets_are_equal():
    assert Secret("a", source="env A") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


# --- what every key does ------------------------------------------------------------------

#: Keys whose effect is shown in test_reasoning_explaining.py, in a test that is called so.
SHOWN_WITH_THE_EXPLAINER = {
    "agent.reasons_per_hour",
    "agent.reason_failures",
    "agent.reason_pause_s",
    "agent.reason_cache",
}

#: Tests by the key whose effect they show.
EFFECTS: dict[str, Callable[..., None]] = {}


def effect_of(key: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def note(test: Callable[..., None]) -> Callable[..., None]:
        EFFECTS[key] = test
        return test

    return note


def forks(count: int) -> list[ProcessEvent]:
    return [ProcessEvent("fork", pid, 0) for pid in range(1, count + 1)]


class Feeds:
    """A collector that hands over what it is given, batch by batch."""

    def __init__(self, *batches: Sequence[ProcessEvent]) -> None:
        self.batches: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.fed = threading.Semaphore(0)
        for batch in batches:
            self.batches.put(batch)

    @hookimpl
    def linnix_collect(self, sink, stop):
        while not stop.is_set():
            try:
                sink.emit_many(self.batches.get(timeout=0.01))
            except queue.Empty:
                continue
            self.fed.release()

    def feed(self, batch: Sequence[ProcessEvent]) -> None:
        self.batches.put(batch)
        assert self.fed.acquire(timeout=HANG_S)


class Sees:
    """A handler that keeps the pids of each batch, and waits at the gate before each."""

    def __init__(self, *, gate: bool = True) -> None:
        self.gate = threading.Event()
        if gate:
            self.gate.set()
        self.at_the_gate = threading.Event()
        self.batches: list[list[int]] = []

    @hookimpl
    def linnix_handle(self, batch):
        self.at_the_gate.set()
        self.gate.wait(HANG_S)
        self.batches.append([record.pid for record in batch if record.type == "event"])

    @property
    def pids(self) -> list[int]:
        return [pid for batch in self.batches for pid in batch]


class NotHere:
    """A handler that works, but not on this machine."""

    def __init__(self, config, context):
        pass

    @hookimpl
    def linnix_start(self):
        raise PluginUnavailable("needs a tape drive")

    @hookimpl
    def linnix_handle(self, batch):
        pass


@effect_of("agent.batch_size")
def test_batch_size_bounds_how_many_records_travel_together(linnix_runtime):
    seen = Sees()
    agent = linnix_runtime(handlers={"seen": seen}, agent={"batch_size": 4}, records=forks(10))
    assert agent.wait_idle(HANG_S)
    assert seen.batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


@effect_of("agent.linger_ms")
def test_linger_ms_is_how_long_a_batch_waits_to_fill_up(linnix_runtime):
    feeds, seen = Feeds(), Sees()
    agent = linnix_runtime(
        collectors={"feeds": feeds}, handlers={"seen": seen}, agent={"linger_ms": 3_600_000}
    )
    feeds.feed(forks(1))
    feeds.feed(forks(2))
    assert seen.batches == []
    agent.stop()
    assert seen.batches == [[1, 1, 2]]

    feeds, seen = Feeds(), Sees()
    agent = linnix_runtime(
        collectors={"feeds": feeds}, handlers={"seen": seen}, agent={"linger_ms": 1}
    )
    for _ in range(2):
        feeds.feed(forks(1))
        assert agent.wait_idle(HANG_S)
    assert seen.batches == [[1], [1]]


@effect_of("agent.start_timeout_s")
def test_start_timeout_s_is_how_long_a_plugin_may_take_to_start(linnix_runtime, forever):
    class Slow(Sees):
        @hookimpl
        def linnix_start(self):
            forever.wait(HANG_S)

    agent = linnix_runtime(handlers={"slow": Slow()}, agent={"start_timeout_s": 0.2})
    (slow,) = (status for status in agent.status() if status.name == "slow")
    assert (slow.state, slow.code) == ("failed", "timeout")
    assert "0.2 s" in slow.reason


@effect_of("agent.stop_timeout_s")
def test_stop_timeout_s_is_the_deadline_that_plugins_are_given(linnix_runtime):
    class Stops(Sees):
        deadline = 0.0

        @hookimpl
        def linnix_stop(self, deadline):
            self.deadline = deadline

    stops = Stops()
    agent = linnix_runtime(handlers={"stops": stops}, agent={"stop_timeout_s": 500})
    before = time.monotonic()
    agent.stop()
    assert before + 500 <= stops.deadline <= time.monotonic() + 500


@effect_of("agent.stop_timeout_s")
def test_stop_timeout_s_is_when_a_handler_that_hangs_is_given_up(linnix_runtime):
    stuck = Sees(gate=False)
    agent = linnix_runtime(
        handlers={"stuck": stuck}, agent={"stop_timeout_s": 0.3, "linger_ms": 1}, records=forks(1)
    )
    assert stuck.at_the_gate.wait(HANG_S)
    agent.stop()
    assert stuck.batches == []
    stuck.gate.set()


@effect_of("agent.reason_timeout_s")
def test_reason_timeout_s_is_how_long_a_reasoner_may_think(linnix_runtime, forever):
    asked: list[float] = []

    class Slow:
        @hookimpl
        def linnix_reason(self, request):
            asked.append(request.timeout_s)
            forever.wait(HANG_S)

    class Quick:
        @hookimpl
        def linnix_reason(self, request):
            return Answer("cpu_spin", 50, facts=("f1",))

    class Told(Sees):
        insights: queue.SimpleQueue[Any] = queue.SimpleQueue()

        @hookimpl
        def linnix_insight(self, insight):
            self.insights.put(insight)

    agent = linnix_runtime(
        handlers={"told": (told := Told())},
        reasoners={"slow": Slow(), "quick": Quick()},
        agent={"reason_timeout_s": 0.2},
    )
    agent.submit(Alert("r", "high", "m", "cpu_spin"))
    assert told.insights.get(timeout=HANG_S).reasoner == "quick"
    assert asked == [0.18]  # a tenth is kept for the one that is asked last


@effect_of("agent.strict")
def test_strict_ends_the_run_when_any_component_cannot_run(linnix_runtime):
    agent = linnix_runtime(handlers={"tape": NotHere}, agent={"strict": False})
    assert [s.state for s in agent.status() if s.name == "tape"] == ["unavailable"]
    with pytest.raises(RequiredComponentFailed, match="needs a tape drive"):
        linnix_runtime(handlers={"tape": NotHere}, agent={"strict": True})


@effect_of("agent.data_dir")
def test_data_dir_is_where_components_keep_what_outlives_a_run(linnix_distribution, tmp_path):
    folder = linnix_distribution(
        entry_points={"linnix.collectors": {"notes": "linnix_notes:Notes"}},
        modules={
            "linnix_notes.py": """
            from linnix_core import hookimpl

            class Notes:
                def __init__(self, config, context):
                    self.data_dir = context.data_dir

                @hookimpl
                def linnix_collect(self):
                    (self.data_dir / "note").write_text("kept")
            """
        },
    )
    done = subprocess.run(
        [sys.executable, "-m", "linnix_core", "run", "--collector", "notes", "--no-plugins",
         "--set", f"agent.data_dir={tmp_path / 'data'}"],
        env={"PYTHONPATH": str(folder), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "collectors.notes" / "note").read_text() == "kept"


def test_without_data_dir_root_and_others_have_a_place_of_their_own(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert AgentSettings().data_folder() == Path("/var/lib/linnix")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert AgentSettings().data_folder() == Path("/state/linnix")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert AgentSettings().data_folder() == Path.home() / ".local/state/linnix"


@pytest.fixture
def collected_as_root(linnix_distribution, tmp_path):
    """What a collector finds itself to be, in a run that root started with these keys."""
    if os.geteuid() != 0:
        pytest.skip("only root has privileges to give up")
    folder = linnix_distribution(
        entry_points={"linnix.collectors": {"self": "linnix_self:Self"}},
        modules={
            "linnix_self.py": """
            import json
            from pathlib import Path

            from linnix_core import hookimpl

            class Self:
                def __init__(self, config, context):
                    self.components = context.components

                @hookimpl
                def linnix_collect(self):
                    lines = Path("/proc/thread-self/status").read_text().splitlines()
                    (capabilities,) = [line for line in lines if line.startswith("CapEff:")]
                    reasons = [s.reason for s in self.components() if s.kind == "agent"]
                    print(json.dumps([int(capabilities.split()[1], 16), *reasons]))
            """
        },
    )

    def run(*keys: str) -> list[Any]:
        done = subprocess.run(
            [sys.executable, "-m", "linnix_core", "run", "--collector", "self", "--no-plugins",
             *(f"--set={key}" for key in (f"agent.data_dir={tmp_path / 'data'}", *keys))],
            env={"PYTHONPATH": str(folder), "HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: list[Any] = json.loads(done.stdout)
        return found

    return run


@effect_of("agent.drop_privileges")
def test_drop_privileges_leaves_a_run_of_root_no_capabilities(collected_as_root):
    capabilities, reason = collected_as_root("agent.drop_privileges=true")
    assert capabilities == 0
    assert "without capabilities" in reason
    (capabilities,) = collected_as_root("agent.drop_privileges=false")
    assert capabilities != 0


@effect_of("agent.user")
def test_user_is_who_a_run_of_root_becomes(collected_as_root):
    # Or would become: that it cannot reach the files of a test is shown with its name too.
    for name in ("nobody", "daemon"):
        _, reason = collected_as_root(f"agent.user={name}")
        assert f"the account {name} cannot" in reason or f"runs as {name}" in reason


@effect_of("plugin")
def test_plugin_names_the_class_when_the_table_is_called_otherwise(linnix_distribution, tmp_path):
    from linnix_core.agent import Agent
    from linnix_core.catalog import Catalog
    from linnix_core.config import read
    from linnix_core.plan import Plan
    from linnix_core.plugins import PluginHost

    folder = linnix_distribution(
        entry_points={
            "linnix.handlers": {"plain": "linnix_plain:Plain"},
            "linnix.collectors": {"quiet": "linnix_plain:Quiet"},
        },
        modules={
            "linnix_plain.py": """
            from linnix_core import hookimpl

            class Plain:
                def __init__(self, config, context):
                    pass

                @hookimpl
                def linnix_handle(self, batch):
                    pass

            class Quiet:
                def __init__(self, config, context):
                    pass

                @hookimpl
                def linnix_collect(self, stop):
                    stop.wait()
            """
        },
    )
    file = tmp_path / "linnix.toml"
    file.write_text("[handlers.archive]\nplugin = 'plain'\n[collectors.quiet]\n")
    host = PluginHost(Catalog.scan([str(folder)]), data_dir=tmp_path)
    with Agent(Plan(components=read(file, environ={}).components), host) as agent:
        (archive,) = (s for s in agent.status() if s.kind == "handlers")
    assert (archive.component, archive.plugin) == ("handlers.archive", "plain")
    assert host.components[0].cls.__name__ == "Plain"


@effect_of("enabled")
def test_enabled_false_leaves_a_component_out(tmp_path):
    from linnix_core.config import read
    from linnix_core.plan import make_plan
    from linnix_core.testing.distributions import catalog_of

    file = tmp_path / "linnix.toml"
    file.write_text("[handlers.seen]\nenabled = false\n[handlers.other]\nenabled = true\n")
    plan = make_plan(read(file, environ={}), catalog_of({"handlers": {"seen": NotHere}}))
    assert [component.path for component in plan.components] == ["handlers.other"]


@effect_of("required")
def test_required_ends_the_run_when_the_component_cannot_run(linnix_runtime):
    agent = linnix_runtime(
        handlers={"tape": NotHere}, options={"handlers.tape": {"required": False}}
    )
    assert [s.state for s in agent.status() if s.name == "tape"] == ["unavailable"]
    with pytest.raises(RequiredComponentFailed, match=r"handlers\.tape is required"):
        linnix_runtime(handlers={"tape": NotHere}, options={"handlers.tape": {"required": True}})


class Polled:
    """A collector that counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)

    @hookimpl
    def linnix_poll(self):
        self.asked.release()
        return []


@effect_of("interval")
def test_interval_is_the_time_between_two_polls(linnix_runtime):
    often, seldom = Polled(), Polled()
    linnix_runtime(
        collectors={"often": often, "seldom": seldom},
        options={
            "collectors.often": {"interval": "5ms"},
            "collectors.seldom": {"interval": "1h"},
        },
    )
    assert seldom.asked.acquire(timeout=HANG_S)
    # By default this would take eight minutes, and by the other interval four days.
    for _ in range(100):
        assert often.asked.acquire(timeout=HANG_S)
    assert not seldom.asked.acquire(blocking=False)


def overflowing(linnix_runtime, **keys: Any) -> tuple[Sees, Any]:
    """Six batches of two for a handler that is still busy with the first."""
    feeds, seen = Feeds(), Sees(gate=False)
    agent = linnix_runtime(
        collectors={"feeds": feeds},
        handlers={"seen": seen},
        options={"handlers.seen": keys},
        agent={"batch_size": 2, "linger_ms": 1},
    )
    events = forks(12)
    feeds.feed(events[:2])
    assert seen.at_the_gate.wait(HANG_S)
    feeds.feed(events[2:])
    return seen, agent


def settle(seen: Sees, agent: Any, arrived: int) -> Any:
    """Open the gate once as many records have come to the handler; its counters then."""

    def counters() -> Any:
        return next(status.counters for status in agent.status() if status.name == "seen")

    eventually(lambda: counters()["received"] >= arrived)
    seen.gate.set()
    assert agent.wait_idle(HANG_S)
    return counters()


@effect_of("queue")
def test_queue_is_how_many_batches_may_wait(linnix_runtime):
    seen, agent = overflowing(linnix_runtime, queue=2, overflow="drop_newest")
    assert settle(seen, agent, 12)["dropped"] == 6
    assert seen.pids == [1, 2, 3, 4, 5, 6]
    seen, agent = overflowing(linnix_runtime, queue=5)
    assert settle(seen, agent, 12)["dropped"] == 0
    assert len(seen.pids) == 12


@effect_of("overflow")
@pytest.mark.parametrize(
    ("overflow", "pids"),
    [
        ({"overflow": "drop_newest"}, [1, 2, 3, 4]),
        ({"overflow": "drop_oldest"}, [1, 2, 11, 12]),
        ({}, [1, 2, 11, 12]),
    ],
)
def test_overflow_says_which_batches_go_when_no_more_may_wait(linnix_runtime, overflow, pids):
    seen, agent = overflowing(linnix_runtime, queue=1, **overflow)
    assert settle(seen, agent, 12)["dropped"] == 8
    assert seen.pids == pids


@effect_of("overflow")
def test_overflow_block_makes_the_pipeline_wait_and_loses_nothing(linnix_runtime):
    seen, agent = overflowing(linnix_runtime, queue=1, overflow="block")
    assert settle(seen, agent, 4)["dropped"] == 0
    assert seen.pids == list(range(1, 13))


def test_every_key_has_a_test_of_its_effect():
    keys = {f"agent.{field.name}" for field in attrs.fields(AgentSettings)}
    keys |= {field.name for field in attrs.fields(Reserved)}
    assert EFFECTS.keys() | SHOWN_WITH_THE_EXPLAINER == keys
    shown = Path(__file__).with_name("test_reasoning_explaining.py").read_text(encoding="utf-8")
    tests = [line for line in shown.splitlines() if line.startswith("def test_")]
    for key in SHOWN_WITH_THE_EXPLAINER:
        assert any(key.removeprefix("agent.") in test for test in tests), key


def test_every_key_says_what_it_is_for():
    for field in (*attrs.fields(AgentSettings), *attrs.fields(Reserved)):
        assert field.metadata["help"], field.name
