"""Files from a source to a folder here: hashed while they are copied, resumed, whole or not there.

What is not finished lives in ``.NAME.partial`` beside its destination, with a journal of what
is; only when every file has arrived and holds does one rename put it in its place. Nothing
there is believed without the journal, so being killed costs at most the file under way.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol, Self

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_models.formats import (
    UnsafeWeights,
    check_weights,
    is_pickle_name,
    refuse_pickle,
)
from linnix_plugin_models.registry import Artifact, ModelFile

__all__ = [
    "Broken",
    "Entry",
    "LocalSource",
    "Progress",
    "Received",
    "Source",
    "TransferError",
    "fetch",
    "hash_files",
    "is_unchanged",
    "partial_folder",
    "select",
    "workplace",
]

#: How much is read, hashed and written at once, and how many of these wait for the hash.
CHUNK = 2**20
HASH_AHEAD = 8
#: Left free on the disk beyond what is about to be written.
SPARE_BYTES = 64 * 2**20
#: What one model may consist of.
MAX_FILES = 100_000
MAX_DEPTH = 64

#: Called with bytes done and bytes in all, as often as a chunk is.
Progress = Callable[[int, int | None], None]


class TransferError(LinnixError):
    """A transfer that cannot be finished, and what to do."""


class Broken(TransferError):
    """A connection that ended; trying again goes on where it did."""


@attrs.frozen
class Entry:
    """One file of a source. ``state`` changes when its content does; ``size`` None is unknown."""

    path: str
    size: int | None
    state: str = ""
    sha256: str | None = None


class Source(Protocol):
    """Where files come from."""

    #: Whether it is one file, which then is the destination itself.
    is_file: bool

    def entries(self) -> Sequence[Entry]:
        """Every regular file. Raises `TransferError`, or `Broken` if trying again may help."""
        ...

    def read(self, entry: Entry, offset: int) -> Iterator[bytes]:
        """The bytes of one from ``offset`` on. Raises like `entries`."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@attrs.frozen
class Received:
    """What has arrived."""

    path: Path
    files: tuple[ModelFile, ...]
    #: Files that were left out, because loading them would run code.
    refused: tuple[str, ...] = ()


