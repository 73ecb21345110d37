"""Processes by polling: what lives is read every few seconds, and two polls are compared."""

from linnix_plugin_psutil.__about__ import __version__
from linnix_plugin_psutil.collector import PsutilCollector, PsutilConfig

__all__ = ["PsutilCollector", "PsutilConfig", "__version__"]
