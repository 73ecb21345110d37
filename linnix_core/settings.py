"""Kinds of values that configurations are made of: durations, sizes and secrets.

A plugin's ``Config`` uses them as types; the strict converter (`linnix_core.config`)
knows how people write them.
"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from pathlib import Path
from typing import NewType

__all__ = ["Duration", "Secret", "Size", "parse_duration", "parse_size"]

#: Seconds. Written as a number of seconds or as ``"250ms"``, ``"10s"``, ``"5m"``,
#: ``"12h"``, ``"7d"``.
Duration = NewType("Duration", float)

#: Bytes. Written as a whole number or as ``"64KiB"``, ``"100MB"``, ``"1GiB"``
#: (IEC 80000-13: Ki is 1024, k is 1000).
Size = NewType("Size", int)

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def parse_duration(value: object) -> Duration:
    """Seconds from a number or a text with a unit; ``ValueError`` says what is expected.

    >>> parse_duration("1m30s"), parse_duration("250ms"), parse_duration(2)
    (90.0, 0.25, 2.0)
    """
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and re.fullmatch(r"\s*(\d+(\.\d+)?(ms|s|m|h|d)\s*)+", value):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
        seconds = sum(float(amount) * _SECONDS[unit] for amount, unit in parts)
    else:
        raise ValueError(f"expected a duration such as '10s' or '250ms', got {value!r}")
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"a duration cannot be {value!r}")
    return Duration(seconds)


def parse_size(value: object) -> Size:
    """Bytes from a whole number or a text with a unit; ``ValueError`` says what is expected.

    >>> parse_size("64KiB"), parse_size("1.5 MB"), parse_size(10)
    (65536, 1500000, 10)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Size(value)
    if isinstance(value, str) and (
        match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*((?:[kmgt]i?)?b)?\s*", value, re.IGNORECASE)
    ):
        amount = Decimal(match[1]) * _BYTES[(match[2] or "b").lower()]
        if amount == int(amount):
            return Size(int(amount))
    raise ValueError(f"expected a size such as '64KiB' or '100MB', got {value!r}")


class Secret:
    """A value that is never shown, given by reference.

    In the configuration ``{ env = "NAME" }`` or ``{ file = "/path" }``; a plain text is
    taken too, so that ``LINNIX__…`` variables can carry one. ``repr``, ``str`` and
    ``linnix config show`` tell where it comes from and nothing else.

    >>> Secret("hunter2", source="env PASSWORD")
    Secret(env PASSWORD)
    """

    __slots__ = ("_value", "source")

    def __init__(self, value: str, *, source: str = "configuration") -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str:
        """The value itself, for the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.source})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    @classmethod
    def resolve(cls, value: object) -> Secret:
        """From what the configuration holds; ``ValueError`` names what is missing."""
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, dict) and len(value) == 1:
            ((kind, name),) = value.items()
            if kind == "env" and isinstance(name, str):
                if name not in os.environ:
                    raise ValueError(f"the environment variable {name} is not set")
                return cls(os.environ[name], source=f"env {name}")
            if kind == "file" and isinstance(name, str):
                try:
                    text = Path(name).expanduser().read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    raise ValueError(f"cannot read the secret: {error}") from None
                return cls(text.rstrip("\r\n"), source=f"file {name}")
        raise ValueError('expected { env = "NAME" } or { file = "PATH" }')
