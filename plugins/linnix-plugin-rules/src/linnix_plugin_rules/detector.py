"""What a detector is, and what the keys of its rules can hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import attrs

from linnix_core import Evidence, IncidentClass
from linnix_plugin_rules.tree import Process

__all__ = ["Detector", "Finding", "key", "number", "positive_number", "seconds", "whole_number"]


@attrs.frozen
class Finding:
    """A condition holds now: who is to blame, and the numbers that show it."""

    process: Process | None
    message: str
    evidence: tuple[Evidence, ...]

    @property
    def subject(self) -> Hashable:
        """What tells this from findings about other processes, as well as is known."""
        return None if self.process is None else self.process.key or str(self.process)


@attrs.define
class Detector(ABC):
    """A condition. Its time is that of the records, so a replay finds the same.

    A subclass is an attrs class whose attributes made by `key` are the keys of its rules.
    """

    #: The class of its alerts, unless the rule names another.
    class_: ClassVar[IncidentClass | None] = None

    @abstractmethod
    def start(self) -> None:
        """Begin with nothing known; called again when the clock was set back."""


def key(parse: Callable[[object], Any]) -> Any:
    """A key of rules, with what makes its value from what the file says, or `ValueError`."""
    return attrs.field(metadata={"parse": parse})


def number(value: object, least: float, most: float, expected: str) -> float:
    """A number in a range; ``ValueError`` says what was expected."""
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise ValueError(f"expected {expected}")


def whole_number(value: object) -> int:
    """A count of at least one."""
    if type(value) is not int or value < 1:
        raise ValueError("expected a whole number of at least 1")
    return value


def positive_number(value: object) -> float:
    """A finite number above zero."""
    return number(value, 1e-9, 1e15, "a number above 0")


def seconds(value: object) -> float:
    """A time above zero, of at most a day."""
    return number(value, 0.001, 86_400, "seconds from 0.001 to 86400")
