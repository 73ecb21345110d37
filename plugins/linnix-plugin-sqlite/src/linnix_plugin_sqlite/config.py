"""What ``[handlers.sqlite]`` can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import attrs

from linnix_core import Duration, Size

__all__ = ["LEAST_MAX_BYTES", "RecordType", "SqliteConfig"]

#: Room for the tables, for one chunk of each type and for the log of writes beside them.
LEAST_MAX_BYTES = 8 * 2**20

RecordType: TypeAlias = Literal["event", "sample", "cgroup", "system", "loss"]


def _names_a_file(_: Any, __: Any, path: Path | None) -> None:
    if path is not None and (not path.name or "\0" in str(path)):
        raise ValueError(f"path must name a file, got {str(path)!r}")


def _is_some_time(_: Any, attribute: attrs.Attribute[Any], seconds: float) -> None:
    if seconds < 1:
        raise ValueError(f"{attribute.name} must be at least 1s, got {seconds:g}s")


def _has_room(_: Any, __: Any, size: int) -> None:
    if size < LEAST_MAX_BYTES:
        raise ValueError(f"max_bytes must be at least 8MiB, got {size}")


@attrs.frozen
class SqliteConfig:
    """Where the history is, how much of it is kept, and of what."""

    ARG: ClassVar[str] = "path"

    path: Path | None = attrs.field(
        default=None,
        validator=_names_a_file,
        metadata={
            "help": "the database; history.db in the data folder if not given",
            "access": "write",
        },
    )
    max_bytes: Size = attrs.field(
        default=Size(512 * 2**20),
        validator=_has_room,
        metadata={"help": "all files together never take more; the oldest goes first"},
    )
    max_age: Duration = attrs.field(
        default=Duration(7 * 86_400.0),
        validator=_is_some_time,
        metadata={"help": "how long records of processes are kept"},
    )
    findings_max_age: Duration = attrs.field(
        default=Duration(90 * 86_400.0),
        validator=_is_some_time,
        metadata={"help": "how long alerts, incidents, insights and feedback are kept"},
    )
    checkpoint: Duration = attrs.field(
        default=Duration(60.0),
        validator=_is_some_time,
        metadata={"help": "between two snapshots of the process tree, where much happens"},
    )
    types: tuple[RecordType, ...] = attrs.field(
        default=("event", "system", "loss"),
        metadata={"help": "records to keep besides alerts, incidents and insights"},
    )
