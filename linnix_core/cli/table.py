"""Plain tables for terminals and pipes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from linnix_core.escape import printable

__all__ = ["table"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns; on a terminal the last one is cut to the width of the window.

    >>> print(table(("NAME", "STATE"), [("jsonl", "available")]))
    NAME   STATE
    jsonl  available
    """
    cells = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = []
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(printable(line.rstrip(), room))
    return "\n".join(lines)
