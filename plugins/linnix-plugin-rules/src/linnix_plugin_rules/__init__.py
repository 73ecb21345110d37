"""Alerts from a file of rules, each naming the process tree that is to blame.

linnix run --handler rules:rules.yaml
"""

from linnix_plugin_rules.__about__ import __version__
from linnix_plugin_rules.handler import RulesConfig, RulesHandler

__all__ = ["RulesConfig", "RulesHandler", "__version__"]
