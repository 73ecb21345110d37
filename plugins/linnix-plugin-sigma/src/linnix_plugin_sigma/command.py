"""``linnix sigma``: which rules of a folder can be used, and why others cannot."""

from __future__ import annotations

import json

import click

from linnix_plugin_sigma.folder import read_files

__all__ = ["sigma"]


@click.group("sigma")
def sigma() -> None:
    """Check Sigma rules before they run."""


@sigma.command("check")
@click.argument("path", metavar="DIR", type=click.Path(exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(path: str, as_json: bool) -> None:
    """Parse the rules in DIR, or in one file, and list those that cannot be used."""
    from linnix_plugin_sigma.ruleset import RuleSet

    rules = RuleSet()
    for file in read_files(path):
        for _ in rules.read(file):
            pass
    if as_json:
        unsupported = [refused._asdict() for refused in rules.refused]
        click.echo(json.dumps({"loaded": rules.loaded, "unsupported": unsupported}, indent=2))
        return
    for name, reason in rules.refused:
        click.echo(f"{name}: {reason}")
    click.echo(f"{rules.loaded} rules can be used, {len(rules.refused)} cannot")
