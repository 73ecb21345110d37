"""What a person sees in a terminal: the child runs in a real one, an emulator reads it."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest

AGENT = Path(__file__).with_name("console_agent.py")
SOON_S = 30


class Screen(pyte.Screen):
    """Pyte's screen and the alternate one, which it does not know (xterm's private mode 1049)."""

    def __init__(self, columns: int, lines: int) -> None:
        self.main: Any = None
        super().__init__(columns, lines)

    @property
    def alternate(self) -> bool:
        return self.main is not None

    def set_mode(self, *modes: int, **options: Any) -> None:
        super().set_mode(*modes, **options)
        if 1049 in modes and options.get("private") and self.main is None:
            self.main = copy.deepcopy(self.buffer), copy.copy(self.cursor)
            self.erase_in_display(2)
            self.cursor_position()

    def reset_mode(self, *modes: int, **options: Any) -> None:
        super().reset_mode(*modes, **options)
        if 1049 in modes and options.get("private") and self.main is not None:
            hidden = self.cursor.hidden
            self.buffer, self.cursor = self.main
            self.cursor.hidden = hidden
            self.main = None


class Terminal:
    """A pseudo-terminal with a child in it, and the commands that the child takes."""

    def __init__(
        self, columns: int, rows: int, environment: dict[str, str], *, background: bool = False
    ) -> None:
        self.master, slave = pty.openpty()
        self.slave = slave
        self.screen = Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.output = b""
        self.changed = threading.Condition()
        self._set_size(columns, rows)
        self.modes = termios.tcgetattr(slave)
        self.commands, theirs = socket.socketpair()
        self.commands.settimeout(SOON_S)
        clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        self.child = subprocess.Popen(
            [sys.executable, "-W", "error", str(AGENT), str(theirs.fileno())]
            + ["background"] * background,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            pass_fds=[theirs.fileno()],
            env={
                **clean,
                "TERM": "xterm-256color",
                "TZ": "UTC",
                "LC_ALL": "C.UTF-8",
                **environment,
            },
            start_new_session=True,
        )
        theirs.close()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65536):
                with self.changed:
                    self.output += data
                    self.stream.feed(data)
                    self.changed.notify_all()

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        with self.changed:
            self._set_size(columns, rows)
            self.screen.resize(rows, columns)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def tell(self, name: str, *args: Any, **options: Any) -> None:
        self.say(name, *args, **options)
        assert self.commands.recv(1) == b"\n", self.text

    def say(self, name: str, *args: Any, **options: Any) -> None:
        self.commands.sendall(f"{(name, args, options)!r}\n".encode())

    @property
    def rows(self) -> list[str]:
        return [row.rstrip() for row in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    def wait(self, seen: Callable[[], bool]) -> None:
        """Until the screen is as described."""
        with self.changed:
            assert self.changed.wait_for(seen, SOON_S), f"never seen; the screen is\n{self.text}"

    def wait_for(self, *texts: str) -> None:
        self.wait(lambda: all(text in self.text for text in texts))

    def row(self, text: str) -> int:
        """Where a text stands."""
        return next(number for number, row in enumerate(self.rows) if text in row)

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self.slave)
        self.slave = -1
        os.close(self.master)
        self.master = -1

    def end(self) -> int:
        """Let the child end by itself."""
        self.commands.close()
        code = self.child.wait(SOON_S)
        os.close(self.slave)
        self.slave = -1
        self.reader.join(SOON_S)
        return code

    def close(self) -> None:
        self.commands.close()
        self.child.kill()
        self.child.wait()
        if self.slave >= 0:
            os.close(self.slave)
        self.reader.join(SOON_S)
        if self.master >= 0:
            os.close(self.master)


VARIABLES = (
    "TERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "COLORTERM", "TTY_COMPATIBLE",
    "TTY_INTERACTIVE", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONUNBUFFERED",
)  # fmt: skip


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(
        columns: int = 80, rows: int = 24, *, background: bool = False, **environment: str
    ) -> Terminal:
        opened.append(Terminal(columns, rows, environment, background=background))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


def test_a_terminal_gets_a_live_view_of_what_runs(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.tell("start", refresh=0.1)
    screen.wait_for("linnix   web-01", "nothing lost", "ebpf running", "nothing measured yet")
    screen.tell(
        "process", 4412, "python3", "python3", "train.py", cpu=186.4, rss=3 << 30, threads=24
    )
    screen.tell("process", 912, "postgres", cpu=41.0)
    screen.tell("events", "fork", 50)
    screen.wait_for("python3 train.py", "postgres", "52 processes")
    assert screen.screen.alternate
    assert screen.screen.cursor.hidden
    assert "   4412  186.4   3.0G   24  python3 train.py" in screen.rows
    assert screen.row("python3 train.py") + 1 == screen.row("postgres")
    screen.wait(lambda: "fork 0.0" not in screen.text)


def test_incidents_alerts_losses_and_troubles_come_into_view(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal()
    screen.tell("start", refresh=0.1)
    screen.tell("incident", "a", "bash forks too much")
    screen.tell("insight", "a", "a loop without a wait", "stop the loop")
    screen.tell("alert", "212 forks in 5 s", comm="bash", pid=4001)
    screen.tell("lose", "collectors.ebpf", "ring_full", 1240)
    screen.tell("component", "handlers.http", "unavailable", "capability", "port 3000 is taken")
    screen.wait_for(
        "22:13:20 high     fork_storm: bash forks too much",
        "why a loop without a wait",
        "try stop the loop",
        "212 forks in 5 s [bash, pid 4001]",
        "lost        1,240 in collectors.ebpf (ring_full)",
        "handlers.http unavailable: port 3000 is taken",
    )
    screen.tell("incident", "a", "bash forks too much", "closed")
    screen.wait_for("closed   fork_storm: bash forks too much")


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (200, 60)])
def test_the_view_fits_into_every_window(
    terminal: Callable[..., Terminal], size: tuple[int, int]
) -> None:
    screen = terminal(*size)
    screen.tell("start", refresh=0.1)
    for pid in range(2, 30):
        screen.tell("process", pid, f"process-{pid}", "日本語 " * 40, cpu=pid)
    for number in range(8):
        screen.tell("incident", f"{number}", "a very long story " * 20)
    # The title stays where it is: nothing ever scrolls.
    screen.wait(lambda: "28 processes" in screen.rows[0] and "8 open" in screen.text)
    assert screen.row("PID   CPU%") < screen.row("29   29.0") < screen.row("INCIDENTS")
    screen.wait(lambda: screen.text.count("high ") == {24: 2, 10: 1, 60: 8}[size[1]])


def test_the_view_follows_the_window(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.tell("start", refresh=0.1)
    screen.tell("process", 7, "sh", "sh", "-c", "x" * 150, cpu=1.0)
    screen.wait(lambda: any(row.endswith("x…") and len(row) == 80 for row in screen.rows))
    screen.resize(200, 60)
    screen.wait(lambda: "x" * 150 in screen.text and "THR" in screen.text)
    screen.resize(40, 10)
    screen.wait(lambda: any(row.endswith("x…") and len(row) == 40 for row in screen.rows))
    assert "THR" not in screen.text
    screen.tell("lose", "collectors.ebpf", "ring_full", 1)
    screen.wait(lambda: screen.rows[1].startswith("lost 1 in"))


def test_names_stay_text_in_the_view(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.tell("start", refresh=0.1)
    screen.tell("process", 7, "evil", "[bold red]x[/]", "\x1b[2J\x1b[31mred", "\x9b5A", cpu=1.0)
    screen.tell("incident", "a", "[bold red]y\x1b]0;title\x07")
    screen.wait_for("[bold red]x[/] \\x1b[2J\\x1b[31mred \\x9b5A", "[bold red]y\\x1b]0;title\\x07")
    assert b"\x1b[31mred" not in screen.output


def test_top_is_how_many_processes_there_are(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.tell("start", refresh=0.1, top=2)
    for pid in (7, 8, 9):
        screen.tell("process", pid, f"process-{pid}", cpu=pid)
    screen.wait_for("process-9", "process-8")
    assert "process-7" not in screen.text


def test_refresh_is_how_often_the_screen_is_drawn(terminal: Callable[..., Terminal]) -> None:
    slow = terminal()
    slow.tell("start", refresh=1000.0)
    slow.wait_for("no alerts, no incidents so far")
    quick = terminal()
    quick.tell("start", refresh=0.1)
    for screen in (slow, quick):
        screen.tell("alert", "a message")
    quick.wait_for("a message")
    quick.wait(lambda: quick.output.count(b"\x1b[H") > 10)
    assert "a message" not in slow.text


def test_no_color_is_respected(terminal: Callable[..., Terminal]) -> None:
    def colours(screen: Terminal) -> set[str]:
        return {cell.fg for row in screen.screen.buffer.values() for cell in row.values()}

    colourful, colourless = terminal(), terminal(NO_COLOR="1")
    for screen in (colourful, colourless):
        screen.tell("start", refresh=0.1)
        screen.tell("incident", "a", "bash forks too much")
        screen.wait_for("bash forks too much")
    assert colours(colourful) > {"default"}
    assert colours(colourless) == {"default"}


def test_a_terminal_that_lacks_letters_shows_others(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(PYTHONIOENCODING="latin-1")
    screen.tell("start", refresh=0.1)
    screen.tell("process", 7, "sh", "日本", "end", cpu=1.0)
    screen.wait_for("?? end")


# --- the terminal is given back -------------------------------------------------------


def given_back(screen: Terminal) -> bool:
    output = screen.output
    return (
        not screen.screen.alternate
        and not screen.screen.cursor.hidden
        and output.rfind(b"\x1b[?1049l") > output.rfind(b"\x1b[?1049h") >= 0
        and output.rfind(b"\x1b[?25h") > output.rfind(b"\x1b[?25l") >= 0
    )


def test_at_the_end_the_last_news_stay_below_the_prompt(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal()
    screen.stream.feed(b"$ linnix run\r\n")
    screen.tell("start", refresh=0.1)
    screen.tell("alert", "212 forks in 5 s")
    screen.tell("incident", "a", "bash forks")
    screen.tell("incident", "a", "bash forks", "updated")
    screen.tell("insight", "a", "a loop", "stop it")
    screen.tell("incident", "a", "bash forks", "closed")
    screen.tell("lose", "collectors.ebpf", "ring_full", 3)
    screen.tell("events", "fork", 2)
    modes = termios.tcgetattr(screen.slave)
    screen.tell("stop")
    screen.wait(lambda: given_back(screen) and "3 lost" in screen.text)
    assert modes == screen.modes == termios.tcgetattr(screen.slave)
    assert screen.rows[:6] == [
        "$ linnix run",
        "22:13:20 ALERT high fork_storm: 212 forks in 5 s",
        "22:13:21 INCIDENT opened high fork_storm: bash forks",
        "22:13:21 INCIDENT closed high fork_storm: bash forks; 1 alert in 1s",
        "22:13:22 INSIGHT fork_storm, 92% by heuristics: a loop; try: stop it",
        screen.rows[5],
    ]
    assert screen.rows[5].endswith(": 2 events, 1 alert, 1 incident, 3 lost")
    assert not any(screen.rows[6:])
    assert screen.end() == 0


def test_only_the_last_news_stay_below_the_prompt(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(80, 50)
    screen.tell("start", refresh=0.1)
    for number in range(100):
        screen.tell("alert", f"alert-{number:03}")
        screen.tell("incident", f"{number}", f"incident-{number:03}")
    screen.tell("stop")
    screen.wait_for("100 alerts, 100 incidents")
    assert [n for n in range(100) if f"alert-{n:03}" in screen.text] == list(range(94, 100))
    assert [n for n in range(100) if f"incident-{n:03}" in screen.text] == list(range(88, 100))


def test_an_interrupt_gives_the_terminal_back(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.tell("start", refresh=0.1)
    screen.wait_for("linnix   web-01")
    screen.tell("wait_for_interrupt")
    screen.type(b"\x03")
    assert screen.child.wait(SOON_S) == 0
    screen.wait(lambda: given_back(screen) and "followed 0 processes" in screen.text)


def test_a_crash_elsewhere_gives_the_terminal_back_with_its_traceback(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal()
    screen.tell("start", refresh=0.1)
    screen.wait_for("linnix   web-01")
    screen.say("crash")
    assert screen.child.wait(SOON_S) == 1
    screen.wait(lambda: given_back(screen) and "RuntimeError: a bug elsewhere" in screen.text)


def test_what_cannot_be_drawn_gives_the_terminal_back_and_says_why(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal()
    screen.tell("start", refresh=0.1)
    screen.wait_for("linnix   web-01")
    screen.tell("process", 7, "sh", cpu="many")
    screen.wait(lambda: given_back(screen))
    screen.tell("health")
    screen.wait_for("degraded: the view cannot be drawn: TypeError")
    screen.tell("stop")
    screen.wait_for("followed 1 process")


def test_a_terminal_that_hangs_up_is_no_error(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.tell("start", refresh=0.1)
    screen.wait_for("linnix   web-01")
    screen.tell("ignore_hangup")
    screen.hang_up()
    screen.tell("wait_until_degraded")
    screen.tell("stop")
    screen.commands.close()
    assert screen.child.wait(SOON_S) == 0


def test_messages_on_standard_error_do_not_tear_the_view(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal()
    screen.tell("start", refresh=0.1)
    screen.tell("log", "WARNING something\nWARNING \x1b[31melse")
    screen.wait_for("WARNING something", "WARNING \\x1b[31melse")
    assert screen.rows[0].startswith("linnix")
    screen.tell("stop")
    screen.wait(lambda: screen.rows[:2] == ["WARNING something", "WARNING else"])


# --- which display suits --------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "term"), [("auto", "dumb"), ("auto", "unknown"), ("plain", "xterm")]
)
def test_plain_lines_are_for_dumb_terminals_and_whoever_wants_them(
    terminal: Callable[..., Terminal], mode: str, term: str
) -> None:
    screen = terminal(TERM=term)
    screen.tell("start", mode=mode)
    screen.tell("alert", "[bold red]x\x1b[2J")
    screen.tell("stop")
    screen.wait_for("ALERT high fork_storm: [bold red]x\\x1b[2J", "followed 0 processes")
    assert b"\x1b" not in screen.output


def test_a_live_view_on_a_dumb_terminal_is_refused(terminal: Callable[..., Terminal]) -> None:
    screen = terminal(TERM="dumb")
    screen.say("start", mode="live")
    screen.wait_for("the live view needs a terminal")


def test_a_job_in_the_background_leaves_the_terminal_to_the_shell(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal(background=True)
    screen.tell("start")
    screen.tell("alert", "a message")
    screen.wait_for("ALERT high fork_storm: a message")
    screen.tell("stop")
    assert not screen.screen.alternate
    assert b"\x1b" not in screen.output


def test_environments_that_fool_rich_do_not_change_the_view(
    terminal: Callable[..., Terminal],
) -> None:
    screen = terminal(TTY_COMPATIBLE="0", TTY_INTERACTIVE="0")
    screen.tell("start", refresh=0.1)
    screen.tell("alert", "a message")
    screen.wait_for("a message")
    assert screen.screen.alternate
