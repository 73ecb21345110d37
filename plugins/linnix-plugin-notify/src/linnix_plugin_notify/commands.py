"""``linnix notify``: who is told of what, and whether a message arrives."""

from __future__ import annotations

import json
import logging
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import click

from linnix_core import ConfigError, LinnixError, printable
from linnix_core.commands import Catalog, PluginHost, Problem, Settings, find_file, read
from linnix_plugin_notify.handler import NotifyHandler
from linnix_plugin_notify.message import test_message
from linnix_plugin_notify.routing import Route

__all__ = ["notify"]

_CONFIG = click.option("-c", "--config", "file", metavar="FILE", help="The configuration to read.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@attrs.frozen
class _Configured:
    """A component that tells people, as it is configured."""

    name: str
    plugin: str
    cls: type[NotifyHandler]
    config: Any

    def target(self, route: Route) -> str:
        """Where the messages of a route go."""
        return route.to or self.cls.default_target(self.config)


@click.group()
def notify() -> None:
    """Show who is told of incidents, and send a test message."""


@notify.command("list")
@_CONFIG
@_JSON
def list_sinks(file: str | None, as_json: bool) -> None:
    """List the services that are told, and their routes in the order in which they are tried."""
    rows = [
        {
            "component": found.name,
            "plugin": found.plugin,
            "route": route.name,
            "to": found.target(route) if route.tell else None,
            "matches": _matches(route),
            "per_hour": route.per_hour,
        }
        for found in _configured(file)
        for route in found.config.all_routes()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("Nobody is told: the configuration has no handler that notifies.")
        return
    header = ("COMPONENT", "ROUTE", "TO", "PER HOUR", "INCIDENTS")
    table = [header] + [
        (
            str(row["component"]), str(row["route"]),
            "(nobody)" if row["to"] is None else str(row["to"]) or "(default)",
            str(row["per_hour"]), str(row["matches"]),
        )
        for row in rows
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(printable("  ".join(cells).rstrip()))


@notify.command("test")
@click.argument("component", required=False)
@_CONFIG
@_JSON
def send_test(component: str | None, file: str | None, as_json: bool) -> None:
    """Send one message that is marked as a test to every place, or to those of COMPONENT.

    Exit code 1 if one does not arrive.
    """
    found = [each for each in _configured(file) if component in (None, each.name)]
    if not found:
        said = f"no handler called {component!r} notifies" if component else "nobody is told"
        raise LinnixError(said, hint="linnix notify list shows who is")
    results = [result for each in found for result in _send(each)]
    if as_json:
        click.echo(json.dumps(results, indent=2))
    else:
        for result in results:
            said = "sent" if result["error"] is None else f"FAILED: {result['error']}"
            where = f"{result['component']} {result['to']}".rstrip()
            click.echo(printable(f"{where}: {said}"))
    if any(result["error"] is not None for result in results):
        raise SystemExit(1)


def _send(found: _Configured) -> Iterator[dict[str, str | None]]:
    targets = dict.fromkeys(
        found.target(route) for route in found.config.all_routes() if route.tell
    )
    logger = logging.getLogger(f"linnix.handlers.{found.name}")
    try:
        sink = found.cls.open_sink(found.config, logger)
    except LinnixError as raised:  # the others can be tried all the same
        yield {"component": found.name, "to": "", "error": _said(raised)}
        return
    try:
        for to in targets:
            message = test_message(
                socket.gethostname(),
                key=f"linnix-test-{secrets.token_hex(8)}",
                now_ns=time.time_ns(),
            )
            error = None
            try:
                sink.deliver(message, to, {}, again=False)
            except LinnixError as raised:
                error = _said(raised)
            yield {"component": found.name, "to": to, "error": error}
    finally:
        sink.close()


def _said(error: LinnixError) -> str:
    return str(error) if error.hint is None else f"{error} ({error.hint})"


def _configured(file: str | None) -> list[_Configured]:
    settings: Settings = read(find_file(file))
    host = PluginHost(Catalog.scan(), data_dir=settings.agent.data_folder())
    problems: list[Problem] = []
    found = []
    try:
        for each in settings.components:
            if each.kind != "handlers" or not each.reserved.enabled:
                continue
            component = host.add(each.kind, each.name, plugin=each.plugin)
            cls = component.cls
            if not (isinstance(cls, type) and issubclass(cls, NotifyHandler)):
                continue
            host.configure(component, each, problems)
            if component.config is not None:
                found.append(_Configured(each.name, each.plugin, cls, component.config))
    finally:
        host.stop(time.monotonic() + 5)
    if problems:
        raise ConfigError(problems, source=settings.source)
    return found


def _matches(route: Route) -> str:
    parts: list[str] = []
    if route.min_severity != "info":
        parts.append(f"{route.min_severity} or worse")
    parts += _any_of("class", route.classes)
    parts += _any_of("cgroup", route.cgroups)
    parts += [f"{name} {pattern}" for name, pattern in sorted(route.labels.items())]
    return ", ".join(parts) or "all"


def _any_of(name: str, choices: Sequence[str]) -> list[str]:
    return [f"{name} {' or '.join(choices)}"] if choices else []
