"""A process event as OCSF's Process Activity (class 1007): a pure function."""

from __future__ import annotations

from typing import Any

from linnix_core import ProcessEvent
from linnix_plugin_otlp.__about__ import __version__
from linnix_plugin_otlp.births import Births
from linnix_plugin_otlp.entities import entity_id

__all__ = ["OCSF_VERSION", "ocsf_event"]

#: The version of OCSF whose class and attributes these are.
OCSF_VERSION = "1.4.0"

_CLASS_UID = 1007
_CATEGORY_UID = 1

#: ``activity_id`` and its name of each kind: 1 Launch, 2 Terminate, 99 Other.
_ACTIVITIES = {
    "seen": (99, "Seen"),
    "fork": (1, "Launch"),
    "exec": (1, "Launch"),
    "exit": (2, "Terminate"),
    "oom": (99, "OOM Kill"),
}


def ocsf_event(event: ProcessEvent, births: Births) -> dict[str, Any]:
    """The event with ``process``, ``actor`` (its parent), ``device`` and ``metadata``.

    Times are milliseconds since the epoch. What is not known is left out.
    """
    births.learn(event)
    activity_id, activity = _ACTIVITIES[event.kind]
    parent = _process(event, event.ppid, event.parent_start_ns, births)
    process = {
        **_process(event, event.pid, event.start_ns, births),
        "name": (event.exe or "").rpartition("/")[2] or event.comm or None,
        "cmd_line": None if event.args is None else " ".join(event.args),
        "working_directory": event.cwd,
        "user": None if event.uid is None else {"uid": str(event.uid)},
        "file": None
        if not event.exe
        else {"path": event.exe, "name": event.exe.rpartition("/")[2], "type_id": 1},
        "parent_process": parent or None,
    }
    document = {
        "class_uid": _CLASS_UID,
        "class_name": "Process Activity",
        "category_uid": _CATEGORY_UID,
        "category_name": "System Activity",
        "activity_id": activity_id,
        "activity_name": activity,
        "type_uid": _CLASS_UID * 100 + activity_id,
        "time": event.ts_ns // 10**6,
        "severity_id": 4 if event.kind == "oom" else 1,
        "severity": "High" if event.kind == "oom" else "Informational",
        "exit_code": event.exit_code,
        "process": _known(process),
        "actor": {"process": parent} if parent else None,
        "device": {"hostname": event.host, "type_id": 0, "os": {"name": "Linux", "type_id": 200}},
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": "Linnix", "vendor_name": "Linnix", "version": __version__},
            "sequence": event.seq,
            "event_code": event.kind,
        },
    }
    return _known(document)


def _process(
    event: ProcessEvent, pid: int | None, start_ns: int | None, births: Births
) -> dict[str, Any]:
    if pid is None:
        return {}
    if start_ns is None:
        return {"pid": pid}
    created_ns = births.created_ns(event.boot_id, start_ns)
    return _known(
        {
            "pid": pid,
            "uid": entity_id(event.boot_id, pid, start_ns),
            "created_time": None if created_ns is None else created_ns // 10**6,
        }
    )


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
