"""Opening a file that only its owner can read and only one process writes to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from linnix_core import PluginUnavailable
from linnix_plugin_jsonl.output import DISK_FULL

__all__ = ["is_at", "open_private"]

# O_NONBLOCK: opening must not wait where a FIFO took the place of a file.
_FLAGS = (
    os.O_RDWR
    | os.O_APPEND
    | os.O_CREAT
    | os.O_CLOEXEC
    | os.O_NOCTTY
    | os.O_NOFOLLOW
    | os.O_NONBLOCK
)
_PRIVATE = 0o600
_ATTEMPTS = 10
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_private(path: Path) -> int:
    """A descriptor for reading and appending, locked, of a regular file with mode 0600.

    Missing folders are made, 0700. Raises `PluginUnavailable` for what must not or cannot
    be written to, and ``OSError`` where nothing but room on the disk is missing.
    """
    try:
        _make_folders(path.parent)
        for _ in range(_ATTEMPTS):
            descriptor = _open(path)
            try:
                _own(path, descriptor)
                _lock(path, descriptor)
                # Between opening and locking, its last owner may have rotated it away.
                if is_at(path, descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise PluginUnavailable(
            f"{path} cannot be opened: {error.strerror}",
            hint="choose another path, or let this user read and write there",
        ) from error
    raise PluginUnavailable(
        f"{path} is replaced again and again by another process",
        hint="choose another path, or stop that process",
    )


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one that the path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def _make_folders(folder: Path) -> None:
    # Path.mkdir(parents=True) gives its mode to the last folder only.
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)


def _open(path: Path) -> int:
    # Opening a device can already do something: look first.
    with contextlib.suppress(FileNotFoundError):
        _require_regular(path, path.lstat())
    return os.open(path, _FLAGS, _PRIVATE)


def _require_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise PluginUnavailable(
            f"{path} is {kind}, not a regular file", hint="choose the path of a file, or -"
        )


def _own(path: Path, descriptor: int) -> None:
    found = os.fstat(descriptor)
    _require_regular(path, found)
    if found.st_uid != os.geteuid():
        raise PluginUnavailable(
            f"{path} belongs to another user (uid {found.st_uid}), who could read every record",
            hint="choose another path, or move that file away",
        )
    if stat.S_IMODE(found.st_mode) != _PRIVATE:
        os.fchmod(descriptor, _PRIVATE)


def _lock(path: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PluginUnavailable(
            f"{path} is already written to by another Linnix",
            hint="choose another path for one of them, or stop the other",
        ) from None
