"""What ``linnix top`` shows, and what its keys do: no terminal in here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from linnix_core import printable
from linnix_plugin_client.machine import command_line
from linnix_plugin_client.shown import clock_time, count, percent, size, span

if TYPE_CHECKING:
    from linnix_plugin_client.paper import Cell

__all__ = ["ORDERS", "Snapshot", "View", "in_order", "summary", "table"]

#: Columns of a window from which on there is room for every column of the table.
WIDE = 100

#: Characters of a command line that anybody can see.
MAX_COMMAND = 1000

#: Seconds between two pictures: the shortest and the longest.
INTERVAL_S = (0.5, 60.0)


@attrs.frozen
class Snapshot:
    """What an agent answered at one moment."""

    url: str
    ts_ns: int
    status: dict[str, Any]
    system: dict[str, Any]
    processes: list[dict[str, Any]]


@attrs.frozen
class Column:
    """A column of the table: ``of`` makes its text, ``by`` its place in an order."""

    title: str
    width: int
    of: Callable[[Mapping[str, Any]], str]
    only_wide: bool = False


def _known(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda process: "-" if process[name] is None else str(process[name])


def _io(process: Mapping[str, Any]) -> int:
    return (process["read_bytes"] or 0) + (process["write_bytes"] or 0)


_COLUMNS = (
    Column("PID", 7, _known("pid")),
    Column("PPID", 7, _known("ppid"), only_wide=True),
    Column("UID", 6, _known("uid"), only_wide=True),
    Column("S", 1, lambda p: p["activity"] or "-"),
    Column("CPU", 6, lambda p: percent(p["cpu_pct"])),
    Column("MEM", 6, lambda p: percent(p["mem_pct"])),
    Column("RSS", 5, lambda p: size(p["rss_bytes"])),
    Column("I/O", 5, lambda p: size(_io(p)), only_wide=True),
    Column("THR", 4, _known("threads"), only_wide=True),
    Column("AGE", 7, lambda p: span(p["age_sec"])),
)

#: The orders by name: their key, their column, what they sort by, largest first or not.
ORDERS: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], Any], bool]] = {
    "cpu": ("c", "CPU", lambda p: p["cpu_pct"] or 0, True),
    "mem": ("m", "RSS", lambda p: p["rss_bytes"] or 0, True),
    "io": ("i", "I/O", _io, True),
    "threads": ("t", "THR", lambda p: p["threads"] or 0, True),
    "age": ("a", "AGE", lambda p: p["start_ns"], False),
    "pid": ("p", "PID", lambda p: p["pid"], False),
    "name": ("n", "COMMAND", lambda p: p["comm"], False),
}

HELP = """\
  c m i t a p n  sort by CPU, memory, I/O, threads, age, pid, name
  r              turn the order round
  /              only commands with this text: Enter keeps it, Esc forgets it
  up, down       scroll; also page up, page down, home, end
  space          hold still, or go on
  + -            look more often, or less
  h              this help, and away again
  q              quit"""


def in_order(
    processes: Iterable[dict[str, Any]], order: str, *, turned: bool = False
) -> list[dict[str, Any]]:
    """Sorted; equal ones keep their places from one picture to the next."""
    _, _, by, largest_first = ORDERS[order]
    known = sorted(processes, key=lambda process: (process["pid"], process["start_ns"]))
    return sorted(known, key=by, reverse=largest_first != turned)


def table(processes: Sequence[dict[str, Any]], order: str, *, wide: bool) -> list[list[Cell]]:
    """A header and a line for each process, in the order that they have."""
    shown = [column for column in _COLUMNS if wide or not column.only_wide]
    sorted_by = ORDERS[order][1]
    header: list[Cell] = []
    for column in shown:
        style = "bold reverse" if column.title == sorted_by else "bold"
        header += [(column.title.rjust(column.width), style), " "]
    header += [" ", ("COMMAND", "bold reverse" if sorted_by == "COMMAND" else "bold")]
    return [header, *([*_cells(process, shown)] for process in processes)]


def _cells(process: Mapping[str, Any], shown: Sequence[Column]) -> Iterable[Cell]:
    style = "bold" if (process["cpu_pct"] or 0) >= 50 else ""
    yield " ".join(column.of(process).rjust(column.width) for column in shown), style
    yield "  "
    yield printable(command_line(dict(process)), MAX_COMMAND), style


def summary(snapshot: Snapshot) -> list[list[Cell]]:
    """The machine and the agent, in three lines."""
    status, system = snapshot.status, snapshot.system
    load = " ".join("-" if value is None else f"{value:.2f}" for value in system["load_avg"])
    stalled = ", ".join(
        f"{name} {percent(share)}"
        for name in ("cpu", "memory", "io")
        if (share := system[f"psi_{name}_some_avg10"]) is not None
    )
    lost = status["dropped_events_total"]
    open_now = status["incidents_open"]
    return [
        [
            ("linnix top", "bold"),
            (
                f" {clock_time(snapshot.ts_ns)} {status['host']} ({snapshot.url}), "
                f"up {span(status['uptime_s'])}"
            ),
        ],
        [
            f"CPU {percent(system['cpu_percent'])}, memory {percent(system['mem_percent'])}, "
            f"load {load}" + (f", stalled: {stalled}" if stalled else ""),
        ],
        [
            f"{count(status['processes'], 'process')}, {status['events_per_sec']:,} events/s, ",
            (f"{lost:,} lost", "yellow" if lost else ""),
            ", ",
            (f"{count(open_now, 'incident')} open", "red" if open_now else ""),
        ],
    ]


@attrs.define
class View:
    """What the keys have chosen. ``typing`` while a filter is being written."""

    order: str = "cpu"
    turned: bool = False
    interval_s: float = 2.0
    held: bool = False
    helping: bool = False
    typing: bool = False
    filter: str = ""
    first: int = 0
    #: Lines that the latest picture had room for.
    room: int = 10

    def press(self, key: str) -> bool:
        """Do what a key asks for; False when it is to end."""
        if key == "quit":
            return False
        if self.typing:
            self._type(key)
            return True
        if key == "q":
            return False
        if key in _ORDER_KEYS:
            self.order, self.turned, self.first = _ORDER_KEYS[key], False, 0
        elif key in ("r", "R"):
            self.turned = not self.turned
        elif key == " ":
            self.held = not self.held
        elif key in ("h", "?"):
            self.helping = not self.helping
        elif key == "/":
            self.typing = True
        elif key == "escape":
            self.filter, self.helping = "", False
        elif key in ("+", "-"):
            least, most = INTERVAL_S
            factor = 0.5 if key == "+" else 2
            self.interval_s = min(max(self.interval_s * factor, least), most)
        else:
            self._scroll(key)
        return True

    def _type(self, key: str) -> None:
        if key == "escape":
            self.typing, self.filter = False, ""
        elif key == "enter":
            self.typing = False
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1 and key.isprintable() and len(self.filter) < 100:
            self.filter += key
            self.first = 0

    def _scroll(self, key: str) -> None:
        steps = {"up": -1, "down": 1, "pageup": -self.room, "pagedown": self.room}
        if key in steps:
            self.first = max(self.first + steps[key], 0)
        elif key == "home":
            self.first = 0
        elif key == "end":
            self.first = 10**9

    def lines(self, snapshot: Snapshot, problem: str, width: int, height: int) -> list[list[Cell]]:
        """The picture: at most ``height`` lines."""
        head = summary(snapshot)
        if problem:
            head.append([(problem, "bold red")])
        if self.helping:
            return [*head, [], *_HELP][:height]
        wanted = self.filter.casefold()
        processes = in_order(
            (p for p in snapshot.processes if wanted in command_line(p).casefold())
            if wanted
            else snapshot.processes,
            self.order,
            turned=self.turned,
        )
        self.room = max(height - len(head) - 2, 1)
        self.first = min(self.first, max(len(processes) - self.room, 0))
        seen = processes[self.first : self.first + self.room]
        head.append([self._state(len(processes))])
        head += table(seen, self.order, wide=width >= WIDE)
        return head[:height]

    def _state(self, number: int) -> Cell:
        if self.typing:
            return f"only with: {self.filter}▏", "bold"
        parts = [f"every {self.interval_s:g} s", "h for help"]
        if self.held:
            parts.insert(0, "HELD")
        if self.filter:
            parts.insert(0, f"{number:,} with {self.filter!r}")
        return ", ".join(parts), "dim"


_HELP: list[list[Cell]] = [[line] for line in HELP.splitlines()]
_ORDER_KEYS = {key: name for name, (key, *_) in ORDERS.items()}