class LocalSource:
    """Files of this machine, or of what is mounted on it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.is_file = path.is_file()
            there = self.is_file or path.is_dir()
        except OSError as error:
            raise Broken(f"{path}: {error.strerror}") from None
        if not there:
            raise TransferError(f"there is nothing at {path}")

    def entries(self) -> Sequence[Entry]:
        """Regular files below; a link counts as what it leads to if that is a file."""
        if self.is_file:
            return [self._entry(self._path, self._path.name)]
        found = []
        for folder, folders, names in os.walk(self._path, onerror=_unreadable):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file():
                    below = path.relative_to(self._path).as_posix()
                    found.append(self._entry(path, below))
        return found

    @staticmethod
    def _entry(path: Path, name: str) -> Entry:
        told = path.stat()
        return Entry(name, told.st_size, f"{told.st_size}-{told.st_mtime_ns}")

    def read(self, entry: Entry, offset: int) -> Iterator[bytes]:
        """Chunk by chunk."""
        path = self._path if self.is_file else self._path / entry.path
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(offset)
                while chunk := file.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise Broken(f"{path}: {error.strerror}") from None

    def close(self) -> None:
        """Nothing is open."""


def _unreadable(error: OSError) -> None:
    raise TransferError(f"{error.filename}: {error.strerror}")


def partial_folder(destination: Path) -> Path:
    """Where what is on its way to ``destination`` waits."""
    return destination.with_name(f".{destination.name}.partial")


def select(
    entries: Iterable[Entry], *, allow_pickle: bool = False
) -> tuple[list[Entry], tuple[str, ...]]:
    """What of a source is taken, and what is left out because loading it would run code.

    Raises `UnsafeWeights` when no weights would remain.
    """
    taken, refused = [], []
    for count, entry in enumerate(entries):
        if count >= MAX_FILES:
            raise TransferError(f"it has more than {MAX_FILES:,} files")
        _check_name(entry.path)
        if not allow_pickle and is_pickle_name(entry.path):
            refused.append(entry.path)
        else:
            taken.append(entry)
    if refused and not any(entry.path.endswith((".safetensors", ".gguf")) for entry in taken):
        raise UnsafeWeights(
            f"its weights are pickles, which run code when they are loaded: {_some(refused)}",
            hint="say --allow-pickle if you trust where they come from",
        )
    if not taken:
        raise TransferError("there is no file in it")
    return taken, tuple(refused)


def _check_name(path: str) -> None:
    parts = PurePosixPath(path).parts
    if (
        not parts
        or path.startswith("/")
        or "\0" in path
        or ".." in parts
        or "/".join(parts) != path
        or len(parts) > MAX_DEPTH
    ):
        raise TransferError(f"a file cannot be called {printable(path, 120)!r} here")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(printable(name, 80) for name in names[:3]) + more


def fetch(
    connect: Callable[[], Source],
    destination: Path,
    *,
    expected: Mapping[str, ModelFile] | None = None,
    replaceable: Collection[str] = (),
    allow_pickle: bool = False,
    retries: int = 0,
    progress: Progress | None = None,
    wait: Callable[[float], object] | None = None,
) -> Received:
    """Bring everything of a source to ``destination``, which is replaced as a whole.

    A folder that holds anything but files of the source and those that are ``replaceable`` is
    not. ``expected`` are the files with sizes and digests as they should be. A broken connection is
    taken up again ``retries`` times in a row without a new byte. Raises `TransferError`.
    """
    folder = partial_folder(destination)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder):
            staging = _Staging(folder)
            try:
                return _persistently(
                    lambda: _attempt(
                        connect,
                        destination,
                        staging,
                        expected,
                        replaceable,
                        allow_pickle,
                        progress,
                    ),
                    staging,
                    retries,
                    wait or time.sleep,
                )
            finally:
                with contextlib.suppress(OSError):
                    staging.tidy()
    except OSError as error:
        where = error.filename or destination
        raise TransferError(f"{where}: {error.strerror or error}") from error


def _persistently(
    attempt: Callable[[], Received],
    staging: _Staging,
    retries: int,
    wait: Callable[[float], object],
) -> Received:
    """Try until it works, or so often in a row without anything new."""
    tries = 0
    while True:
        before = staging.progressed
        try:
            return attempt()
        except Broken:
            tries = 0 if staging.progressed > before else tries
            if tries >= retries:
                raise
            tries += 1
            wait(min(2.0 ** (tries - 1), 30.0))


def _attempt(
    connect: Callable[[], Source],
    destination: Path,
    staging: _Staging,
    expected: Mapping[str, ModelFile] | None,
    replaceable: Collection[str],
    allow_pickle: bool,
    progress: Progress | None,
) -> Received:
    source = connect()
    try:
        entries, refused = select(source.entries(), allow_pickle=allow_pickle)
        if expected:
            _compare(entries, expected)
        _refuse_foreign(destination, {*replaceable, *(entry.path for entry in entries)})
        staging.keep_only(entries)
        _need_space(staging, entries)
        total = None if any(e.size is None for e in entries) else sum(e.size or 0 for e in entries)
        if (files := staging.published(destination, entries, source.is_file)) is not None:
            staging.discard()
            return Received(destination, files, refused)
        done = 0

        def advanced(here: int) -> None:
            if progress is not None:
                progress(done + here, total)

        received = []
        for entry in entries:
            wanted = expected.get(entry.path) if expected else None
            file = staging.receive(source, entry, wanted, advanced)
            done += file.size
            received.append(file)
        for file in received:
            staging.check(file.path, allow_pickle=allow_pickle)
        staging.publish(destination, received[0].path if source.is_file else None)
        return Received(destination, tuple(received), refused)
    finally:
        source.close()


def _compare(entries: Iterable[Entry], expected: Mapping[str, ModelFile]) -> None:
    sizes = {entry.path: entry.size for entry in entries}
    for path, file in expected.items():
        if path not in sizes:
            if is_pickle_name(path):
                continue
            raise TransferError(f"{printable(path)} is missing at the source")
        if sizes[path] not in (None, file.size):
            raise TransferError(
                f"{printable(path)} has {sizes[path]:,} bytes at the source, "
                f"and {file.size:,} in the registry",
                hint="if it was changed on purpose, register it again",
            )


def _refuse_foreign(destination: Path, ours: Collection[str]) -> None:
    """Nothing is replaced that may be somebody's: not even with a folder of theirs named."""
    for folder, _, names in os.walk(destination):
        for name in names:
            path = Path(folder, name)
            if path.relative_to(destination).as_posix() not in ours:
                raise TransferError(
                    f"{destination} holds {printable(str(path))}, which is not of this model",
                    hint="choose another folder with --dest, or move it away",
                )


