"""``python -m linnix_plugin_models.supervisor STATE``: keeps one server alive.

It outlives the command that started it, starts the server again when that ends, each time
after a longer pause, and gives up with a reason. The server ends with it, however it ends.
What the server says goes into a file that never grows beyond its bound.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs

from linnix_core import printable
from linnix_plugin_models.server_state import ProcessId, Server, read_state, write_state

__all__ = ["LOCK", "LOG", "main"]

#: What the files beside the state are called.
LOCK = ".lock"
LOG = ".log"

#: A server that ran so long has not failed to start: its restarts count anew.
STEADY_S = 60.0

#: Seconds of the pause before the first restart, each time twice as long, and of the longest.
PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

#: Seconds until a state that could not be written is written again.
RETRY_S = 5.0

_CHUNK = 1 << 16
_TAIL = 2048


class _Log:
    """A private file that keeps the end of what is written to it."""

    def __init__(self, path: Path, limit: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self._limit = limit
        self._tail = b""

    def write(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL:]
        with contextlib.suppress(OSError):  # a full disk is no reason to end the server
            size = os.fstat(self._file).st_size
            if size + len(data) > self._limit:
                kept = os.pread(self._file, self._limit // 2, max(size - self._limit // 2, 0))
                os.ftruncate(self._file, 0)
                data = (kept + data)[-self._limit :]
            os.write(self._file, data)

    def take_over(self, descriptor: int) -> None:
        """Take in what else is written there: what goes wrong here, and nobody would see."""
        os.dup2(self._file, descriptor)

    def begin(self) -> None:
        """What comes now is of another run."""
        self._tail = b""

    def last_line(self) -> str:
        lines = [
            line for line in self._tail.decode("utf-8", "replace").splitlines() if line.strip()
        ]
        return printable(lines[-1].strip(), 300) if lines else ""


class _Supervisor:
    def __init__(self, path: Path, server: Server) -> None:
        self._path = path
        self._server = server
        self._log = _Log(path.with_suffix(LOG), server.launch.log_bytes)
        if os.path.samestat(os.fstat(2), Path(os.devnull).stat()):
            self._log.take_over(2)
        self._stopping = False
        self._unwritten: float | None = None  # when to try again
        self._waking, hears = socket.socketpair()
        for end in (self._waking, hears):
            end.setblocking(False)
        self._bell = hears
        signal.set_wakeup_fd(hears.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _stop(self, *_: Any) -> None:
        self._stopping = True

    def _is_unwanted(self) -> bool:
        return self._stopping

    def run(self) -> int:
        """Until the server is not wanted any more, or not worth another try."""
        pause = PAUSE_S
        restarts = 0
        # Raises where it cannot be written: nobody would find this server again.
        self._note(supervisor=ProcessId.of(os.getpid()), strictly=True)
        while True:
            began = time.monotonic()
            how = self._serve(restarts)
            if self._is_unwanted():
                self._note(process=None, reason="was stopped")
                return 0
            if time.monotonic() - began >= STEADY_S:
                pause, restarts = PAUSE_S, 0
            said = self._log.last_line()
            reason = f"{how}: {said}" if said else how
            if restarts >= self._server.launch.restarts:
                self._note(process=None, status="failed", reason=reason)
                return 1
            restarts += 1
            self._note(process=None, status="waiting", reason=reason, restarts=restarts)
            self._rest(pause)
            if self._is_unwanted():
                return 0
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _serve(self, restarts: int) -> str:
        """Have the server run; how it ended."""
        self._log.begin()
        launch = self._server.launch
        parent = os.getpid()
        try:
            process = subprocess.Popen(  # noqa: S603 - what the state of its owner says
                launch.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **launch.environment},
                cwd="/",
                start_new_session=True,
                # This process has one thread.
                preexec_fn=lambda: _end_with(parent),  # noqa: PLW1509
            )
        except OSError as error:
            return f"cannot be started: {error}"
        assert process.stdout is not None
        self._note(
            process=ProcessId.of(process.pid),
            output=f"pipe:[{os.fstat(process.stdout.fileno()).st_ino}]",
            status="running",
            restarts=restarts,
        )
        with process.stdout as said:
            os.set_blocking(said.fileno(), False)
            self._hear(process.pid, said.fileno())
            # Its number is still its own, since nobody has reaped it: nothing it began stays.
            _signal_group(process.pid, signal.SIGKILL)
            self._drain(said.fileno())
        code = process.wait()
        if code < 0:
            return f"was ended by {_signal_name(-code)}"
        return f"ended with exit code {code}"

    def _hear(self, pid: int, said: int) -> None:
        """Until the server has ended; it is asked to when it is not wanted any more."""
        ends: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(said, selectors.EVENT_READ)
            selector.register(self._waking, selectors.EVENT_READ)
            while not _has_ended(pid):
                if self._unwritten is not None and time.monotonic() >= self._unwritten:
                    self._note()
                if self._stopping and ends is None:
                    ends = time.monotonic() + self._server.launch.stop_s
                    _signal_group(pid, signal.SIGTERM)
                if ends is not None and time.monotonic() >= ends:
                    _signal_group(pid, signal.SIGKILL)
                pause = None if self._unwritten is None else RETRY_S
                for key, _ in selector.select(pause if ends is None else 0.1):
                    if key.fileobj is self._waking:
                        self._silence()
                    elif not self._copy(said):
                        selector.unregister(said)

    def _copy(self, said: int) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(said, _CHUNK)
        except BlockingIOError:
            return True
        self._log.write(data)
        return bool(data)

    def _drain(self, said: int) -> None:
        # As much as a pipe holds; who has left the group may go on writing.
        for _ in range(32):
            try:
                data = os.read(said, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                return
            self._log.write(data)

    def _rest(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._waking, selectors.EVENT_READ)
            while not self._stopping and (left := ends - time.monotonic()) > 0:
                if selector.select(left):
                    self._silence()

    def _silence(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._waking.recv(4096)

    def _note(self, *, strictly: bool = False, **changes: Any) -> None:
        self._server = attrs.evolve(self._server, **changes)
        try:
            write_state(self._path, self._server)
            self._unwritten = None
        except OSError:
            self._unwritten = time.monotonic() + RETRY_S
            if strictly:
                raise


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends (PR_SET_PDEATHSIG of prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def main(arguments: list[str]) -> int:
    """Look after the server of a state file; ``--foreground`` stays a child of its parent."""
    path = Path(arguments[0])
    if "--foreground" not in arguments and os.fork():
        os._exit(0)
    try:
        lock = os.open(path.with_suffix(LOCK), os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return 0  # it is not wanted any more, or somebody looks after it
    server = read_state(path)
    if server is None or not os.fstat(lock).st_nlink:
        return 0
    return _Supervisor(path, server).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
