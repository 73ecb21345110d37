"""The reasoner: which server it asks, and with which key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
from attrs.validators import ge

from linnix_core import Context, PluginUnavailable
from linnix_plugin_openai.address import parse_address
from linnix_plugin_openai.chat import Chat
from linnix_plugin_openai.model_reasoner import ModelConfig, ModelReasoner, deployed
from linnix_plugin_openai.usage import Usage

__all__ = ["OpenAIConfig", "OpenAIReasoner"]

DEFAULT_ENDPOINT = "http://localhost:8090/v1"

#: What ``extra`` cannot change, since the rest of the conversation depends on it.
_OURS = frozenset({"messages", "model", "response_format", "stream", "n", "tools"})


def _not_ours(_: Any, field: Any, value: Mapping[str, Any]) -> None:
    if taken := sorted(_OURS & value.keys()):
        raise ValueError(f"{field.name} cannot hold {taken[0]}: that is for Linnix to say")


@attrs.frozen(kw_only=True)
class OpenAIConfig(ModelConfig):
    """The keys of ``[reasoners.openai]``."""

    ARG: ClassVar[str] = "endpoint"

    endpoint: str | None = attrs.field(
        default=None,
        metadata={"help": "address of the server, with or without /v1; else LLM_ENDPOINT"},
    )
    model: str | None = attrs.field(
        default=None,
        metadata={"help": "name of the model; else LLM_MODEL, else the first that is listed"},
    )
    deployment: str | None = attrs.field(
        default=None, metadata={"help": "name of a deployment to ask, in place of endpoint"}
    )
    extra: dict[str, Any] = attrs.field(
        factory=dict,
        validator=_not_ours,
        metadata={"help": "more keys of the request, such as reasoning_effort"},
    )
    price_input: float = attrs.field(
        default=0.0, validator=ge(0), metadata={"help": "price of a million tokens read"}
    )
    price_output: float = attrs.field(
        default=0.0, validator=ge(0), metadata={"help": "price of a million tokens written"}
    )

    def __attrs_post_init__(self) -> None:
        if self.endpoint is not None and self.deployment is not None:
            raise ValueError("deployment has an endpoint of its own: leave one of the two out")
        if self.endpoint is not None:
            try:
                parse_address(self.endpoint, plain_http=self.plain_http)
            except ValueError as error:
                raise ValueError(f"endpoint {error}") from None


class OpenAIReasoner(ModelReasoner[tuple[str, str | None]]):
    """Explain incidents with a model behind an OpenAI-compatible server."""

    Config = OpenAIConfig

    def __init__(self, config: OpenAIConfig, context: Context) -> None:
        usage = Usage(price_input=config.price_input, price_output=config.price_output)
        super().__init__(config, context, usage)
        self._config = config
        self.movable = config.deployment is not None
        self._named = None if self.movable else config.endpoint or os.environ.get("LLM_ENDPOINT")

    def where(self) -> tuple[str, str | None]:
        """The endpoint and the model, if one is named."""
        config = self._config
        if config.deployment is not None:
            deployment = deployed(self._context, config.deployment)
            return deployment.endpoint, config.model or deployment.model
        model = config.model or os.environ.get("LLM_MODEL") or None
        return self._named or DEFAULT_ENDPOINT, model

    def make(self, target: tuple[str, str | None]) -> Chat:
        """The chat with that model; raises `PluginUnavailable` where it cannot be."""
        config = self._config
        endpoint, model = target
        try:
            url = parse_address(endpoint, plain_http=config.plain_http)
        except ValueError as error:
            hint = "look at LLM_ENDPOINT and [reasoners.openai]"
            raise PluginUnavailable(f"endpoint {error}", hint=hint) from None
        # The key of the environment is for the server that somebody named, and no other.
        key = os.environ.get("OPENAI_API_KEY", "") if self._named else ""
        return Chat(
            config.exchange(url, key),
            url,
            model=model,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            extra=config.extra,
            usage=self._usage,
            stop=self._context.stop,
        )
