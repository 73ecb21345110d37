"""Processes by polling: what lives is read every few seconds, and two polls are compared.

The readers are a library for collectors that get their events from elsewhere and read
/proc beside them.
"""

from linnix_plugin_psutil.__about__ import __version__
from linnix_plugin_psutil.collector import PsutilCollector, PsutilConfig
from linnix_plugin_psutil.linux import LinuxReader, cgroup_path
from linnix_plugin_psutil.reading import Image, Reading
from linnix_plugin_psutil.system import LinuxSystemReader, SystemReader
from linnix_plugin_psutil.tree import ProcessTree

__all__ = [
    "Image",
    "LinuxReader",
    "LinuxSystemReader",
    "ProcessTree",
    "PsutilCollector",
    "PsutilConfig",
    "Reading",
    "SystemReader",
    "__version__",
    "cgroup_path",
]
