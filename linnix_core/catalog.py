"""What is installed: one scan of the distributions' metadata, which imports no plugin."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from linnix_core.__about__ import __version__
from linnix_core.distributions import Distribution, distributions
from linnix_core.errors import PluginError

__all__ = ["ALIASES", "GROUPS", "Catalog", "PluginRecord", "canonical"]

#: The entry-point groups, by what their values are.
GROUPS = ("collectors", "handlers", "reasoners", "deployers", "commands")

#: Accepted where people type a component's name. A dot would nest TOML tables.
ALIASES = {"llama.cpp": "llama-cpp", "llamacpp": "llama-cpp", "halext-node": "halext"}

_NAME = re.compile(r"[a-z][a-z0-9-]*")
#: A field of metadata, with the lines that continue it.
_FIELD = re.compile(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE)

#: The values of each field of metadata, in the order of the file.
Fields: TypeAlias = Mapping[str, Sequence[str]]


def canonical(name: str) -> str:
    """The name of a component from the way people write it.

    >>> canonical("llama.cpp")
    'llama-cpp'
    """
    return ALIASES.get(name, name)


class PluginRecord(NamedTuple):
    """One entry point as its distribution describes it, with what keeps it from loading.

    ``state`` is ``available`` or ``unavailable``; in the latter case ``code`` is
    ``blocked``, ``incompatible``, ``conflict`` or ``metadata`` and ``reason`` a sentence.
    ``given`` is the plugin itself, where it is at hand and need not be imported.
    """

    kind: str
    name: str
    value: str
    distribution: str
    version: str
    summary: str = ""
    requires: str | None = None
    state: Literal["available", "unavailable"] = "available"
    code: str = ""
    reason: str = ""
    given: Any = None

    @property
    def source(self) -> str:
        """``linnix-plugin-jsonl 0.1.0``."""
        return f"{self.distribution} {self.version}"


class Catalog:
    """The installed plugins, sorted by kind and name."""

    def __init__(self, records: Iterable[PluginRecord] = ()) -> None:
        order = {kind: position for position, kind in enumerate(GROUPS)}
        self._records = tuple(
            sorted(records, key=lambda r: (order[r.kind], r.name, r.distribution))
        )

    @classmethod
    def scan(cls, path: list[str] | None = None, *, allow: str | None = None) -> Catalog:
        """Read the metadata of every distribution on ``path`` (default: ``sys.path``).

        ``allow`` (default: the environment variable ``LINNIX_PLUGINS``) lists the
        distributions that may be used, separated by commas; empty means none. A record
        that it leaves out is kept, as blocked.
        """
        allow = os.environ.get("LINNIX_PLUGINS") if allow is None else allow
        allowed = None if allow is None else {_normal(part) for part in allow.split(",")}
        records: list[PluginRecord] = []
        seen: set[str] = set()
        for distribution in distributions(path):
            offered = _text(distribution, "entry_points.txt")
            if "[linnix." not in offered:
                continue
            try:
                described = _described(distribution)
                name = described["name"][0]
                blocked = allowed is not None and _normal(name) not in allowed
                if _normal(name) not in seen:
                    records += _records_of(offered, described, blocked)
                # Of two copies on the path, imports find the first; so do we.
                seen.add(_normal(name))
            except Exception as error:  # noqa: BLE001 - whoever wrote it, the others are fine
                records += _unreadable(distribution, offered, error)
        return cls(_with_conflicts(records))

    def __iter__(self) -> Iterator[PluginRecord]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def of_kind(self, kind: str) -> tuple[PluginRecord, ...]:
        """The records of one kind."""
        return tuple(record for record in self._records if record.kind == kind)

    def find(self, kind: str, plugin: str) -> PluginRecord:
        """The one record for ``jsonl`` or ``linnix-plugin-jsonl:jsonl``.

        Raises `PluginError` with the code ``unknown``, ``conflict``, ``blocked``,
        ``incompatible`` or ``metadata``, a sentence and the next step.
        """
        distribution, _, name = plugin.rpartition(":")
        name = canonical(name)
        matches = [
            record
            for record in self.of_kind(kind)
            if record.name == name
            and (not distribution or _normal(record.distribution) == _normal(distribution))
        ]
        if not matches:
            raise PluginError("unknown", self._unknown(kind, name), hint=self._remedy(kind, name))
        record = matches[0]
        if record.code == "conflict" and distribution:
            return record
        if record.state != "available":
            hint = None
            if record.code == "conflict":
                hint = f'choose one: plugin = "{record.distribution}:{record.name}"'
            raise PluginError(record.code, record.reason, hint=hint)
        return record

    def _unknown(self, kind: str, name: str) -> str:
        said = f"no installed plugin is a {kind.rstrip('s')} called {name!r}"
        elsewhere = [r.kind for r in self._records if r.name == name and r.kind != kind]
        if elsewhere:
            return f"{said} (it is one of the {elsewhere[0]})"
        close = _close(name, [r.name for r in self.of_kind(kind)])
        return f"{said}; did you mean {close[0]!r}?" if close else said

    def _remedy(self, kind: str, name: str) -> str | None:
        if not _NAME.fullmatch(name):
            return "names are made of small letters, digits and dashes"
        near = _close(name, [r.name for r in self.of_kind(kind)])
        installed = any(record.name == name for record in self._records)
        return None if near or installed else f"pip install linnix-plugin-{name}"


def _close(name: str, names: Sequence[str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(name, names, n=1)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).strip().lower()


def _text(distribution: Distribution, name: str) -> str:
    """A file of metadata; nothing where it is not, or is no text."""
    try:
        return distribution.read_text(name) or ""
    except ValueError:
        return ""


def _described(distribution: Distribution) -> Fields:
    """The head of its metadata, by the names of the fields in small letters."""
    text = _text(distribution, "METADATA") or _text(distribution, "PKG-INFO")
    fields: dict[str, list[str]] = {}
    for name, value in _FIELD.findall(text.partition("\n\n")[0]):
        fields.setdefault(name.lower(), []).append(value)
    if not fields.get("name", [""])[0]:
        raise ValueError("there is no METADATA with a name")
    return fields


def _entry_points(offered: str) -> list[tuple[str, str, str]]:
    """Group, name and value of each."""
    found: list[tuple[str, str, str]] = []
    group: str | None = None
    for line in map(str.strip, offered.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line.strip("[]")
        elif group is not None and line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if not equals:
                raise ValueError(f"{line!r} is no entry point")
            found.append((group, name.strip(), value.strip()))
    return found


def _unreadable(
    distribution: Distribution, offered: str, error: Exception
) -> Iterator[PluginRecord]:
    """What can be said of a distribution whose metadata is broken: that it is."""
    folder = distribution.folder
    for kind in dict.fromkeys(re.findall(r"\[linnix\.(\w+)\]", offered)):
        if kind in GROUPS:
            yield PluginRecord(
                kind=kind,
                name=folder,
                value="",
                distribution=folder,
                version="unknown",
                state="unavailable",
                code="metadata",
                reason=f"the metadata in {folder} cannot be read: {error}",
            )


def _records_of(offered: str, described: Fields, blocked: bool) -> Iterator[PluginRecord]:
    distribution = described["name"][0]
    version = described.get("version", [""])[0] or "unknown"
    requires, obstacle = _core_requirement(described.get("requires-dist", ()))
    for group, name, value in _entry_points(offered):
        prefix, _, kind = group.partition(".")
        if prefix != "linnix" or kind not in GROUPS:
            continue
        code, reason = "", ""
        if blocked:
            code = "blocked"
            reason = f"{distribution} is not among those that LINNIX_PLUGINS allows"
        elif obstacle:
            code, reason = obstacle[0], f"{distribution} {version} {obstacle[1]}"
        elif not _NAME.fullmatch(name):
            code = "metadata"
            reason = (
                f"{distribution} calls it {name!r}: names are made of small letters, "
                "digits and dashes"
            )
        yield PluginRecord(
            kind=kind,
            name=name,
            value=value,
            distribution=distribution,
            version=version,
            summary=described.get("summary", [""])[0],
            requires=requires,
            state="unavailable" if code else "available",
            code=code,
            reason=reason,
        )


# What nearly every plugin declares. Importing `packaging` takes longer than all of the
# rest of ``linnix --help``, so it is asked only about anything else.
_PLAIN = re.compile(r"linnix[-_.]core\s*\(?((?:(?:>=|<)\d+(?:\.\d+)*\s*,?\s*)*)\)?", re.IGNORECASE)
_RELEASED = re.fullmatch(r"[\d.]+", __version__) is not None
_BOUND = re.compile(r"(>=|<)([\d.]+)")


def _core_requirement(lines: Iterable[str]) -> tuple[str | None, tuple[str, str] | None]:
    """What a distribution asks of the core, and what stands against using it."""
    for line in lines:
        if _RELEASED and (plain := _PLAIN.fullmatch(line)):
            asked = plain[1].strip()
            fits = all(
                (_release(__version__) >= _release(bound)) == (operator == ">=")
                for operator, bound in _BOUND.findall(asked)
            )
        elif "linnix" in line.lower() or not re.match(r"[\w.\-]+", line):
            from packaging.requirements import InvalidRequirement, Requirement

            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                return None, ("metadata", f"has a requirement that cannot be read: {line!r}")
            marker = requirement.marker
            if _normal(requirement.name) != "linnix-core" or (
                marker is not None and not marker.evaluate({"extra": ""})
            ):
                continue
            asked = str(requirement.specifier)
            fits = requirement.specifier.contains(__version__, prereleases=True)
        else:
            continue
        if not fits:
            return asked, ("incompatible", f"needs linnix-core {asked}; this is {__version__}")
        return asked, None
    return None, None


def _release(version: str) -> tuple[int, ...]:
    """``0.10`` as numbers, without zeros at the end: 0.1.0 is 0.1."""
    numbers = [int(part) for part in re.findall(r"\d+", version)]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _with_conflicts(records: list[PluginRecord]) -> Iterator[PluginRecord]:
    """Mark records that share kind and name: the order of the path must not decide."""
    rivals: dict[tuple[str, str], list[str]] = {}
    for record in records:
        if record.code != "blocked":
            rivals.setdefault((record.kind, record.name), []).append(record.source)
    for record in records:
        sources = rivals.get((record.kind, record.name), [])
        if len(sources) > 1 and not record.code:
            yield record._replace(
                state="unavailable",
                code="conflict",
                reason=f"{' and '.join(sorted(sources))} both offer {record.kind}.{record.name}",
            )
        else:
            yield record
