"""The rules of an audit: what ships, and what a repository adds."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from linnix_core import LinnixError, Size

__all__ = ["Allow", "Artefact", "Names", "Pattern", "Records", "Rules", "RulesError", "read_rules"]

SHIPPED = Path(__file__).with_name("rules.toml")

#: What a repository may bring along.
OWN = "linnix-audit.toml"


class RulesError(LinnixError):
    """Rules that cannot be used."""

    exit_code = 2


class Names:
    """Globs on names of files, folders (``wandb/``) or paths (``datasets/examples/*``).

    >>> names = Names(["*.ipynb", "wandb/", "docs/*.md"])
    >>> [names.match(path) for path in ("a/B.IPYNB", "x/wandb/y/z", "docs/a.md", "my/docs/a.md")]
    ['B.IPYNB', 'wandb/y/z', 'a.md', 'a.md']
    >>> names.match("wandb")
    """

    def __init__(self, globs: Iterable[str]) -> None:
        lowered = [glob.lower() for glob in globs]
        self._folders = _any(f"{glob}*" for glob in lowered if glob.endswith("/"))
        self._names = _any(glob for glob in lowered if "/" not in glob)
        self._paths = _any(glob for glob in lowered if "/" in glob[:-1] and glob[-1] != "/")

    def match(self, path: str) -> str | None:
        """From a folder that is named on, or else the name of the file; None if none is."""
        lowered = path.lower() if path.isascii() else "".join(map(_lower, path))
        name = path.rfind("/") + 1
        starts = [0, *(at + 1 for at, letter in enumerate(path) if letter == "/")]
        for start in starts:
            if self._folders.fullmatch(lowered, start):
                return path[start:]
        if self._names.fullmatch(lowered, name):
            return path[name:]
        if any(self._paths.fullmatch(lowered, start) for start in starts):
            return path[name:]
        return None


def _lower(letter: str) -> str:
    # As long as it was, so that places are the same in both.
    lowered = letter.lower()
    return lowered if len(lowered) == 1 else letter


def _any(globs: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, globs)) or r"(?!)")


def _is_expression(instance: object, field: attrs.Attribute[str], value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{field.name} is no regular expression: {error}") from None


def _some_text(instance: object, field: attrs.Attribute[str], value: str) -> None:
    if not value.strip():
        raise ValueError(f"{field.name} must say something")


@attrs.frozen(slots=False)
class Artefact:
    """Files that one edition must not hold, and where they go."""

    rule: str
    message: str
    names: tuple[str, ...]
    magic: tuple[str, ...] = ()
    to: str = ""
    everywhere: bool = False

    def __attrs_post_init__(self) -> None:
        for digits in self.magic:
            bytes.fromhex(digits)
        if self.to.startswith("/") or ".." in self.to.split("/"):
            raise ValueError("to must be a folder below the destination")

    @cached_property
    def matching(self) -> Names:
        """The names, compiled."""
        return Names(self.names)

    @cached_property
    def beginnings(self) -> tuple[bytes, ...]:
        """The magic, as bytes."""
        return tuple(map(bytes.fromhex, self.magic))


@attrs.frozen(slots=False)
class Records:
    """Files of records of which the open edition holds so many at most."""

    rule: str
    names: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    most: int

    @cached_property
    def matching(self) -> Names:
        """The names, compiled."""
        return Names(self.names)


@attrs.frozen(slots=False)
class Header:
    """Files that say their licence."""

    names: tuple[str, ...]
    licence: str

    @cached_property
    def matching(self) -> Names:
        """The names, compiled."""
        return Names(self.names)


@attrs.frozen(slots=False)
class Pattern:
    """Text that generic files must not hold; with ``everywhere`` none may."""

    rule: str
    message: str
    pattern: str = attrs.field(validator=_is_expression)
    everywhere: bool = False

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """The pattern, compiled."""
        return re.compile(self.pattern)


@attrs.frozen(slots=False)
class Allow:
    """A finding that was looked at and may stay."""

    rule: str
    path: str
    reason: str = attrs.field(validator=_some_text)
    reviewed: str = attrs.field(validator=_some_text)
    sha256: str | None = None
    most: Size | None = None
    text: str | None = None

    @cached_property
    def matching(self) -> re.Pattern[str]:
        """The glob on the whole path, compiled."""
        return re.compile(fnmatch.translate(self.path))


@attrs.frozen
class Editions:
    """What is enterprise."""

    marker: str
    folders: tuple[str, ...] = ()


@attrs.frozen
class Licences:
    """Which licences which edition may have."""

    open: tuple[str, ...]
    enterprise: str


@attrs.frozen
class Limits:
    """How large things may be."""

    file: Size
    tree: Size
    history: Size


@attrs.frozen
class Segregation:
    """What is generic, and what it must not hold."""

    personal: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    excepted: tuple[str, ...] = ()


@attrs.frozen
class Imports:
    """Modules that only enterprise code imports."""

    training: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Rules:
    """Everything that an audit looks for."""

    editions: Editions
    licences: Licences
    limits: Limits
    segregation: Segregation
    imports: Imports
    artefacts: tuple[Artefact, ...] = ()
    records: tuple[Records, ...] = ()
    headers: tuple[Header, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    allow: tuple[Allow, ...] = ()


def read_rules(root: Path, file: Path | None = None) -> Rules:
    """The shipped rules with those of ``file``, or of the repository's own where it has some.

    Raises `RulesError` with every mistake.
    """
    from linnix_core.commands import Problem, structure

    own = root / OWN
    file = file or (own if own.is_file() else None)
    table = _load(SHIPPED)
    if file is not None:
        _merge(table, _load(file))
    segregation = table.get("segregation")
    if isinstance(segregation, dict) and "except" in segregation:
        segregation["excepted"] = segregation.pop("except")
    problems: list[Problem] = []
    rules: Rules | None = structure(Rules, table, "rules", problems)
    if rules is None:
        said = "\n".join(f"{file or SHIPPED}: {problem}" for problem in problems)
        raise RulesError(said, hint="the README of linnix-plugin-audit has them all")
    return rules


def _load(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RulesError(f"{file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RulesError(f"{file} is not TOML: {error}") from None


def _merge(table: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        there = table.get(name)
        if isinstance(there, dict) and isinstance(value, Mapping):
            there.update(value)
        elif isinstance(there, list) and isinstance(value, list):
            there.extend(value)
        else:
            table[name] = value
