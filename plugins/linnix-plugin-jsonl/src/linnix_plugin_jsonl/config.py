"""What ``[handlers.jsonl]`` can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import attrs

from linnix_core import Duration, Size

__all__ = ["STANDARD_OUTPUT", "FsyncPolicy", "JsonlConfig", "RecordType"]

#: The path that stands for standard output. A file of that name is ``./-``.
STANDARD_OUTPUT = "-"

#: Larger than any record, whose texts the core bounds: so a line always fits into a file.
_LEAST_MAX_BYTES = 2**20

FsyncPolicy: TypeAlias = Literal["never", "flush", "batch"]
RecordType: TypeAlias = Literal[
    "event", "sample", "cgroup", "system", "loss", "alert", "incident", "insight", "feedback"
]


def _names_a_file(_: Any, __: Any, path: str) -> None:
    if not path or "\0" in path or path.endswith("/"):
        raise ValueError(f"path must name a file, got {path!r}")
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"path begins with a home folder that does not exist: {path!r}") from None


def _holds_a_record(_: Any, __: Any, size: int) -> None:
    if 0 < size < _LEAST_MAX_BYTES:
        raise ValueError(f"max_bytes must be 0 or at least 1MiB, got {size}")


@attrs.frozen
class JsonlConfig:
    """Where the lines go, when the file rotates, and what is certain to be on disk."""

    ARG: ClassVar[str] = "path"

    path: str = attrs.field(
        default="linnix.jsonl",
        validator=_names_a_file,
        metadata={"help": "file to append to; - is standard output", "access": "write"},
    )
    max_bytes: Size = attrs.field(
        default=Size(100 * 2**20),
        validator=_holds_a_record,
        metadata={"help": "rotate before the file gets larger; 0 is never"},
    )
    max_age: Duration = attrs.field(
        default=Duration(0),
        metadata={"help": "rotate once the first record of the file is older; 0 is never"},
    )
    max_total_bytes: Size = attrs.field(
        default=Size(2**30),
        metadata={"help": "delete the oldest rotated files to stay within; 0 is no bound"},
    )
    fsync: FsyncPolicy = attrs.field(
        default="flush",
        metadata={"help": "force to disk: never, at each flush (about a second), every batch"},
    )
    types: tuple[RecordType, ...] = attrs.field(
        default=(),
        metadata={"help": "types of record to write; empty is all"},
    )

    def __attrs_post_init__(self) -> None:
        if self.max_total_bytes and not self.max_bytes:
            raise ValueError(
                "max_total_bytes cannot bound a file that never rotates by size: "
                "set max_bytes too, or max_total_bytes to 0"
            )
        if self.max_total_bytes and self.max_total_bytes < 2 * self.max_bytes:
            raise ValueError(
                "max_total_bytes must be 0 or at least twice max_bytes, "
                "or a rotation would leave nothing"
            )
