"""``linnix top``: the processes of a running agent, live and sortable."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import click

from linnix_core import LinnixError
from linnix_plugin_client.options import agent_options, as_json, no_color, understanding

if TYPE_CHECKING:
    from linnix_plugin_client.agent import Agent
    from linnix_plugin_client.terminal import Terminal
    from linnix_plugin_client.view import Snapshot, View

__all__ = ["top"]

#: The most processes that are asked for.
MAX_PROCESSES = 10_000


@click.command()
@click.option(
    "--sort", "order", default="cpu", show_default=True,
    type=click.Choice(["cpu", "mem", "io", "threads", "age", "pid", "name"]), help="By what.",
)  # fmt: skip
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option(
    "--interval", type=click.FloatRange(0.5, 60), default=2.0, show_default=True,
    metavar="SECONDS", help="Between two looks.",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Print so many, once, and end.",
)  # fmt: skip
@as_json
@no_color
@agent_options
def top(
    agent: Agent,
    order: str,
    reverse: bool,
    interval: float,
    limit: int | None,
    as_json: bool,
    no_color: bool,
) -> None:
    """Show who uses the machine, live: h for help, q to quit.

    Without a terminal, and with --json or --limit, the table is printed once.
    """
    from linnix_plugin_client.terminal import is_interactive
    from linnix_plugin_client.view import View, in_order, summary, table

    if not as_json and limit is None and is_interactive():
        _live(agent, View(order=order, turned=reverse, interval_s=interval), no_color)
        return
    from linnix_plugin_client.paper import Paper

    snapshot = _look(agent)
    processes = in_order(snapshot.processes, order, turned=reverse)[:limit]
    paper = Paper(no_color=no_color)
    if as_json:
        paper.json({"status": snapshot.status, "system": snapshot.system, "processes": processes})
        return
    for line in [*summary(snapshot), [], *table(processes, order, wide=_is_wide(paper.width))]:
        paper.line(*line)


def _is_wide(width: int | None) -> bool:
    from linnix_plugin_client.view import WIDE

    return width is None or width >= WIDE


def _look(agent: Agent) -> Snapshot:
    from linnix_plugin_client.view import Snapshot

    return Snapshot(
        url=agent.url,
        ts_ns=time.time_ns(),
        status=agent.get("/status"),
        system=agent.get("/system"),
        processes=agent.get("/processes", limit=MAX_PROCESSES),
    )


def _live(agent: Agent, view: View, no_color: bool) -> None:
    from linnix_plugin_client.paper import text_of
    from linnix_plugin_client.terminal import Terminal

    # Before the window is taken: an agent that does not answer is said on a plain line.
    shown = _look(agent)
    with Terminal(no_color=no_color) as terminal:
        looking = _Looking(agent, view, terminal)
        looking.start()
        try:
            going = True
            while going:
                if looking.latest is not None and not view.held:
                    shown = looking.latest
                lines = view.lines(shown, looking.problem, *terminal.size)
                terminal.draw([text_of(line) for line in lines])
                going = all(view.press(key) for key in terminal.pressed())
        finally:
            looking.end()


class _Looking(threading.Thread):
    """Asks the agent again and again, so that keys never wait for it."""

    def __init__(self, agent: Agent, view: View, terminal: Terminal) -> None:
        super().__init__(name="linnix-top", daemon=True)
        self._agent, self._view, self._terminal = agent, view, terminal
        self._ended = threading.Event()
        self.latest: Snapshot | None = None
        self.problem = ""

    def run(self) -> None:
        """Look, tell, wait."""
        while not self._ended.wait(self._view.interval_s):
            try:
                with understanding(self._agent):
                    self.latest, self.problem = _look(self._agent), ""
            except (LinnixError, RuntimeError) as error:
                self.problem = str(error)
            self._terminal.wake()

    def end(self) -> None:
        """Look no more; an answer that is on its way is not waited for long."""
        self._ended.set()
        self.join(0.5)
