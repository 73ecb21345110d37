"""Linnix: process observability with incident detection, as a plugin framework.

Everything a plugin needs is importable from here and loaded on first use, so that
``import linnix_core`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from linnix_core.__about__ import __version__

if TYPE_CHECKING:
    from linnix_core.batch import Batch as Batch
    from linnix_core.bundle import Bundle as Bundle
    from linnix_core.bundle import bundle_of as bundle_of
    from linnix_core.bundle import dump_bundle as dump_bundle
    from linnix_core.bundle import load_bundle as load_bundle
    from linnix_core.bundle import read_bundle as read_bundle
    from linnix_core.bundle import write_bundle as write_bundle
    from linnix_core.codec import decode as decode
    from linnix_core.codec import encode as encode
    from linnix_core.context import Clock as Clock
    from linnix_core.context import ComponentStatus as ComponentStatus
    from linnix_core.context import Context as Context
    from linnix_core.context import Sink as Sink
    from linnix_core.errors import AgentStopped as AgentStopped
    from linnix_core.errors import ConfigError as ConfigError
    from linnix_core.errors import LinnixError as LinnixError
    from linnix_core.errors import PluginError as PluginError
    from linnix_core.errors import PluginUnavailable as PluginUnavailable
    from linnix_core.errors import RecordsLost as RecordsLost
    from linnix_core.escape import printable as printable
    from linnix_core.grounding import NotGrounded as NotGrounded
    from linnix_core.grounding import ground as ground
    from linnix_core.hookspecs import hookimpl as hookimpl
    from linnix_core.processes import Process as Process
    from linnix_core.processes import ProcessTable as ProcessTable
    from linnix_core.processes import ProcessView as ProcessView
    from linnix_core.processes import start_time_ns as start_time_ns
    from linnix_core.prompting import BadAnswer as BadAnswer
    from linnix_core.prompting import Complete as Complete
    from linnix_core.prompting import Message as Message
    from linnix_core.prompting import answer_schema as answer_schema
    from linnix_core.prompting import ask as ask
    from linnix_core.prompting import narrowed as narrowed
    from linnix_core.prompting import parse_answer as parse_answer
    from linnix_core.prompting import process_table as process_table
    from linnix_core.prompting import render_prompt as render_prompt
    from linnix_core.reasoning import build_request as build_request
    from linnix_core.reasoning import insight_document as insight_document
    from linnix_core.reasoning import insight_schema as insight_schema
    from linnix_core.records import CLASSES as CLASSES
    from linnix_core.records import SEVERITIES as SEVERITIES
    from linnix_core.records import VERDICTS as VERDICTS
    from linnix_core.records import Alert as Alert
    from linnix_core.records import AllowedAction as AllowedAction
    from linnix_core.records import Answer as Answer
    from linnix_core.records import CgroupSample as CgroupSample
    from linnix_core.records import Deployment as Deployment
    from linnix_core.records import Evidence as Evidence
    from linnix_core.records import Fact as Fact
    from linnix_core.records import Feedback as Feedback
    from linnix_core.records import Health as Health
    from linnix_core.records import Incident as Incident
    from linnix_core.records import IncidentClass as IncidentClass
    from linnix_core.records import IncidentProcess as IncidentProcess
    from linnix_core.records import Insight as Insight
    from linnix_core.records import Loss as Loss
    from linnix_core.records import Metric as Metric
    from linnix_core.records import ModelSpec as ModelSpec
    from linnix_core.records import Mount as Mount
    from linnix_core.records import Origin as Origin
    from linnix_core.records import Pressure as Pressure
    from linnix_core.records import ProcessEvent as ProcessEvent
    from linnix_core.records import ProcessKey as ProcessKey
    from linnix_core.records import ProcessSample as ProcessSample
    from linnix_core.records import Query as Query
    from linnix_core.records import ReasonRequest as ReasonRequest
    from linnix_core.records import Record as Record
    from linnix_core.records import RequestProcess as RequestProcess
    from linnix_core.records import Result as Result
    from linnix_core.records import Severity as Severity
    from linnix_core.records import Subject as Subject
    from linnix_core.records import SystemSample as SystemSample
    from linnix_core.records import Verdict as Verdict
    from linnix_core.settings import Duration as Duration
    from linnix_core.settings import Secret as Secret
    from linnix_core.settings import Size as Size

_MODULES = {
    "batch": "Batch",
    "bundle": "Bundle bundle_of dump_bundle load_bundle read_bundle write_bundle",
    "codec": "decode encode",
    "context": "Clock ComponentStatus Context Sink",
    "errors": "AgentStopped ConfigError LinnixError PluginError PluginUnavailable RecordsLost",
    "escape": "printable",
    "grounding": "NotGrounded ground",
    "hookspecs": "hookimpl",
    "processes": "Process ProcessTable ProcessView start_time_ns",
    "prompting": (
        "BadAnswer Complete Message answer_schema ask narrowed parse_answer process_table "
        "render_prompt"
    ),
    "reasoning": "build_request insight_document insight_schema",
    "records": (
        "CLASSES SEVERITIES VERDICTS Alert AllowedAction Answer CgroupSample Deployment Evidence "
        "Fact Feedback Health Incident IncidentClass IncidentProcess Insight Loss Metric "
        "ModelSpec Mount Origin Pressure ProcessEvent ProcessKey ProcessSample Query "
        "ReasonRequest Record RequestProcess Result Severity Subject SystemSample Verdict"
    ),
    "settings": "Duration Secret Size",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
