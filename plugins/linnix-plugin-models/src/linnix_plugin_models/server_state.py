"""What is known of a server that outlives the command which started it: one private file."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from linnix_core import LinnixError, printable

__all__ = [
    "Launch",
    "ProcessId",
    "Server",
    "read_state",
    "unfinished",
    "write_private",
    "write_state",
]


@attrs.frozen
class ProcessId:
    """A process, never to be taken for the one that gets its number later.

    ``start`` is the boot and the moment of the start, field 22 of stat in proc(5).
    """

    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this number now; None if it is gone, reaped or not."""
        fields = _stat(pid)
        boot = _boot()
        if fields is None or boot is None or fields[0] in ("Z", "X"):
            return None
        return cls(pid, f"{boot}/{fields[19]}")

    @property
    def is_alive(self) -> bool:
        """Whether it is this process that runs under its number."""
        return ProcessId.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Signal this process, and no other that has got its number."""
        with self._handle() as handle:
            if handle is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)

    def send_group(self, number: signal.Signals) -> None:
        """Signal the process group that it leads."""
        with self._handle() as handle:
            if handle is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, number)

    def end_session(self, output: str) -> None:
        """Kill what is left of the session that it led and writes to ``output``.

        It is gone itself, and once its session is empty, another one may get the number: hence
        only what still has its output is taken for its own.
        """
        boot, _, began = self.start.partition("/")
        found = _stat(self.pid)
        if boot != _boot() or (found is not None and found[19] != began):
            return
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            fields = _stat(pid)
            if fields is None or int(fields[3]) != self.pid or int(fields[19]) < int(began):
                continue
            if output in (_opened(pid, 1), _opened(pid, 2)):
                left = ProcessId(pid, f"{boot}/{fields[19]}")
                with contextlib.suppress(PermissionError):
                    left.send(signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within ``seconds``."""
        with self._handle() as handle:
            return handle is None or bool(select.select([handle], (), (), max(seconds, 0.0))[0])

    @contextlib.contextmanager
    def _handle(self) -> Iterator[int | None]:
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        except OSError as error:
            raise LinnixError(f"processes cannot be ended safely here: {error}") from None
        try:
            # Looked at while the handle is held: now it cannot become another one.
            yield handle if self.is_alive else None
        finally:
            os.close(handle)


def _stat(pid: int) -> list[str] | None:
    """The fields of stat in proc(5) from the third on, which is the state."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name before them may hold anything, parentheses too.
    return stat.rpartition(")")[2].split()


def _opened(pid: int, descriptor: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/fd/{descriptor}").readlink())
    except OSError:
        return None


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


@attrs.frozen(kw_only=True)
class Launch:
    """What is served and how; with anything else here, it is another server.

    ``secrets`` holds names of environment variables and what tells their values apart, never
    the values. ``details`` is for whoever started it. ``stop_s`` is its time to end when it is
    asked to. Without a ``command`` there is nothing to run, only something to remember.
    """

    command: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    environment: Mapping[str, str] = attrs.field(factory=dict)
    secrets: Mapping[str, str] = attrs.field(factory=dict)
    details: Mapping[str, Any] = attrs.field(factory=dict)
    restarts: int = 5
    log_bytes: int = 1 << 20
    stop_s: float = 10.0
    systemd: bool = False


@attrs.frozen(kw_only=True)
class Server:
    """A server as its file tells: what it should be, and what its supervisor saw last.

    ``output`` is the pipe that its process writes to, as links in /proc/PID/fd name it.
    ``restarts`` counts since it ran steadily. ``reason`` is how it ended last.
    """

    name: str
    launch: Launch
    created_ns: int = 0
    supervisor: ProcessId | None = None
    process: ProcessId | None = None
    output: str = ""
    status: Literal["starting", "running", "waiting", "failed"] = "starting"
    restarts: int = 0
    reason: str = ""

    @property
    def is_supervised(self) -> bool:
        """Whether somebody looks after it now."""
        return self.supervisor is not None and self.supervisor.is_alive

    @property
    def runs(self) -> bool:
        """Whether its process is there now, and somebody looks after it."""
        return self.is_supervised and self.process is not None and self.process.is_alive


def read_state(path: Path) -> Server | None:
    """The server of a file; None if there is no file. Raises `LinnixError` for another file."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        launch = stored.pop("launch")
        launch["command"] = tuple(launch["command"])
        for key in ("supervisor", "process"):
            if stored[key] is not None:
                stored[key] = ProcessId(**stored[key])
        return Server(launch=Launch(**launch), **stored)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LinnixError(
            f"{path} cannot be read as the state of a server: {printable(str(error), 200)}",
            hint="end what it speaks of by hand, then remove it",
        ) from error


def write_state(path: Path, server: Server) -> None:
    """Replace the file as a whole. Raises ``OSError``."""
    write_private(path, json.dumps(attrs.asdict(server), indent=1))


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole by one that only its owner reads. Raises ``OSError``.

    Nobody else may be writing it.
    """
    temporary = unfinished(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def unfinished(path: Path) -> Path:
    """Where `write_private` writes what will be at ``path``; left by who is killed there."""
    return path.with_name(f".writing-{path.name}")
