"""What is unusual on this host, learnt from its own samples.

linnix run --handler anomaly
linnix anomaly score DIR
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linnix_plugin_anomaly.__about__ import __version__

if TYPE_CHECKING:
    from linnix_plugin_anomaly.handler import AnomalyConfig as AnomalyConfig
    from linnix_plugin_anomaly.handler import AnomalyHandler as AnomalyHandler

__all__ = ["AnomalyConfig", "AnomalyHandler", "__version__"]


def __getattr__(name: str) -> Any:
    # The command imports this package too, and needs neither.
    if name not in ("AnomalyConfig", "AnomalyHandler"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from linnix_plugin_anomaly import handler

    return getattr(handler, name)
