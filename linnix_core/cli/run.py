"""``linnix run``: follow processes until interrupted."""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from types import FrameType

import click

from linnix_core.agent import Agent
from linnix_core.catalog import Catalog
from linnix_core.cli.config import look_through
from linnix_core.config import find_file, read
from linnix_core.errors import ConfigError, Problem
from linnix_core.plan import make_plan
from linnix_core.plugins import PluginHost
from linnix_core.settings import parse_duration

__all__ = ["command"]

_LOG = logging.getLogger("linnix.agent")


def _duration(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None


@click.command("run")
@click.option("-c", "--config", metavar="FILE", help="Read this configuration.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override one key.")
@click.option(
    "--collector", "collectors", metavar="NAME", multiple=True,
    help="Collect with this one instead of the best that can start.",
)  # fmt: skip
@click.option(
    "--handler", "handlers", metavar="NAME[:ARG]", multiple=True,
    help="Run this handler too, for example jsonl:events.jsonl.",
)  # fmt: skip
@click.option(
    "--reasoner", "reasoners", metavar="NAME[:ARG]", multiple=True,
    help="Ask this reasoner before the others.",
)  # fmt: skip
@click.option("--duration", metavar="T", callback=_duration, help="Stop after 30s, 5m, 2h …")
@click.option("--strict", is_flag=True, help="Any component that cannot run ends the run.")
@click.option(
    "--no-plugins", is_flag=True,
    help="Run nothing but what is named here: no defaults, no tables of the configuration.",
)  # fmt: skip
def command(
    config: str | None,
    overrides: tuple[str, ...],
    collectors: tuple[str, ...],
    handlers: tuple[str, ...],
    reasoners: tuple[str, ...],
    duration: float | None,
    strict: bool,
    no_plugins: bool,
) -> None:
    """Follow the processes of this machine until interrupted.

    Without a configuration: the best collector that can start, the default rules, the
    built-in explanations, and a live view on a terminal.
    """
    # Whatever a component writes is private, unless it says otherwise.
    os.umask(0o077)
    problems: list[Problem] = []
    overrides = (*overrides, *(["agent.strict=true"] * strict))
    settings = read(find_file(config), overrides=overrides, problems=problems)
    catalog = Catalog.scan()
    plan = make_plan(
        settings,
        catalog,
        collectors=collectors,
        handlers=handlers,
        reasoners=reasoners,
        no_plugins=no_plugins,
    )
    host = PluginHost(
        catalog,
        data_dir=settings.agent.data_folder(),
        start_timeout_s=settings.agent.start_timeout_s,
    )
    if problems:
        look_through(plan, host, problems)
        raise ConfigError(problems, source=settings.source)
    agent = Agent(plan, host, settings=settings.agent)
    _stop_on_signals(agent)
    _reload_on_hangup(agent)
    try:
        with agent:
            _collect_rarely()
            began = time.monotonic()
            reason = agent.run(duration)
            _LOG.info("stopping after %.1f s: %s", time.monotonic() - began, reason)
    except ConfigError as error:
        raise ConfigError(error.problems, source=settings.source) from None


def _collect_rarely() -> None:
    """Look for cycles now and then only.

    Records hold none: they go when the last one who knows them lets go. Looking for cycles
    as often as Python does by default would walk over the whole process table several times
    a second (a tenth of the cost of an event).
    """
    gc.collect()  # what imports left behind: each class with slots was another one before
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _stop_on_signals(agent: Agent) -> None:
    """The first SIGINT or SIGTERM stops in order, the second at once."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        # The kernel deals with the second: Python would not look at it before the main
        # thread has stopped waiting, maybe for a plugin that hangs.
        for other in numbers:
            signal.signal(other, signal.SIG_DFL)
        agent.request_stop(signal.Signals(number).name)

    for number in numbers:
        signal.signal(number, handle)


def _reload_on_hangup(agent: Agent) -> None:
    """SIGHUP has files read again, unless it says that the terminal is gone."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return  # nohup: whoever started this wants it to live on
    had_terminal = _has_terminal()

    def handle(number: int, frame: FrameType | None) -> None:
        if had_terminal and not _has_terminal():
            agent.request_stop("the terminal is gone")
        else:
            agent.request_reload()

    signal.signal(signal.SIGHUP, handle)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
