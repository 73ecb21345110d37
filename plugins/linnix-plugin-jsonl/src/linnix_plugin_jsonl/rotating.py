"""A file of lines that rotates, survives a full disk and being moved, and tears no line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from linnix_core import PluginUnavailable
from linnix_plugin_jsonl.config import FsyncPolicy
from linnix_plugin_jsonl.opening import is_at, open_private
from linnix_plugin_jsonl.output import NotWritten, because
from linnix_plugin_jsonl.rotated import RotatedFiles

__all__ = ["RotatingFile"]

#: How much of a file is read to find its first or its last line: several times any record.
_READ_BYTES = 2**20


class RotatingFile:
    """Lines in ``path`` and in the files rotated from it.

    Limits of 0 are none; ``max_age_ns`` is measured by ``now_ns`` (nanoseconds since the
    epoch). A line longer than ``max_bytes`` gets a file of its own; no limit splits one.
    Not safe to use from several threads.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        max_age_ns: int,
        max_total_bytes: int,
        fsync: FsyncPolicy,
        now_ns: Callable[[], int],
    ) -> None:
        self.bytes_written = 0
        self.rotations = 0
        self._path = path
        self._max_bytes = max_bytes
        self._max_age_ns = max_age_ns
        self._max_total_bytes = max_total_bytes
        self._fsync = fsync
        self._now_ns = now_ns
        self._rotated = RotatedFiles(path)
        self._rotated_bytes = 0
        self._descriptor: int | None = None
        self._began_ns = 0
        self._unsynced = False
        self._cut = False
        self._troubles: dict[str, str] = {}

    @property
    def troubles(self) -> tuple[str, ...]:
        """What does not work although lines are being written, in words."""
        return tuple(self._troubles.values())

    def open(self) -> None:
        """Open or create the file. Raises `PluginUnavailable` and ``OSError``.

        A last line that was cut is mended before the first write.
        """
        self.close()
        descriptor = open_private(self._path)
        try:
            self._began_ns = _first_record_ns(descriptor) or self._now_ns()
            self._rotated_bytes = sum(rotated.bytes for rotated in self._rotated.find())
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._cut = True
        self._troubles.pop("rotate", None)
        self._sync_folder()

    def append(self, lines: Sequence[bytes]) -> None:
        """Write the lines in their order, ending each. Raises `NotWritten`."""
        written = 0
        try:
            while written < len(lines):
                written += self._append_some(lines[written:] if written else lines)
        except NotWritten as failure:
            failure.written += written
            raise
        except PluginUnavailable as refused:
            raise NotWritten(written, "no_file", str(refused)) from refused
        except OSError as error:
            raise because(error, str(self._path), written) from error

    def sync(self) -> None:
        """Force what was written to disk unless the policy is ``never``."""
        if self._fsync == "never" or not self._unsynced or self._descriptor is None:
            return
        # A failed fsync is not repeated: the kernel has already given those pages up.
        self._unsynced = False
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._troubles["sync"] = f"cannot force {self._path} to disk: {error.strerror}"
        else:
            self._troubles.pop("sync", None)

    def close(self) -> None:
        """Sync and let go; doing it twice is not an error."""
        if self._descriptor is not None:
            self.sync()
            os.close(self._descriptor)
            self._descriptor = None

    # --- writing ----------------------------------------------------------------------

    def _append_some(self, lines: Sequence[bytes]) -> int:
        """Write as many of the lines as fit into one file; how many that were."""
        descriptor, size = self._ready()
        if not size:
            self._began_ns = self._now_ns()
        count = self._fitting(lines, size)
        if size and (count == 0 or self._is_old()):
            if self._rotate():
                return self._append_some(lines)
            # The bound on the total holds all the same.
            count = len(lines)
        chosen = lines if count == len(lines) else lines[: max(count, 1)]
        data = b"\n".join(chosen) + b"\n"
        self._make_room(size + len(data))
        self._write(descriptor, data)
        return len(chosen)

    def _ready(self) -> tuple[int, int]:
        """The open file and its size, whatever others have done to it meanwhile."""
        if self._descriptor is None or not is_at(self._path, self._descriptor):
            self.open()
        descriptor = self._descriptor
        assert descriptor is not None
        if self._cut:
            _mend(descriptor)
            self._cut = False
        return descriptor, os.fstat(descriptor).st_size

    def _fitting(self, lines: Sequence[bytes], size: int) -> int:
        room = self._max_bytes - size
        if not self._max_bytes or sum(map(len, lines)) + len(lines) <= room:
            return len(lines)
        for count, line in enumerate(lines):
            room -= len(line) + 1
            if room < 0:
                return count
        return len(lines)

    def _is_old(self) -> bool:
        return 0 < self._max_age_ns <= self._now_ns() - self._began_ns

    def _write(self, descriptor: int, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(descriptor, memoryview(data)[written:])
            if self._fsync == "batch":
                os.fsync(descriptor)
        except OSError as error:
            # What "batch" promises to be on disk is all of it or nothing.
            whole = 0 if self._fsync == "batch" else data.rfind(b"\n", 0, written) + 1
            self._take_back(descriptor, written - whole)
            self._wrote(whole)
            lines = data.count(b"\n", 0, whole)
            raise because(error, str(self._path), lines) from error
        self._wrote(len(data))

    def _wrote(self, count: int) -> None:
        self.bytes_written += count
        self._unsynced = self._unsynced or (count > 0 and self._fsync == "flush")

    def _take_back(self, descriptor: int, count: int) -> None:
        """Remove the last bytes, or see to it that the next line does not continue them."""
        if not count:
            return
        try:
            os.ftruncate(descriptor, max(os.fstat(descriptor).st_size - count, 0))
        except OSError:
            self._cut = True

    # --- rotation ---------------------------------------------------------------------

    def _rotate(self) -> bool:
        """Give the current file its final name and begin another; False if it has to stay."""
        try:
            self._path.rename(self._rotated.next_path(self._now_ns()))
        except (OSError, OverflowError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            self._troubles["rotate"] = f"cannot rotate {self._path}: {said}"
            return False
        self.rotations += 1
        self.open()
        return True

    def _make_room(self, needed: int) -> None:
        """Delete the oldest rotated files until the current one may have ``needed`` bytes."""
        if not self._max_total_bytes or self._rotated_bytes + needed <= self._max_total_bytes:
            return
        self._troubles.pop("delete", None)
        files = self._rotated.find()
        self._rotated_bytes = sum(rotated.bytes for rotated in files)
        for rotated in files:
            if self._rotated_bytes + needed <= self._max_total_bytes:
                return
            try:
                rotated.path.unlink(missing_ok=True)
            except OSError as error:
                self._troubles["delete"] = f"cannot delete {rotated.path}: {error.strerror}"
            else:
                self._rotated_bytes -= rotated.bytes
        if self._rotated_bytes + needed > self._max_total_bytes:
            raise NotWritten(
                0, "size_limit", f"{self._path} may not grow: max_total_bytes are in use"
            )

    def _sync_folder(self) -> None:
        """Make names durable, as `sync` does for contents."""
        if self._fsync == "never":
            return
        # Not every filesystem can do this for a folder; contents are synced all the same.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _first_record_ns(descriptor: int) -> int | None:
    """The time of the first record; None where there is none."""
    line, end, _ = os.pread(descriptor, _READ_BYTES, 0).partition(b"\n")
    record = _parsed(line) if end else None
    ts_ns = record.get("ts_ns") if isinstance(record, dict) else None
    return ts_ns if isinstance(ts_ns, int) else None


def _mend(descriptor: int) -> None:
    """See to it that the next line begins on its own.

    A last line without its end is the work of a process that was killed, or of a full disk.
    A record that breaks off is removed; anything else is kept and ended.
    """
    size = os.fstat(descriptor).st_size
    start = max(size - _READ_BYTES, 0)
    _, newline, line = os.pread(descriptor, _READ_BYTES, start).rpartition(b"\n")
    if not line:
        return
    known_from_its_start = newline or start == 0
    if known_from_its_start and line.startswith(b'{"') and _parsed(line) is None:
        with contextlib.suppress(OSError):  # an append-only file refuses
            os.ftruncate(descriptor, size - len(line))
            return
    os.write(descriptor, b"\n")


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
