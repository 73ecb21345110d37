"""Every fork, exec and exit from tracepoints, through BCC: for kernels without BTF."""

from linnix_plugin_bcc.__about__ import __version__
from linnix_plugin_bcc.collector import BccCollector, BccConfig

__all__ = ["BccCollector", "BccConfig", "__version__"]
