"""Plain lines: what a pipe, a file, a journal and a dumb terminal get."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_core import (
    Alert,
    Batch,
    Context,
    Incident,
    Insight,
    Loss,
    PluginUnavailable,
    ProcessEvent,
    ProcessKey,
    ProcessTable,
    Subject,
)
from linnix_plugin_console import ConsoleConfig, ConsoleHandler
from linnix_plugin_console.lines import (
    alert_line,
    component_line,
    event_line,
    incident_line,
    insight_line,
    loss_line,
)
from linnix_plugin_console.plain import PlainDisplay
from linnix_plugin_console.tally import Tally

NS = 1_700_000_000_000_000_000  # 22:13:20 UTC
HOSTILE = st.text(max_size=200)


@attrs.frozen
class Status:
    component: str
    state: str = "running"
    code: str = ""
    reason: str = ""
    hint: str | None = None
    limits: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.component.split(".")[0]

    @property
    def name(self) -> str:
        return self.component.partition(".")[2]


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def time_ns(self) -> int:
        return NS + int(self.now_s * 1e9)

    def monotonic(self) -> float:
        return self.now_s


class Plain:
    """A plain display whose time and components are in the test's hand."""

    def __init__(self, linnix_context: Callable[..., Context], **config: Any) -> None:
        self.clock = Clock()
        self.table = ProcessTable()
        self.components = [Status("collectors.ebpf"), Status("handlers.console")]
        self.context = linnix_context(
            "handlers.console",
            processes=self.table.view,
            clock=self.clock,
            components=lambda: self.components,
        )
        self.out = io.StringIO()
        self.tally = Tally()
        self.display = PlainDisplay(ConsoleConfig(**config), self.context, self.tally, self.out)

    def batch(self, *records: Any) -> None:
        batch = Batch(records)
        self.table.update(records)
        self.display.batch(batch, self.tally.add(batch))

    def after(self, seconds: float) -> list[str]:
        """What is printed by then and was not before."""
        self.clock.now_s += seconds
        self.display.tick()
        return self.printed()

    def printed(self) -> list[str]:
        lines = self.out.getvalue().splitlines()
        self.out.seek(0)
        self.out.truncate()
        return lines


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def plain(linnix_context: Callable[..., Context]) -> Callable[..., Plain]:
    return lambda **config: Plain(linnix_context, **config)


def seen(pid: int) -> ProcessEvent:
    return ProcessEvent("seen", pid, pid * 10_000_000, comm="sh")


def fork(pid: int) -> ProcessEvent:
    return ProcessEvent("fork", pid, pid * 10_000_000, ppid=1, comm="sh")


# --- each thing is one line -----------------------------------------------------------


def test_an_alert_is_a_line(plain: Any) -> None:
    run = plain()
    run.display.alert(
        Alert("fork_storm", "high", "fork burst: 212 forks in 5 s by bash (pid 4412)", ts_ns=NS)
    )
    assert run.printed() == [
        "22:13:20 ALERT high fork_storm: fork burst: 212 forks in 5 s by bash (pid 4412)"
    ]


@pytest.mark.parametrize(
    ("message", "ending"),
    [
        ("212 forks in 5 s", "212 forks in 5 s [bash, pid 12]"),
        ("212 forks in 5 s by bash (pid 12)", "5 s by bash (pid 12)"),
    ],
)
def test_an_alert_names_its_process_once(message: str, ending: str) -> None:
    subject = Subject(ProcessKey("boot", 12, 0), comm="bash")
    assert alert_line(Alert("r", "high", message, subject=subject)).endswith(ending)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("opened", "22:13:20 INCIDENT opened high fork_storm: bash forks"),
        ("worse", "22:13:20 INCIDENT worse high fork_storm: bash forks"),
        ("closed", "22:13:20 INCIDENT closed high fork_storm: bash forks; 7 alerts in 2m 14s"),
        ("updated", None),
    ],
)
def test_an_incident_is_a_line_when_it_opens_gets_worse_or_closes(
    plain: Any, change: Any, line: str | None
) -> None:
    run = plain()
    run.display.incident(
        Incident(
            "f", "high", "bash forks", "fork_storm", change=change, alerts=7,
            opened_ns=NS - 134 * 10**9, ts_ns=NS,
        )
    )  # fmt: skip
    assert run.printed() == ([line] if line else [])


