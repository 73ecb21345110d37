"""What ``[collectors.replay]`` can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import attrs

__all__ = ["ReplayConfig", "Speed"]

#: How many times the recorded speed, or as fast as the handlers can take it.
Speed: TypeAlias = float | Literal["max"]

#: Slower than this, a pause would be longer than a thread can wait.
LEAST_SPEED = 0.01


def _listed(path: Path | tuple[Path, ...]) -> Path | tuple[Path, ...]:
    # A single path would be one that is needed all the time, and a run that gives up root
    # would keep to what may read it. These are needed at the start only.
    return path if isinstance(path, tuple) else (path,)


def _names_files(config: ReplayConfig, _: Any, __: Any) -> None:
    if not config.paths:
        raise ValueError("path must name at least one file")
    if any("\0" in str(path) for path in config.paths):
        raise ValueError("path must name a file, and no name holds a zero byte")


def _is_a_speed(_: Any, __: Any, speed: Speed) -> None:
    if speed != "max" and speed < LEAST_SPEED:
        raise ValueError(
            f'speed must be at least {LEAST_SPEED:g}, or "max" for as fast as possible, got {speed}'
        )


@attrs.frozen
class ReplayConfig:
    """What is played, and how fast."""

    ARG: ClassVar[str] = "path"

    path: Path | tuple[Path, ...] = attrs.field(
        default=Path("linnix.jsonl"),
        converter=_listed,
        validator=_names_files,
        metadata={"help": "recorded file, or a list of them in their order; - is standard input"},
    )
    rotated: bool = attrs.field(
        default=True,
        metadata={"help": "play the files rotated from each file before it"},
    )
    speed: Speed = attrs.field(
        default="max",
        validator=_is_a_speed,
        metadata={"help": "times the recorded speed; max is as fast as possible"},
    )

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path, in the order of playing."""
        assert isinstance(self.path, tuple)
        return self.path
