"""SFTP version 3 over the system's OpenSSH (draft-ietf-secsh-filexfer-02).

``ssh -s HOST sftp`` brings the user's configuration, agents and known hosts, and the protocol
names files as bytes: there is no shell on the way, so nothing has to be quoted, and a Windows
host needs neither cmd nor PowerShell nor Git Bash to be understood.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import select
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeAlias

import attrs

from linnix_core import printable
from linnix_plugin_models.paths import CrossPlatformPath
from linnix_plugin_models.syncfile import Host, Preferences
from linnix_plugin_models.transfer import (
    MAX_DEPTH,
    MAX_FILES,
    Broken,
    Entry,
    TransferError,
)

__all__ = ["Attributes", "NotThere", "Sftp", "SftpSource", "ssh_command"]

#: Seconds for a connection to come about, however long a transfer may be silent later.
CONNECT_TIMEOUT_S = 30
#: What OpenSSH's server hands over at once, and how much may be on its way.
READ_SIZE = 255 * 1024
WRITE_SIZE = 32 * 1024
READS_AHEAD = 64
#: The longest answer that is believed.
MAX_PACKET = 2**20
PIPE_SIZE = 2**20

_INIT, _VERSION = 1, 2
_OPEN, _CLOSE, _READ, _WRITE, _LSTAT, _FSTAT, _SETSTAT, _FSETSTAT = 3, 4, 5, 6, 7, 8, 9, 10
_OPENDIR, _READDIR, _REMOVE, _MKDIR, _RMDIR, _REALPATH, _STAT, _RENAME = (
    11, 12, 13, 14, 15, 16, 17, 18,
)  # fmt: skip
_EXTENDED = 200
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 101, 102, 103, 104, 105
_OK, _EOF, _NO_SUCH_FILE, _PERMISSION_DENIED = 0, 1, 2, 3
_FLAG_READ, _FLAG_WRITE, _FLAG_CREATE, _FLAG_TRUNCATE = 1, 2, 8, 16

#: What comes from the other side, before it is taken apart.
Data: TypeAlias = bytes | bytearray | memoryview


class NotThere(TransferError):
    """The host has nothing of that name."""


@attrs.frozen
class Attributes:
    """What the server says of a file."""

    size: int | None
    mode: int | None
    mtime: int | None

    @property
    def is_file(self) -> bool:
        """A regular one."""
        return self.mode is not None and stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        """A folder."""
        return self.mode is not None and stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """A symbolic link."""
        return self.mode is not None and stat.S_ISLNK(self.mode)


def ssh_command(host: Host, preferences: Preferences, *words: str) -> list[str]:
    """The argument list of an ``ssh`` to a host that never asks and never waits for ever."""
    patience = max(int(preferences.ssh_timeout), 1)
    command = [
        "ssh",
        "-o", "BatchMode=yes",
        "-o", f"ConnectTimeout={min(patience, CONNECT_TIMEOUT_S)}",
        "-o", f"ServerAliveInterval={max(patience // 3, 1)}",
        "-o", "ServerAliveCountMax=3",
    ]  # fmt: skip
    if preferences.ssh_config is not None:
        command += ["-F", str(preferences.ssh_config)]
    if host.port is not None:
        command += ["-p", str(host.port)]
    if host.ssh_key is not None:
        command += ["-i", str(host.ssh_key)]
    if host.username is not None:
        command += ["-l", host.username]
    return [*command, *words]


class Sftp:
    """One connection. Every method raises `TransferError`; `Broken` if it is the connection."""

    def __init__(self, host: Host, preferences: Preferences) -> None:
        self._host = host
        self._timeout = float(preferences.ssh_timeout)
        self._number = 0
        self._answers: dict[int, tuple[int, Data]] = {}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the connection
        command = ssh_command(host, preferences, "-s", "--", host.hostname, "sftp")
        try:
            self._process = subprocess.Popen(  # noqa: S603 - an argument list
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                bufsize=0,
                start_new_session=True,
            )
        except FileNotFoundError:
            self._said.close()
            raise TransferError(
                "there is no ssh on PATH", hint="install OpenSSH's client (openssh-client)"
            ) from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        os.set_blocking(self._from.fileno(), False)
        os.set_blocking(self._to.fileno(), False)
        self._posix_rename = False
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):
                pipe.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._said.close()

    # --- files ------------------------------------------------------------------------

    def attributes(self, path: bytes) -> Attributes:
        """Of what the path leads to. Raises `NotThere`."""
        return _attributes(_Parser(self._ask(_STAT, _text(path), _ATTRS, path)))

    def real_path(self, path: bytes) -> bytes:
        """As the server writes it, absolute."""
        answer = _Parser(self._ask(_REALPATH, _text(path), _NAME, path))
        if answer.number() < 1:
            raise self._nonsense("it resolves a path to nothing")
        return answer.text()

    def listing(self, path: bytes) -> Iterator[tuple[bytes, Attributes]]:
        """Names in a folder with what they are; ``.`` and ``..`` left out."""
        handle = _Parser(self._ask(_OPENDIR, _text(path), _HANDLE, path)).text()
        count = 0
        try:
            while (answer := self._ask_or_end(_READDIR, _text(handle), _NAME, path)) is not None:
                parser = _Parser(answer)
                names = parser.number()
                count += names
                if not names or count > MAX_FILES:
                    raise self._nonsense(f"it lists {count:,} names in a folder")
                for _ in range(names):
                    name, _long = parser.text(), parser.text()
                    told = _attributes(parser)
                    if name not in (b".", b".."):
                        yield name, told
        finally:
            self._ask(_CLOSE, _text(handle), _STATUS, path)

    def read(self, path: bytes, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
        """The bytes of a file, many requests ahead of what has come."""
        body = _text(path) + struct.pack(">II", _FLAG_READ, 0)
        handle = _Parser(self._ask(_OPEN, body, _HANDLE, path)).text()
        waiting: collections.deque[tuple[int, int, int]] = collections.deque()
        position, ended = offset, False

        def request(begin: int, length: int) -> None:
            body = _text(handle) + struct.pack(">QI", begin, length)
            waiting.append((self._send(_READ, body), begin, length))

        try:
            while True:
                # Without a size there is no knowing how much to ask for ahead.
                ahead = READS_AHEAD if size is not None else 4
                while not ended and len(waiting) < ahead and (size is None or position < size):
                    request(position, READ_SIZE)
                    position += READ_SIZE
                if not waiting:
                    return
                number, begin, length = waiting.popleft()
                kind, answer = self._receive(number)
                if kind == _STATUS:
                    self._check(_Parser(answer), path, eof=True)
                    ended = True
                    continue
                if kind != _DATA:
                    raise self._nonsense(f"it answers {kind} to a read")
                chunk = _Parser(answer).text()
                if not 0 < len(chunk) <= length:
                    raise self._nonsense(f"it gives {len(chunk):,} of {length:,} bytes")
                if len(chunk) < length and not ended:
                    # It gave less than was asked for: what follows was asked at the wrong place.
                    while waiting:
                        self._receive(waiting.popleft()[0])
                    position = begin + len(chunk)
                yield chunk
        finally:
            with contextlib.suppress(TransferError):
                while waiting:
                    self._receive(waiting.popleft()[0])
                self._ask(_CLOSE, _text(handle), _STATUS, path)

    def write(self, path: bytes, chunks: Iterable[bytes], mtime: int | None = None) -> None:
        """A file of these bytes, in place of another one."""
        flags = _FLAG_WRITE | _FLAG_CREATE | _FLAG_TRUNCATE
        body = _text(path) + struct.pack(">III", flags, 4, 0o600)
        handle = _Parser(self._ask(_OPEN, body, _HANDLE, path)).text()
        waiting: collections.deque[int] = collections.deque()

        def settle(left: int) -> None:
            while len(waiting) > left:
                kind, answer = self._receive(waiting.popleft())
                if kind != _STATUS:
                    raise self._nonsense(f"it answers {kind} to a write")
                self._check(_Parser(answer), path)

        position = 0
        for chunk in chunks:
            for begin in range(0, len(chunk), WRITE_SIZE):
                piece = chunk[begin : begin + WRITE_SIZE]
                body = _text(handle) + struct.pack(">QI", position, len(piece)) + piece
                waiting.append(self._send(_WRITE, body))
                position += len(piece)
                settle(READS_AHEAD)
        settle(0)
        if mtime is not None:
            times = struct.pack(">III", 8, mtime, mtime)
            self._ask(_FSETSTAT, _text(handle) + times, _STATUS, path)
        self._ask(_CLOSE, _text(handle), _STATUS, path)

    def make_folder(self, path: bytes) -> None:
        """And those above it; one that is there is no error."""
        try:
            if self.attributes(path).is_folder:
                return
        except NotThere:
            above = path.rstrip(b"/").rpartition(b"/")[0]
            if above:
                self.make_folder(above)
        self._ask(_MKDIR, _text(path) + struct.pack(">I", 0), _STATUS, path)

    def replace(self, path: bytes, target: bytes) -> None:
        """Give a file another name, in place of what has it."""
        if self._posix_rename:
            body = _text(b"posix-rename@openssh.com") + _text(path) + _text(target)
            self._ask(_EXTENDED, body, _STATUS, path)
            return
        with contextlib.suppress(NotThere):
            self._ask(_REMOVE, _text(target), _STATUS, target)
        self._ask(_RENAME, _text(path) + _text(target), _STATUS, path)

    def remove(self, path: bytes) -> None:
        """Remove a file."""
        self._ask(_REMOVE, _text(path), _STATUS, path)

    # --- packets ----------------------------------------------------------------------

    def _greet(self) -> None:
        self._push(struct.pack(">IBI", 5, _INIT, 3))
        kind, body = self._packet()
        if kind != _VERSION:
            raise self._nonsense("it does not speak SFTP")
        parser = _Parser(body)
        if parser.number() < 3:
            raise self._nonsense("its SFTP is older than version 3")
        while parser.left:
            name, _value = parser.text(), parser.text()
            if name == b"posix-rename@openssh.com":
                self._posix_rename = True

    def _ask(self, kind: int, body: bytes, wanted: int, path: bytes) -> Data:
        answer = self._ask_or_end(kind, body, wanted, path, end_is_fine=False)
        assert answer is not None
        return answer

    def _ask_or_end(
        self, kind: int, body: bytes, wanted: int, path: bytes, *, end_is_fine: bool = True
    ) -> Data | None:
        got, answer = self._receive(self._send(kind, body))
        if got == wanted and got != _STATUS:
            return answer
        if got != _STATUS:
            raise self._nonsense(f"it answers {got} to {kind}")
        self._check(_Parser(answer), path, eof=end_is_fine)
        if wanted == _STATUS:
            return answer
        if end_is_fine:
            return None
        raise self._nonsense("it says yes and nothing more")

    def _check(self, answer: _Parser, path: bytes, *, eof: bool = False) -> None:
        code = answer.number()
        if code == _OK or (eof and code == _EOF):
            return
        shown = f"{self._host.hostname}:{printable(os.fsdecode(path), 200)}"
        if code == _NO_SUCH_FILE:
            raise NotThere(f"there is nothing at {shown}")
        if code == _PERMISSION_DENIED:
            raise TransferError(f"{shown}: permission denied")
        said = printable(answer.text().decode("utf-8", "replace"), 200) if answer.left else ""
        raise TransferError(f"{shown}: {said or f'SFTP error {code}'}")

    def _send(self, kind: int, body: bytes) -> int:
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._push(struct.pack(">IBI", len(body) + 5, kind, self._number) + body)
        return self._number

    def _push(self, data: bytes) -> None:
        view = memoryview(data)
        deadline = time.monotonic() + self._timeout
        while view:
            try:
                written = os.write(self._to.fileno(), view)
            except BlockingIOError:
                self._wait_for(self._to.fileno(), deadline, write=True)
            except OSError:
                raise self._ended() from None
            else:
                view = view[written:]
                deadline = time.monotonic() + self._timeout

    def _receive(self, number: int) -> tuple[int, Data]:
        """The answer to one request; those to others wait."""
        while number not in self._answers:
            kind, body = self._packet()
            if len(body) < 4:
                raise self._nonsense("it sends a packet without a number")
            (answered,) = struct.unpack_from(">I", body)
            self._answers[answered] = (kind, body)
            if len(self._answers) > 2 * READS_AHEAD + 8:
                raise self._nonsense("it answers what was not asked")
        kind, body = self._answers.pop(number)
        return kind, memoryview(body)[4:]

    def _packet(self) -> tuple[int, Data]:
        length, kind = struct.unpack(">IB", self._take(5))
        if not 1 <= length <= MAX_PACKET:
            raise self._nonsense(f"it sends a packet of {length:,} bytes")
        return kind, self._take(length - 1)

    def _take(self, count: int) -> bytearray:
        made = bytearray(count)
        view, position = memoryview(made), 0
        deadline = time.monotonic() + self._timeout
        while position < count:
            got = self._from.readinto(view[position:])  # type: ignore[attr-defined]
            if got is None:
                self._wait_for(self._from.fileno(), deadline)
            elif got == 0:
                raise self._ended()
            else:
                position += got
                deadline = time.monotonic() + self._timeout
        return made

    def _wait_for(self, descriptor: int, deadline: float, *, write: bool = False) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT if write else select.POLLIN)
        if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise Broken(
                f"{self._host.hostname} has been silent for {self._timeout:g} s",
                hint="preferences.ssh_timeout in sync.toml says how long to wait",
            )

    def _ended(self) -> TransferError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._said.seek(0)
        lines = self._said.read(4096).decode("utf-8", "replace").strip().splitlines()
        said = printable(lines[-1], 300) if lines else "the connection ended"
        refused = any(
            word in line
            for line in lines
            for word in ("Permission denied", "Host key verification failed", "subsystem request")
        )
        return (TransferError if refused else Broken)(
            f"{self._host.hostname}: {said}",
            hint=f"try: ssh -o BatchMode=yes {self._host.hostname} true",
        )

    def _nonsense(self, what: str) -> TransferError:
        return TransferError(f"{self._host.hostname} is no SFTP server as it should be: {what}")


class _Parser:
    """Takes numbers and texts from an answer; one that is too short is nonsense."""

    def __init__(self, data: Data) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not taken."""
        return len(self._data) - self._at

    def number(self) -> int:
        """32 bits."""
        return self._unpack(">I", 4)

    def long(self) -> int:
        """64 bits."""
        return self._unpack(">Q", 8)

    def text(self) -> bytes:
        """A length and so many bytes."""
        length = self.number()
        if length > self.left:
            raise TransferError("the SFTP server sent an answer that ends too early")
        self._at += length
        return bytes(self._data[self._at - length : self._at])

    def _unpack(self, kind: str, length: int) -> int:
        if length > self.left:
            raise TransferError("the SFTP server sent an answer that ends too early")
        (value,) = struct.unpack_from(kind, self._data, self._at)
        self._at += length
        return int(value)


