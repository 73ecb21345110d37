"""Every fork, exec and exit as the kernel sees it, through eBPF, with proof of completeness."""

from linnix_plugin_ebpf.__about__ import __version__
from linnix_plugin_ebpf.collector import EbpfCollector, EbpfConfig

__all__ = ["EbpfCollector", "EbpfConfig", "__version__"]
