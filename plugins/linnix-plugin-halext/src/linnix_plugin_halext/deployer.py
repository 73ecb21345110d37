"""The deployer: finds the node that is meant, puts the model there, and looks for itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urldefrag, urlsplit

import attrs

from linnix_core import Context, Deployment, Health, LinnixError, ModelSpec, hookimpl, printable
from linnix_core.commands import DeploymentStore
from linnix_plugin_halext.backend import Backend, BackendNode
from linnix_plugin_halext.config import HalextConfig
from linnix_plugin_halext.detection import detect
from linnix_plugin_halext.gateway import Gateway
from linnix_plugin_ollama import Store, check, publish, withdraw
from linnix_plugin_openai import NoAnswer

__all__ = ["HalextDeployer"]

#: What ``-o`` may say beyond what Ollama's models have: which of a backend's nodes, and where
#: this machine reaches it.
OPTIONS = frozenset({"client", "ollama"})


@attrs.frozen
class Place:
    """Where a model goes: at least one of the three; ``node`` is the backend's word for it."""

    store: Store | None = None
    is_named: bool = False
    backend: Backend | None = None
    node: BackendNode | None = None
    gateway: Gateway | None = None

    @property
    def endpoint(self) -> str:
        """Where clients find the model."""
        if self.gateway is not None:
            return self.gateway.url
        return f"{self.store.url}/v1" if self.store is not None else ""


Opened = TypeVar("Opened", Store, Backend, Gateway)


