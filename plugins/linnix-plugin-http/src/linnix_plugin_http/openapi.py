"""The OpenAPI document (3.1), made of the operations and the shapes of their answers."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from linnix_core import (
    Alert,
    CgroupSample,
    Feedback,
    Incident,
    Insight,
    Loss,
    ProcessEvent,
    ProcessSample,
    SystemSample,
)
from linnix_plugin_http import routes  # noqa: F401 - registers the operations
from linnix_plugin_http.__about__ import __version__
from linnix_plugin_http.operations import OPERATIONS, Operation
from linnix_plugin_http.routes.incidents import IncidentDetail, IncidentReport
from linnix_plugin_http.shapes import EventExtras, Refusal

__all__ = ["describe", "document"]

_RECORDS = (
    ProcessEvent,
    ProcessSample,
    CgroupSample,
    SystemSample,
    Loss,
    Alert,
    Incident,
    Insight,
    Feedback,
)
_REF = "#/components/schemas/{name}"

#: Answers that are a record with more keys.
_EXTENDED = {"IncidentReport": "Incident", "IncidentDetail": "Incident"}


class StreamedEvent(EventExtras, kw_only=True):
    """An event of a process, as the stream has it."""


_EXTENDED["StreamedEvent"] = "ProcessEvent"


def document() -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(describe())


def describe() -> dict[str, Any]:
    """The document."""
    answers = {each.path + each.method: each.returns for each in OPERATIONS}
    types = [*_RECORDS, Refusal, IncidentReport, IncidentDetail, StreamedEvent]
    types += [each.body for each in OPERATIONS if each.body is not None]
    refs, schemas = msgspec.json.schema_components([*types, *answers.values()], ref_template=_REF)
    of_answer = dict(zip(answers, refs[len(types) :], strict=True))
    of_type = dict(zip(types, refs[: len(types)], strict=True))
    bodies = {each.body.__name__ for each in OPERATIONS if each.body is not None}
    for record in _RECORDS:
        _as_written(schemas[record.__name__])
    for name, schema in schemas.items():
        if name == "ProcessKey":
            _key(schema)
        elif name not in bodies and "properties" in schema:
            # Every key is always there.
            schema["required"] = list(schema["properties"])
            for part in schema["properties"].values():
                part.pop("default", None)
    for name, of in _EXTENDED.items():
        schemas[name]["properties"] = {**schemas[of]["properties"], **schemas[name]["properties"]}
        schemas[name]["required"] = list(schemas[name]["properties"])
    paths: dict[str, Any] = {}
    for each in OPERATIONS:
        answer = of_answer[each.path + each.method]
        body = None if each.body is None else of_type[each.body]
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, answer, body)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Linnix",
            "version": __version__,
            "description": "What a host does, and why.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(each: Operation, answer: Any, body: Any) -> dict[str, Any]:
    said = inspect.getdoc(each.function) or ""
    summary, _, rest = said.partition("\n")
    content: dict[str, Any] = {each.media: {"schema": answer}}
    if each.path == "/alerts":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    if each.path == "/insights/{id}":
        content["text/html"] = {"schema": {"type": "string"}}
    status = "202" if each.path.endswith("/explain") else "200"
    refused = {"application/json": {"schema": {"$ref": _REF.format(name="Refusal")}}}
    responses: dict[str, Any] = {status: {"description": "What was asked for.", "content": content}}
    responses |= {
        str(code): {
            "description": "Refused.",
            "content": content if each.path == "/readyz" else refused,
        }
        for code in (400, 401, 403, 408, 413, 415, 421, *each.statuses, 503)
    }
    described: dict[str, Any] = {
        "operationId": f"{each.function.__name__}{each.path.replace('/', '_')}",
        "tags": [each.tag],
        "summary": summary,
        "description": rest.strip() or summary,
        "parameters": _parameters(each),
        "responses": responses,
        "x-linnix-scope": each.scope,
    }
    if body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return described


def _parameters(each: Operation) -> list[dict[str, Any]]:
    if each.ask is None:
        return []
    schema = msgspec.json.schema_components([each.ask])[1][each.ask.__name__]
    found = []
    for name, given in schema["properties"].items():
        part = dict(given)
        in_path = name in each.path_parameters
        described = {
            "name": name,
            "in": "path" if in_path else "query",
            "required": in_path,
            "schema": part,
        }
        if "description" in part:
            described["description"] = part.pop("description")
        found.append(described)
    return found


def _as_written(schema: dict[str, Any]) -> None:
    """Python's ``class_`` is ``class`` in JSON, and no other key is possible."""
    schema["properties"] = {key.rstrip("_"): value for key, value in schema["properties"].items()}
    schema["required"] = list(schema["properties"])


def _key(schema: dict[str, Any]) -> None:
    """The identity of a process is written as an object."""
    schema.clear()
    schema.update(
        title="ProcessKey",
        type="object",
        properties={
            "boot_id": {"type": "string"},
            "pid": {"type": "integer"},
            "start_ns": {"type": "integer"},
        },
        required=["boot_id", "pid", "start_ns"],
    )
