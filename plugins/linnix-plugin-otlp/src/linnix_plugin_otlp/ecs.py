"""A process event as a document of the Elastic Common Schema: a pure function."""

from __future__ import annotations

from typing import Any

from linnix_core import ProcessEvent
from linnix_plugin_otlp.births import Births, iso_time
from linnix_plugin_otlp.entities import entity_id

__all__ = ["ECS_VERSION", "ecs_document"]

#: The version of ECS whose field names these are.
ECS_VERSION = "8.17.0"

#: ``event.type`` of each kind. One that was running already is information, not a start.
_TYPES = {"seen": "info", "fork": "start", "exec": "start", "exit": "end", "oom": "change"}


def ecs_document(event: ProcessEvent, births: Births) -> dict[str, Any]:
    """``@timestamp``, ``event.*``, ``process.*``, ``user.*`` and ``host.*``, nested.

    What is not known is left out.
    """
    births.learn(event)
    process: dict[str, Any] = {
        "pid": event.pid,
        "entity_id": entity_id(event.boot_id, event.pid, event.start_ns),
        "name": (event.exe or "").rpartition("/")[2] or event.comm or None,
        "start": births.created(event.boot_id, event.start_ns),
        "executable": event.exe,
        "args": None if event.args is None else list(event.args),
        "args_count": None if event.args is None else len(event.args),
        "working_directory": event.cwd,
        "parent": _known(
            {
                "pid": event.ppid,
                "entity_id": None if event.parent_key is None else entity_id(*event.parent_key),
            }
        )
        or None,
    }
    if event.kind == "exit":
        process["end"] = iso_time(event.ts_ns)
        process["exit_code"] = event.exit_code
    document = {
        "@timestamp": iso_time(event.ts_ns),
        "ecs": {"version": ECS_VERSION},
        "event": {
            "kind": "event",
            "category": ["process"],
            "type": [_TYPES[event.kind]],
            "action": event.kind,
            "module": "linnix",
            "dataset": "linnix.process",
            "sequence": event.seq,
        },
        "process": _known(process),
        "user": None if event.uid is None else {"id": str(event.uid)},
        "group": None if event.gid is None else {"id": str(event.gid)},
        "host": {"hostname": event.host, "name": event.host, "os": {"type": "linux"}},
        "labels": dict(event.labels) if event.labels else None,
    }
    return _known(document)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
