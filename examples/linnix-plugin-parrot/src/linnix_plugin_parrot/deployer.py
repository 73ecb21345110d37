"""The deployer: a detached server process for each model, found again through a state file."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from linnix_core import Context, Deployment, Health, ModelSpec, PluginUnavailable, hookimpl

from .client import NoReply, ask
from .model import digest_of
from .processes import can_hold_processes, end, start_identity

FORMAT = "parrot"
START_S = 20.0
PROBE_S = 5.0
#: What any model answers, if only to say that it never heard of the class.
PROBE = {"class": "normal", "processes": [], "facts": [], "actions": []}


@attrs.frozen
class Server:
    """A server process as the state file remembers it."""

    name: str
    path: str
    pid: int
    identity: str
    endpoint: str
    digest: str
    created_ns: int

    def runs(self) -> bool:
        """Whether that very process is still there."""
        return start_identity(self.pid) == self.identity

    def health(self) -> Health:
        """What it answers; it has to be the model that was deployed."""
        try:
            reply = ask(self.endpoint, PROBE, PROBE_S)
        except (NoReply, ValueError) as error:
            return Health("failed", str(error))
        if not isinstance(reply, dict) or reply.get("digest") != self.digest:
            return Health("failed", f"{self.endpoint} serves another model")
        return Health()


class ParrotDeployer:
    """Serve models of the format ``parrot`` on this machine."""

    def __init__(self, config: None, context: Context) -> None:
        self._context = context

    @hookimpl
    def linnix_start(self) -> None:
        """Refuse where a server could be started and never be stopped safely."""
        if not can_hold_processes():
            raise PluginUnavailable(
                "processes cannot be ended safely here",
                hint="use Linux 5.3 or newer, and a sandbox that allows pidfd_open",
            )

    @hookimpl
    def linnix_deploy(self, spec: ModelSpec) -> Deployment | None:
        """Start a server, or find the one that serves this very file."""
        if spec.format != FORMAT:
            return None
        path = Path(spec.path).absolute()
        try:
            digest = digest_of(path.read_bytes())
        except OSError as error:
            raise PluginUnavailable(f"{path} cannot be read: {error.strerror}") from error
        with self._changing() as servers:
            old = servers.get(spec.name)
            if old is not None:
                if old.digest == digest and old.runs() and old.health().status == "ok":
                    return self._deployment(old)
                end(old.pid, old.identity)
                del servers[spec.name]
            servers[spec.name] = new = self._launch(spec.name, path)
            return self._deployment(new)

    @hookimpl
    def linnix_probe(self, deployment: Deployment) -> Health:
        """Ask, after a look at whether the process is the one that was started."""
        server = self._servers().get(deployment.name)
        if server is None or not server.runs():
            return Health("failed", f"no server runs for {deployment.name}")
        return server.health()

    @hookimpl
    def linnix_undeploy(self, deployment: Deployment) -> None:
        """End the process that was started under this name, and no other."""
        with self._changing() as servers:
            server = servers.get(deployment.name)
            if server is not None:
                end(server.pid, server.identity)
                del servers[deployment.name]

    @hookimpl
    def linnix_deployments(self) -> list[Deployment]:
        """Those whose process is there."""
        return [self._deployment(server) for server in self._servers().values() if server.runs()]

    def _launch(self, name: str, path: Path) -> Server:
        # -P: not a module that lies in the working directory.
        command = [sys.executable, "-P", "-m", "linnix_plugin_parrot.server", "--detach", str(path)]
        try:
            launched = subprocess.run(  # noqa: S603 - our own module
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=START_S, check=True,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            raise PluginUnavailable(f"the server did not start: {error.stderr.strip()}") from error
        server = Server(
            name=name,
            path=str(path),
            created_ns=self._context.clock.time_ns(),
            **json.loads(launched.stdout),
        )
        with ExitStack() as undo:
            undo.callback(end, server.pid, server.identity)
            health = server.health()
            if health.status != "ok":
                raise PluginUnavailable(f"the server started, but {health.reason}")
            undo.pop_all()
        return server

    def _deployment(self, server: Server) -> Deployment:
        return Deployment(
            name=server.name,
            deployer=self._context.component.partition(".")[2],
            model=server.path,
            endpoint=server.endpoint,
            digest=server.digest,
            created_ns=server.created_ns,
            details={"pid": server.pid},
        )

    @property
    def _file(self) -> Path:
        return self._context.data_dir / "servers.json"

    def _servers(self) -> dict[str, Server]:
        """What was started and not ended by us; the file is always whole."""
        try:
            known = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return {entry["name"]: Server(**entry) for entry in known}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Server]]:
        """The servers for us alone; what was changed is written down, come what may."""
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            servers = self._servers()
            try:
                yield servers
            finally:
                fresh = self._file.with_suffix(".new")
                fresh.write_text(json.dumps([attrs.asdict(one) for one in servers.values()]))
                fresh.replace(self._file)
