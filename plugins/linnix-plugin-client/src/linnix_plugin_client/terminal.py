"""The terminal while a live view has it: the whole window, single keys, signals in order."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

from rich.console import Console
from rich.text import Text

__all__ = ["Terminal", "is_interactive"]

#: Names of the keys that send more than one byte.
_NAMED = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[5~": "pageup",
    b"\x1b[6~": "pagedown",
    b"\x1b[H": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1b[4~": "end",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
}
_KEY = re.compile(rb"\x1bO?\[?[0-9;]*[A-Za-z~]|\x1b|[^\x1b]", re.DOTALL)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGWINCH)


def is_interactive() -> bool:
    """Whether there is a person with a keyboard and a window that can be drawn on."""
    return (
        sys.stdin is not None
        and sys.stdin.isatty()
        and sys.stdout.isatty()
        and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    )


class Terminal:
    """Use as a context manager: whatever happens, the terminal is given back as it was.

    Signals only wake `pressed`, so that nothing is interrupted half drawn: Ctrl-C and whatever
    else ends the program make it return ``"quit"``, Ctrl-Z stops the program in between.
    """

    def __init__(self, *, no_color: bool = False) -> None:
        self._console = Console(markup=False, highlight=False, no_color=no_color or None)
        self._keyboard = sys.stdin.fileno()
        self._taken = contextlib.ExitStack()
        self._woken = self._wake = -1
        self._arrived: list[int] = []
        self._ended_by = 0

    def __enter__(self) -> Self:
        """Take the window."""
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        try:
            self._take()
        except BaseException:
            self._forget_pipe()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Give it back; then a signal that was to end the program does."""
        self._taken.close()
        self._forget_pipe()
        if self._ended_by:
            os.kill(os.getpid(), self._ended_by)

    def _take(self) -> None:
        with contextlib.ExitStack() as cleanup:
            cleanup.enter_context(self._signals())
            cleanup.enter_context(self._window())
            self._taken = cleanup.pop_all()

    def _forget_pipe(self) -> None:
        # Whoever still wants to wake must not write to what gets the number next.
        pipe = self._woken, self._wake
        self._woken = self._wake = -1
        for end in pipe:
            os.close(end)

    def wake(self) -> None:
        """Have `pressed` return; from any thread."""
        # A full pipe wakes as well, and a view that has ended needs no waking.
        with contextlib.suppress(OSError):
            os.write(self._wake, b"\0")

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines of the window."""
        return self._console.size.width, self._console.size.height

    def draw(self, lines: list[Text]) -> None:
        """Show these lines and nothing else."""
        columns, rows = self.size
        for line in lines:
            line.truncate(columns, overflow="ellipsis")
            line.end = ""
        shown = lines[:rows] + [Text("")] * (rows - len(lines))
        self._screen.update(Text("\n").join(shown))

    def pressed(self) -> list[str]:
        """Wait for something to happen, then the keys that were pressed; maybe none."""
        return list(self._pressed())

    def _pressed(self) -> Iterator[str]:
        ready, _, _ = select.select([self._keyboard, self._woken], [], [])
        if self._woken in ready:
            os.read(self._woken, 4096)
        while self._arrived:
            number = self._arrived.pop(0)
            if number == signal.SIGTSTP:
                self._pause()
            elif number != signal.SIGWINCH:
                self._ended_by = 0 if number == signal.SIGINT else number
                yield "quit"
        if self._keyboard in ready:
            typed = os.read(self._keyboard, 1024)
            if not typed:
                yield "quit"
            for key in _KEY.findall(typed):
                name = _NAMED.get(key.replace(b"\x1bO", b"\x1b["))
                yield name or key.decode("utf-8", "replace")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def arrive(number: int, frame: FrameType | None) -> None:
            self._arrived.append(number)

        before: dict[int, Any] = {n: signal.signal(n, arrive) for n in _SIGNALS}
        waker = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(waker)
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def _window(self) -> Iterator[None]:
        modes = termios.tcgetattr(self._keyboard)
        try:
            tty.setcbreak(self._keyboard, termios.TCSADRAIN)
            with self._console.screen(hide_cursor=True) as self._screen:
                yield
        finally:
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, modes)

    def _pause(self) -> None:
        self._taken.close()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
