"""Servers that outlive the command that started them, for deployers.

    servers = Servers(context.data_dir / "servers")
    server = servers.start("oracle", lambda port: ["llama-server", "--port", str(port)])

Each has a supervisor of its own (`linnix_plugin_models.supervisor`), a process that starts it
again when it ends, and three files: ``NAME.json``, which tells whoever comes later what runs,
``NAME.log`` and ``NAME.lock``. Whoever is killed half way has nothing to mend: doing it again
is enough.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from linnix_core import LinnixError, printable
from linnix_plugin_models import systemd
from linnix_plugin_models.server_state import (
    Launch,
    ProcessId,
    Server,
    read_state,
    unfinished,
    write_private,
    write_state,
)
from linnix_plugin_models.supervisor import LOCK, LOG

__all__ = ["DEFAULT_PORT", "Launch", "ProcessId", "Server", "Servers"]

#: Where a server listens unless another port is asked for.
DEFAULT_PORT = 8090

#: Seconds for a supervisor to begin.
BEGIN_S = 20.0

#: Seconds that a supervisor may take longer to end than its server.
MARGIN_S = 5.0

#: Bytes of a file's name; what a name may be longer than this, encoded, is refused.
MAX_NAME = 200

_STATE = ".json"
_SECRETS = ".env"


class Servers:
    """The servers whose files are in ``folder``. Raises `LinnixError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str) -> Server | None:
        """The server of that name; None if there is none."""
        return read_state(self._file(name, _STATE))

    def list(self) -> list[Server]:
        """All, by name."""
        paths = sorted(self._folder.glob(f"[!.]*{_STATE}"))
        found = (self.find(unquote(path.name.removesuffix(_STATE))) for path in paths)
        return [server for server in found if server is not None]

    def log_path(self, name: str) -> Path:
        """Where what it says is kept."""
        return self._file(name, LOG)

    # --- starting ---------------------------------------------------------------------

    def start(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        secrets: Mapping[str, str] | None = None,
        created_ns: int | None = None,
        **launch: Any,
    ) -> Server:
        """Have a server run under that name: the one that does so already, or a new one.

        ``command`` makes its arguments for the port, which is a free one where ``port`` is 0.
        ``secrets`` are variables of its environment that are written nowhere, except for
        systemd. A new one gets ``created_ns``, which is now unless it is said. The others are
        those of `Launch`. It has begun then, and may not answer yet.
        """
        secrets = dict(secrets or {})
        with self._locked():
            known = self.find(name)
            chosen = port or self._free_port(host, known)
            wanted = Launch(
                command=tuple(command(chosen)),
                host=host,
                port=chosen,
                secrets={key: _mark(value) for key, value in secrets.items()},
                **launch,
            )
            if wanted.systemd:
                systemd.unit_path(name)  # raises, before anything is changed
            if known is not None:
                if known.launch == wanted and known.is_supervised and known.status != "failed":
                    return self._begun(name)
                if (known.launch.host, known.launch.port) != (host, chosen):
                    self._refuse_taken(host, chosen)
                self._end(known)
            self._refuse_taken(host, chosen)
            server = Server(name=name, launch=wanted, created_ns=created_ns or time.time_ns())
            try:
                self._begin(server, secrets)
                return self._begun(name)
            except (LinnixError, OSError):
                self._end(server, keep_log=True)
                raise

    def remember(self, name: str, **launch: Any) -> Server:
        """Write down what is served by others, so that a later command finds it."""
        with self._locked():
            known = self.find(name)
            wanted = Launch(**launch)
            if known is not None:
                if known.launch == wanted:
                    return known
                self._end(known)
            server = Server(name=name, launch=wanted, created_ns=time.time_ns())
            write_state(self._file(name, _STATE), server)
            return server

    def _begin(self, server: Server, secrets: Mapping[str, str]) -> None:
        path, lock = self._file(server.name, _STATE), self._file(server.name, LOCK)
        # Made here: a supervisor that comes late, after its server was stopped, finds none.
        lock.touch(mode=0o600)
        self.log_path(server.name).unlink(missing_ok=True)
        write_state(path, server)
        command = _supervisor(path)
        if server.launch.systemd:
            variables = self._file(server.name, _SECRETS)
            write_private(variables, systemd.environment_file(secrets))
            systemd.enable(server.name, command, variables)
            return
        # It sees to itself at once: whether it began is told by the state, and not by this.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(  # noqa: S603 - what runs here is what the user serves
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **secrets},
                cwd="/",
                start_new_session=True,
                timeout=BEGIN_S,
                check=False,
            )

    def _begun(self, name: str) -> Server:
        """The server once its supervisor has looked at how it starts."""
        ends = time.monotonic() + BEGIN_S
        while True:
            server = self.find(name)
            if server is not None and server.status != "starting":
                return server
            if time.monotonic() >= ends:
                raise LinnixError(
                    f"the supervisor of {printable(name, 80)!r} has not begun",
                    hint=f"look into {self.log_path(name)}",
                )
            time.sleep(0.01)

    # --- stopping ---------------------------------------------------------------------

    def stop(self, name: str, *, keep_log: bool = False, created_ns: int | None = None) -> None:
        """End the server of that name and forget it; where there is none, nothing is done.

        With ``created_ns`` only the one that was created then.
        """
        if not self._folder.is_dir():
            return
        with self._locked():
            server = self.find(name)
            if server is not None and created_ns in (None, server.created_ns):
                self._end(server, keep_log=keep_log)

    def _end(self, server: Server, *, keep_log: bool = False) -> None:
        """End what is left of it, whoever was killed on the way, and remove its files."""
        path = self._file(server.name, _STATE)
        if server.launch.systemd:
            systemd.disable(server.name, _supervisor(path))
        with self._alone(server.name) as is_alone:
            while True:
                # Noted by its supervisor meanwhile, which may be gone and the server not.
                server = read_state(path) or server
                stop_s = server.launch.stop_s
                _end_process(server.supervisor, stop_s + MARGIN_S)
                _end_process(server.process, stop_s, group=True)
                if server.process is not None:
                    # Whose supervisor was killed: the kernel ended it, and not what it began.
                    server.process.end_session(server.output)
                if is_alone():
                    break
                time.sleep(0.01)
            # The state last: with it, whoever is killed here has left all to be found again.
            for suffix in (_SECRETS, *(() if keep_log else (LOG,)), LOCK, _STATE):
                file = self._file(server.name, suffix)
                unfinished(file).unlink(missing_ok=True)
                file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[Callable[[], bool]]:
        """Whether no supervisor is there or just beginning; none begins once this is true."""
        ends = time.monotonic() + BEGIN_S
        lock = os.open(self._file(name, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

        def is_alone() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < ends:
                    return False
                raise LinnixError(
                    f"the supervisor of {printable(name, 80)!r} does not end",
                    hint=f"end what holds {self._file(name, LOCK)}",
                ) from None
            return True

        try:
            yield is_alone
        finally:
            os.close(lock)

    # --- ports ------------------------------------------------------------------------

    def _free_port(self, host: str, known: Server | None) -> int:
        if known is not None and known.launch.port:
            return known.launch.port
        with socket.socket(_family(host)) as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])

    def _refuse_taken(self, host: str, port: int) -> None:
        try:
            with socket.socket(_family(host)) as probe:
                # As servers do: a connection that is just ending is in nobody's way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise LinnixError(f"cannot listen on {host} port {port}: {error}") from None
            raise LinnixError(
                f"port {port} is taken by {self._holder(port)}",
                hint="end that, or choose another with --option port=N (0 takes a free one)",
            ) from None

    def _holder(self, port: int) -> str:
        for server in self.list():
            if server.launch.port == port and server.is_supervised:
                return f"the deployment {printable(server.name, 80)}"
        return _listener(port) or "a process of another user"

    # --- files ------------------------------------------------------------------------

    def _file(self, name: str, suffix: str) -> Path:
        quoted = quote(name, safe="")
        if not quoted.strip(".") or quoted.startswith(".") or len(quoted) > MAX_NAME:
            raise LinnixError(f"{printable(name, 80)!r} cannot be the name of a server")
        return self._folder / f"{quoted}{suffix}"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time; none of them waits for a server that loads its model."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LinnixError(f"{self._folder} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise LinnixError(f"{self._folder} cannot be written: {error}") from error
        finally:
            os.close(lock)


def _supervisor(path: Path) -> list[str]:
    # -P: the folder that a command runs in is no place to take modules from.
    return [sys.executable, "-P", "-m", "linnix_plugin_models.supervisor", str(path.absolute())]


def _end_process(process: ProcessId | None, seconds: float, *, group: bool = False) -> None:
    """Ask a process to end, and make it after ``seconds``."""
    if process is None:
        return
    send = process.send_group if group else process.send
    send(signal.SIGTERM)
    if not process.wait(seconds):
        send(signal.SIGKILL)
        process.wait(seconds)


def _mark(secret: str) -> str:
    return hashlib.sha256(b"linnix server secret " + secret.encode()).hexdigest()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _listener(port: int) -> str | None:
    """The process that listens on a TCP port here, as far as one may know: ``name (pid N)``."""
    wanted = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    wanted.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(held.readlink()) in wanted for held in (folder / "fd").iterdir()):
                comm = (folder / "comm").read_text(errors="replace").strip()
                return f"{printable(comm, 40)} (pid {folder.name})"
    return None
