"""What a detector is, and what the keys of its rules can hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Literal, TypeAlias

import attrs

from linnix_core import Evidence, IncidentClass, Subject
from linnix_plugin_rules.matching import EVERYBODY, Selection
from linnix_plugin_rules.tree import Process

__all__ = [
    "NEEDED",
    "Detector",
    "Finding",
    "Scope",
    "flag",
    "key",
    "number",
    "one_of",
    "percent",
    "positive_number",
    "seconds",
    "whole_number",
]

#: What is counted or summed up together.
Scope: TypeAlias = Literal["process", "subtree", "cgroup", "exe", "host"]

#: In place of a default: the rule has to say it.
NEEDED = attrs.NOTHING


@attrs.frozen
class Finding:
    """A condition holds now: who is to blame, and the numbers that show it.

    ``about`` tells it from findings about others where that is not the process: a cgroup, an
    executable. ``cgroup`` is the subject where no process is known.
    """

    process: Process | None
    message: str
    evidence: tuple[Evidence, ...]
    about: Hashable = None
    cgroup: str | None = None

    @property
    def mark(self) -> Hashable:
        """What tells this from findings about others, as well as is known."""
        if self.about is not None or self.process is None:
            return self.about
        return self.process.key or str(self.process)

    @property
    def subject(self) -> Subject:
        """Whom an alert names."""
        return Subject(cgroup=self.cgroup) if self.process is None else self.process.subject


@attrs.define(kw_only=True)
class Detector(ABC):
    """A condition. Its time is that of the records, so a replay finds the same.

    A subclass is an attrs class whose attributes made by `key` are the keys of its rules.
    Two that are equal detect the same; what they have seen so far is no part of that.
    """

    #: The class of its alerts, unless the rule names another.
    class_: ClassVar[IncidentClass | None] = None
    #: The scopes that a rule can choose from; the first one is what it gets unless it does.
    scopes: ClassVar[tuple[Scope, ...]] = ("host",)
    #: The filters that ``match`` and ``except`` can hold.
    filters: ClassVar[tuple[str, ...]] = ("exe", "args", "user", "cgroup", "ancestor")

    scope: Scope = attrs.field(
        default=attrs.Factory(lambda self: type(self).scopes[0], takes_self=True)
    )
    selection: Selection = EVERYBODY

    @property
    def choosy(self) -> bool:
        """Whether there is a ``match`` or an ``except``."""
        return self.selection is not EVERYBODY

    def chooses(self, process: Process | None) -> bool:
        """Whether ``match`` and ``except`` let it count."""
        return self.selection is EVERYBODY or process in self.selection

    @abstractmethod
    def start(self) -> None:
        """Begin with nothing known; called again when the clock was set back."""


def key(parse: Callable[[object], Any], default: Any = NEEDED) -> Any:
    """A key of rules, with what makes its value from what the file says, or `ValueError`."""
    return attrs.field(default=default, metadata={"parse": parse})


def number(value: object, least: float, most: float, expected: str) -> float:
    """A number in a range; ``ValueError`` says what was expected."""
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise ValueError(f"expected {expected}")


def whole_number(value: object) -> int:
    """A count of at least one."""
    if type(value) is not int or not 1 <= value < 2**63:
        raise ValueError("expected a whole number of at least 1")
    return value


def positive_number(value: object) -> float:
    """A finite number above zero."""
    return number(value, 1e-9, 1e15, "a number above 0")


def percent(value: object) -> float:
    """A share in percent."""
    return number(value, 0, 100, "percent from 0 to 100")


def seconds(value: object) -> float:
    """A time above zero, of at most a day."""
    return number(value, 0.001, 86_400, "seconds from 0.001 to 86400")


def flag(value: object) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def one_of(*words: str) -> Callable[[object], str]:
    """One of a few words."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise ValueError(f"expected one of {', '.join(words)}")

    return parse
