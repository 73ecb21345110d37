"""``linnix top``: what the keys do, and that the terminal is given back as it was."""

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_plugin_client.paper import text_of
from linnix_plugin_client.view import Snapshot, View

SHOWN = r"\x1b[2J\x0a\u202e[red]evil[/red]"

# --- the view alone ------------------------------------------------------------------------


def process(pid, comm="x", **more):
    known = {
        "pid": pid, "ppid": 1, "uid": 0, "comm": comm, "exe": None, "args": [comm], "start_ns": pid,
        "activity": "S",
        "cpu_pct": None, "mem_pct": None, "rss_bytes": None, "threads": None, "read_bytes": None,
        "write_bytes": None, "age_sec": None, "ended": None,
    }  # fmt: skip
    return known | more


def snapshot(*processes):
    return Snapshot(
        url="http://x",
        ts_ns=0,
        status={
            "host": "h", "uptime_s": 1, "processes": len(processes), "events_per_sec": 0,
            "dropped_events_total": 0, "incidents_open": 0,
        },
        system={
            "cpu_percent": None, "mem_percent": None, "load_avg": [None] * 3,
            "psi_cpu_some_avg10": None, "psi_memory_some_avg10": None, "psi_io_some_avg10": None,
        },
        processes=list(processes),
    )  # fmt: skip


def shown(view, seen, width=80, height=24):
    return [text_of(line).plain for line in view.lines(seen, "", width, height)]


MANY = snapshot(*(process(pid) for pid in range(1, 41)))

KEYS = st.sampled_from(
    [*"cmitapnr/x\x00é+-h? ", "escape", "enter", "backspace", "up", "down", "pageup", "pagedown",
     "home", "end"]
)  # fmt: skip


@given(st.lists(KEYS), st.integers(0, 300), st.integers(0, 60))
def test_no_key_in_no_window_breaks_the_view(keys, width, height):
    view = View()
    for key in keys:
        assert view.press(key)
        lines = shown(view, MANY, width, height)
        assert len(lines) <= height


@given(st.lists(st.sampled_from(["up", "down", "pageup", "pagedown", "home", "end"])))
def test_scrolling_always_shows_a_full_page(keys):
    view = View()
    for key in keys:
        view.press(key)
        assert len(shown(view, MANY)) == 24


def test_the_end_shows_the_last_and_home_the_first():
    view = View(order="pid")
    view.press("end")
    assert shown(view, MANY)[-1].split()[0] == "40"
    view.press("home")
    assert shown(view, MANY)[5].split()[0] == "1"


def test_equal_processes_keep_their_places():
    view = View()
    assert [line.split()[0] for line in shown(view, MANY)[5:8]] == ["1", "2", "3"]


def test_while_a_filter_is_written_every_key_is_a_letter():
    view = View()
    seen = snapshot(process(1, "quiet"), process(2, "loud"))
    for key in ["/", "Q", "q", "backspace", "u"]:
        assert view.press(key)
    assert shown(view, seen)[3] == "only with: Qu▏"
    view.press("enter")
    assert "quiet" in shown(view, seen)[5]
    assert len(shown(view, seen)) == 6
    view.press("escape")
    assert len(shown(view, seen)) == 7


def test_the_interval_stays_within_bounds():
    view = View()
    for _ in range(9):
        view.press("+")
    assert view.interval_s == 0.5
    for _ in range(9):
        view.press("-")
    assert view.interval_s == 60


def test_a_narrow_window_has_the_columns_that_matter():
    header = shown(View(), MANY, 80)[4]
    assert header.split() == ["PID", "S", "CPU", "MEM", "RSS", "AGE", "COMMAND"]
    assert shown(View(), MANY, 120)[4].split() == (
        ["PID", "PPID", "UID", "S", "CPU", "MEM", "RSS", "I/O", "THR", "AGE", "COMMAND"]
    )


def test_a_problem_is_shown_above_what_was_known_last():
    lines = [text_of(line).plain for line in View().lines(MANY, "no agent answers", 80, 24)]
    assert lines[3] == "no agent answers"
    assert len(lines) == 24


# --- in a terminal -------------------------------------------------------------------------

_IN_FOREGROUND = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, '-m', 'linnix_core', *sys.argv[1:]])"
)


