"""Puts models on halext nodes, and sees for itself that they answer."""

from linnix_plugin_halext.__about__ import __version__
from linnix_plugin_halext.config import HalextConfig
from linnix_plugin_halext.deployer import HalextDeployer

__all__ = ["HalextConfig", "HalextDeployer", "__version__"]
