"""What commands of plugins build on: the configuration, plugins without an agent, deployments.

A plugin's command is imported when it is invoked, so nothing here is lazy.

    settings = read(find_file(None))
    host = PluginHost(Catalog.scan(), data_dir=settings.agent.data_folder())
    component = host.open("deployers", "llama-cpp")
"""

from linnix_core.catalog import Catalog
from linnix_core.config import Settings, find_file, read, structure
from linnix_core.deployments import DeploymentStore, deploy, probe, undeploy
from linnix_core.errors import Problem
from linnix_core.plugins import PluginHost

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
