"""``linnix reason``: measure, then have a language model say what it means."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from linnix_core import LinnixError
from linnix_plugin_client.options import as_json, make_agent, no_color, url_option

if TYPE_CHECKING:
    from linnix_plugin_client.endpoint import Endpoint, Reply
    from linnix_plugin_client.machine import Picture
    from linnix_plugin_client.report import Findings

__all__ = ["reason"]


@click.command()
@url_option
@click.option("--here", is_flag=True, help="Measure this machine; ask no agent.")
@click.option("--alerts", "with_alerts", is_flag=True, help="With the agent's latest alerts.")
@click.option("--insights", "with_insights", is_flag=True, help="With its latest insights.")
@click.option("--short", is_flag=True, help="One sentence.")
@click.option("--stream", "streaming", is_flag=True, help="Print words as the model says them.")
@click.option(
    "--endpoint", envvar="LLM_ENDPOINT", show_envvar=True, metavar="URL",
    help="An OpenAI-compatible server.  [default: http://localhost:8090/v1]",
)  # fmt: skip
@click.option(
    "--model", envvar="LLM_MODEL", show_envvar=True, metavar="NAME",
    help="Which of its models; without it, the first that it lists.",
)  # fmt: skip
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1, 3600), default=120.0, show_default=True,
    metavar="SECONDS", help="How long the model may take.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write it to this file too.",
)  # fmt: skip
@as_json
@no_color
def reason(
    url: str | None,
    here: bool,
    with_alerts: bool,
    with_insights: bool,
    short: bool,
    streaming: bool,
    endpoint: str | None,
    model: str | None,
    timeout_s: float,
    output: Path | None,
    as_json: bool,
    no_color: bool,
) -> None:
    """Show what the machine is doing, and have a language model explain it.

    What is measured comes from a running agent; without one, and unless --url names one, from
    this machine. OPENAI_API_KEY is sent only to an endpoint that you name. Exit 1 if no model
    answers: what was measured is shown all the same.
    """
    from linnix_plugin_client.paper import Paper
    from linnix_plugin_client.report import print_measured, print_reply, report_document

    if as_json and streaming:
        raise click.UsageError("--json prints when all is done: --stream does not go with it.")
    if here and (with_alerts or with_insights):
        raise click.UsageError("--alerts and --insights need an agent: not with --here.")
    with contextlib.ExitStack() as cleanup:
        server = cleanup.enter_context(contextlib.closing(_endpoint(endpoint, timeout_s)))
        # Before anything is asked: if the file cannot be written, nobody need wait to hear it.
        copy = cleanup.enter_context(_private(output)) if output else None
        picture, findings = _look(url, here, with_alerts, with_insights)
        paper = Paper(no_color=no_color, copy=copy)
        if not as_json:
            print_measured(paper, picture, findings)
        reply, error = None, None
        try:
            reply = _ask(server, picture, findings, model, short, paper if streaming else None)
        except LinnixError as said:
            error = said
            if streaming:
                paper.words("\n")
        if as_json:
            paper.json(report_document(picture, findings, reply, str(server.url), error))
        elif reply is not None:
            print_reply(paper, reply, said_already=streaming)
    if error is not None:
        raise error


def _endpoint(address: str | None, timeout_s: float) -> Endpoint:
    from linnix_plugin_client.endpoint import DEFAULT_ENDPOINT, Endpoint

    # Whatever listens on the default port was not chosen by anybody, and gets no key.
    key = os.environ.get("OPENAI_API_KEY", "").strip() if address else ""
    if not (key.isascii() and key.isprintable()):
        raise LinnixError(
            "OPENAI_API_KEY holds characters that no key has", hint="set it to one line of ASCII"
        )
    try:
        return Endpoint(address or DEFAULT_ENDPOINT, key, timeout_s=timeout_s)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--endpoint") from None


def _look(
    url: str | None, here: bool, with_alerts: bool, with_insights: bool
) -> tuple[Picture, Findings]:
    from linnix_plugin_client.agent import NoAnswer
    from linnix_plugin_client.machine import look_here, look_through
    from linnix_plugin_client.paper import note
    from linnix_plugin_client.report import Findings

    if here:
        return look_here(), Findings()
    with contextlib.closing(make_agent(url)) as agent:
        try:
            picture = look_through(agent)
        except NoAnswer as error:
            if url or with_alerts or with_insights:
                raise
            note(f"{error}; measuring this machine instead")
            return look_here(), Findings()
        return picture, Findings.of(agent, alerts=with_alerts, insights=with_insights)


def _ask(
    server: Endpoint,
    picture: Picture,
    findings: Findings,
    model: str | None,
    short: bool,
    paper: Any,
) -> Reply:
    from linnix_plugin_client.prompt import MAX_TOKENS, make_messages

    messages = make_messages(
        picture, short=short, alerts=findings.alerts or (), insights=findings.insights or ()
    )
    name = model or server.first_model()
    hear = None if paper is None else paper.words
    return server.ask(messages, model=name, max_tokens=MAX_TOKENS[short], hear=hear)


@contextlib.contextmanager
def _private(path: Path) -> Iterator[TextIO]:
    """A file for its owner alone, unless it was there already and is more open."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yield file
