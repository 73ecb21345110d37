"""Who stalls whom: the waiting time of each cgroup, split among its neighbours.

linnix run --collector psi --collector ebpf --handler attribution
"""

from linnix_plugin_attribution.__about__ import __version__
from linnix_plugin_attribution.groups import Unit
from linnix_plugin_attribution.handler import AttributionConfig, AttributionHandler
from linnix_plugin_attribution.ledger import Attribution
from linnix_plugin_attribution.split import Activity, Share, Split, split

__all__ = [
    "Activity",
    "Attribution",
    "AttributionConfig",
    "AttributionHandler",
    "Share",
    "Split",
    "Unit",
    "__version__",
    "split",
]
