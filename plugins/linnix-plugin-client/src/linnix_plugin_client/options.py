"""The options that every command has, and the agent that they name."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from linnix_core import LinnixError

if TYPE_CHECKING:
    from linnix_plugin_client.agent import Agent

__all__ = [
    "agent_options",
    "as_json",
    "make_agent",
    "no_color",
    "token",
    "understanding",
    "url_option",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
no_color = click.option("--no-color", is_flag=True, help="Print without colours.")
url_option = click.option(
    "--url",
    envvar="LINNIX_URL",
    metavar="URL",
    show_envvar=True,
    help="The agent: http://HOST:PORT or unix:///PATH.  [default: http://127.0.0.1:3000]",
)


def agent_options(command: _Command) -> _Command:
    """Give a command ``--url``, and its function an ``agent`` that is closed afterwards."""

    @functools.wraps(command)
    def run(*args: Any, url: str | None, **options: Any) -> Any:
        with contextlib.closing(make_agent(url)) as agent, understanding(agent):
            return command(*args, agent=agent, **options)

    return url_option(run)  # type: ignore[return-value]


@contextlib.contextmanager
def understanding(agent: Agent) -> Iterator[None]:
    """An answer of another shape than expected is no bug of whoever reads it."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise LinnixError(
            f"the agent at {agent.url} answered something that this version does not know",
            hint="is it a Linnix agent, and of this version? --debug shows what was missing",
        ) from error


def make_agent(address: str | None, *, timeout_s: float = 10.0) -> Agent:
    """The agent of ``--url``; without it the one of this machine."""
    # Takes 100 ms, which --help need not wait for.
    from linnix_plugin_client.agent import DEFAULT_URL, Agent

    try:
        return Agent(address or DEFAULT_URL, token(), timeout_s=timeout_s)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None


def token() -> str:
    """The token of the environment: on the command line everybody could read it."""
    said = os.environ.get("LINNIX_API_TOKEN", "").strip()
    if not (said.isascii() and said.isprintable()):
        raise LinnixError(
            "LINNIX_API_TOKEN holds characters that no token has",
            hint="set it to one line of ASCII",
        )
    return said
