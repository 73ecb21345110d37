"""Explains incidents with a model behind any OpenAI-compatible server.

Also a library for plugins that talk to model servers: `Exchange` asks over HTTP within bounds
of time and size, `Chat` speaks the chat completions, `ModelReasoner` is
what reasoners on top of such servers have in common, and `stream_text` yields a reply in pieces.
"""

from linnix_plugin_openai.__about__ import __version__
from linnix_plugin_openai.address import is_loopback, parse_address
from linnix_plugin_openai.chat import (
    Chat,
    PromptTooLong,
    Refused,
    Structured,
    completed,
    holds_object,
    is_prompt_too_long,
)
from linnix_plugin_openai.exchange import Answered, Exchange, NoAnswer, TooLate
from linnix_plugin_openai.model_reasoner import Model, ModelConfig, ModelReasoner, deployed
from linnix_plugin_openai.reasoner import OpenAIConfig, OpenAIReasoner
from linnix_plugin_openai.streaming import stream_text
from linnix_plugin_openai.usage import Usage

__all__ = [
    "Answered",
    "Chat",
    "Exchange",
    "Model",
    "ModelConfig",
    "ModelReasoner",
    "NoAnswer",
    "OpenAIConfig",
    "OpenAIReasoner",
    "PromptTooLong",
    "Refused",
    "Structured",
    "TooLate",
    "Usage",
    "__version__",
    "completed",
    "deployed",
    "holds_object",
    "is_loopback",
    "is_prompt_too_long",
    "parse_address",
    "stream_text",
]
