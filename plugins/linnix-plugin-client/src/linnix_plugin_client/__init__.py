"""Commands that ask a running agent, over its HTTP API."""

from __future__ import annotations

from linnix_plugin_client.__about__ import __version__

__all__ = ["__version__"]
