"""``linnix doctor``: what can be seen here, and what would have to be done to see more."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from typing import Any

import click

from linnix_core.__about__ import __version__
from linnix_core.catalog import Catalog
from linnix_core.cli.table import table
from linnix_core.config import Settings, find_file, read
from linnix_core.context import ComponentStatus
from linnix_core.errors import ConfigError, LinnixError, PluginError, Problem
from linnix_core.escape import printable
from linnix_core.plan import LADDER, make_plan
from linnix_core.plugins import Component, PluginHost

__all__ = ["command"]


@click.command("doctor")
@click.option("-c", "--config", metavar="FILE", help="Read this configuration.")
@click.option("--url", metavar="URL", help="Ask the agent that runs there what is wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, config: str | None, url: str | None, as_json: bool) -> None:
    """Find out what Linnix can see here, and what is missing.

    Starts and stops each collector, loads everything else, and checks the configuration.
    Exit 1 if `linnix run` could not work, or if anything is wrong with a running agent.
    """
    if url is not None:
        _ask(ctx, url, as_json)
        return
    problems: list[Problem] = []
    settings = Settings()
    try:
        settings = read(find_file(config), problems=problems)
    except ConfigError as error:
        problems.extend(error.problems)
    catalog = Catalog.scan()
    host = PluginHost(catalog, data_dir=settings.agent.data_folder())
    plan = make_plan(settings, catalog)
    statuses = []
    for chosen in (*plan.ladder, *plan.components):
        component = host.add(chosen.kind, chosen.name, plugin=chosen.plugin)
        if component.state == "available":
            mistakes = len(problems)
            host.configure(component, chosen, problems)
            if component.kind == "collectors" and len(problems) == mistakes:
                _try_out(host, component)
        statuses.append(component.status())
    host.stop(time.monotonic() + 10)
    missing = _missing_rungs(catalog) if plan.ladder else []
    works = any(s.kind == "collectors" and s.state == "running" for s in statuses) and not problems
    if as_json:
        click.echo(json.dumps(_document(statuses, missing, problems, settings, works), indent=2))
    else:
        _print(statuses, missing, problems, settings)
    if not works:
        raise click.exceptions.Exit(1)


def _ask(ctx: click.Context, url: str, as_json: bool) -> None:
    """``linnix status --check``, which is another distribution's."""
    root = ctx.find_root()
    assert isinstance(root.command, click.Group)
    status = root.command.get_command(root, "status")
    if status is None:
        raise LinnixError(
            "asking a running agent takes the terminal client",
            hint="pip install linnix-plugin-client",
        )
    arguments = ["--check", "--url", url, *(["--json"] if as_json else [])]
    # Not standalone, it returns the code with which it would have ended.
    ctx.exit(status.main(arguments, prog_name="linnix status", standalone_mode=False) or 0)


def _try_out(host: PluginHost, component: Component) -> None:
    context = host.context(component)
    if host.create(component, context):
        host.register()
        if host.start(component, context):
            health = component.ask_health(1.0)
            component.limits = health.limits if health else ()


def _missing_rungs(catalog: Catalog) -> list[tuple[str, str, str | None]]:
    """The better collectors that are not installed, and how to get them."""
    missing = []
    for name in LADDER:
        try:
            catalog.find("collectors", name)
        except PluginError as error:
            missing.append((name, str(error), error.hint))
    return missing


def _document(
    statuses: list[ComponentStatus],
    missing: list[tuple[str, str, str | None]],
    problems: list[Problem],
    settings: Settings,
    works: bool,
) -> dict[str, Any]:
    return {
        "works": works,
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "uid": os.geteuid(),
        "configuration": settings.source,
        "problems": [problem._asdict() for problem in problems],
        "components": [
            {
                "component": status.component,
                "state": status.state,
                "code": status.code,
                "reason": status.reason,
                "hint": status.hint,
                "limits": list(status.limits),
            }
            for status in statuses
        ],
        "not_installed": [
            {"component": f"collectors.{name}", "reason": reason, "hint": hint}
            for name, reason, hint in missing
        ],
    }


def _print(
    statuses: list[ComponentStatus],
    missing: list[tuple[str, str, str | None]],
    problems: list[Problem],
    settings: Settings,
) -> None:
    click.echo(
        f"linnix {__version__}, Python {platform.python_version()} ({sys.executable}), "
        f"{platform.system()} {platform.release()}, "
        f"{'root' if os.geteuid() == 0 else f'uid {os.geteuid()}'}"
    )
    click.echo(f"configuration: {settings.source}")
    for problem in problems:
        click.echo(f"  {printable(str(problem))}")
    rows: list[tuple[str, str, str]] = []
    for status in statuses:
        state = "works" if status.state == "running" else status.state
        rows.append((status.component, state, _said(status)))
    rows += [(f"collectors.{name}", "missing", hint or reason) for name, reason, hint in missing]
    click.echo()
    click.echo(table(("COMPONENT", "STATE", ""), rows) if rows else "nothing is installed")
    limits = [(s.component, limit) for s in statuses for limit in s.limits]
    if limits:
        click.echo("\nWhat will not be seen:")
        for component, limit in limits:
            click.echo(f"  {component}: {printable(limit)}")


def _said(status: ComponentStatus) -> str:
    if status.reason:
        return f"{status.reason} ({status.hint})" if status.hint else status.reason
    return f"{status.distribution} {status.version}"
