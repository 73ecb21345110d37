"""Models that are served: handed to deployers, looked after, and taken down again.

What is deployed is what the core's `DeploymentStore` says, where the agent looks for it too;
the registry notes it after it is true and forgets it after it is gone. So a command that was
killed in between is put right by running it again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from linnix_core import Deployment, Health, LinnixError, ModelSpec, printable
from linnix_core.commands import (
    Catalog,
    DeploymentStore,
    PluginHost,
    deploy,
    find_file,
    probe,
    read,
    undeploy,
)
from linnix_plugin_models.registry import (
    Artifact,
    Model,
    ModelRegistry,
    backend_name,
    now,
)
from linnix_plugin_models.syncfile import SyncFile, this_location
from linnix_plugin_models.transfer import is_unchanged

__all__ = ["Deployers", "Looked", "choose_artifact"]

STOP_S = 10.0


@attrs.frozen(kw_only=True)
class Looked:
    """A deployment, and how it was found."""

    name: str
    model_id: str | None
    deployer: str
    endpoint: str
    model: str
    digest: str | None
    deployed_at: str
    health: Health


class Deployers:
    """The deployers that are installed, each started when it is first needed."""

    def __init__(self, config: str | None = None) -> None:
        settings = read(find_file(config))
        data_dir = settings.agent.data_folder()
        self._tables = {c.name: c for c in settings.components if c.kind == "deployers"}
        self._catalog = Catalog.scan()
        self._host = PluginHost(self._catalog, data_dir=data_dir)
        self._open: set[str] = set()
        self.store = DeploymentStore(data_dir / "deployments.json")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._host.stop(time.monotonic() + STOP_S)

    def names(self) -> list[str]:
        """The deployers that are installed."""
        return sorted(record.name for record in self._catalog.of_kind("deployers"))

    def deploy(
        self,
        registry: ModelRegistry,
        sync: SyncFile,
        model: Model,
        backend: str,
        *,
        name: str | None = None,
        node: str | None = None,
        quantization: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Deployment:
        """Serve a model, or find that it is served. Raises `LinnixError`."""
        deployer = self._start(backend)
        artifact = choose_artifact(model, deployer, quantization)
        served = name or model.model_id
        _refuse_changed(artifact)
        known: dict[str, Any] = {
            "model_id": model.model_id,
            "base_model": str(model["base_model"]),
            "digest": artifact.digest,
        }
        if node is not None:
            known["node"] = sync.node_url(node)
        if deployer == "ollama" and sync.deployment.ollama_models_dir is not None:
            known["models_dir"] = str(sync.deployment.ollama_models_dir)
        if deployer == "llama-cpp" and sync.deployment.llama_cpp_dir is not None:
            known["llama_cpp_dir"] = str(sync.deployment.llama_cpp_dir)
        spec = ModelSpec(
            name=served,
            path=artifact.path,
            format=artifact.format,
            quantization=artifact.quantization,
            options={**known, **(options or {})},
        )
        self._free_name(served, deployer)
        made = deploy(self._host, self.store, spec)
        health = self._probed(made)
        entry = {
            **_entry(made),
            "node": node,
            "path": artifact.path,
            "quantization": artifact.quantization,
            "health": health.status,
            "health_reason": health.reason,
            "checked_at": now(),
        }
        registry.update(model.model_id, lambda changed: changed.put_deployment(entry))
        if health.status == "failed":
            raise LinnixError(
                f"{served} was deployed by {deployer}, and does not answer as it must: "
                f"{printable(health.reason, 300)}",
                hint=f"linnix models undeploy {model.model_id} {deployer}",
            )
        return made

    def undeploy(
        self, registry: ModelRegistry, name: str, *, forget: bool = False
    ) -> LinnixError | None:
        """Take one down and forget it; what is gone already is only forgotten.

        With ``forget`` also what cannot be taken down is forgotten; returned is why it cannot.
        """
        trouble = None
        held = self.store.get(name)
        if held is not None:
            try:
                self._start(held.deployer)
                undeploy(self._host, self.store, name)
            except LinnixError as error:
                if not forget:
                    raise
                trouble = error
                self.store.remove(name)
        for model in registry.models():
            if any(d.get("name") == name for d in model.deployments):
                registry.update(model.model_id, lambda changed: changed.drop_deployment(name))
        return trouble

    def look(self, registry: ModelRegistry, name: str | None = None) -> list[Looked]:
        """How every deployment is, or those of a model or of a name; noted in the registry."""
        owners: dict[str, Model] = {}
        for model in registry.models():
            for held in model.deployments:
                owners[str(held.get("name"))] = model
        wanted = registry.get_model(name) if name is not None else None
        found = []
        stored = {deployment.name: deployment for deployment in self.store.list()}
        for key in sorted({*stored, *owners}):
            owner = owners.get(key)
            deployment = stored.get(key)
            said_owner = deployment.details.get("model_id") if deployment else None
            if name is not None and key != name:
                ids = {owner.model_id if owner else None, said_owner}
                if wanted is None or wanted.model_id not in ids:
                    continue
            if deployment is None:
                assert owner is not None
                noted = next(d for d in owner.deployments if d.get("name") == key)
                looked = _noted(key, owner, noted)
            else:
                health = self._probed(deployment)
                looked = Looked(
                    name=key,
                    model_id=owner.model_id if owner else said_owner,
                    deployer=deployment.deployer,
                    endpoint=deployment.endpoint,
                    model=deployment.model,
                    digest=deployment.digest,
                    deployed_at=_moment(deployment.created_ns),
                    health=health,
                )
            found.append(looked)
            if owner is not None:
                _note_health(registry, owner.model_id, looked)
        if name is not None and not found:
            known = ", ".join(stored) or "none"
            raise LinnixError(
                f"nothing called {printable(name, 80)!r} is deployed (deployed: {known})",
                hint="linnix models deploy MODEL BACKEND serves a model",
            )
        return found

    def _probed(self, deployment: Deployment) -> Health:
        try:
            self._start(deployment.deployer)
            return probe(self._host, deployment)
        except LinnixError as error:
            return Health("failed", str(error))

    def _free_name(self, served: str, deployer: str) -> None:
        held = self.store.get(served)
        if held is not None and held.deployer != deployer:
            raise LinnixError(
                f"{served!r} is deployed by {held.deployer} already",
                hint=f"choose another name with --as, or: linnix models undeploy {served}",
            )

    def _start(self, backend: str) -> str:
        """The deployer for what people call it, running."""
        name = backend_name(backend)
        if name in self._open:
            return name
        table = self._tables.get(name)
        plugin = backend_name(table.plugin) if table is not None else name
        if plugin not in self.names():
            there = ", ".join(self.names()) or "none"
            raise LinnixError(
                f"there is no deployer {printable(backend, 60)!r} (installed: {there})",
                hint=f"pip install linnix-plugin-{name}",
            )
        self._host.open("deployers", name, table.options if table is not None else None)
        self._open.add(name)
        return name


def choose_artifact(model: Model, deployer: str, quantization: str | None) -> Artifact:
    """What of a model on this machine is served: GGUF, or what a checkpoint server takes."""
    here = this_location()
    if quantization is not None:
        found = model.artifact(here, quantization=quantization)
        if found is None:
            raise LinnixError(
                f"{model.model_id} is not here as {printable(quantization, 40)}",
                hint=f"linnix models convert {model.model_id} gguf --quant {quantization}",
            )
        return found
    forms = ("safetensors", "gguf") if deployer == "vllm" else ("gguf", "safetensors")
    for form in forms:
        found = model.artifact(here, form=form)
        if found is not None and Path(found.path).exists():
            return found
    raise LinnixError(
        f"{model.model_id} is not on this machine in a form that can be served",
        hint=f"linnix models pull {model.model_id}"
        if here not in model.locations
        else f"linnix models convert {model.model_id} gguf",
    )


def _refuse_changed(artifact: Artifact) -> None:
    if not is_unchanged(artifact):
        raise LinnixError(
            f"{artifact.path} is not as it was registered",
            hint="linnix models verify tells what changed",
        )


def _entry(deployment: Deployment) -> dict[str, Any]:
    return {
        "name": deployment.name,
        "deployer": deployment.deployer,
        "endpoint": deployment.endpoint,
        "model": deployment.model,
        "digest": deployment.digest,
        "deployed_at": _moment(deployment.created_ns),
    }


def _noted(key: str, owner: Model, noted: Mapping[str, Any]) -> Looked:
    return Looked(
        name=key,
        model_id=owner.model_id,
        deployer=str(noted.get("deployer", "")),
        endpoint=str(noted.get("endpoint", "")),
        model=str(noted.get("model", "")),
        digest=noted.get("digest"),
        deployed_at=str(noted.get("deployed_at", "")),
        health=Health("failed", "the agent's list of deployments does not have it"),
    )


def _note_health(registry: ModelRegistry, model_id: str, looked: Looked) -> None:
    def note(model: Model) -> None:
        for held in model.deployments:
            if held.get("name") == looked.name:
                model.put_deployment(
                    {
                        **held,
                        "health": looked.health.status,
                        "health_reason": looked.health.reason,
                        "checked_at": now(),
                    }
                )

    with contextlib.suppress(LinnixError):  # looking must work where nothing can be written
        registry.update(model_id, note)


def _moment(ns: int) -> str:
    return dt.datetime.fromtimestamp(ns / 1e9, dt.UTC).isoformat(timespec="seconds") if ns else ""
