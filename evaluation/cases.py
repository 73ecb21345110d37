"""What is run: families of programs, and cases drawn from them by a seed."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import attrs

__all__ = ["CLASSES", "FAMILIES", "Case", "Draw", "Family", "Kind", "Plan", "Split", "family"]

#: What the figures are about, in the order of the report.
CLASSES = (
    "fork_storm",
    "short_job_flood",
    "runaway_tree",
    "cpu_spin",
    "io_saturation",
    "oom_risk",
)

#: An incident, or None for work that nobody should be woken for.
Kind: TypeAlias = str | None

#: Rules may be tuned on the first; the second is only ever looked at as a whole.
Split: TypeAlias = Literal["development", "held-out"]

PROGRAMS = Path(__file__).parent / "programs"


@attrs.frozen
class Plan:
    """One program as it will be run.

    ``seconds`` is how long it works by itself; it is stopped some time later. ``least`` is what
    the witness has to count, in the measure of the class, or else nothing happened and the
    case does not count. ``also`` are classes that are just as true of it. ``user`` runs it
    without privileges. ``limit_bytes`` is the memory that its cgroup may have. ``leak`` says
    that it can be foretold. ``prepare`` is called with the working folder beforehand.
    """

    argv: tuple[str, ...]
    seconds: float
    least: float = 0.0
    also: tuple[str, ...] = ()
    user: int | None = None
    limit_bytes: int | None = None
    leak: bool = False
    prepare: Callable[[Path], None] | None = None
    env: Mapping[str, str] = attrs.field(factory=dict)


class Draw(random.Random):
    """The parameters of one case, drawn from its seed, and what was drawn."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.drawn: dict[str, object] = {}

    def pick(self, name: str, *among: object) -> object:
        """One of a few."""
        self.drawn[name] = value = self.choice(among)
        return value

    def whole(self, name: str, least: int, most: int) -> int:
        """A whole number; as many small ones as large ones, by order of magnitude."""
        value: int = round(least * (most / least) ** self.random())
        self.drawn[name] = value
        return value


@attrs.frozen
class Family:
    """Programs that differ in their parameters only."""

    name: str
    kind: Kind
    split: Split
    plan: Callable[[Draw], Plan]
    #: What has to be there, or the family is left out.
    needs: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {}


def family(
    kind: Kind, *, held_out: bool = False, needs: Sequence[str] = ()
) -> Callable[[Callable[[Draw], Plan]], Callable[[Draw], Plan]]:
    """Make a family of a function that draws its plan."""

    def enter(plan: Callable[[Draw], Plan]) -> Callable[[Draw], Plan]:
        name = plan.__name__
        split: Split = "held-out" if held_out else "development"
        FAMILIES[name] = Family(name, kind, split, plan, tuple(needs))
        return plan

    return enter


@attrs.frozen
class Case:
    """One run of a family: the same seed gives the same program with the same parameters."""

    family: Family
    seed: int
    plan: Plan
    drawn: Mapping[str, object]

    @classmethod
    def of(cls, family: Family, seed: int) -> Case:
        """The case of this seed."""
        draw = Draw(zlib.crc32(f"{family.name} {seed}".encode()))
        return cls(family, seed, family.plan(draw), draw.drawn)

    @property
    def name(self) -> str:
        """Unique among cases."""
        return f"{self.family.name}-{self.seed}"


def program(name: str) -> str:
    """The path of a program of this folder."""
    return str(PROGRAMS / name)


def families(kind: Kind, split: Split) -> Iterator[Family]:
    """Those of one kind."""
    return (each for each in FAMILIES.values() if each.kind == kind and each.split == split)
