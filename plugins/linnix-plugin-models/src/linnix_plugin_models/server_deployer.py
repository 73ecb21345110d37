"""What deployers have in common that serve a model by a process here.

A deployer says which process that is; that it lives on, is found again, and answers as it
must is seen to here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from attrs.validators import and_, ge, gt, le

from linnix_core import (
    ConfigError,
    Context,
    Deployment,
    Duration,
    Health,
    LinnixError,
    ModelSpec,
    Secret,
    Size,
    hookimpl,
    printable,
)
from linnix_core.commands import Problem, structure
from linnix_plugin_models.servers import DEFAULT_PORT, Server, Servers

if TYPE_CHECKING:
    from linnix_plugin_openai import Chat, Exchange

__all__ = ["Plan", "ServerConfig", "ServerDeployer"]

#: Options that are about the model and not about its server.
_OF_THE_MODEL = frozenset({"model_id", "base_model", "digest", "node", "models_dir"})

#: Tokens for the answer to the question of a probe.
_PROBE_TOKENS = 200

#: Seconds for a list of models, and between two looks at a server that loads.
_QUICK_S = 5.0
_PAUSE_S = 0.1


@attrs.frozen(kw_only=True)
class ServerConfig:
    """The keys that such deployers have in common."""

    host: str = attrs.field(
        default="127.0.0.1",
        metadata={"help": "address to listen on; any but this machine's own needs api_key"},
    )
    port: int = attrs.field(
        default=DEFAULT_PORT,
        validator=and_(ge(0), le(65535)),
        metadata={"help": "port to listen on; 0 takes a free one"},
    )
    api_key: Secret | None = attrs.field(
        default=None, metadata={"help": "key that the server asks its clients for"}
    )
    arguments: tuple[str, ...] = attrs.field(
        default=(), metadata={"help": "more arguments for the server's command line"}
    )
    environment: dict[str, str] = attrs.field(
        factory=dict, metadata={"help": "more variables for the server's environment"}
    )
    restarts: int = attrs.field(
        default=5,
        validator=ge(0),
        metadata={"help": "how often in a row it is started again when it ends"},
    )
    start_timeout: Duration = attrs.field(
        default=Duration(300.0),
        validator=gt(Duration(0.0)),
        metadata={"help": "time for the model to be loaded and to answer"},
    )
    probe_timeout: Duration = attrs.field(
        default=Duration(45.0),
        validator=gt(Duration(0.0)),
        metadata={"help": "time for the answer that status and test ask for"},
    )
    log_size: Size = attrs.field(
        default=Size(1 << 20),
        validator=ge(Size(4096)),
        metadata={"help": "how much of what the server says is kept"},
    )
    systemd: bool = attrs.field(
        default=False,
        metadata={"help": "run it as a unit of the user's systemd, which starts it at login"},
    )


@attrs.frozen(kw_only=True)
class Plan:
    """How a model is served: the arguments for a port, and what is said of that.

    ``api_key_variable`` is where the server looks for the key that it asks for.
    """

    command: Callable[[int], Sequence[str]]
    program: str
    api_key_variable: str
    environment: Mapping[str, str] = attrs.field(factory=dict)


class ServerDeployer:
    """A deployer whose models are served by processes here, each under its own name.

    A subclass has ``Config``, ``NAME``, ``FORMATS``, and says in `plan` what is to run.
    """

    Config: ClassVar[Any] = ServerConfig
    NAME: ClassVar[str]
    FORMATS: ClassVar[tuple[str, ...]]

    def __init__(self, config: Any, context: Context) -> None:
        self._config = config
        self._context = context

    def plan(self, spec: ModelSpec, path: Path, config: Any) -> Plan:
        """What serves the model at ``path``. Raises `LinnixError`."""
        raise NotImplementedError

    @property
    def servers(self) -> Servers:
        """The servers of this deployer."""
        return Servers(self._context.data_dir / "servers")

    # --- the hooks --------------------------------------------------------------------

    @hookimpl
    def linnix_deploy(self, spec: ModelSpec) -> Deployment | None:
        """Have the model served, and return once it has answered a question."""
        if spec.format not in self.FORMATS:
            return None
        config = self.configured(spec.options)
        self.check_name(spec.name)
        self._check_host(config)
        path = Path(spec.path).expanduser().absolute()
        if not path.exists():
            raise LinnixError(f"{printable(str(path), 300)} is not there")
        servers = self.servers
        plan = self.plan(spec, path, config)
        key = self._key()
        created_ns = time.time_ns()
        server = servers.start(
            spec.name,
            plan.command,
            host=config.host,
            port=config.port,
            secrets={plan.api_key_variable: key} if key else {},
            created_ns=created_ns,
            environment={**plan.environment, **config.environment},
            details={
                "model_id": spec.options.get("model_id"),
                "path": str(path),
                "program": plan.program,
                "quantization": spec.quantization,
                **self._looked_at(spec, path),
            },
            restarts=config.restarts,
            log_bytes=int(config.log_size),
            systemd=config.systemd,
        )
        try:
            self._await(server, config)
        except LinnixError:
            # What ran before, or was begun by another command meanwhile, is not ended.
            servers.stop(spec.name, keep_log=True, created_ns=created_ns)
            raise
        return self.deployment_of(server)

    @hookimpl
    def linnix_probe(self, deployment: Deployment) -> Health:
        """Have it answer in a form that it would not choose itself, and look at what is served."""
        try:
            server = self.servers.find(deployment.name)
            if server is None:
                return Health("failed", "nothing is served under this name")
            trouble = self._trouble(server)
            if trouble:
                return Health("failed", trouble)
            found = self.deployment_of(server)
            if deployment.digest not in (None, found.digest):
                return Health("failed", f"another file is served: {found.digest}")
            return self.asked(found, self._config.probe_timeout, _history(server))
        except LinnixError as error:
            return Health("failed", str(error))

    @hookimpl
    def linnix_undeploy(self, deployment: Deployment) -> None:
        """End the server; where it is gone, nothing is done."""
        self.servers.stop(deployment.name)

    @hookimpl
    def linnix_deployments(self) -> Iterable[Deployment]:
        """What is looked after now."""
        return [self.deployment_of(s) for s in self.servers.list() if self.is_found(s)]

    # --- looking ----------------------------------------------------------------------

    def is_found(self, server: Server) -> bool:
        """Whether it is more than a note."""
        return server.is_supervised and server.status != "failed"

    @staticmethod
    def check_name(name: str) -> None:
        """Refuse what cannot be the name of a served model."""
        # Servers take a list of names apart at commas, and a dash may begin an option.
        if printable(name) != name or "," in name or name.startswith("-") or not name.strip():
            raise LinnixError(
                f"{printable(name, 80)!r} cannot be the name of a served model",
                hint="choose another with --as",
            )

    def configured(self, options: Mapping[str, Any]) -> Any:
        """The configuration with what is said for this model alone."""
        said = {key: value for key, value in options.items() if key not in _OF_THE_MODEL}
        where = f"deployers.{self.NAME}"
        if "api_key" in said:
            raise LinnixError(
                "api_key is no option: whoever looks for the server later needs it as well",
                hint=f"write it into [{where}]",
            )
        problems: list[Problem] = []
        parsed = structure(self.Config, said, where, problems)
        if parsed is None:
            raise ConfigError(problems, source="option")
        return attrs.evolve(self._config, **{key: getattr(parsed, key) for key in said})

    def deployment_of(self, server: Server) -> Deployment:
        """A server as others know it; ``details`` may say another ``url`` and ``model``."""
        details = server.launch.details
        return Deployment(
            name=server.name,
            deployer=self.NAME,
            model=details.get("model") or server.name,
            endpoint=details.get("url") or _endpoint(server.launch.host, server.launch.port),
            digest=details.get("digest"),
            created_ns=server.created_ns,
            details={
                key: details.get(key) for key in ("model_id", "path", "program", "quantization")
            },
        )

    def asked(self, deployment: Deployment, seconds: float, more: str = "") -> Health:
        """How a server answers: which model it has, and whether it holds to a schema.

        Raises `LinnixError` where it does not, or not yet.
        """
        began = time.monotonic()
        with self._chat(deployment) as (exchange, chat):
            wrong = _not_served(exchange, deployment, min(seconds, _QUICK_S))
            if wrong:
                return Health("failed", wrong)
            found = chat.probe(seconds - (time.monotonic() - began))
        said = f"answered in {time.monotonic() - began:.2f} s{more}"
        if found.verdict == "enforced":
            return Health("ok", said, (str(found),))
        return Health("degraded", f"{said}, and not in the form that was asked for", (str(found),))

    def has(self, deployment: Deployment) -> bool:
        """Whether the server lists the model. Raises `LinnixError` where it does not answer."""
        with self._chat(deployment) as (exchange, _):
            return not _not_served(exchange, deployment, _QUICK_S)

    def _trouble(self, server: Server) -> str:
        if not server.launch.command:
            return ""
        if not server.is_supervised:
            return f"it does not run any more{_because(server)}"
        if not server.runs:
            return f"it is being started again{_because(server)}"
        return _changed(server)

    def _await(self, server: Server, config: Any) -> None:
        """Return once it has answered a question; raise what keeps it from that."""
        ends = time.monotonic() + config.start_timeout
        deployment = self.deployment_of(server)
        said = "it has not answered"
        while (left := ends - time.monotonic()) > 0:
            now = self._still(server)
            if now.restarts > server.restarts or now.status == "failed" or not now.is_supervised:
                raise self._not_up(now, now.reason or "its supervisor is gone")
            try:
                health = self.asked(deployment, min(left, config.probe_timeout))
            except LinnixError as error:
                said = str(error)
            else:
                self._still(server)
                if health.status == "failed":
                    raise self._not_up(now, health.reason)
                return
            time.sleep(_PAUSE_S)
        raise self._not_up(server, f"within {config.start_timeout:g} s: {said}")

    def _still(self, server: Server) -> Server:
        """The same server as it is now; raise when another has taken its place."""
        now = self.servers.find(server.name)
        if now is None or now.created_ns != server.created_ns:
            raise LinnixError(f"{printable(server.name, 80)} was stopped or replaced meanwhile")
        return now

    def _not_up(self, server: Server, why: str) -> LinnixError:
        return LinnixError(
            f"{server.launch.details['program']} did not come up for "
            f"{printable(server.name, 80)}: {printable(why, 400)}",
            hint=f"look into {self.servers.log_path(server.name)}",
        )

    def _looked_at(self, spec: ModelSpec, path: Path) -> dict[str, Any]:
        """The digest and what tells whether the files are still the same."""
        said = spec.options.get("digest")
        mark = _fingerprint(path)
        known = self.servers.find(spec.name)
        details = known.launch.details if known is not None else {}
        same = details.get("path") == str(path) and details.get("fingerprint") == mark
        if path.is_dir():
            return {"digest": said, "fingerprint": mark}
        digest = details["digest"] if same else _digest(path)
        if said is not None and digest != said:
            raise LinnixError(
                f"{printable(str(path), 300)} is not the file that was registered",
                hint="linnix models verify tells what changed",
            )
        return {"digest": digest, "fingerprint": mark}

    def _check_host(self, config: Any) -> None:
        from linnix_plugin_openai import is_loopback

        if not is_loopback(config.host) and not self._key():
            raise LinnixError(
                f"{config.host} would let others use the model",
                hint=f'set api_key = {{ env = "NAME" }} in [deployers.{self.NAME}]',
            )

    def _key(self) -> str:
        return "" if self._config.api_key is None else str(self._config.api_key.reveal())

    @contextlib.contextmanager
    def _chat(self, deployment: Deployment) -> Iterator[tuple[Exchange, Chat]]:
        from linnix_plugin_openai import Chat, Exchange

        try:
            exchange = Exchange(deployment.endpoint, api_key=self._key())
        except ValueError as error:
            raise LinnixError(str(error)) from None
        with contextlib.closing(
            Chat(exchange, deployment.endpoint, model=deployment.model, max_tokens=_PROBE_TOKENS)
        ) as chat:
            yield exchange, chat


def _not_served(exchange: Exchange, deployment: Deployment, seconds: float) -> str:
    """What is wrong with the list of models of a server; nothing where the model is in it."""
    answer = exchange.get(f"{deployment.endpoint}/models", seconds)
    if answer.status in (401, 403):
        return "the server wants another api_key"
    if not answer.is_success:
        raise LinnixError(f"the server answers {answer.status}: {answer.words}")
    listed = answer.document.get("data")
    ids = [m.get("id") for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
    if deployment.model in ids:
        return ""
    names = ", ".join(printable(str(name), 80) for name in ids[:5]) or "nothing"
    return f"the server has {names}, and not {printable(deployment.model, 80)}"


def _endpoint(host: str, port: int) -> str:
    # A server that listens everywhere is asked at one place.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _because(server: Server) -> str:
    return f": {printable(server.reason, 400)}" if server.reason else ""


def _history(server: Server) -> str:
    if not server.restarts:
        return ""
    return f"; was started again ({server.restarts}), since it {printable(server.reason, 300)}"


def _changed(server: Server) -> str:
    """What has become of the file that was served; nothing where it is as it was."""
    details = server.launch.details
    path = Path(details["path"])
    if _fingerprint(path) == details.get("fingerprint"):
        return ""
    if path.is_file() and _digest(path) == details.get("digest"):
        return ""
    return f"{printable(str(path), 300)} is not what was deployed any more: deploy it again"


def _fingerprint(path: Path) -> str:
    """What changes when a file, or one of a folder, is replaced or written."""
    files = [path] if not path.is_dir() else sorted(p for p in path.rglob("*") if p.is_file())
    seen = []
    for file in files:
        with contextlib.suppress(OSError):
            stat = file.stat()
            seen.append([str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        with path.open("rb", buffering=0) as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise LinnixError(f"{printable(str(path), 300)} cannot be read: {error.strerror}") from None
