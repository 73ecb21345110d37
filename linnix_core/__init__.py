"""Linnix: process observability with incident detection, as a plugin framework.

Everything a plugin needs is importable from here and loaded on first use, so that
``import linnix_core`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from linnix_core.__about__ import __version__

if TYPE_CHECKING:
    from linnix_core.codec import decode, encode
    from linnix_core.context import Clock, Context, Sink
    from linnix_core.errors import (
        AgentStopped,
        ConfigError,
        LinnixError,
        PluginError,
        PluginUnavailable,
        RecordsLost,
    )
    from linnix_core.escape import printable
    from linnix_core.hookspecs import hookimpl
    from linnix_core.processes import Process, ProcessTable, ProcessView, start_time_ns
    from linnix_core.records import (
        CLASSES,
        SEVERITIES,
        Alert,
        AllowedAction,
        Answer,
        Batch,
        CgroupSample,
        Deployment,
        Evidence,
        Fact,
        Health,
        Incident,
        Insight,
        Loss,
        Metric,
        ModelSpec,
        Mount,
        Pressure,
        ProcessEvent,
        ProcessKey,
        ProcessSample,
        Query,
        ReasonRequest,
        Record,
        RequestProcess,
        Result,
        Subject,
        SystemSample,
    )
    from linnix_core.settings import Duration, Secret, Size

_MODULES = {
    "codec": "decode encode",
    "context": "Clock Context Sink",
    "errors": "AgentStopped ConfigError LinnixError PluginError PluginUnavailable RecordsLost",
    "escape": "printable",
    "hookspecs": "hookimpl",
    "processes": "Process ProcessTable ProcessView start_time_ns",
    "records": (
        "CLASSES SEVERITIES Alert AllowedAction Answer Batch CgroupSample Deployment Evidence "
        "Fact Health Incident Insight Loss Metric ModelSpec Mount Pressure ProcessEvent "
        "ProcessKey ProcessSample Query ReasonRequest Record RequestProcess Result Subject "
        "SystemSample"
    ),
    "settings": "Duration Secret Size",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
