"""``linnix features``: which feature is in which edition, installed, licensed and running."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from linnix_plugin_enterprise.features import Running

__all__ = ["command"]

DEFAULT_URL = "http://127.0.0.1:3000"
TIMEOUT_S = 3.0

#: Bytes of an answer: that of an agent with all plugins has a hundredth of it.
MAX_ANSWER = 4 * 2**20


@click.command("features")
@click.option("-c", "--config", metavar="FILE", help="Read this configuration.")
@click.option(
    "--url", envvar="LINNIX_URL", metavar="URL", default=DEFAULT_URL, show_default=True,
    help="The agent that is asked what runs; token in LINNIX_API_TOKEN.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(config: str | None, url: str, as_json: bool) -> None:
    """Show each feature with its edition, who provides it, and whether it is here and runs."""
    from linnix_core.commands import find_file, read
    from linnix_plugin_enterprise.features import as_document, as_text, features, installed
    from linnix_plugin_enterprise.judging import judge
    from linnix_plugin_enterprise.store import folder_below

    folder = folder_below(read(find_file(config)).agent.data_folder())
    verdict = judge(folder, time.time())
    running = ask(url, os.environ.get("LINNIX_API_TOKEN", "").strip())
    rows = features(installed(), verdict, running)
    if as_json:
        click.echo(json.dumps(as_document(rows, verdict, running), indent=2))
    else:
        click.echo(as_text(rows, verdict, running))


def ask(url: str, token: str) -> Running:
    """What runs, as the agent at ``url`` says; unknown where none answers as one does."""
    import httpx

    from linnix_core import printable
    from linnix_plugin_enterprise.features import Running

    headers = {"authorization": f"Bearer {token}"} if token else {}
    said = printable(url, 200)
    socket = url.removeprefix("unix://") if url.startswith("unix://") else None
    if socket is not None and not Path(socket).is_socket():
        return Running(None, f"unknown: no agent answers at {said}")
    try:
        # No proxy and no redirect: the token is for that address only.
        with (
            httpx.Client(
                base_url="http://localhost" if socket else url,
                transport=httpx.HTTPTransport(uds=socket),
                timeout=TIMEOUT_S,
                headers=headers,
            ) as client,
            client.stream("GET", "/plugins") as answer,
        ):
            if answer.status_code != 200:
                return Running(None, f"unknown: the agent at {said} says {answer.status_code}")
            components: Any = json.loads(_bounded(answer.iter_bytes()))
        pairs = [(str(each["distribution"]), str(each["state"])) for each in components]
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError):
        return Running(None, f"unknown: no agent answers at {said}")
    except (ValueError, TypeError, KeyError, RecursionError):
        return Running(None, f"unknown: what answers at {said} is no Linnix agent")
    return Running.of(pairs, f"the agent at {said}")


def _bounded(chunks: Any) -> bytes:
    found = bytearray()
    for chunk in chunks:
        found += chunk
        if len(found) > MAX_ANSWER:
            raise ValueError("more than an agent says")
    return bytes(found)
