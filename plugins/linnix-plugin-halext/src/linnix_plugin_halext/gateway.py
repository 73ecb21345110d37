"""An OpenAI-style gateway to nodes: it lists models and passes questions on, and nothing else."""

from __future__ import annotations

from linnix_core import Health, LinnixError
from linnix_plugin_halext.config import HalextConfig
from linnix_plugin_ollama import ask_once, is_same_model
from linnix_plugin_openai import Chat

__all__ = ["Gateway"]

QUICK_S = 10.0


class Gateway:
    """The gateway at ``url``, which ends in ``/v1``. Raises `LinnixError`."""

    def __init__(self, config: HalextConfig, url: str) -> None:
        self.url = url
        self._wire = config.asking_gateway(url)

    def close(self) -> None:
        """End what is under way."""
        self._wire.close()

    def models(self) -> list[str] | None:
        """The ids of its models; None where nothing that lists models is there."""
        answer = self._wire.get(f"{self.url}/models", QUICK_S)
        if answer.status in (401, 403):
            raise LinnixError(
                f"{self.url} says {answer.status}",
                hint="set gateway_key in [deployers.halext], or HALEXT_API_KEY",
            )
        listed = answer.document.get("data")
        if not answer.is_success or not isinstance(listed, list):
            return None
        return [each["id"] for each in listed if isinstance(each, dict) and "id" in each]

    def find(self, model: str) -> str | None:
        """What it calls a model."""
        names = [name for name in self.models() or () if isinstance(name, str)]
        return next((name for name in names if is_same_model(name, model)), None)

    def check(self, model: str, timeout_s: float) -> Health:
        """Whether it has the model and an answer that nobody can have ready comes back."""
        question = ask_once()
        chat = Chat(self._wire, self.url, model=model, max_tokens=400)
        try:
            if self.find(model) is None:
                return Health("failed", f"{self.url} does not list {model}")
            text = chat.complete(question.messages, question.schema, timeout_s)
        except LinnixError as error:
            return Health("failed", str(error))
        limits = ("weights: a gateway does not tell which they are",)
        if question.is_answered(text):
            return Health("ok", "answered as it must", limits)
        word = question.schema["properties"]["word"]["enum"][0]
        if word in text:
            return Health("degraded", "it answers, but not as the schema says", limits)
        return Health("failed", "the answer may be anybody's: the word is not in it", limits)