def test_an_insight_is_a_line_with_what_to_try(plain: Any) -> None:
    run = plain()
    run.display.insight(
        Insight(
            "fork_storm", 0.92, "P1", "a loop", ("stop it", "limit it"),
            reasoner="heuristics", ts_ns=NS,
        )
    )  # fmt: skip
    assert run.printed() == [
        "22:13:20 INSIGHT fork_storm, 92% by heuristics: a loop; try: stop it; or limit it"
    ]


def test_a_loss_is_a_line_and_a_window_without_one_is_not(plain: Any) -> None:
    run = plain()
    run.batch(
        Loss("collectors.ebpf", "ring_full", 120, 1240, 10**10, ts_ns=NS),
        Loss("collectors.ebpf", "throttled", 0, 0, 10**10, ts_ns=NS),
    )
    assert run.printed() == [
        "22:13:20 LOSS collectors.ebpf ring_full: 120 records lost, 1,240 since the start"
    ]


@pytest.mark.parametrize("wanted", [True, False])
def test_events_are_lines_where_they_are_wanted(plain: Any, wanted: bool) -> None:
    run = plain(events=True) if wanted else plain()
    run.batch(
        ProcessEvent("exec", 7, 0, ppid=1, comm="ls", args=("ls", "-l"), ts_ns=NS),
        ProcessEvent("exit", 7, 0, comm="ls", exit_code=2, ts_ns=NS),
        ProcessEvent("exit", 8, 0, ppid=1, comm="cat", signal=9, ts_ns=NS),
    )
    lines = [
        "22:13:20 exec pid 7 ppid 1 ls: ls -l",
        "22:13:20 exit pid 7 ppid - ls (exit code 2)",
        "22:13:20 exit pid 8 ppid 1 cat (signal 9)",
    ]
    assert run.printed() == (lines if wanted else [])


# --- what is due ----------------------------------------------------------------------


def test_the_first_word_is_that_real_processes_are_followed_and_it_comes_once(plain: Any) -> None:
    run = plain()
    assert run.after(1) == []
    run.batch(seen(1), seen(2))
    assert run.after(1) == ["22:13:22 following 2 processes on testhost with ebpf"]
    assert run.after(1) == []


@pytest.mark.parametrize("every", [10.0, 30.0])
def test_a_summary_comes_as_often_as_configured(plain: Any, every: float) -> None:
    run = plain(summary=every)
    run.batch(seen(1))
    run.after(0)
    run.batch(*[fork(pid) for pid in range(2, 152)])
    run.batch(Loss("collectors.ebpf", "ring_full", 4, 4, 10**10))
    run.printed()
    assert run.after(every - 1) == []
    (line,) = run.after(1)
    assert line.endswith(f"following 151 processes, {150 / every:.1f} events/s, 4 lost")
    (line,) = run.after(every)
    assert line.endswith("following 151 processes, 0.0 events/s, 4 lost")


def test_no_summary_comes_where_none_is_wanted(plain: Any) -> None:
    run = plain(summary=0.0)
    run.batch(seen(1))
    assert len(run.after(1)) == 1
    assert run.after(3600) == []


def test_a_component_is_a_line_when_its_state_changes_and_when_it_recovers(plain: Any) -> None:
    run = plain()
    failed = Status("handlers.http", "unavailable", "capability", "port 3000 is taken", "free it")
    run.components.append(failed)
    assert run.after(1) == [
        "22:13:21 COMPONENT handlers.http unavailable: port 3000 is taken (free it)"
    ]
    run.components[-1] = attrs.evolve(failed, reason="port 3000 is still taken")
    assert run.after(1) == []
    run.components[-1] = Status("handlers.http")
    assert run.after(1) == ["22:13:23 COMPONENT handlers.http running"]


