"""What can be configured."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import attrs

from linnix_core import Duration

__all__ = ["LEVELS", "Level", "SigmaConfig"]

Level: TypeAlias = Literal["informational", "low", "medium", "high", "critical"]

#: Sigma's levels, from the least to the most urgent.
LEVELS: tuple[Level, ...] = ("informational", "low", "medium", "high", "critical")


def _names_something(_: Any, __: Any, path: str) -> None:
    if not path or "\0" in path:
        raise ValueError(f"path must name a folder or a file, got {path!r}")


def _lasts(_: Any, __: Any, cooldown: float) -> None:
    if not 0 < cooldown <= 86_400:
        raise ValueError(f"cooldown must be more than 0 and at most one day, got {cooldown:g} s")


@attrs.frozen
class SigmaConfig:
    """Which rules run, and how often one may raise an alert."""

    ARG: ClassVar[str] = "path"

    # A text and no Path: it is read before the rights of root are given up, and never again,
    # so that nobody has to be able to reach it later.
    path: str = attrs.field(
        validator=_names_something,
        metadata={"help": "folder with Sigma rules (.yml, .yaml), or one such file"},
    )
    min_level: Level = attrs.field(
        default="informational",
        metadata={"help": "rules of lower levels do not run"},
    )
    ignore: tuple[str, ...] = attrs.field(
        default=(),
        metadata={"help": "ids or titles of rules that do not run"},
    )
    cooldown: Duration = attrs.field(
        default=Duration(300.0),
        validator=_lasts,
        metadata={"help": "time between two alerts of one rule about one executable"},
    )
