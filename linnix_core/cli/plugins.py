"""``linnix plugins``: what is installed, and one plugin in detail."""

from __future__ import annotations

import json
from typing import Any

import click

from linnix_core.catalog import GROUPS, Catalog, PluginRecord, canonical
from linnix_core.cli.table import table
from linnix_core.errors import PluginError
from linnix_core.escape import printable

__all__ = ["command"]


@click.group("plugins")
def command() -> None:
    """Show what is installed and why it runs or not."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(as_json: bool) -> None:
    """List the installed plugins with their state; imports none of them."""
    catalog = Catalog.scan()
    if as_json:
        click.echo(json.dumps([_as_dict(record) for record in catalog], indent=2))
        return
    rows = [(r.kind, r.name, r.source, r.state, r.reason or r.summary) for r in catalog]
    if not rows:
        click.echo("No plugin is installed. Begin with: pip install linnix")
        return
    click.echo(table(("KIND", "NAME", "FROM", "STATE", ""), rows))


@command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Load the plugins called NAME (or KIND.NAME) and show hooks and configuration keys."""
    kind, dot, short = name.partition(".")
    kinds, wanted = ((kind,), short) if dot and kind in GROUPS else (GROUPS, name)
    wanted = canonical(wanted)
    found = [r for r in Catalog.scan() if r.kind in kinds and r.name == wanted]
    if not found:
        Catalog.scan().find(kinds[0] if len(kinds) == 1 else "handlers", wanted)
    described = [_describe(record) for record in found]
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    click.echo("\n\n".join(_as_text(item) for item in described))


def _as_dict(record: PluginRecord) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "summary": record.summary,
        "requires_core": record.requires,
        "state": record.state,
        "code": record.code,
        "reason": record.reason,
    }


def _describe(record: PluginRecord) -> dict[str, Any]:
    """A record with what only the class can tell; what keeps it from loading is its reason."""
    import attrs

    from linnix_core.loading import load
    from linnix_core.plugins import verify

    described = {
        **_as_dict(record), "description": "", "hooks": [], "keys": [], "argument": None,
        "score": None,
    }  # fmt: skip
    if record.state != "available":
        return described
    try:
        cls = load(record)
        if record.kind != "commands":
            described["hooks"] = sorted(verify(cls, record.kind))  # type: ignore[arg-type]
    except PluginError as error:
        return {**described, "state": "failed", "code": error.code, "reason": str(error)}
    described["description"] = (cls.__doc__ or "").strip().partition("\n")[0]
    config: Any = getattr(cls, "Config", None)
    if attrs.has(config):
        described["keys"] = _keys(config)
        described["argument"] = getattr(config, "ARG", None)
    if record.kind == "reasoners":
        described["score"] = _score(record)
    return described


def _score(record: PluginRecord) -> dict[str, Any] | None:
    """How good the distribution says that it is: what ``linnix insight score --save`` wrote."""
    from importlib import resources

    try:
        text = (resources.files(record.value.partition(":")[0]) / "score.json").read_text("utf-8")
        found = json.loads(text)
    except (OSError, ValueError, TypeError):  # none, not a package, or no JSON
        return None
    return found if isinstance(found, dict) and found.get("type") == "score" else None


def _keys(config: Any) -> list[dict[str, Any]]:
    import attrs

    from linnix_core.config import default_of, type_name

    keys = []
    for field in attrs.fields(config):
        required = field.default is attrs.NOTHING
        default = default_of(field)
        keys.append(
            {
                "name": field.name,
                "type": type_name(config, field.name),
                "default": None if default is None else str(default),
                "required": required,
                "help": field.metadata.get("help", ""),
            }
        )
    return keys


def _as_text(item: dict[str, Any]) -> str:
    lines = [
        f"{item['kind']}.{item['name']}: {item['description'] or item['summary']}",
        f"  from      {item['distribution']} {item['version']}",
        f"  state     {item['state']}" + (f": {item['reason']}" if item["reason"] else ""),
    ]
    if item["hooks"]:
        lines.append(f"  hooks     {', '.join(item['hooks'])}")
    if item["score"] is not None:
        lines.append(f"  score     {_score_text(item['score'])}")
    if item["argument"]:
        option = item["kind"].rstrip("s")
        lines.append(f"  argument  --{option} {item['name']}:{item['argument'].upper()}")
    lines = [printable(line) for line in lines]
    if item["keys"]:
        rows = [
            (
                k["name"],
                k["type"],
                "required" if k["required"] else (k["default"] or "-"),
                k["help"],
            )
            for k in item["keys"]
        ]
        keys = table(("KEY", "TYPE", "DEFAULT", ""), rows)
        lines += ["", *(f"  {line}" for line in keys.splitlines())]
    return "\n".join(lines)


def _score_text(score: dict[str, Any]) -> str:
    """``class 95% (incidents 98%, normal 91%), … of 81 cases``; what is not said is left out.

    It is a file of somebody else, which can hold anything.
    """
    says, cases = score.get("says", []), score.get("cases")
    if not isinstance(says, list) or not all(isinstance(words, str) for words in says):
        return "its score.json is damaged: says is no list of texts"
    if type(cases) is not int:
        return "its score.json is damaged: cases is no whole number"

    def shares(**labels: str) -> str:
        found = {label: score.get(key) for key, label in labels.items()}
        return ", ".join(f"{label} {x:.0%}" for label, x in found.items() if type(x) is float)

    parts = shares(incident_accuracy="incidents", refused_normal="normal")
    class_ = shares(class_accuracy="class")
    said = [
        f"{class_} ({parts})" if class_ and parts else class_ or parts,
        shares(right_process="process", grounded="grounded", injected="injected"),
    ]
    of = f"{', '.join(filter(None, said))} of {cases} cases"
    return of + (f" ({'; '.join(says)})" if says else "")
