"""The files of a repository, whose they are, and what is in them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from linnix_plugin_audit.findings import Finding
from linnix_plugin_audit.repository import Repository
from linnix_plugin_audit.rulefile import Names, Rules

__all__ = ["MAX_TEXT", "Distribution", "Tree", "allowed_text", "normal", "required"]

#: Text is looked at so far.
MAX_TEXT = 2**20


def normal(name: str) -> str:
    """The name of a distribution as PyPI compares it.

    >>> normal("Linnix_Plugin.Rules")
    'linnix-plugin-rules'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def required(line: object) -> str:
    """The distribution that a requirement names."""
    found = re.match(r"\s*([\w.\-]+)", line) if isinstance(line, str) else None
    return normal(found[1]) if found else ""


@attrs.frozen(slots=False)
class Distribution:
    """A folder with a ``pyproject.toml`` that names a project."""

    #: With a slash at the end; empty for the root of the repository.
    folder: str
    name: str
    project: Mapping[str, Any]
    groups: Mapping[str, Any]
    enterprise: bool
    personal: bool

    @property
    def pyproject(self) -> str:
        """The path of its description."""
        return f"{self.folder}pyproject.toml"

    @cached_property
    def requires(self) -> set[str]:
        """What it needs, whether for itself, an extra, or its tests."""
        lines = [*_list(self.project.get("dependencies"))]
        for more in (self.project.get("optional-dependencies"), self.groups):
            for each in (more if isinstance(more, Mapping) else {}).values():
                lines += _list(each)
        return {required(line) for line in lines}

    @property
    def module(self) -> str:
        """What it is imported as."""
        return self.name.replace("-", "_")


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


class Tree:
    """The working tree of a repository under rules."""

    def __init__(self, repository: Repository, rules: Rules) -> None:
        self.repository = repository
        self.rules = rules
        self.root = repository.root
        self.sizes: dict[str, int] = {}
        self.problems: list[Finding] = []
        for path in repository.files():
            try:
                found = (self.root / path).lstat()
            except OSError:
                continue  # Removed, and not yet committed as such.
            if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                self.sizes[path] = found.st_size
        self.distributions = tuple(sorted(self._distributions(), key=lambda d: -len(d.folder)))
        self._enterprise = Names(
            [each if each.endswith("/") else f"{each}/" for each in rules.editions.folders]
        )
        self._personal = Names([f"{each.rstrip('/')}/" for each in rules.segregation.personal])

    def _distributions(self) -> Iterator[Distribution]:
        marker = normal(self.rules.editions.marker)
        personal = {normal(name) for name in self.rules.segregation.personal}
        for path in self.sizes:
            if path != "pyproject.toml" and not path.endswith("/pyproject.toml"):
                continue
            try:
                described = tomllib.loads(self.head(path).decode())
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                self.problems.append(
                    Finding(path, rule="unreadable", message=f"is no TOML: {error}")
                )
                continue
            project = described.get("project")
            if not isinstance(project, Mapping) or not isinstance(project.get("name"), str):
                continue
            name = normal(project["name"])
            needs = {required(line) for line in _list(project.get("dependencies"))}
            groups = described.get("dependency-groups")
            yield Distribution(
                folder=path.removesuffix("pyproject.toml"),
                name=name,
                project=project,
                groups=groups if isinstance(groups, Mapping) else {},
                enterprise=name == marker or marker in needs,
                personal=name in personal,
            )

    def distribution(self, path: str) -> Distribution | None:
        """Whose file this is; None where it is nobody's."""
        for each in self.distributions:
            if path.startswith(each.folder):
                return each
        return None

    def is_enterprise(self, path: str) -> bool:
        """Whether the file belongs to the enterprise edition."""
        owner = self.distribution(path)
        if owner is not None and owner.enterprise:
            return True
        return self._enterprise.match(path) is not None

    def is_personal(self, path: str) -> bool:
        """Whether the file belongs to one person or site."""
        owner = self.distribution(path)
        if owner is not None and owner.personal:
            return True
        return self._personal.match(path) is not None

    def head(self, path: str, most: int = MAX_TEXT) -> bytes:
        """The first bytes of a file, or where a link leads; what cannot be read is a finding."""
        file = self.root / path
        try:
            if file.is_symlink():
                return os.fsencode(file.readlink())
            # Nothing that somebody put in its place since is followed or waited for.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with os.fdopen(os.open(file, flags), "rb") as opened:
                return opened.read(most)
        except OSError as error:
            self.problems.append(
                Finding(path, rule="unreadable", message=f"cannot be read: {error.strerror}")
            )
            return b""

    def text(self, path: str) -> str | None:
        """The text of a file; None where it holds something else."""
        data = self.head(path)
        if b"\0" in data[:8192]:
            return None
        return data.decode("utf-8", "surrogateescape")

    def allowed(self, found: Finding) -> bool:
        """Whether somebody looked at this and it may stay."""
        for allow in self.rules.allow:
            if allow.rule != found.rule or not allow.matching.match(found.path):
                continue
            if allow.text is not None:
                continue
            if allow.most is not None and (found.size or 0) > allow.most:
                continue
            if allow.sha256 is not None and self._sha256(found) != allow.sha256.lower():
                continue
            return True
        return False

    def _sha256(self, found: Finding) -> str | None:
        if found.path not in self.sizes:
            return None
        try:
            with (self.root / found.path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None


def allowed_text(rules: Rules, rule: str, path: str, line: str) -> bool:
    """Whether somebody looked at such a line in this file and it may stay."""
    return any(
        allow.text is not None
        and allow.rule == rule
        and allow.text in line
        and allow.matching.match(path)
        for allow in rules.allow
    )
