"""What people see: tables, a pager where they are long, progress with rate and time left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from linnix_core import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = [
    "amount",
    "json_option",
    "print_json",
    "progress_bar",
    "show_pairs",
    "show_table",
    "stage_bar",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """On standard output."""
    import json

    click.echo(json.dumps(value, indent=2, default=str))


def amount(size: int | None) -> str:
    """Bytes as people read them.

    >>> amount(1_536_000_000), amount(512), amount(None)
    ('1.5 GB', '512 B', '-')
    """
    if size is None:
        return "-"
    for unit, bytes_of in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_of:
            return f"{size / bytes_of:.1f} {unit}"
    return f"{size} B"


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; with tabs into a pipe, through a pager when it is longer than the window."""
    if not sys.stdout.isatty():
        for row in (header, *rows):
            click.echo("\t".join(printable(str(cell)) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    made = Table(title=Text(title), title_justify="left", header_style="bold")
    for number, name in enumerate(header):
        made.add_column(name, no_wrap=number == 0, overflow="fold")
    for row in rows:
        # As text, so that nothing in a name is taken for markup.
        made.add_row(*(Text(printable(str(cell))) for cell in row))
    paged = len(rows) + 5 > console.size.height
    with console.pager(styles=True) if paged else contextlib.nullcontext():
        console.print(made)


def show_pairs(title: str, groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
    """Names and values in groups; those without a value are left out."""
    click.echo(printable(title))
    for name, pairs in groups:
        filled = [(key, value) for key, value in pairs if value not in ("", "-", "None")]
        if not filled:
            continue
        click.echo(f"\n{name}")
        width = max(len(key) for key, _ in filled)
        for key, value in filled:
            click.echo(f"  {key.ljust(width)}  {printable(value)}")


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error with rate and time left; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield _unseen
        return
    from rich.console import Console

    with _bar(Console(stderr=True)) as bar:
        task = bar.add_task(printable(what, 60), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def stage_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """The same for work in stages, each with a bar of its own."""
    if not sys.stderr.isatty():
        yield _unseen
        return
    from rich.console import Console

    with _bar(Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(printable(what, 60), total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield advance


def _unseen(*_: object) -> None:
    """Nobody looks."""


def _bar(console: Any) -> RichProgress:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
    )
