"""Whether the agent is there, and whether it sees anything."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from linnix_plugin_http.api import Api
from linnix_plugin_http.operations import Reply, operation
from linnix_plugin_http.shapes import Healthz, Readyz

__all__ = ["BTF", "active", "healthz", "readyz"]

BTF = Path("/sys/kernel/btf/vmlinux")


def active(seen: bool) -> Literal["active", "unavailable"]:
    """The word for it."""
    return "active" if seen else "unavailable"


@operation("GET", "/healthz")
def healthz(api: Api) -> Healthz:
    """Always 200: the server answers. Needs no token."""
    found = api.instrumentation()
    return Healthz(kernel_instrumentation=active(found.active), transport=found.transport)


@operation("GET", "/readyz", returns=Readyz, statuses=(503,))
def readyz(api: Api) -> Reply:
    """200 while kernel events are being seen, else 503 with the reason. Needs no token.

    With ``require_kernel = false`` in the configuration any collector that runs will do.
    """
    found = api.instrumentation()
    running = any(each.state in ("running", "degraded") for each in api.components("collectors"))
    ready = found.active or (running and not api.config.require_kernel)
    return Reply(
        Readyz(
            ready=ready,
            kernel_instrumentation=active(found.active),
            transport=found.transport,
            btf_available=BTF.exists(),
            rss_probe="disabled" if not running else "samples",
            reason=found.reason,
        ),
        status=200 if ready else 503,
    )
