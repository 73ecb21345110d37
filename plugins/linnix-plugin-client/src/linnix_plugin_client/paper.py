"""Where commands write: a terminal with colours and a width, or a pipe with neither."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import click

from linnix_core import printable

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["SEVERITY", "Cell", "Paper", "columns", "fitted", "note", "text_of"]

#: Words, or words and their style.
Cell: TypeAlias = str | tuple[str, str]

#: The style of each severity.
SEVERITY = {
    "info": "dim",
    "low": "cyan",
    "medium": "yellow",
    "high": "red",
    "critical": "bold red",
}


class Paper:
    """Standard output, line by line; ``copy`` gets the same without colours.

    Every word passes through `printable` here, and nothing is read as markup: whatever a
    process is called, it is shown and not obeyed. On a terminal a line is cut to its width;
    in a pipe it is whole, without colours and without spaces at its end.
    """

    def __init__(self, *, no_color: bool = False, copy: TextIO | None = None) -> None:
        from rich.console import Console

        if hasattr(sys.stdout, "reconfigure"):
            # The reader's locale may lack letters that a process has in its name.
            sys.stdout.reconfigure(errors="backslashreplace")
        # The environment's NO_COLOR and TERM are rich's to read.
        self._console = Console(
            file=sys.stdout, markup=False, highlight=False, emoji=False, no_color=no_color or None
        )
        self._copy = copy
        #: Columns of the window; None where there is no window.
        self.width = self._console.width if self._console.is_terminal else None

    def line(self, *cells: Cell, whole: bool = False) -> None:
        """One line, cut to the window unless it is to be ``whole``, as a sentence is."""
        if self.width is None or self._copy is not None:
            plain = "".join(_words(cell) for cell in cells).rstrip() + "\n"
            if self._copy is not None:
                self._copy.write(plain)
            if self.width is None:
                sys.stdout.write(plain)
                return
        text = text_of(cells)
        text.rstrip()
        if not whole:
            text.truncate(self.width, overflow="ellipsis")
        self._console.print(text)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Columns under a header; those whose name ends in a colon stand to the right."""
        for row in columns(header, rows):
            self.line(*row)

    def words(self, text: str) -> None:
        """Part of a text that is still coming; its line breaks are kept."""
        plain = "\n".join(map(printable, text.split("\n")))
        for file in filter(None, (sys.stdout, self._copy)):
            file.write(plain)
        sys.stdout.flush()

    def json(self, document: Any) -> None:
        """An indented document: ASCII, so that no name in it controls a terminal."""
        text = json.dumps(document, indent=2) + "\n"
        for file in filter(None, (sys.stdout, self._copy)):
            file.write(text)

    def json_line(self, document: Any) -> None:
        """A document on one line, at once."""
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()

    def flush(self) -> None:
        """Let the reader see what was written so far."""
        sys.stdout.flush()


def _words(cell: Cell) -> str:
    return printable(cell if isinstance(cell, str) else cell[0])


def fitted(text: str, width: int) -> str:
    """A text of exactly so many columns of a terminal.

    >>> fitted("a long name", 6), fitted("short", 6)
    ('a lon…', 'short ')
    """
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return set_cell_size(text, width)


def text_of(cells: Iterable[Cell]) -> Text:
    """Cells one after the other, each harmless."""
    from rich.text import Text

    text = Text(no_wrap=False, end="")
    for cell in cells:
        words, style = (cell, "") if isinstance(cell, str) else cell
        text.append(printable(words), style or None)
    return text


def columns(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> list[list[Cell]]:
    """The lines of a table, each cell padded to the width of its column.

    >>> [line[0] for line in columns(["PID:", ""], [["7", "init"]])]
    [('PID', 'bold'), ('  7', '')]
    """
    from rich.cells import cell_len

    right = [name.endswith(":") for name in header]
    lines = [[(name.rstrip(":"), "bold") for name in header]]
    lines += [[(_words(c), "" if isinstance(c, str) else c[1]) for c in row] for row in rows]
    widths = [max(cell_len(words) for words, _ in column) for column in zip(*lines, strict=True)]
    if not right[-1]:
        # Nothing stands to the right of it: one long line need not make all of them long.
        widths[-1] = 0
    padded: list[list[Cell]] = []
    for line in lines:
        cells: list[Cell] = []
        for (words, style), width, to_the_right in zip(line, widths, right, strict=True):
            gap = " " * (width - cell_len(words))
            cells += ["  "] if cells else []
            cells.append((gap + words if to_the_right else words + gap, style))
        padded.append(cells)
    return padded


def note(text: str) -> None:
    """A remark beside the output: on standard error, so that a pipe holds data only."""
    click.echo(printable(text), err=True)
