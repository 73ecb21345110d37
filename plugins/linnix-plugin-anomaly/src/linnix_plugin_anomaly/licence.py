"""The one place where this plugin asks whether it may run."""

from __future__ import annotations

from linnix_core import Context
from linnix_plugin_enterprise import require

__all__ = ["CAPABILITY", "require_licence"]

#: What a license has to name for this plugin to start.
CAPABILITY = "anomaly"


def require_licence(context: Context) -> None:
    """Return when a license names `CAPABILITY`; raise `PluginUnavailable` when none does."""
    require(CAPABILITY, context)