def test_what_a_collector_cannot_see_is_said_once_it_follows(plain: Any) -> None:
    run = plain()
    blind = Status("collectors.psutil", limits=("exit codes are not known", "\x1b[2Jbrief lives"))
    run.components[:] = [blind]
    assert run.after(1) == []
    run.batch(seen(1))
    assert run.after(1)[1:] == [
        "22:13:22 BLIND SPOT collectors.psutil: exit codes are not known",
        r"22:13:22 BLIND SPOT collectors.psutil: \x1b[2Jbrief lives",
    ]
    run.components[:] = [attrs.evolve(blind, limits=("another count of the same",))]
    assert run.after(1) == []


def test_components_that_stop_because_the_run_ends_are_no_news(plain: Any) -> None:
    run = plain()
    run.context.stop.set()
    run.components[:] = [Status("collectors.ebpf", "stopped")]
    assert run.after(1) == []


# --- hostile text ---------------------------------------------------------------------


@given(HOSTILE, HOSTILE)
def test_whatever_a_process_calls_itself_stays_within_its_line(one: str, two: str) -> None:
    subject = Subject(ProcessKey("boot", 7, 0), comm=one)
    lines = [
        alert_line(Alert(one, "low", two, subject=subject)),
        incident_line(Incident(one, "low", two, rules=(one,), subject=subject)),
        insight_line(Insight("normal", 0.5, one, two, (one, two), reasoner=one)),
        loss_line(Loss(one, two, 1, 1, 1)),
        event_line(ProcessEvent("exec", 7, 0, comm=one, args=(one, two))),
        component_line(NS, Status(one, "failed", "crash", two, one)),
    ]
    for line in lines:
        assert len(line.splitlines()) == 1
        assert not {c for c in line if ord(c) < 32 or 127 <= ord(c) < 160}


def test_markup_stays_text(plain: Any) -> None:
    run = plain(events=True)
    run.batch(ProcessEvent("exec", 7, 0, comm="[bold red]x", args=("[/]", "\x1b[2J"), ts_ns=NS))
    assert run.printed() == ["22:13:20 exec pid 7 ppid - [bold red]x: [/] \\x1b[2J"]


def test_letters_that_the_reader_has_not_are_escaped(linnix_context: Any) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="latin-1")
    display = PlainDisplay(ConsoleConfig(), linnix_context(), Tally(), out)
    display.alert(Alert("r", "low", "café 日", ts_ns=NS))
    assert raw.getvalue() == b"22:13:20 ALERT low r: caf\xe9 \\u65e5\n"


# --- the handler ----------------------------------------------------------------------