class Window:
    """A terminal of 80 columns in which a command runs, as a person sees it."""

    def __init__(self, *arguments, columns=80, rows=24, **environment):
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._keyboard, terminal = os.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(terminal)
        self._terminal = terminal
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_FOREGROUND, *arguments],
            stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": "", **environment},
        )  # fmt: skip

    def resize(self, columns, rows):
        fcntl.ioctl(self._keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    @property
    def modes(self):
        return termios.tcgetattr(self._terminal)

    def press(self, keys):
        os.write(self._keyboard, keys.encode())

    def read(self, seconds):
        ready, _, _ = select.select([self._keyboard], [], [], seconds)
        if ready:
            part = os.read(self._keyboard, 65536)
            self.raw += part
            self._stream.feed(part)
            self.read(0)

    def until(self, seen):
        """Read until the window shows it: a text, or what a function of the text says."""
        happened = seen if callable(seen) else lambda text: seen in text
        ends = time.monotonic() + 30
        while not happened(self.text):
            assert time.monotonic() < ends, f"{seen!r} is not in:\n{self.text}"
            self.read(0.05)
        return self.text

    def ended(self):
        """The exit code, once everything that was written has been read."""
        ends = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < ends, self.text
            self.read(0.05)
        self.read(0)
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        os.close(self._keyboard)
        os.close(self._terminal)


@pytest.fixture
def window():
    with contextlib.ExitStack() as cleanup:

        def open_window(*arguments, **parts):
            window = Window(*arguments, **parts)
            cleanup.callback(window.close)
            return window

        yield open_window


def given_back(window):
    """Whether the terminal is as it was: the first screen, a cursor, lines and echo."""
    return (
        window.modes == window.before
        and window.raw.count(b"\x1b[?1049h") == window.raw.count(b"\x1b[?1049l") > 0
        and window.raw.rfind(b"\x1b[?25h") > window.raw.rfind(b"\x1b[?25l")
    )


def first_pid(text):
    return text.splitlines()[5].split()[0]


def test_top_is_sorted_filtered_and_left_with_keys(agent, window):
    top = window("top", "--url", agent.socket)
    top.until("COMMAND")
    assert first_pid(top.text) == "11"
    assert SHOWN in top.text
    top.press("m")
    top.until(lambda text: first_pid(text) == "12")
    top.press("r")
    top.until(lambda text: first_pid(text) == "1")
    top.press("/work\r")
    assert top.until("1 with 'work'").splitlines()[5].endswith("worker -x")
    top.press("\x1b")
    top.until(lambda text: SHOWN in text)
    top.press("h")
    top.until("q              quit")
    top.press("q")
    assert top.ended() == 0
    assert given_back(top)


def test_top_shows_what_changes_unless_it_is_held(agent, window, make):
    top = window("top", "--url", agent.url, "--interval", "0.5")
    top.until("4 processes")
    agent.feed(make.event(13, 10, "late"))
    top.until("late -x")
    top.press(" ")
    top.until("HELD")
    agent.feed(make.event(14, 10, "later"))
    assert agent.agent.wait_idle(30)
    clock = top.text.split()[2]
    assert "later" not in top.text
    top.press(" ")
    top.until("later -x")
    assert top.text.split()[2] >= clock
    top.resize(120, 30)
    os.kill(top.process.pid, signal.SIGWINCH)
    top.until("PPID")
    agent.agent.stop()
    top.until("no agent answers")
    assert "later -x" in top.text
    top.press("\x03")
    assert top.ended() == 0
    assert given_back(top)


def test_top_can_be_stopped_and_goes_on(agent, window):
    top = window("top", "--url", agent.url)
    top.until("COMMAND")
    top.press("\x1a")
    top.until(lambda text: stopped(top.process.pid))
    top.read(0)
    assert given_back(top)
    os.kill(top.process.pid, signal.SIGCONT)
    top.until(lambda text: top.raw.count(b"\x1b[?1049h") == 2 and "COMMAND" in text)
    top.press("p")
    top.until(lambda text: first_pid(text) == "1")
    os.kill(top.process.pid, signal.SIGTERM)
    assert top.ended() == -signal.SIGTERM
    assert given_back(top)


def stopped(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


def test_where_no_agent_answers_top_says_so_on_a_plain_line(tmp_path, window):
    top = window("top", "--url", f"unix://{tmp_path}/x")
    assert top.ended() == 1
    assert top.text.startswith("linnix: no agent answers at unix://")
    assert b"\x1b[?1049h" not in top.raw


# --- the other commands in a terminal ------------------------------------------------------


def test_in_a_terminal_lines_are_cut_to_its_width_and_coloured(start_agent, make, window):
    agent = start_agent(make.event(1, None, "long", args=("long", "x" * 500)))
    agent.alert()
    said = window("tree", "--url", agent.url)
    assert said.ended() == 0
    assert said.text.splitlines()[1].endswith("xxx…")
    assert len(said.text.splitlines()) == 2
    coloured = window("alerts", "--url", agent.url)
    assert coloured.ended() == 0
    assert b"\x1b[31m[HIGH]" in coloured.raw


@pytest.mark.parametrize(
    ("options", "environment"), [(["--no-color"], {}), ([], {"NO_COLOR": "1"})]
)
def test_nobody_has_to_see_colours(agent, window, options, environment):
    agent.alert()
    plain = window("alerts", "--url", agent.url, *options, **environment)
    assert plain.ended() == 0
    assert "[HIGH]" in plain.text
    assert b"\x1b[3" not in plain.raw
