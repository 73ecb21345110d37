"""What a run consists of: what is configured, what was typed, and what runs by default."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import attrs

from linnix_core.catalog import Catalog, canonical
from linnix_core.config import ComponentSettings, Settings
from linnix_core.errors import LinnixError
from linnix_core.hookspecs import Kind

__all__ = ["ALONGSIDE", "LADDER", "Plan", "make_plan"]

#: Collectors of process events, the best first: the first that can start runs.
LADDER = ("ebpf", "bcc", "psutil")

#: Collectors of other records, which run beside whichever of these it is.
ALONGSIDE = ("psi",)

#: Handlers that run wherever they are installed.
HANDLERS = ("rules", "console", "prometheus", "http")

#: The reasoner that is asked last and always answers.
LAST_REASONER = "heuristics"


@attrs.frozen(kw_only=True)
class Plan:
    """What is to run, in order. Of ``ladder``, the first collector that can start runs."""

    components: tuple[ComponentSettings, ...] = ()
    ladder: tuple[ComponentSettings, ...] = ()


@attrs.frozen
class _Typed:
    """``NAME[:ARG]`` from the command line."""

    name: str
    argument: str | None

    @classmethod
    def parse(cls, text: str) -> _Typed:
        name, colon, argument = text.partition(":")
        return cls(canonical(name), argument if colon else None)


def make_plan(
    settings: Settings,
    catalog: Catalog,
    *,
    collectors: Sequence[str] = (),
    handlers: Sequence[str] = (),
    reasoners: Sequence[str] = (),
    no_plugins: bool = False,
) -> Plan:
    """Merge configuration, command line and defaults.

    Tables and ``--handler``/``--reasoner`` add to the defaults; a table with
    ``enabled = false`` takes one away. ``--collector``, or a table of a collector of
    process events, replaces the ladder. With ``no_plugins`` only what was typed runs.
    """
    if no_plugins and not collectors:
        raise LinnixError(
            "with --no-plugins only what is named here runs, and no collector is",
            hint="add for example --collector psutil",
        )
    configured = {c.path: c for c in settings.components}
    typed = {
        "collectors": _typed("collectors", collectors, configured),
        "handlers": _typed("handlers", handlers, configured),
        "reasoners": _typed("reasoners", reasoners, configured),
    }
    if no_plugins:
        return Plan(components=tuple(c for chosen in typed.values() for c in chosen))

    def default(kind: Kind, names: Iterable[str]) -> list[ComponentSettings]:
        installed = {record.name for record in catalog.of_kind(kind)}
        return [
            ComponentSettings(kind=kind, name=name, origin="default")
            for name in names
            if name in installed and f"{kind}.{name}" not in configured
        ]

    def table(kind: Kind) -> list[ComponentSettings]:
        return [c for c in settings.components if c.kind == kind and c.reserved.enabled]

    chosen = [c for c in table("collectors") if _offered(c) not in ALONGSIDE]
    beside = [c for c in table("collectors") if _offered(c) in ALONGSIDE]
    ladder: list[ComponentSettings] = []
    if typed["collectors"]:
        chosen = typed["collectors"]
    elif not chosen:
        ladder = default("collectors", LADDER)
    # What is measured here and now would not fit to records of another time or machine.
    live = bool(ladder) or any(_offered(c) in LADDER for c in chosen)
    components = [
        *_unique(chosen, beside, default("collectors", ALONGSIDE if live else ())),
        *_unique(typed["handlers"], table("handlers"), default("handlers", HANDLERS)),
        *_last(
            LAST_REASONER,
            _unique(typed["reasoners"], table("reasoners"), default("reasoners", (LAST_REASONER,))),
        ),
        *table("deployers"),
    ]
    return Plan(components=tuple(components), ladder=tuple(ladder))


def _typed(
    kind: Kind, texts: Sequence[str], configured: dict[str, ComponentSettings]
) -> list[ComponentSettings]:
    """What was named on the command line, with the table of that name if there is one."""
    made: list[ComponentSettings] = []
    for typed in map(_Typed.parse, texts):
        base = configured.get(f"{kind}.{typed.name}") or ComponentSettings(
            kind=kind, name=typed.name
        )
        name = base.name
        taken = {c.name for c in made}
        if name in taken:
            taken |= {c.name for c in configured.values() if c.kind == kind}
            numbered = (f"{base.name}-{number}" for number in itertools.count(2))
            name = next(free for free in numbered if free not in taken)
        made.append(
            attrs.evolve(
                base,
                name=name,
                origin="command line",
                argument=typed.argument,
                reserved=attrs.evolve(base.reserved, plugin=base.plugin, enabled=True)
                if name != base.name
                else attrs.evolve(base.reserved, enabled=True),
            )
        )
    return made


def _unique(*groups: Iterable[ComponentSettings]) -> list[ComponentSettings]:
    """The first of each name."""
    found: dict[str, ComponentSettings] = {}
    for group in groups:
        for settings in group:
            found.setdefault(settings.path, settings)
    return list(found.values())


def _last(name: str, chosen: list[ComponentSettings]) -> list[ComponentSettings]:
    return sorted(chosen, key=lambda c: _offered(c) == name)


def _offered(settings: ComponentSettings) -> str:
    """The name of the plugin, without the distribution that may be named with it."""
    return canonical(settings.plugin.rpartition(":")[2])
