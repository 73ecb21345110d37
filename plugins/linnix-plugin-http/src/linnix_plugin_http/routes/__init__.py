"""The operations, by topic. Importing this registers them all, in the order of their paths."""

from linnix_plugin_http.routes import (  # noqa: F401
    agent,
    alerts,
    health,
    incidents,
    insights,
    processes,
    streams,
)
