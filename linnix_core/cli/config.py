"""``linnix config``: write, check and show the configuration."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from linnix_core.catalog import Catalog
from linnix_core.config import (
    DEFAULT_OVERFLOW,
    AgentSettings,
    ComponentSettings,
    Reserved,
    Settings,
    default_of,
    find_file,
    read,
    unstructure,
)
from linnix_core.errors import ConfigError, LinnixError, Problem
from linnix_core.escape import printable
from linnix_core.hookspecs import KINDS
from linnix_core.plan import Plan, make_plan
from linnix_core.plugins import Component, PluginHost

__all__ = ["command", "look_through"]

_file = click.option("-c", "--config", metavar="FILE", help="Read this file.")
_set = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a key."
)


_RESERVED_OF_ALL = ["enabled", "required"]
_RESERVED_OF = {
    "collectors": [*_RESERVED_OF_ALL, "interval", "queue", "overflow"],
    "handlers": [*_RESERVED_OF_ALL, "queue", "overflow"],
}


@click.group("config")
def command() -> None:
    """Write, check or show the configuration."""


@command.command("check")
@_file
@_set
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(config: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Report every mistake at once; exit 2 if there is any."""
    source = "configuration"
    problems: list[Problem] = []
    components: list[Component] = []
    try:
        path = find_file(config)
        source = str(path) if path else "defaults"
        settings = read(path, overrides=overrides, problems=problems)
        _, components = _load(settings, problems)
    except ConfigError as error:
        problems.extend(error.problems)
    if as_json:
        listed = [problem._asdict() for problem in problems]
        click.echo(json.dumps({"source": source, "problems": listed}, indent=2))
        if problems:
            raise click.exceptions.Exit(2)
    elif problems:
        raise ConfigError(problems, source=source)
    else:
        click.echo(f"{printable(source)}: no mistakes in {len(components)} components")


@command.command("show")
@_file
@_set
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(config: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the configuration in effect, defaults included; secrets stay hidden."""
    path = find_file(config)
    problems: list[Problem] = []
    settings = read(path, overrides=overrides, problems=problems)
    plan, components = _load(settings, problems)
    if problems:
        raise ConfigError(problems, source=settings.source)
    document: dict[str, Any] = {"agent": unstructure(settings.agent)}
    document["agent"].setdefault("data_dir", str(settings.agent.data_folder()))
    for component, chosen in zip(components, (*plan.components, *plan.ladder), strict=True):
        table = _reserved(chosen)
        if component.config is not None:
            table |= unstructure(component.config)
        document.setdefault(component.kind, {})[component.name] = table
    if as_json:
        click.echo(json.dumps({"source": settings.source, **document}, indent=2))
        return
    import tomli_w

    click.echo(f"# from {printable(settings.source)}")
    click.echo(_printable_toml(tomli_w.dumps(document)), nl=False)


@command.command("init")
@click.option("-o", "--output", metavar="FILE", default="linnix.toml", show_default=True)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def init(output: str, force: bool) -> None:
    """Write a configuration with every key of the installed plugins, commented out."""
    text = _template(Catalog.scan())
    path = Path(output)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)  # of one that is replaced as well
            file.write(text)
    except FileExistsError:
        hint = None if path.is_symlink() else "--force replaces it"
        raise LinnixError(f"{path} exists", hint=hint) from None
    except OSError as error:
        raise LinnixError(f"{path} cannot be written: {error.strerror}") from None
    click.echo(f"{path} written; check it with: linnix config check")


def _load(settings: Settings, problems: list[Problem]) -> tuple[Plan, list[Component]]:
    catalog = Catalog.scan()
    plan = make_plan(settings, catalog)
    host = PluginHost(
        catalog,
        data_dir=settings.agent.data_folder(),
        start_timeout_s=settings.agent.start_timeout_s,
    )
    look_through(plan, host, problems)
    return plan, host.components


def look_through(plan: Plan, host: PluginHost, problems: list[Problem]) -> None:
    """Load every class of the plan and check its table."""
    for chosen in (*plan.components, *plan.ladder):
        component = host.add(chosen.kind, chosen.name, plugin=chosen.plugin)
        if component.state == "available":
            host.configure(component, chosen, problems)
        if component.state != "available" and chosen.origin == "configuration":
            status = component.status()
            problems.append(Problem(chosen.path, status.reason, status.hint))


def _reserved(chosen: ComponentSettings) -> dict[str, Any]:
    """The reserved keys that apply to the kind, as they take effect."""
    names = ["plugin", *_RESERVED_OF.get(chosen.kind, _RESERVED_OF_ALL)]
    table = {key: value for key, value in unstructure(chosen.reserved).items() if key in names}
    table["required"] = chosen.required
    if "overflow" in names:
        table.setdefault("overflow", DEFAULT_OVERFLOW[chosen.kind])
    return table


def _template(catalog: Catalog) -> str:
    agent = AgentSettings()
    lines = [
        "# Configuration of Linnix (TOML). Every key shows its default; take away the # to",
        "# change it. What runs without any of this: the best collector that can start,",
        "# rules, console and heuristics, as far as they are installed.",
        "",
        "[agent]",
        *_commented(AgentSettings, {"data_dir": agent.data_folder()}),
    ]
    host = PluginHost(catalog, data_dir=agent.data_folder())
    for kind in KINDS:
        summaries = {record.name: record.summary for record in catalog.of_kind(kind)}
        for name, summary in summaries.items():
            component = host.add(kind, name)
            status = component.status()
            about = summary if component.state == "available" else status.reason
            lines += ["", f"# {printable(name)}: {printable(about)}"]
            if component.state == "available":
                lines.append(f"# [{component}]")
                defaults = {"overflow": DEFAULT_OVERFLOW.get(kind)}
                lines += _commented(Reserved, defaults, _RESERVED_OF.get(kind, _RESERVED_OF_ALL))
                lines += _commented(getattr(component.cls, "Config", None))
    return "\n".join(lines) + "\n"


def _commented(
    config: Any, defaults: Mapping[str, Any] | None = None, names: Sequence[str] | None = None
) -> Iterator[str]:
    """Each key with its default and its help, as comments."""
    for field in attrs.fields(config) if attrs.has(config) else ():
        if field.init and (names is None or field.name in names):
            default = (defaults or {}).get(field.name, default_of(field))
            line = f"# {field.name} = {_toml(default)}"
            words = printable(" ".join(str(field.metadata.get("help", "")).split()))
            yield f"{line}    # {words}" if words else line


def _printable_toml(text: str) -> str:
    """The same document: what could steer a terminal stands in texts, as an escape."""
    return "".join(
        c
        if c.isprintable() or c == "\n"
        else f"\\u{ord(c):04x}"
        if ord(c) < 2**16
        else f"\\U{ord(c):08x}"
        for c in text
    )


def _toml(value: Any) -> str:
    """A value on one line, or nothing where there is none or it needs a table of its own."""
    import tomli_w

    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple | set | frozenset):
        value = list(value)
    if not isinstance(value, str | int | float | list):
        return ""
    written = _printable_toml(tomli_w.dumps({"key": value}))
    # Line breaks stand between the items of a list; those in a text are escaped.
    return re.sub(r"\n\s*", " ", written.removeprefix("key =")).strip()
