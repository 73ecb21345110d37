"""Any record as a CloudEvent 1.0 in the JSON format: a pure function."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from linnix_core import Alert, Feedback, Incident, Insight, ProcessEvent, encode
from linnix_plugin_otlp.births import iso_time
from linnix_plugin_otlp.entities import entity_id

__all__ = ["cloud_event"]


def cloud_event(record: ProcessEvent | Alert | Incident | Insight | Feedback) -> dict[str, Any]:
    """The envelope, with the record as Linnix writes it as ``data``.

    ``id`` with ``source`` is unique: the record's number within its run, and the run. ``subject``
    is the process or, of an alert and what follows from it, the alert or incident.
    """
    subject = _subject(record)
    return {
        "specversion": "1.0",
        "id": f"{record.run_id}:{record.seq}",
        "source": f"/linnix/{quote(record.host, safe='')}",
        "type": _type(record),
        **({"subject": subject} if subject else {}),
        "time": iso_time(record.ts_ns),
        "datacontenttype": "application/json",
        "data": json.loads(encode(record)),
    }


def _type(record: Any) -> str:
    if type(record) is ProcessEvent:
        return f"io.linnix.process.{record.kind}.v1"
    if type(record) is Incident:
        return f"io.linnix.incident.{record.change}.v1"
    return f"io.linnix.{record.type}.v1"


def _subject(record: Any) -> str:
    if type(record) is ProcessEvent:
        return entity_id(record.boot_id, record.pid, record.start_ns)
    return str(getattr(record, "incident", record.id))