class HalextDeployer:
    """Serve GGUF files on halext nodes."""

    Config = HalextConfig

    def __init__(self, config: HalextConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._lock = threading.Lock()
        self._open: dict[str, Any] = {}

    @hookimpl
    def linnix_start(self) -> None:
        """See that what is configured can be used; asks nobody yet."""
        self._config.asking_gateway("http://localhost").close()

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """End what is under way; what is served stays."""
        with self._lock:
            opened = list(self._open.values())
        for each in opened:
            each.close()

    @hookimpl
    def linnix_deploy(self, spec: ModelSpec) -> Deployment | None:
        """Put a GGUF on ``options["node"]``, or find it there."""
        if spec.format != "gguf" or not isinstance(spec.options.get("node"), str):
            return None
        place = self._place(spec)
        self._see_that_it_is_nowhere_else(spec.name, place)
        if place.store is not None:
            made = publish(
                place.store,
                spec,
                self._context.logger,
                num_ctx=self._config.num_ctx,
                more_options=OPTIONS,
            )
        else:
            assert place.gateway is not None
            made = Deployment(
                spec.name,
                "halext",
                spec.name,
                place.gateway.url,
                details={"model_id": str(spec.options.get("model_id") or spec.name)},
            )
        made = attrs.evolve(
            made,
            deployer="halext",
            endpoint=place.endpoint,
            model=(place.gateway.find(made.model) if place.gateway else None) or made.model,
            details={**made.details, **_details(place, made.model)},
        )
        self._have_it_look(place.backend, made)
        self._remembered.put(made)
        return made

    @hookimpl
    def linnix_probe(self, deployment: Deployment) -> Health:
        """Ask the node itself, then whoever stands in front of it."""
        ends = time.monotonic() + self._config.probe_timeout
        try:
            place = self._place_of(deployment)
            health = Health()
            if place.store is not None:
                on_node = attrs.evolve(deployment, model=_node_model(deployment))
                config = self._config
                health = check(
                    place.store, on_node, num_ctx=config.num_ctx, timeout_s=config.probe_timeout
                )
            if health.status != "failed" and place.gateway is not None:
                health = _worse(
                    health, place.gateway.check(deployment.model, ends - time.monotonic())
                )
            if health.status != "failed" and place.backend is not None:
                health = _worse(health, self._routed(place.backend, deployment, ends))
        except LinnixError as error:
            return Health("failed", str(error))
        return health

    @hookimpl
    def linnix_undeploy(self, deployment: Deployment) -> None:
        """Remove the model from the node; a gateway is only not asked any more."""
        place = self._place_of(deployment)
        if place.store is not None:
            on_node = attrs.evolve(deployment, model=_node_model(deployment))
            withdraw(place.store, on_node, self._context.logger)
        self._have_it_look(place.backend, deployment)
        self._remembered.remove(deployment.name)

    @hookimpl
    def linnix_deployments(self) -> Iterable[Deployment]:
        """What was deployed from here and is found where it was put."""
        found = []
        for deployment in self._remembered.list():
            with suppress(LinnixError):  # what cannot be asked was not found
                place = self._place_of(deployment)
                if place.store is not None:
                    shown = place.store.show(_node_model(deployment))
                    there = shown is not None and shown.weights in (deployment.digest, None)
                else:
                    there = place.gateway is not None and bool(place.gateway.find(deployment.model))
                if there:
                    found.append(deployment)
        return found

    # --- where ------------------------------------------------------------------------

    def _place(self, spec: ModelSpec) -> Place:
        address, fragment = urldefrag(spec.options["node"])
        client = str(spec.options.get("client") or fragment)
        direct = spec.options.get("ollama")
        found = detect(self._config, self._config.address(address, "the node"))
        store = self._node_at(str(direct), is_named=True) if direct else None
        if found.kind == "gateway":
            gateway = self._gateway(found.url)
            if store is None and gateway.find(spec.name) is None:
                raise LinnixError(
                    f"{found.url} does not list {printable(spec.name, 80)}, and a gateway has no "
                    "way to bring a model there",
                    hint="say where the node itself is: -o ollama=http://HOST:11434",
                )
            return Place(store, is_named=True, gateway=gateway)
        if found.kind == "backend":
            backend = self._backend(found.url)
            known = self._find(backend, client, store)
            reached = store or self._node_of(backend, known)
            return Place(reached, store is not None, backend, known)
        store = store or self._store(found.url, is_named=True)
        if self._config.backend is None:
            return Place(store, is_named=True)
        backend = self._backend(self._backend_api())
        return Place(store, True, backend, self._find(backend, client, store))

    def _node_of(self, backend: Backend, node: BackendNode) -> Store:
        """A node where its backend says that it is."""
        url = backend.url_of(node)
        if url is None:
            raise LinnixError(
                f"{backend.api} does not say where {node.name} is",
                hint="say it: -o ollama=http://HOST:11434",
            )
        backend.see_that_it_is_alike(self._config.address(url, "the node itself"))
        return self._node_at(url, is_named=False)

    def _node_at(self, url: str, *, is_named: bool) -> Store:
        """The node itself, wherever its address is from."""
        address = self._config.address(url, "the node itself")
        try:
            found = detect(self._config, address, is_named=is_named)
        except NoAnswer as error:
            raise LinnixError(
                f"{error}; models come to a node directly, and never through its backend",
                hint="say where this machine reaches the node: -o ollama=http://HOST:11434",
            ) from None
        if found.kind != "ollama":
            raise LinnixError(
                f"{address} is no Ollama server, and models can be put on no other node",
                hint="say where the node itself is: -o ollama=http://HOST:11434",
            )
        return self._store(found.url, is_named=is_named)

    def _find(self, backend: Backend, client: str, store: Store | None) -> BackendNode:
        """The node that is meant, which the backend gets to know if it does not."""
        nodes = backend.nodes()
        meant = [node for node in nodes if client in (str(node.id), node.name)]
        if not client and store is not None:
            meant = [node for node in nodes if _is_at(backend.url_of(node), store.url)]
        elif not client:
            meant = nodes
        if len(meant) == 1:
            return meant[0]
        if not meant and store is not None:
            return backend.add(client or urlsplit(store.url).netloc, store.url)
        known = ", ".join(f"{node.name} ({node.id})" for node in nodes) or "none"
        raise LinnixError(
            f"{backend.api} has {len(meant)} nodes called {printable(client, 80)!r}"
            if client
            else f"{backend.api} has {len(nodes)} nodes: which one?",
            hint=f"say -o client=NAME or its number; there are {printable(known, 300)}",
        )

    def _place_of(self, deployment: Deployment) -> Place:
        """Where a deployment is, without asking anybody."""
        details = deployment.details
        node, api, url = (details.get(key) for key in ("node_url", "backend", "gateway"))
        address, is_named = self._config.address, details.get("is_named") is True
        return Place(
            self._store(address(str(node), "the node"), is_named=is_named) if node else None,
            is_named,
            self._backend(address(str(api), "the backend")) if api else None,
            gateway=self._gateway(address(str(url), "the gateway")) if url else None,
        )

    def _see_that_it_is_nowhere_else(self, name: str, place: Place) -> None:
        """One name is deployed once: another node would leave the model on the first."""
        before = self._remembered.get(name)
        if before is None:
            return
        if before.endpoint != place.endpoint:
            raise LinnixError(
                f"{printable(name, 80)} is deployed at {before.endpoint} already",
                hint="undeploy it there first, or choose another name with --as",
            )

    # --- whom -------------------------------------------------------------------------

    @property
    def _remembered(self) -> DeploymentStore:
        return DeploymentStore(self._context.data_dir / "deployments.json")

    def _store(self, url: str, *, is_named: bool) -> Store:
        return self._opened(
            f"node {url} {is_named}",
            lambda: Store(self._config.asking_node(url, is_named=is_named), url),
        )

    def _gateway(self, url: str) -> Gateway:
        return self._opened(f"gateway {url}", lambda: Gateway(self._config, url))

    def _backend(self, api: str) -> Backend:
        trusted = self._config.backend
        if trusted is not None and _origin(trusted) != _origin(api):
            raise LinnixError(
                f"{api} is not the backend of the configuration, and is not told its account",
                hint="correct backend in [deployers.halext], or leave it out",
            )
        return self._opened(f"backend {api}", lambda: Backend(self._config, api))

    def _opened(self, what: str, make: Callable[[], Opened]) -> Opened:
        with self._lock:
            if what not in self._open:
                self._open[what] = make()
            opened: Opened = self._open[what]
            return opened

    def _backend_api(self) -> str:
        address = self._config.address(str(self._config.backend), "backend")
        found = detect(self._config, address)
        if found.kind != "backend":
            raise LinnixError(f"{address} is no halext backend", hint="look at backend")
        return found.url

    def _have_it_look(self, backend: Backend | None, deployment: Deployment) -> None:
        """Until it is told to look, a backend lists what the node had before."""
        if backend is None:
            return
        try:
            backend.refresh(int(deployment.details["node_id"]))
        except LinnixError as error:
            self._context.logger.warning("%s lists what there was before: %s", backend.api, error)

    def _routed(self, backend: Backend, deployment: Deployment, ends: float) -> Health:
        """Whether the backend passes questions on to the node."""
        node_id, model = int(deployment.details["node_id"]), _node_model(deployment)
        try:
            seen = backend.refresh(node_id, ends - time.monotonic())
            if not seen.online:
                return Health("failed", f"{backend.api} does not reach the node: {seen.message}")
            if not seen.has(model):
                return Health("failed", f"{backend.api} does not see {model} on the node")
            wrong = backend.why_not_answered_by(
                f"client:{node_id}:{model}", ends - time.monotonic()
            )
        except LinnixError as error:
            return Health("degraded", f"the node answers; its backend cannot be asked: {error}")
        if wrong:
            return Health("failed", f"{backend.api} does not pass questions on: {wrong}")
        return Health()


def _details(place: Place, model: str) -> dict[str, Any]:
    """What finds the place again; no secrets."""
    details: dict[str, Any] = {"node_model": model}
    if place.store is not None:
        details |= {"node_url": place.store.url, "is_named": place.is_named}
    if place.gateway is not None:
        details["gateway"] = place.gateway.url
    if place.backend is not None and place.node is not None:
        details |= {
            "backend": place.backend.api,
            "node_id": place.node.id,
            "node_name": place.node.name,
            "backend_model": f"client:{place.node.id}:{model}",
        }
    return details


def _node_model(deployment: Deployment) -> str:
    return str(deployment.details.get("node_model") or deployment.model)


def _is_at(url: str | None, other: str) -> bool:
    return url is not None and url.rstrip("/").casefold() == other.casefold()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _worse(one: Health, other: Health) -> Health:
    """The worse of two, with the limits of both."""
    order = ("ok", "degraded", "failed")
    worse = max(one, other, key=lambda health: order.index(health.status))
    return attrs.evolve(
        worse, reason=worse.reason or one.reason, limits=(*one.limits, *other.limits)
    )
