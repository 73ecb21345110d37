"""Standard error is held while the view has the terminal, and given back whole."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest

from linnix_plugin_console.stderr import HeldStderr


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tty]:
    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_what_is_written_meanwhile_appears_afterwards_and_in_order(real: Tty) -> None:
    held = HeldStderr(real)
    held.hold()
    print("one\ntwo", file=sys.stderr)
    sys.stderr.write("half ")
    sys.stderr.write("a line")
    assert real.getvalue() == ""
    assert held.latest() == ["one", "two"]
    held.release()
    assert sys.stderr is real
    assert real.getvalue() == "one\ntwo\nhalf a line\n"


def test_giving_back_twice_prints_once(real: Tty) -> None:
    held = HeldStderr(real)
    held.hold()
    print("one", file=sys.stderr)
    held.release()
    held.release()
    assert real.getvalue() == "one\n"


def test_a_file_is_no_terminal_and_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    HeldStderr(file).hold()
    assert sys.stderr is file


def test_memory_is_bounded_and_what_is_left_out_is_counted(real: Tty) -> None:
    held = HeldStderr(real)
    held.hold()
    for number in range(1000):
        print(f"line {number}", file=sys.stderr)
    sys.stderr.write("x" * 1_000_000)
    assert len(held.latest()) == 200
    held.release()
    lines = real.getvalue().splitlines()
    assert lines[:2] == ["(801 earlier lines left out)", "line 801"]
    assert lines[-2] == "line 999"
    assert len(lines[-1]) < 5000


def test_a_logger_that_kept_it_still_reaches_the_terminal(real: Tty) -> None:
    held = HeldStderr(real)
    held.hold()
    kept = sys.stderr
    held.release()
    print("late", file=kept)
    assert real.getvalue() == "late\n"


def test_who_put_something_else_in_its_place_keeps_it(
    real: Tty, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldStderr(real)
    held.hold()
    other = io.StringIO()
    monkeypatch.setattr(sys, "stderr", other)
    held.release()
    assert sys.stderr is other


def test_child_processes_and_crash_handlers_find_the_real_one(real: Tty) -> None:
    held = HeldStderr(real)
    assert held.fileno() == 2
    assert not held.isatty()


def test_without_standard_error_there_is_nothing_to_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    held = HeldStderr(None)
    held.hold()
    assert sys.stderr is None
    held.release()
