"""The forms in which a server may be told what a reply must look like, and how to try them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from linnix_core import Message

__all__ = ["CANARY", "CANARY_SCHEMA", "FORMS", "Form", "is_canary", "is_object"]

#: Keywords that strict modes may refuse; `linnix_core.parse_answer` checks what they say.
_BOUNDS = frozenset({"minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength"})


@attrs.frozen
class Form:
    """One way to write ``response_format``; None is not to write it."""

    name: str
    of: Callable[[Mapping[str, Any]], dict[str, Any] | None]


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": schema},
    }


def _without_bounds(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {key: _without_bounds(value) for key, value in schema.items() if key not in _BOUNDS}
    return schema


#: The strictest first. With ``schema`` beside it, llama.cpp and its Python server enforce a
#: json_object; others pass over the key or refuse it.
FORMS: tuple[Form, ...] = (
    Form("json_schema", _strict),
    Form("json_schema without bounds", lambda schema: _strict(_without_bounds(schema))),
    Form("json_object with schema", lambda schema: {"type": "json_object", "schema": dict(schema)}),
    Form("json_object", lambda _schema: {"type": "json_object"}),
    Form("text", lambda _schema: None),
)

#: A question, and a schema that makes a model answer something else. It uses the keywords
#: that an answer's schema uses, so that a server that takes it takes those as well.
CANARY: Sequence[Message] = (
    {"role": "user", "content": "Name a colour. Reply with one short JSON object."},
)
_MARKS = ("heron7", "otter3")
CANARY_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["mark", "number", "marks"],
    "properties": {
        "mark": {"type": "string", "enum": list(_MARKS)},
        "number": {"type": "integer", "minimum": 0, "maximum": 100},
        "marks": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {"type": "string", "enum": list(_MARKS)},
        },
    },
}


def is_canary(text: str) -> bool:
    """Whether a reply is what only a server that enforces the schema would let through."""
    said = _document(text)
    return (
        isinstance(said, dict)
        and said.keys() == set(CANARY_SCHEMA["required"])
        and said["mark"] in _MARKS
        and isinstance(said["marks"], list)
        and all(mark in _MARKS for mark in said["marks"])
    )


def is_object(text: str) -> bool:
    """Whether a reply is one JSON object and nothing else."""
    return isinstance(_document(text), dict)


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
