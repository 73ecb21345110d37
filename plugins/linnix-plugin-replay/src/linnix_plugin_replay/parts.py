"""The files that a recording is made of: found in their order, and opened."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import attrs

from linnix_core import PluginUnavailable, printable

__all__ = ["STANDARD_INPUT", "Part", "open_parts"]

#: The path that stands for standard input.
STANDARD_INPUT = Path("-")

# What follows the name of a file that was rotated: the time of the rotation, as
# linnix-plugin-jsonl and logrotate with dateext write it, or logrotate's number, which
# grows with age.
_ROTATED = re.compile(
    r"(?P<plain>[.-](?P<time>\d{8}[\dTZ.-]*)|\.(?P<number>\d{1,5}))(\.(gz|bz2|xz|zst))?", re.ASCII
)

#: First bytes of what has to be decompressed by a program; gzip needs none.
_COMPRESSED = {b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}

# O_NONBLOCK: a named pipe opens also while nobody writes to it yet.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


@attrs.frozen
class Part:
    """An open file or pipe, of which ``size`` bytes are to be played: all where that is None."""

    name: str
    descriptor: int
    size: int | None

    def close(self) -> None:
        """Let go of it; to be called once."""
        os.close(self.descriptor)


def open_parts(path: Path, *, rotated: bool) -> list[Part]:
    """What to play for one path, the oldest first. Raises `PluginUnavailable`.

    Everything is opened now and ends where it ends now: files may be rotated and deleted
    while others are played, what is played may be recorded into one of them, and the rights
    of root may be given up.
    """
    parts: list[Part] = []
    try:
        with contextlib.suppress(FileNotFoundError):
            parts.append(_open(path))
        if rotated and path != STANDARD_INPUT:
            # The file itself first: if it is rotated in between it is met again, and known.
            older = _rotated_from(path, parts)
            for place, file in enumerate(older):
                parts.insert(place, _open(file))
    except BaseException as error:
        for part in parts:
            part.close()
        if isinstance(error, OSError):
            name = printable(str(error.filename or path))
            raise PluginUnavailable(
                f"{name} cannot be read: {error.strerror}",
                hint="name another file, or let this user read it",
            ) from error
        raise
    if not parts:
        raise PluginUnavailable(
            f"{printable(str(path))}: there is no such file",
            hint="record one with: linnix run --handler jsonl:FILE",
        )
    return parts


def _open(path: Path) -> Part:
    if path == STANDARD_INPUT:
        name, descriptor = "standard input", os.dup(0)
    else:
        name, descriptor = printable(str(path)), os.open(path, _FLAGS)
    try:
        return Part(name, descriptor, _size(name, descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def _size(name: str, descriptor: int) -> int | None:
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):
        raise PluginUnavailable(f"{name} is a directory", hint="name a file in it")
    if not stat.S_ISREG(found.st_mode):
        return None
    begin = os.pread(descriptor, 8, 0)
    for magic, program in _COMPRESSED.items():
        if begin.startswith(magic):
            raise PluginUnavailable(
                f"{name} is compressed with {program}, which cannot be read here",
                hint=f"{program} -dc FILE | linnix run --collector replay:-",
            )
    # Of standard input, somebody may have read a part already.
    return max(found.st_size - os.lseek(descriptor, 0, os.SEEK_CUR), 0)


def _rotated_from(path: Path, opened: Iterable[Part]) -> list[Path]:
    """The files rotated from ``path``, the oldest first. Regular files only, no links."""
    known = [os.fstat(part.descriptor) for part in opened]
    found: dict[str, tuple[tuple[int, str], Path]] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(path.parent) as entries:
        # The shorter name first: while a file is being compressed there are both.
        for entry in sorted(entries, key=lambda entry: len(entry.name)):
            if not entry.name.startswith(path.name):
                continue
            name = _ROTATED.fullmatch(entry.name, len(path.name))
            if name is None or not entry.is_file(follow_symlinks=False):
                continue
            if any(os.path.samestat(entry.stat(follow_symlinks=False), one) for one in known):
                continue
            age = -int(name["number"] or 0), name["time"] or ""
            found.setdefault(name["plain"], (age, path.parent / entry.name))
    return [file for _, file in sorted(found.values())]
