"""The one place where this plugin asks whether it may run."""

from __future__ import annotations

from linnix_core import Context

__all__ = ["CAPABILITY", "require_licence"]

#: What a license has to name for this plugin to start.
CAPABILITY = "anomaly"


def require_licence(context: Context) -> None:
    """Return when a license names `CAPABILITY`; raise `PluginUnavailable` when none does.

    The distribution that reads licenses is not among the dependencies yet: everyone may run.
    """