def _need_space(staging: _Staging, entries: Sequence[Entry]) -> None:
    needed = sum(max((entry.size or 0) - staging.has(entry), 0) for entry in entries)
    free = shutil.disk_usage(staging.folder).free
    if needed and needed + SPARE_BYTES > free:
        raise TransferError(
            f"{needed / 1e9:.1f} GB are needed at {staging.folder.parent} and "
            f"{free / 1e9:.1f} GB are free",
            hint="make room, or choose another folder with --dest",
        )


# --- what is under way ----------------------------------------------------------------


class _Staging:
    """A folder of files that are under way, with a journal of those that have arrived."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "files"
        self._journal = folder / "journal"
        #: Grows with everything that arrives.
        self.progressed = 0
        #: File → what the source said of it, and the digest once it is whole.
        self._known: dict[str, tuple[str, ModelFile | None]] = {}
        self.files.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            for line in self._journal.read_text(encoding="utf-8").splitlines():
                # The last line may have been cut off.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._take(json.loads(line))

    def _take(self, note: Mapping[str, object]) -> None:
        path, state, sha = str(note["path"]), str(note["state"]), note["sha256"]
        size = note["size"]
        whole = isinstance(sha, str) and isinstance(size, int)
        self._known[path] = (
            state,
            ModelFile(path, size, sha) if whole else None,  # type: ignore[arg-type]
        )

    def _note(self, entry: Entry, file: ModelFile | None) -> None:
        self._write_note(entry.path, _state(entry), file)

    def _write_note(self, path: str, state: str, file: ModelFile | None) -> None:
        self._known[path] = (state, file)
        note = {
            "path": path,
            "state": state,
            "size": file.size if file else None,
            "sha256": file.sha256 if file else None,
        }
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(note) + "\n")

    def has(self, entry: Entry) -> int:
        """How many bytes of it are here and still good."""
        state, _ = self._known.get(entry.path, (None, None))
        path = self.files / entry.path
        if state != _state(entry) or not path.is_file() or path.is_symlink():
            return 0
        return path.stat().st_size

    def keep_only(self, entries: Iterable[Entry]) -> None:
        """Remove what the source has no more, or has otherwise now."""
        wanted = {entry.path: _state(entry) for entry in entries}
        for path in [p for p in self.files.rglob("*") if not p.is_dir() or p.is_symlink()]:
            below = path.relative_to(self.files).as_posix()
            state, _ = self._known.get(below, (None, None))
            if below not in wanted or wanted[below] != state:
                path.unlink()
        for path in sorted((p for p in self.files.rglob("*") if p.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()

    def receive(
        self,
        source: Source,
        entry: Entry,
        expected: ModelFile | None,
        advanced: Callable[[int], None],
    ) -> ModelFile:
        """One file, from where it ended; its digest is made of the bytes as they pass."""
        _, whole = self._known.get(entry.path, (None, None))
        begun = self.has(entry)
        if whole is not None and whole.size == begun:
            _agree(entry, expected, whole)
            advanced(whole.size)
            return whole
        if not begun:
            self._note(entry, None)
        target = self.files / entry.path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if entry.size is not None and begun > entry.size:
            begun = 0
        with target.open("r+b" if begun else "wb", buffering=0) as file, _Hash() as digest:
            position = 0
            while position < begun:
                chunk = file.read(min(CHUNK, begun - position))
                digest.update(chunk)
                position += len(chunk)
                advanced(position)
            try:
                for chunk in source.read(entry, begun):
                    digest.update(chunk)
                    # A hole where nothing is: the file is as long all the same.
                    if chunk[:1] == b"\0" and chunk == bytes(len(chunk)):
                        file.seek(len(chunk), 1)
                    else:
                        _write(file.fileno(), chunk)
                    position += len(chunk)
                    self.progressed += len(chunk)
                    if entry.size is not None and position > entry.size:
                        raise Broken(f"{printable(entry.path)} changed while it was read")
                    advanced(position)
            finally:
                file.truncate(position)
            if entry.size is not None and position != entry.size:
                raise Broken(
                    f"{printable(entry.path)} ended after {position:,} of {entry.size:,} bytes"
                )
            received = ModelFile(entry.path, position, digest.hexdigest())
        try:
            _agree(entry, expected, received)
        except TransferError:
            self.forget(entry.path)  # nothing of it can be trusted
            raise
        self._note(entry, received)
        return received

    def check(self, path: str, *, allow_pickle: bool) -> None:
        """Raise `UnsafeWeights` for a file that must not be used, and forget it."""
        target = self.files / path
        try:
            check_weights(target)
            if not allow_pickle:
                refuse_pickle(target)
        except UnsafeWeights:
            self.forget(path)
            raise

    def publish(self, destination: Path, only: str | None) -> None:
        """Put everything in its place with one rename, in place of what was there."""
        ready = self.files if only is None else self.files / only
        old = self.folder / "replaced"
        if destination.is_dir() or (destination.exists() and ready.is_dir()):
            _remove(old)
            destination.rename(old)
        ready.replace(destination)
        self.discard()

    def published(
        self, destination: Path, entries: Iterable[Entry], is_file: bool
    ) -> tuple[ModelFile, ...] | None:
        """What is in its place already, by a run that was killed right after it put it there."""
        made = []
        for entry in entries:
            state, whole = self._known.get(entry.path, (None, None))
            path = destination if is_file else destination / entry.path
            if whole is None or state != _state(entry) or (self.files / entry.path).exists():
                return None
            if not path.is_file() or path.stat().st_size != whole.size:
                return None
            made.append(whole)
        return tuple(made)

    def forget(self, path: str) -> None:
        """Remove one file, and do not believe that it is whole."""
        (self.files / path).unlink()
        state, _ = self._known[path]
        self._write_note(path, state, None)

    def tidy(self) -> None:
        """Remove everything if nothing is here that a second run could use."""
        if not any(whole for _, whole in self._known.values()) and not any(self.files.iterdir()):
            self.discard()

    def discard(self) -> None:
        """Remove what is left of the work."""
        _remove(self.folder)


def _state(entry: Entry) -> str:
    return f"{entry.size} {entry.state} {entry.sha256 or ''}"


def _agree(entry: Entry, expected: ModelFile | None, received: ModelFile) -> None:
    for said, by in (
        (entry.sha256, "its source says"),
        (expected.sha256 if expected else None, "is registered"),
    ):
        if said is not None and said != received.sha256:
            raise TransferError(
                f"{printable(entry.path)} arrived with the SHA-256 {received.sha256}, "
                f"and {by} {said}",
                hint="it was damaged or exchanged; nothing of it was kept",
            )


def _write(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


class _Hash:
    """SHA-256 in a thread of its own, so that it costs no time beside the copying."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._chunks: queue.Queue[bytes | None] = queue.Queue(HASH_AHEAD)
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._chunks.put(None)
            self._thread.join()

    def update(self, chunk: bytes) -> None:
        """Hand over the next bytes."""
        self._chunks.put(chunk)

    def hexdigest(self) -> str:
        """After the last of them."""
        self._chunks.put(None)
        self._thread.join()
        return self._digest.hexdigest()

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._digest.update(chunk)


