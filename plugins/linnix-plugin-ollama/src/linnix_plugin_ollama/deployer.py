"""The deployer: which server models are put on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import ClassVar

import attrs

from linnix_core import (
    Context,
    Deployment,
    Health,
    LinnixError,
    ModelSpec,
    PluginUnavailable,
    Secret,
    hookimpl,
)
from linnix_plugin_ollama.host import DEFAULT_HOST, parse_host
from linnix_plugin_ollama.publishing import check, deployments_of, publish, withdraw
from linnix_plugin_ollama.store import Store, StoreConfig

__all__ = ["OllamaDeployer", "OllamaDeployerConfig"]


@attrs.frozen(kw_only=True)
class OllamaDeployerConfig(StoreConfig):
    """The keys of ``[deployers.ollama]``."""

    ARG: ClassVar[str] = "host"

    host: str | None = attrs.field(
        default=None,
        metadata={"help": f"address of the server; else OLLAMA_HOST, else {DEFAULT_HOST}"},
    )
    api_key: Secret | None = attrs.field(
        default=None, metadata={"help": "key for a server behind a gateway"}
    )

    def __attrs_post_init__(self) -> None:
        if self.host is not None:
            try:
                parse_host(self.host, plain_http=self.plain_http)
            except ValueError as error:
                raise ValueError(f"host {error}") from None


class OllamaDeployer:
    """Serve GGUF files as models of an Ollama server."""

    Config = OllamaDeployerConfig

    def __init__(self, config: OllamaDeployerConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._lock = threading.Lock()
        self._stores: dict[str, Store] = {}

    @hookimpl
    def linnix_start(self) -> None:
        """See that what is configured can be used; asks nobody yet."""
        self._store(self._url())

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """End what is under way; what is served stays."""
        with self._lock:
            stores = list(self._stores.values())
        for store in stores:
            store.close()

    @hookimpl
    def linnix_deploy(self, spec: ModelSpec) -> Deployment | None:
        """Put a GGUF on the server under its name, or find it there."""
        if spec.format != "gguf":
            return None
        store = self._store(self._url())
        made = publish(store, spec, self._context.logger, num_ctx=self._config.num_ctx)
        return attrs.evolve(made, deployer="ollama")

    @hookimpl
    def linnix_probe(self, deployment: Deployment) -> Health:
        """Have it answer a question that has one answer, made for this once."""
        config = self._config
        try:
            store = self._store(self._url(deployment))
        except LinnixError as error:
            return Health("failed", str(error))
        return check(store, deployment, num_ctx=config.num_ctx, timeout_s=config.probe_timeout)

    @hookimpl
    def linnix_undeploy(self, deployment: Deployment) -> None:
        """Remove the model from the server, if it is what was deployed."""
        withdraw(self._store(self._url(deployment)), deployment, self._context.logger)

    @hookimpl
    def linnix_deployments(self) -> Iterable[Deployment]:
        """Every model that the server has, whoever put it there."""
        with suppress(LinnixError):  # a server that does not run serves nothing
            found = deployments_of(self._store(self._url()))
            return [attrs.evolve(each, deployer="ollama") for each in found]
        return []

    # --- the server -------------------------------------------------------------------

    def _url(self, deployment: Deployment | None = None) -> str:
        if deployment is not None:
            host = deployment.endpoint
        else:
            host = self._config.host or os.environ.get("OLLAMA_HOST") or DEFAULT_HOST
        try:
            return parse_host(host, plain_http=self._config.plain_http).removesuffix("/v1")
        except ValueError as error:
            hint = "look at OLLAMA_HOST and [deployers.ollama]"
            raise PluginUnavailable(f"host {error}", hint=hint) from None

    def _store(self, url: str) -> Store:
        with self._lock:
            if url not in self._stores:
                # The key is for the configured server and nobody else's.
                key = self._config.api_key if url == self._url() else None
                wire = self._config.wire(url, key.reveal().strip() if key else "")
                self._stores[url] = Store(wire, url)
            return self._stores[url]
