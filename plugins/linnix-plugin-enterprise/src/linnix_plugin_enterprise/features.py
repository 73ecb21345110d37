"""The table of features: edition, who provides each, and whether it is here and runs.

What makes a distribution enterprise is that it requires this one, which its metadata say:
nothing is imported.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import attrs

from linnix_core import printable
from linnix_plugin_enterprise.judging import Verdict

__all__ = [
    "HEADER",
    "Feature",
    "Installed",
    "Running",
    "as_cells",
    "as_document",
    "as_text",
    "features",
    "installed",
]

ENTERPRISE = "linnix-plugin-enterprise"
_TABLE = Path(__file__).with_name("features.toml")


class Installed(NamedTuple):
    """A distribution of Linnix as its metadata describe it."""

    name: str
    version: str
    summary: str
    enterprise: bool
    #: Whether it offers what can run: a collector, handler, reasoner or deployer.
    runs: bool


class Running(NamedTuple):
    """What is known of a run: the distributions whose components run, None if nothing is."""

    distributions: frozenset[str] | None
    source: str

    @classmethod
    def of(cls, components: Iterable[tuple[str, str]], source: str) -> Running:
        """From pairs of distribution and state."""
        up = {_normal(name) for name, state in components if state in ("running", "degraded")}
        return cls(frozenset({*up, "linnix-core"}), source)


@attrs.frozen
class Feature:
    """One row; None is what does not apply, or in ``running`` is not known."""

    feature: str
    edition: Literal["open", "enterprise"]
    distribution: str | None
    version: str | None
    capability: str | None
    installed: bool
    licensed: bool | None
    running: bool | None


def installed(path: Sequence[str] | None = None) -> dict[str, Installed]:
    """The distributions of Linnix on ``path`` (default: ``sys.path``) by their names."""
    found = metadata.distributions() if path is None else metadata.distributions(path=list(path))
    result: dict[str, Installed] = {}
    for distribution in found:
        try:
            described = distribution.metadata
            name = _normal(described["Name"] or "")
            requires = described.get_all("Requires-Dist") or ()
            needs = {_required(line) for line in requires}
            ours = name == "linnix-core" or "linnix-core" in needs or ENTERPRISE in needs
            if not ours or name in result:
                continue
            offered = {point.group for point in distribution.entry_points}
        except Exception:  # noqa: BLE001, S112 - metadata that somebody else broke
            continue
        result[name] = Installed(
            name=name,
            version=described["Version"] or "unknown",
            summary=described["Summary"] or name,
            enterprise=name == ENTERPRISE or ENTERPRISE in needs,
            runs=any(
                group.startswith("linnix.") and group != "linnix.commands" for group in offered
            ),
        )
    return result


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(line: str) -> str:
    """The distribution that a ``Requires-Dist`` names; one of an extra makes nobody enterprise."""
    requirement, _, marker = line.partition(";")
    name = re.match(r"[\w.\-]+", requirement.strip())
    return _normal(name[0]) if name and "extra" not in marker else ""


def features(found: dict[str, Installed], verdict: Verdict, running: Running) -> list[Feature]:
    """The rows, in the order of the table; other enterprise distributions come last."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    rows = [(row, edition) for edition in ("open", "enterprise") for row in table[edition]]
    named = {row.get("distribution", "") for row, _ in rows}
    rows += [
        ({
            "feature": each.summary,
            "distribution": name,
            "capability": name.removeprefix("linnix-plugin-"),
        }, "enterprise")
        for name, each in sorted(found.items())
        if each.enterprise and name not in named and name != ENTERPRISE
    ]  # fmt: skip
    return [_feature(row, edition, found, verdict, running) for row, edition in rows]


def _feature(
    row: dict[str, str],
    edition: str,
    found: dict[str, Installed],
    verdict: Verdict,
    running: Running,
) -> Feature:
    here = found.get(row.get("distribution", ""))
    # What the metadata say holds, whatever the table does.
    enterprise = here.enterprise if here is not None else edition == "enterprise"
    capability = row.get("capability") if enterprise else None
    # A distribution of commands only never runs.
    up: bool | None = False
    if here is not None and (here.runs or here.name == "linnix-core"):
        up = None if running.distributions is None else here.name in running.distributions
    return Feature(
        feature=row["feature"],
        edition="enterprise" if enterprise else "open",
        distribution=row.get("distribution") or None,
        version=here.version if here is not None else None,
        capability=capability,
        installed=here is not None,
        licensed=verdict.allows(capability) if capability else None,
        running=up,
    )


def as_document(rows: Sequence[Feature], verdict: Verdict, running: Running) -> dict[str, Any]:
    """What ``--json`` prints and the API answers."""
    return {
        "license": verdict.as_json(),
        "running_from": {"known": running.distributions is not None, "source": running.source},
        "features": [attrs.asdict(row) for row in rows],
    }


HEADER = ("FEATURE", "EDITION", "DISTRIBUTION", "INSTALLED", "LICENSED", "RUNNING")


def as_cells(row: Feature) -> tuple[str, ...]:
    """A row as people read it: ``-`` does not apply, ``unknown`` might."""
    return (
        printable(row.feature, 60),
        row.edition,
        row.distribution or "-",
        printable(row.version or "", 20) if row.installed else "no",
        "-" if row.licensed is None else _word(row.licensed),
        "unknown" if row.running is None else _word(row.running),
    )


def _word(value: bool) -> str:
    return "yes" if value else "no"


def as_text(rows: Sequence[Feature], verdict: Verdict, running: Running) -> str:
    """The table, the state of the license, and where it is known from what runs."""
    cells = [HEADER, *map(as_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    said = f"{verdict.state}: {verdict.reason}" if verdict.reason else verdict.state
    return "\n".join([*lines, "", f"license: {said}", f"running: {printable(running.source)}"])
