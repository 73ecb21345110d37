"""The reasoner that needs no model: it weighs the facts of an incident by rules of thumb."""

from linnix_plugin_heuristics.__about__ import __version__
from linnix_plugin_heuristics.reasoner import HeuristicsReasoner, confidence

__all__ = ["HeuristicsReasoner", "__version__", "confidence"]
