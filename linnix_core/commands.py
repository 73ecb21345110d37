"""What commands of plugins build on: the configuration, plugins without an agent, deployments.

    settings = read(find_file(None))
    host = PluginHost(Catalog.scan(), data_dir=settings.agent.data_folder())
    component = host.open("deployers", "llama-cpp")

Each name is imported when it is first used, so that a command costs what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linnix_core.catalog import Catalog
    from linnix_core.config import Settings, find_file, read, structure
    from linnix_core.deployments import DeploymentStore, deploy, probe, undeploy
    from linnix_core.errors import Problem
    from linnix_core.plugins import PluginHost

_MODULES = {
    "catalog": "Catalog",
    "config": "Settings find_file read structure",
    "deployments": "DeploymentStore deploy probe undeploy",
    "errors": "Problem",
    "plugins": "PluginHost",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [
    "Catalog",
    "DeploymentStore",
    "PluginHost",
    "Problem",
    "Settings",
    "deploy",
    "find_file",
    "probe",
    "read",
    "structure",
    "undeploy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"linnix_core.{_HOME[name]}"), name)
