"""What a license and a list of revoked licenses say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from linnix_plugin_enterprise.documents import DocumentError

__all__ = ["License", "Revocations", "structured"]

_CAPABILITY = re.compile(r"[a-z][a-z0-9-]*")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment.astimezone(UTC)


def _is_moment(instance: object, field: attrs.Attribute[str], value: str) -> None:
    try:
        _moment(value)
    except ValueError:
        raise ValueError(
            f"{field.name} must be a moment such as 2027-01-31T00:00:00Z, got {value!r}"
        ) from None


def _some_text(instance: object, field: attrs.Attribute[str], value: str) -> None:
    if not 0 < len(value.strip()) <= 200:
        raise ValueError(f"{field.name} must be 1 to 200 characters")


@attrs.frozen(kw_only=True)
class License:
    """Who may use which capabilities, on how many hosts, from when to when.

    With ``machines`` it is good on those only, which `linnix_plugin_enterprise.machine`
    identifies; without, ``hosts`` is what was agreed, and nobody counts.
    """

    id: str = attrs.field(validator=_some_text)
    customer: str = attrs.field(validator=_some_text)
    capabilities: tuple[str, ...]
    hosts: int
    issued: str = attrs.field(validator=_is_moment)
    begins: str = attrs.field(validator=_is_moment)
    ends: str = attrs.field(validator=_is_moment)
    #: Days after the end in which everything still runs, with a warning.
    grace_days: int = 14
    machines: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if not self.capabilities:
            raise ValueError("capabilities must name at least one")
        for capability in self.capabilities:
            if not _CAPABILITY.fullmatch(capability):
                raise ValueError(f"capabilities cannot hold {capability!r}")
        if self.hosts < 1:
            raise ValueError("hosts must be at least 1")
        if len(self.machines) > self.hosts:
            raise ValueError(f"machines names {len(self.machines)}, and hosts is {self.hosts}")
        if not 0 <= self.grace_days <= 365:
            raise ValueError("grace_days must be 0 to 365")
        if self.ends_at <= self.begins_at:
            raise ValueError("ends must be after begins")

    @property
    def begins_at(self) -> datetime:
        """The first moment at which it is valid."""
        return _moment(self.begins)

    @property
    def ends_at(self) -> datetime:
        """The first moment at which it is not valid anymore."""
        return _moment(self.ends)

    @property
    def grace_ends_at(self) -> datetime:
        """The first moment at which nothing runs anymore."""
        try:
            return self.ends_at + timedelta(days=self.grace_days)
        except OverflowError:
            return datetime.max.replace(tzinfo=UTC)


@attrs.frozen(kw_only=True)
class Revocations:
    """Licenses that are not good anymore; a later list replaces an earlier one."""

    issued: str = attrs.field(validator=_is_moment)
    revoked: tuple[str, ...]

    @property
    def issued_at(self) -> datetime:
        """When the list was made."""
        return _moment(self.issued)


def structured(cls: Any, body: Mapping[str, Any], said: str) -> Any:
    """A `License` or `Revocations` from a body; `DocumentError` says what is wrong with it."""
    from linnix_core.commands import Problem, structure

    problems: list[Problem] = []
    made = structure(cls, body, cls.__name__.lower(), problems)
    if made is None:
        raise DocumentError(
            "unreadable",
            f"{said} is not as this version expects: {problems[0]}",
            hint="pip install --upgrade linnix-plugin-enterprise",
        )
    return made
