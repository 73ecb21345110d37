"""The reasoner: which server and model it asks, and what it does when the model is missing."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, ClassVar

import attrs
from attrs.validators import gt

from linnix_core import Context, Duration, Health, LinnixError, PluginUnavailable, hookimpl
from linnix_plugin_ollama.chat import OllamaChat
from linnix_plugin_ollama.host import DEFAULT_HOST, parse_host
from linnix_plugin_ollama.server import Server
from linnix_plugin_openai import ModelConfig, ModelReasoner, Usage, deployed

__all__ = ["OllamaConfig", "OllamaReasoner"]


@attrs.frozen(kw_only=True)
class OllamaConfig(ModelConfig):
    """The keys of ``[reasoners.ollama]``."""

    ARG: ClassVar[str] = "model"

    model: str | None = attrs.field(
        default=None,
        metadata={"help": "name of the model, as ollama list shows it; else LLM_MODEL"},
    )
    host: str | None = attrs.field(
        default=None,
        metadata={"help": f"address of the server; else OLLAMA_HOST, else {DEFAULT_HOST}"},
    )
    deployment: str | None = attrs.field(
        default=None, metadata={"help": "name of a deployment to ask, in place of host and model"}
    )
    pull: bool = attrs.field(
        default=False, metadata={"help": "have the server download the model if it is missing"}
    )
    num_ctx: int = attrs.field(
        default=4096,
        validator=gt(0),
        metadata={"help": "tokens of the model's context; more take more memory"},
    )
    keep_alive: Duration = attrs.field(
        default=Duration(300.0),
        metadata={"help": "how long the model stays in memory after a reply"},
    )
    options: dict[str, Any] = attrs.field(
        factory=dict, metadata={"help": "more options of the model, such as num_thread"}
    )

    def __attrs_post_init__(self) -> None:
        if self.host is not None and self.deployment is not None:
            raise ValueError("deployment has a server of its own: leave host out")
        if self.host is not None:
            try:
                parse_host(self.host, plain_http=self.plain_http)
            except ValueError as error:
                raise ValueError(f"host {error}") from None


class OllamaReasoner(ModelReasoner[tuple[str, str]]):
    """Explain incidents with a model that Ollama serves."""

    Config = OllamaConfig

    def __init__(self, config: OllamaConfig, context: Context) -> None:
        super().__init__(config, context, Usage())
        self._config = config
        self.movable = config.deployment is not None
        self._pull_lock = threading.Lock()
        self._pulling: threading.Thread | None = None
        self._pulled_from: Server | None = None
        self._progress = ""

    @hookimpl
    def linnix_stop(self, deadline: float) -> None:
        """End what is under way; the server takes up a download where it was, if asked again."""
        super().linnix_stop(deadline)
        with self._pull_lock:
            server, thread = self._pulled_from, self._pulling
        if server is not None:
            server.close()
        if thread is not None:
            thread.join(max(deadline - time.monotonic(), 0.0))

    @hookimpl
    def linnix_health(self) -> Health:
        """Whether the server answered last, whether it makes replies fit, what it downloads."""
        health, progress = super().linnix_health(), self._progress
        return attrs.evolve(health, limits=(*health.limits, progress)) if progress else health

    # --- the server -------------------------------------------------------------------

    def where(self) -> tuple[str, str]:
        """The address of the server and the name of the model."""
        config = self._config
        if config.deployment is not None:
            deployment = deployed(self._context, config.deployment)
            host, model = deployment.endpoint, config.model or deployment.model
        else:
            host = config.host or os.environ.get("OLLAMA_HOST") or DEFAULT_HOST
            model = config.model or os.environ.get("LLM_MODEL") or ""
        if not model:
            raise PluginUnavailable(
                "no model is named",
                hint="set model in [reasoners.ollama]; ollama list shows what there is",
            )
        try:
            return parse_host(host, plain_http=config.plain_http).removesuffix("/v1"), model
        except ValueError as error:
            hint = "look at OLLAMA_HOST and [reasoners.ollama]"
            raise PluginUnavailable(f"host {error}", hint=hint) from None

    def make(self, target: tuple[str, str]) -> OllamaChat:
        """The chat with that model; raises `PluginUnavailable` where it cannot be."""
        config = self._config
        url, model = target
        return OllamaChat(
            Server(config.exchange(url), url),
            model,
            num_ctx=config.num_ctx,
            keep_alive_s=config.keep_alive,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            options=config.options,
            usage=self._usage,
            stop=self._context.stop,
            on_missing=(lambda: self._begin_pull(url, model)) if config.pull else None,
        )

    # --- a model that is missing ------------------------------------------------------

    def _begin_pull(self, url: str, model: str) -> None:
        with self._pull_lock:
            if self._stopped or (self._pulling is not None and self._pulling.is_alive()):
                return
            # Of its own, so that a deployment that moves does not end the download.
            self._pulled_from = Server(self._config.exchange(url), url)
            self._pulling = threading.Thread(
                target=self._pull,
                args=(self._pulled_from, model),
                name="linnix-ollama-pull",
                daemon=True,
            )
            self._pulling.start()

    def _pull(self, server: Server, model: str) -> None:
        self._context.logger.info("%s downloads %s", server.url, model)
        try:
            for progress in server.pull(model):
                self._progress = f"download of {model}: {progress}"
        except LinnixError as error:
            self._progress = f"download of {model} failed: {error}"
            if not self._stopped:
                self._context.logger.warning("%s", self._progress)
        else:
            self._progress = ""
        finally:
            server.close()
