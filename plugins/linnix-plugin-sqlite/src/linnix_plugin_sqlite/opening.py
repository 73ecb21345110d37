"""Opening the database: private, by one writer at a time, and with reasons in words."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import stat
import struct
from pathlib import Path
from urllib.parse import quote

from linnix_core import LinnixError, PluginUnavailable

__all__ = [
    "DAMAGED",
    "Tally",
    "because",
    "code_of",
    "damaged",
    "make_private",
    "open_reading",
    "open_writing",
]

_PRIVATE = 0o600

#: Seconds to wait for somebody else's transaction.
_PATIENCE_S = 5.0

#: SQLite's answers where the file is no whole database (sqlite3.h).
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where the error is not SQLite's own."""
    # Missing where Python's module raised it, as for a connection that is closed.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def because(error: sqlite3.Error | OSError) -> str:
    """A word for the counters: why something could not be written."""
    if isinstance(error, OSError):
        return "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "io_error"
    words = {
        sqlite3.SQLITE_FULL: "disk_full",
        sqlite3.SQLITE_BUSY: "locked",
        sqlite3.SQLITE_LOCKED: "locked",
        sqlite3.SQLITE_READONLY: "read_only",
    }
    return words.get(code_of(error), "io_error")


def damaged(path: Path, error: sqlite3.Error) -> PluginUnavailable:
    """What to say of a file that is no whole database. It is never touched."""
    hint = (
        f"move it away together with {path.name}-wal and {path.name}-shm, "
        "and a new one is begun; sqlite3's .recover may save what it holds"
    )
    if code_of(error) == sqlite3.SQLITE_NOTADB:
        # Nothing tells that it ever was one.
        return PluginUnavailable(
            f"{path} is no database, or its beginning is damaged: {error}",
            hint=f"choose another path; or, if it was the history, {hint}",
        )
    return PluginUnavailable(f"{path} is damaged: {error}", hint=hint)


# --- the writer -------------------------------------------------------------------------


class Tally:
    """How many records the writer has taken, where a ``kill -9`` cannot reach it.

    A small file beside the database, locked while its owner lives. Each batch is counted
    there by one write into the memory of the kernel, long before it is stored: so the next
    run can tell how many are missing. A power cut may set it back.
    """

    def __init__(self, database: Path, *, in_data_dir: bool = False) -> None:
        self._path = database.with_name(database.name + ".lock")
        make_private(self._path, in_data_dir=in_data_dir)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise PluginUnavailable(
                f"{database} is already written to by another Linnix",
                hint="choose another path for one of them, or stop the other",
            ) from None

    def read(self) -> tuple[int, int]:
        """The run that wrote here last, and how many records it had taken."""
        data = os.pread(self._descriptor, 16, 0)
        return struct.unpack("=QQ", data) if len(data) == 16 else (0, 0)

    def write(self, run: int, taken: int) -> None:
        """Say how far a run has got."""
        os.pwrite(self._descriptor, struct.pack("=QQ", run, taken), 0)

    def close(self) -> None:
        """Let the next one write. The file stays: removing it would race with its opening."""
        os.close(self._descriptor)


def make_private(path: Path, *, in_data_dir: bool = False) -> None:
    """Make the file if it is missing, 0600, with its folders, 0700; refuse what is not ours.

    To root everything in Linnix's own data folder is ours.

    Raises `PluginUnavailable`, or ``OSError`` where nothing but room on the disk is missing.
    """
    try:
        missing = [folder for folder in path.parents if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, _PRIVATE))
        _require_own(path, in_data_dir=in_data_dir)
    except OSError as error:
        if because(error) == "disk_full":
            raise
        raise PluginUnavailable(
            f"{path} cannot be opened: {error.strerror}",
            hint="choose another path, or let this user read and write there",
        ) from error


def _require_own(path: Path, *, in_data_dir: bool) -> None:
    # Looked at by its name, never by a descriptor: closing one would end SQLite's own locks
    # on the file (fcntl(2)).
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise PluginUnavailable(f"{path} is not a regular file", hint="choose another path")
    if found.st_uid != os.geteuid() and not (in_data_dir and os.geteuid() == 0):
        raise PluginUnavailable(
            f"{path} belongs to another user (uid {found.st_uid}), who could read every record",
            hint="choose another path, or move that file away",
        )
    if stat.S_IMODE(found.st_mode) != _PRIVATE:
        path.chmod(_PRIVATE)
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def open_writing(path: Path) -> sqlite3.Connection:
    """A connection that writes; transactions are begun by hand.

    Every commit survives the end of the process, whatever ends it; a power cut takes back
    at most what came since the last checkpoint of the log (synchronous NORMAL in WAL mode).
    """
    connection = sqlite3.connect(
        path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA temp_store = MEMORY")
    # The log is moved into the database when the store says so, within its bounds.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


# --- readers ----------------------------------------------------------------------------


def open_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Raises `LinnixError` where there is nothing to read."""
    try:
        path.lstat()
        return sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=ro",
            uri=True,
            timeout=_PATIENCE_S,
            isolation_level=None,
            check_same_thread=False,
        )
    except FileNotFoundError:
        raise LinnixError(
            f"there is no history at {path}",
            hint="name the database with --db, or record one: linnix run --handler sqlite",
        ) from None
    except (OSError, sqlite3.Error) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise LinnixError(
            f"{path} cannot be read: {said}", hint="try as root, or as who runs the agent"
        ) from None
