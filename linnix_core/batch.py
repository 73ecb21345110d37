"""What travels from the pipeline to the handlers: many records at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from linnix_core.codec import encode
from linnix_core.records import Record

__all__ = ["Batch"]


class Batch(Sequence[Record]):
    """Records in the order of their ``seq``; read-only, shared by every handler."""

    __slots__ = ("_lines", "_records")

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._lines: tuple[bytes, ...] | None = None

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __getitem__(self, index: Any) -> Any:
        return self._records[index]

    def __repr__(self) -> str:
        return f"<Batch of {len(self)}>"

    def lines(self) -> tuple[bytes, ...]:
        """Each record as one JSON line without its newline; encoded once for all."""
        if self._lines is None:
            self._lines = tuple(map(encode, self._records))
        return self._lines