class Watched(io.StringIO):
    """A file that tells when a line has come."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Condition()

    def write(self, text: str) -> int:
        with self.written:
            self.written.notify_all()
            return super().write(text)

    def wait_for(self, text: str) -> None:
        with self.written:
            assert self.written.wait_for(lambda: text in self.getvalue(), 30), self.getvalue()


def test_a_run_begins_and_ends_with_a_word(
    linnix_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Watched()
    monkeypatch.setattr(sys, "stdout", out)
    table = ProcessTable()
    context = linnix_context("handlers.console", processes=table.view)
    handler = ConsoleHandler(ConsoleConfig(), context)
    handler.linnix_start()
    handler.linnix_ready()
    batch = [seen(1), fork(2)]
    table.update(batch)
    assert handler.linnix_handle(Batch(batch)) is None
    out.wait_for("following 2 processes on testhost")
    handler.linnix_alert(Alert("r", "low", "m"))
    for change in ("opened", "updated", "closed"):
        handler.linnix_incident(Incident("f", "low", "s", change=change))
    assert handler.linnix_health().status == "ok"
    handler.linnix_stop(time.monotonic() + 10)
    last = out.getvalue().splitlines()[-1]
    words = r"\S+ followed 2 processes for \d+s: 1 event, 1 alert, 1 incident, 0 lost"
    assert re.fullmatch(words, last)


def test_standard_output_is_the_one_at_the_start(
    linnix_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = ConsoleHandler(ConsoleConfig(), linnix_context())
    at_start = io.StringIO()
    monkeypatch.setattr(sys, "stdout", at_start)
    handler.linnix_start()
    handler.linnix_ready()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    handler.linnix_alert(Alert("rule", "low", "a message"))
    handler.linnix_stop(time.monotonic() + 10)
    assert "a message" in at_start.getvalue()


def test_the_live_view_needs_a_terminal(
    linnix_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    handler = ConsoleHandler(ConsoleConfig(mode="live"), linnix_context())
    with pytest.raises(PluginUnavailable, match="needs a terminal") as missing:
        handler.linnix_start()
    assert "auto" in str(missing.value.hint)
    handler.linnix_stop(time.monotonic() + 1)


def test_without_standard_output_the_console_is_unavailable(
    linnix_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(PluginUnavailable, match="standard output is closed"):
        ConsoleHandler(ConsoleConfig(), linnix_context()).linnix_start()


def test_a_display_that_never_started_is_healthy_and_stops(linnix_context: Any) -> None:
    handler = ConsoleHandler(ConsoleConfig(), linnix_context())
    assert handler.linnix_health().status == "ok"
    handler.linnix_stop(time.monotonic() + 1)


# --- real pipes -----------------------------------------------------------------------

PIPED = """
import json, os, sys, time
from pathlib import Path
from linnix_core import *
from linnix_plugin_console import ConsoleConfig, ConsoleHandler
context = Context(component="handlers.console", logger=None, processes=ProcessTable().view,
                  incidents=None, data_dir=Path("never-made"))
handler = ConsoleHandler(ConsoleConfig(), context)
handler.linnix_start()
handler.linnix_ready()
handler.linnix_alert(Alert("rule", "low", "the first"))
sys.stdin.readline()
for number in range(3):
    handler.linnix_alert(Alert("rule", "low", f"number {number}"))
health = handler.linnix_health()
handler.linnix_stop(time.monotonic() + 10)
print(json.dumps([health.status, health.reason, "rich" in sys.modules]), file=sys.stderr)
"""


@pytest.fixture
def piped() -> Any:
    environment = {**os.environ, "TERM": "xterm-256color", "FORCE_COLOR": "1"}
    # Python buffers a pipe unless told otherwise, and so it does for whoever runs Linnix.
    environment.pop("PYTHONUNBUFFERED", None)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PIPED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        yield child
        child.kill()


def test_a_pipe_gets_each_line_at_once_without_colours_and_without_rich(piped: Any) -> None:
    assert piped.stdout.readline().endswith(" ALERT low rule: the first\n")
    rest, said = piped.communicate("go on\n", timeout=30)
    assert [line.split(": ")[-1] for line in rest.splitlines()[:3]] == [
        "number 0", "number 1", "number 2",
    ]  # fmt: skip
    assert "\x1b" not in rest
    assert json.loads(said) == ["ok", "", False]


def test_a_reader_that_goes_away_silences_the_console_and_nothing_else(piped: Any) -> None:
    piped.stdout.readline()
    piped.stdout.close()
    piped.stdin.write("go on\n")
    piped.stdin.close()
    said = piped.stderr.read()
    assert piped.wait(30) == 0
    assert json.loads(said) == ["degraded", "nobody reads standard output any more", False]


def test_a_file_that_cannot_be_written_silences_the_console_with_the_reason(
    linnix_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        handler = ConsoleHandler(ConsoleConfig(), linnix_context())
        handler.linnix_start()
        handler.linnix_alert(Alert("rule", "low", "message"))
        health = handler.linnix_health()
        handler.linnix_stop(time.monotonic() + 10)
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    assert health.status == "degraded"
    assert "No space left on device" in health.reason
