"""Explains incidents with a model that Ollama serves, through its native API.

`Server` and `pull` are for whoever else has to do with an Ollama server.
"""

from linnix_plugin_ollama.__about__ import __version__
from linnix_plugin_ollama.chat import OllamaChat
from linnix_plugin_ollama.host import parse_host
from linnix_plugin_ollama.reasoner import OllamaConfig, OllamaReasoner
from linnix_plugin_ollama.server import ModelMissing, Progress, Server, pull

__all__ = [
    "ModelMissing",
    "OllamaChat",
    "OllamaConfig",
    "OllamaReasoner",
    "Progress",
    "Server",
    "__version__",
    "parse_host",
    "pull",
]
