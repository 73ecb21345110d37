"""Runs Sigma rules for Linux process creation on every exec."""

from linnix_plugin_sigma.__about__ import __version__
from linnix_plugin_sigma.config import SigmaConfig
from linnix_plugin_sigma.handler import SigmaHandler

__all__ = ["SigmaConfig", "SigmaHandler", "__version__"]
