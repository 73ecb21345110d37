"""What a machine is doing at this moment: its load, and who causes it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from linnix_plugin_client.agent import Agent

__all__ = ["Picture", "Row", "command_line", "look_here", "look_through", "top_rows"]

#: Processes in each half of the table.
TOP = 5

#: Below this, a process is not worth a line.
LEAST_CPU_PERCENT = 0.1
LEAST_RSS_BYTES = 2**20

#: Seconds over which this machine is measured without an agent.
MEASURE_S = 0.5


@attrs.frozen
class Row:
    """One process. CPU is of one core, memory of the machine's, both in percent."""

    pid: int
    comm: str
    command: str
    cpu_percent: float | None = None
    memory_percent: float | None = None
    rss_bytes: int | None = None


@attrs.frozen
class Picture:
    """The machine at ``ts_ns``. ``stalled`` is the share of the last 10 s, in percent, in
    which some task waited for a resource (PSI); ``top`` holds the processes of the table.
    """

    source: str
    ts_ns: int
    cpu_percent: float | None
    memory_percent: float | None
    load: tuple[float, ...]
    stalled: dict[str, float]
    by_cpu: tuple[Row, ...]
    by_memory: tuple[Row, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every process of the table, in its order."""
        return self.by_cpu + self.by_memory


def top_rows(rows: Iterable[Row]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The most by CPU, and of the others the most by memory."""
    rows = list(rows)
    by_cpu = _most(rows, lambda row: row.cpu_percent or 0, LEAST_CPU_PERCENT)
    shown = {row.pid for row in by_cpu}
    others = [row for row in rows if row.pid not in shown]
    return by_cpu, _most(others, lambda row: row.rss_bytes or 0, LEAST_RSS_BYTES)


def _most(rows: Sequence[Row], by: Callable[[Row], float], least: float) -> tuple[Row, ...]:
    largest = sorted(rows, key=by, reverse=True)[:TOP]
    return tuple(row for row in largest if by(row) > least)


def look_here() -> Picture:
    """Measure this machine for half a second, without an agent.

    Shows the path of each program and not its arguments, which may hold secrets.
    """
    import psutil

    processes = list(psutil.process_iter())
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            process.cpu_percent()
    cpu_percent = psutil.cpu_percent(MEASURE_S)
    memory = psutil.virtual_memory()
    rows = []
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError), process.oneshot():
            rows.append(_row_here(process, memory.total))
    by_cpu, by_memory = top_rows(rows)
    return Picture(
        source="this machine, without an agent",
        ts_ns=time.time_ns(),
        cpu_percent=cpu_percent,
        memory_percent=memory.percent,
        load=tuple(round(value, 2) for value in psutil.getloadavg()),
        stalled=_pressure(),
        by_cpu=by_cpu,
        by_memory=by_memory,
    )


def _row_here(process: Any, total_bytes: int) -> Row:
    import psutil

    comm = process.name()
    rss = process.memory_info().rss
    command = comm
    with contextlib.suppress(psutil.Error, OSError):
        command = process.exe() or comm
    return Row(process.pid, comm, command, process.cpu_percent(), 100 * rss / total_bytes, rss)


def _pressure() -> dict[str, float]:
    found = {}
    for resource in ("cpu", "memory", "io"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            some = Path("/proc/pressure", resource).read_text().split("avg10=", 1)[1]
            found[resource] = float(some.split(" ", 1)[0])
    return found


def look_through(agent: Agent) -> Picture:
    """What a running agent measured last. Command lines are redacted by the agent."""
    system = agent.get("/system")
    found = {
        process["pid"]: _row_of(process)
        for order in ("cpu_pct:desc", "mem_pct:desc")
        for process in agent.get("/processes", sort=order, limit=2 * TOP)
    }
    by_cpu, by_memory = top_rows(found.values())
    measured_s = system["timestamp"]
    return Picture(
        source=f"from {agent.url}",
        ts_ns=time.time_ns() if measured_s is None else int(measured_s * 1e9),
        cpu_percent=system["cpu_percent"],
        memory_percent=system["mem_percent"],
        load=tuple(value for value in system["load_avg"] if value is not None),
        stalled={
            resource: share
            for resource in ("cpu", "memory", "io")
            if (share := system[f"psi_{resource}_some_avg10"]) is not None
        },
        by_cpu=by_cpu,
        by_memory=by_memory,
    )


def _row_of(process: dict[str, Any]) -> Row:
    return Row(
        pid=process["pid"],
        comm=process["comm"],
        command=command_line(process),
        cpu_percent=process["cpu_pct"],
        memory_percent=process["mem_pct"],
        rss_bytes=process["rss_bytes"],
    )


def command_line(process: dict[str, Any]) -> str:
    """The arguments of a process as the agent shows them, else its path, else its name."""
    return " ".join(process["args"] or ()) or process["exe"] or f"[{process['comm']}]"
