"""Plays back what was recorded, so that rules and reasoners can be tried on yesterday."""

from linnix_plugin_replay.__about__ import __version__
from linnix_plugin_replay.collector import ReplayCollector
from linnix_plugin_replay.config import ReplayConfig

__all__ = ["ReplayCollector", "ReplayConfig", "__version__"]
