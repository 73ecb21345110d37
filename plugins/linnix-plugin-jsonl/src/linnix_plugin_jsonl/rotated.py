"""The files that rotation leaves: how they are named, found and deleted."""

from __future__ import annotations

import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

__all__ = ["Rotated", "RotatedFiles"]

_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)\.(\d{6})Z", re.ASCII)
_FORMAT = "%Y%m%dT%H%M%S.%fZ"


@attrs.frozen
class Rotated:
    """One rotated file and its size."""

    path: Path
    bytes: int


class RotatedFiles:
    """The rotated files of ``current``: beside it, named ``NAME.20261122T101530.123456Z``.

    The time is UTC, of the rotation. Each name is later than all that exist, also when the
    clock was set back: the order of the names is the order of the records.
    """

    def __init__(self, current: Path) -> None:
        self._folder = current.parent
        self._prefix = f"{current.name}."

    def find(self) -> list[Rotated]:
        """The oldest first. Only regular files of this user with exactly such a name."""
        found = []
        for _, path in self._named():
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                found.append(Rotated(path, status.st_size))
        return found

    def next_path(self, now_ns: int) -> Path:
        """The name for a file that rotates now, which nothing has yet."""
        moment = datetime.fromtimestamp(now_ns // 10**9, tz=UTC)
        moment += timedelta(microseconds=now_ns % 10**9 // 1000)
        if named := self._named():
            moment = max(moment, named[-1][0] + timedelta(microseconds=1))
        return self._folder / (self._prefix + moment.strftime(_FORMAT))

    def _named(self) -> list[tuple[datetime, Path]]:
        return sorted(
            (moment, path)
            for path in self._folder.iterdir()
            if path.name.startswith(self._prefix)
            and (moment := _moment(path.name.removeprefix(self._prefix)))
        )


def _moment(stamp: str) -> datetime | None:
    if not (parts := _STAMP.fullmatch(stamp)):
        return None
    try:
        # Not strptime: that imports a module when first called, which may be out of reach
        # for an agent that has given up its privileges by then.
        return datetime(*map(int, parts.groups()), tzinfo=UTC)  # type: ignore[misc,arg-type]
    except ValueError:
        return None