def _text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _attributes(parser: _Parser) -> Attributes:
    flags = parser.number()
    size = parser.long() if flags & 1 else None
    if flags & 2:
        parser.long()
    mode = parser.number() if flags & 4 else None
    mtime = None
    if flags & 8:
        parser.number()
        mtime = parser.number()
    if flags & 0x80000000:
        for _ in range(min(parser.number(), 64)):
            parser.text()
            parser.text()
    return Attributes(size, mode, mtime)


class SftpSource:
    """A file or folder of a host, for `linnix_plugin_models.transfer.fetch`."""

    def __init__(self, host: Host, preferences: Preferences, path: CrossPlatformPath) -> None:
        self._sftp = Sftp(host, preferences)
        try:
            self._path, told = self._find(path)
        except BaseException:
            self._sftp.close()
            raise
        self.is_file = told.is_file

    def _find(self, path: CrossPlatformPath) -> tuple[bytes, Attributes]:
        """Windows' own server calls a drive ``/D:/``, one of Git Bash ``/d/``."""
        forms = list(dict.fromkeys((path.to_sftp_path(), path.to_posix(), path.to_wsl())))
        if path.root != "drive":
            forms = forms[:1]
        for number, form in enumerate(forms):
            encoded = os.fsencode(form)
            try:
                return encoded, self._sftp.attributes(encoded)
            except NotThere:
                if number == len(forms) - 1:
                    raise
        raise AssertionError

    def entries(self) -> Sequence[Entry]:
        """Regular files below; a link counts as what it leads to if that is a file."""
        if self.is_file:
            told = self._sftp.attributes(self._path)
            name = self._path.rstrip(b"/").rpartition(b"/")[2]
            return [_entry(os.fsdecode(name), told)]
        found: list[Entry] = []
        folders = [(self._path, "", 0)]
        while folders:
            folder, below, depth = folders.pop()
            if depth > MAX_DEPTH:
                raise TransferError("its folders are nested too deeply")
            for name, said in sorted(self._sftp.listing(folder), key=lambda item: item[0]):
                if b"/" in name or b"\0" in name or not name:
                    raise TransferError("the SFTP server names a file with a slash")
                path, shown = folder.rstrip(b"/") + b"/" + name, below + os.fsdecode(name)
                told = said
                if said.is_link:
                    try:
                        told = self._sftp.attributes(path)
                    except TransferError:
                        continue  # leads nowhere
                if told.is_folder and not said.is_link:
                    folders.append((path, f"{shown}/", depth + 1))
                elif told.is_file:
                    found.append(_entry(shown, told))
                if len(found) + len(folders) > MAX_FILES:
                    raise TransferError(f"it has more than {MAX_FILES:,} files")
        return sorted(found, key=lambda entry: entry.path)

    def read(self, entry: Entry, offset: int) -> Iterator[bytes]:
        """Chunk by chunk."""
        path = self._path
        if not self.is_file:
            path = path.rstrip(b"/") + b"/" + os.fsencode(entry.path)
        return self._sftp.read(path, offset, entry.size)

    def close(self) -> None:
        """End the connection."""
        self._sftp.close()


def _entry(name: str, told: Attributes) -> Entry:
    return Entry(name, told.size, f"{told.size}-{told.mtime}")
