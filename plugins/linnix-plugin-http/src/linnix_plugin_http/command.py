"""``linnix http``: tokens, and the document of the API."""

from __future__ import annotations

import json
import re

import click

from linnix_core import LinnixError, printable
from linnix_plugin_http.tokens import SCOPES, fingerprint, new_token

__all__ = ["command"]


class _Wrong(LinnixError):
    exit_code = 2


@click.group("http")
def command() -> None:
    """The HTTP API of a running agent: tokens, and its document."""


@command.group("token")
def token() -> None:
    """Who may do what."""


@token.command("new")
@click.option("--scope", type=click.Choice(SCOPES), default="read", show_default=True)
@click.option("--name", default="", help="Whose it is, for people.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def new(scope: str, name: str, as_json: bool) -> None:
    """Make a token: it is shown this once; the configuration holds only its hash."""
    if not re.fullmatch(r"[\w .@:/-]{0,100}", name):
        raise _Wrong(f"{printable(name, 40)!r} is no name: use letters, digits and . @ : / -")
    made = new_token()
    entry = {"sha256": fingerprint(made), "scope": scope, "name": name}
    if as_json:
        click.echo(json.dumps({"token": made, **entry}, indent=2))
        return
    click.echo(f"token (keep it, it is not shown again):\n\n    {made}\n")
    click.echo("for linnix.toml:\n")
    click.echo("    [[handlers.http.tokens]]")
    for key, value in entry.items():
        click.echo(f"    {key} = {json.dumps(value)}")
    click.echo("\nclients send it as `Authorization: Bearer …`; linnix takes LINNIX_API_TOKEN")


@command.command("openapi")
def openapi() -> None:
    """Print the OpenAPI document of the API."""
    from linnix_plugin_http.openapi import describe

    click.echo(json.dumps(describe(), indent=2, ensure_ascii=True))
