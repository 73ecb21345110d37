"""Lines of files of any size, and files that are there whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import attrs

from linnix_core import LinnixError

__all__ = [
    "MAX_LINE_BYTES",
    "STANDARD",
    "Line",
    "digest_of",
    "is_one_document",
    "lines_of",
    "require_file",
    "writing",
]

#: As much as a bundle may have.
MAX_LINE_BYTES = 4 * 2**20

#: Standard input or output in place of a file.
STANDARD = Path("-")

_GZIP = b"\x1f\x8b"


@attrs.frozen
class Line:
    """One line that is not blank, and where it is. ``data`` is None where it is too long."""

    source: str
    number: int
    data: bytes | None

    @property
    def place(self) -> str:
        """``FILE:LINE``."""
        return f"{self.source}:{self.number}"


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a file, gzipped or not. Raises `LinnixError` where it cannot be read."""
    try:
        with _opened(path) as file:
            number = 0
            while data := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(data) <= MAX_LINE_BYTES:
                    if not data.isspace():
                        yield Line(str(path), number, data.rstrip(b"\r\n"))
                    continue
                yield Line(str(path), number, None)
                while data and not data.endswith(b"\n"):
                    data = file.readline(MAX_LINE_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise LinnixError(f"cannot read {path}: {_reason(error)}") from error


def require_file(path: Path) -> None:
    """Raise `LinnixError` for a pipe or device, which cannot be read a second time."""
    if path == STANDARD or (path.exists() and not path.is_file()):
        raise LinnixError(f"{path} is read more than once: name a file")


def digest_of(path: Path) -> str:
    """``sha256:…`` of a file as it is. Raises `LinnixError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise LinnixError(f"cannot read {path}: {_reason(error)}") from error


def is_one_document(path: Path) -> bool:
    """Whether a file begins as a bundle does, whose first line is a brace: not as JSON lines."""
    first = next(lines_of(path), None)
    return first is not None and (first.data is None or first.data.strip() == b"{")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path == STANDARD:
        yield sys.stdin.buffer
        return
    with path.open("rb") as file:
        if file.peek(len(_GZIP)).startswith(_GZIP):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            yield file


@contextmanager
def writing(path: Path) -> Iterator[IO[str]]:
    """A text file that only its owner can read, and that appears when everything is in it.

    Raises `LinnixError` where it cannot be written; what was there before stays then.
    """
    if path == STANDARD:
        yield sys.stdout
        return
    if path.exists() and not path.is_file():
        # A device or a pipe is written to, and not replaced by a file.
        try:
            with path.open("w", encoding="utf-8") as file:
                yield file
        except OSError as error:
            raise LinnixError(f"cannot write {path}: {_reason(error)}") from error
        return
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}-")
    except OSError as error:
        raise LinnixError(f"cannot write {path}: {_reason(error)}") from error
    temporary = Path(name)
    try:
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                yield file
            temporary.replace(path)
        except OSError as error:
            raise LinnixError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
