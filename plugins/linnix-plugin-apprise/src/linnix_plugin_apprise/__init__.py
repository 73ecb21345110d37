"""Incidents to any service that the Apprise library knows."""

from linnix_plugin_apprise.__about__ import __version__
from linnix_plugin_apprise.handler import AppriseConfig, AppriseHandler
from linnix_plugin_apprise.sink import AppriseSink, body_of, escaped

__all__ = [
    "AppriseConfig",
    "AppriseHandler",
    "AppriseSink",
    "__version__",
    "body_of",
    "escaped",
]
