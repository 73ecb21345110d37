"""A folder of rules: its files, in their order, and what became of each."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

from linnix_core import PluginUnavailable, printable

__all__ = ["MAX_FILES", "MAX_FILE_BYTES", "RuleFile", "read_files"]

#: Larger than any rule; what is larger was not meant to be one.
MAX_FILE_BYTES = 2**20

#: Whoever has more has named the wrong folder.
MAX_FILES = 20_000

_SUFFIXES = (".yml", ".yaml")

# O_NONBLOCK: a named pipe opens without anybody at its other end.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


@attrs.frozen
class RuleFile:
    """A file that may hold rules: its text, or the ``reason`` why that cannot be had.

    ``name`` is relative to the folder, and safe to show.
    """

    name: str
    text: str = ""
    reason: str = ""


def read_files(path: str) -> list[RuleFile]:
    """Every file of a folder and those below it, or the one file. Raises `PluginUnavailable`.

    Hidden files and folders are passed over. Links are followed, each folder is read once.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise PluginUnavailable(
            f"{printable(path)}: there is no such folder or file",
            hint="name the folder that holds your Sigma rules",
        )
    if not place.is_dir():
        return [_read(place, place.name)]
    files: list[RuleFile] = []
    for found in _found(place):
        files.append(found)
        if len(files) > MAX_FILES:
            raise PluginUnavailable(
                f"{printable(path)} holds more than {MAX_FILES} files of rules",
                hint="name the folder below it that holds the rules to use",
            )
    return files


def _found(top: Path) -> Iterator[RuleFile]:
    refused: list[OSError] = []
    seen = {_identity(top)}
    for folder, below, names in os.walk(top, onerror=refused.append, followlinks=True):
        below.sort()
        for name in below.copy():
            identity = None if name.startswith(".") else _identity(Path(folder, name))
            if identity is None or identity in seen:
                below.remove(name)
            else:
                seen.add(identity)
        for name in sorted(names):
            if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
                file = Path(folder, name)
                yield _read(file, str(file.relative_to(top)))
    for error in refused:
        yield RuleFile(
            printable(os.path.relpath(error.filename or top, top)),
            reason=f"it cannot be read: {error.strerror}",
        )


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None  # gone meanwhile
    return found.st_dev, found.st_ino


def _read(file: Path, name: str) -> RuleFile:
    shown = printable(name)
    try:
        descriptor = os.open(file, _FLAGS)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return RuleFile(shown, reason="it is no regular file")
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return RuleFile(shown, reason=f"it cannot be read: {error.strerror}")
    if len(content) > MAX_FILE_BYTES:
        return RuleFile(shown, reason=f"it is larger than {MAX_FILE_BYTES // 1024} KiB")
    try:
        return RuleFile(shown, content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return RuleFile(shown, reason="it is no text in UTF-8")