def hash_files(
    path: Path, entries: Sequence[Entry], progress: Progress | None = None
) -> tuple[ModelFile, ...]:
    """Size and digest of files that are here already."""
    source = LocalSource(path)
    total = sum(entry.size or 0 for entry in entries)
    done = 0
    made = []
    for entry in entries:
        digest, size = hashlib.sha256(), 0
        for chunk in source.read(entry, 0):
            digest.update(chunk)
            size += len(chunk)
            if progress is not None:
                progress(done + size, total)
        done += size
        made.append(ModelFile(entry.path, size, digest.hexdigest()))
    return tuple(made)


def is_unchanged(artifact: Artifact) -> bool:
    """Whether every file is where it was noted, with its size."""
    root = Path(artifact.path)
    alone = root.is_file()
    return bool(artifact.files) and all(
        (path := root if alone else root / file.path).is_file() and path.stat().st_size == file.size
        for file in artifact.files
    )


@contextlib.contextmanager
def workplace(destination: Path) -> Iterator[Path]:
    """An empty folder beside ``destination`` for what is made of it, gone afterwards.

    Raises `TransferError` while somebody else makes it.
    """
    folder = partial_folder(destination)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        for left in folder.iterdir():
            if left.name != "lock":
                _remove(left)
        try:
            yield folder
        finally:
            _remove(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one transfer to a place at a time."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise TransferError(
            f"somebody else is at work in {folder}",
            hint="wait for it, or choose another place",
        ) from None
    finally:
        os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
