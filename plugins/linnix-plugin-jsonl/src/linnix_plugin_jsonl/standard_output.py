"""Lines on standard output, for a pipe, a redirection or a terminal."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Sequence

from linnix_core import PluginUnavailable
from linnix_plugin_jsonl.output import because

__all__ = ["StandardOutput"]

_DESCRIPTOR = 1
_NOT_PLAIN = re.compile("[^\x20-\x7e]")


class StandardOutput:
    """Writes to descriptor 1 past Python's buffers, and waits while its reader is slow."""

    troubles: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.bytes_written = 0
        self.rotations = 0
        self._terminal = False
        self._cut = False

    def open(self) -> None:
        """Find out what standard output is. Raises `PluginUnavailable` if it is closed."""
        try:
            os.fstat(_DESCRIPTOR)
        except OSError:
            raise PluginUnavailable(
                "standard output is closed", hint="redirect it, or choose the path of a file"
            ) from None
        self._terminal = os.isatty(_DESCRIPTOR)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write the lines in their order, ending each.

        Raises `NotWritten`, and `PluginUnavailable` once nobody reads any more.
        """
        if not lines:
            return
        if self._terminal:
            lines = [_for_terminal(line) for line in lines]
        # What broke off when the disk behind a redirection was full gets its end first.
        before = b"\n" if self._cut else b""
        data = before + b"\n".join(lines) + b"\n"
        written = 0
        try:
            while written < len(data):
                written += _write(data, written)
        except BrokenPipeError as error:
            raise PluginUnavailable(
                "nobody reads standard output any more",
                hint="start again with a reader, or choose the path of a file",
            ) from error
        except OSError as error:
            whole = data.count(b"\n", len(before), written)
            raise because(error, "standard output", whole) from error
        finally:
            if written:
                self._cut = data[written - 1 : written] != b"\n"
            self.bytes_written += written

    def sync(self) -> None:
        """Nothing: what was written is the reader's."""

    def close(self) -> None:
        """Nothing: standard output belongs to the whole process."""


def _write(data: bytes, start: int) -> int:
    try:
        return os.write(_DESCRIPTOR, memoryview(data)[start:])
    except BlockingIOError:
        select.select([], [_DESCRIPTOR], [])
        return 0


def _for_terminal(line: bytes) -> bytes:
    """The same JSON in plain characters: what a process chose must not control a terminal."""
    return _NOT_PLAIN.sub(_escaped, line.decode()).encode()


def _escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
