"""The HTTP and SSE API of a running agent: what a host does, and why."""

from linnix_plugin_http.__about__ import __version__
from linnix_plugin_http.config import HttpConfig
from linnix_plugin_http.handler import HttpHandler
from linnix_plugin_http.tokens import Token

__all__ = ["HttpConfig", "HttpHandler", "Token", "__version__"]
