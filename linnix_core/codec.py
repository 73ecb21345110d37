"""Records as JSON, one object per line, and back.

Events and samples are encoded straight from their attributes (about a microsecond each);
notices, which nest and are rare, pass through plain dictionaries.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import attrs
import msgspec

from linnix_core.records import (
    Alert,
    CgroupSample,
    Feedback,
    Incident,
    Insight,
    Loss,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    Record,
    SystemSample,
)

__all__ = ["Notice", "decode", "encode", "json_schema", "plain"]

#: Records that travel one by one: what people are told, rather than what is measured.
Notice: TypeAlias = Alert | Incident | Insight | Feedback

_FLAT: dict[str, type] = {
    "event": ProcessEvent,
    "sample": ProcessSample,
    "cgroup": CgroupSample,
    "system": SystemSample,
    "loss": Loss,
}
_NESTED: dict[str, type] = {
    "alert": Alert,
    "incident": Incident,
    "insight": Insight,
    "feedback": Feedback,
}
_FLAT_TYPES = frozenset(_FLAT.values())

_encode = msgspec.json.Encoder().encode
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    name: msgspec.json.Decoder(cls) for name, cls in _FLAT.items()
}

_CONTROL = re.compile(rb"\x7f|\xc2[\x80-\x9f]")


class _Tag(msgspec.Struct):
    type: str


_tag = msgspec.json.Decoder(_Tag)


def encode(record: Record | Notice) -> bytes:
    """One JSON object, UTF-8, without a newline and without any control character.

    >>> from linnix_core import ProcessSample
    >>> encode(ProcessSample(pid=7, start_ns=0, interval_ns=1))[:12]
    b'{"boot_id":"'
    """
    line = _encode(record if type(record) in _FLAT_TYPES else plain(record))
    if line.isascii() and b"\x7f" not in line:
        return line
    # JSON leaves DEL and the C1 controls as they are; terminals obey them.
    return _CONTROL.sub(lambda found: b"\\u00%02x" % found[0][-1], line)


def decode(line: bytes | str) -> Record | Notice:
    """The record of one line. Raises ``ValueError`` that names the place of the mistake."""
    try:
        return _decode(line)
    except RecursionError:
        raise ValueError("nested too deeply to be a record") from None


def _decode(line: bytes | str) -> Record | Notice:
    name = _tag.decode(line).type
    if decoder := _decoders.get(name):
        record: Record = decoder.decode(line)
        return record
    if cls := _NESTED.get(name):
        try:
            return msgspec.convert(_inbound(msgspec.json.decode(line)), cls)
        except msgspec.ValidationError as error:
            raise ValueError(_PLACE.sub(_as_written, str(error))) from None
    raise ValueError(f"{name!r} is no type of record")


def plain(value: Any) -> Any:
    """A record as dictionaries, lists and scalars with the key names of its JSON."""
    if isinstance(value, ProcessKey):
        return value._asdict()
    if attrs.has(type(value)):
        return {
            field.name.rstrip("_"): plain(getattr(value, field.name))
            for field in attrs.fields(type(value))
        }
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def _inbound(document: dict[str, Any]) -> dict[str, Any]:
    """The other way for what ``msgspec`` cannot know: the word ``class`` and the process key."""
    if "class" in document:
        document["class_"] = document.pop("class")
    tree = document.get("tree")
    for holder in (
        document.get("subject"),
        document.get("origin"),
        *(tree if isinstance(tree, list) else ()),
    ):
        for name in ("key", "parent"):
            if isinstance(holder, dict) and isinstance(key := holder.get(name), dict):
                holder[name] = [key.get(field) for field in ProcessKey._fields]
    return document


_PLACE = re.compile(r"\$\.(?:class_|(?P<key>[\w.\[\]]+\.(?:key|parent))\[(?P<field>\d)\])")


def _as_written(place: re.Match[str]) -> str:
    """A place in the line, from a place in what `_inbound` made of it."""
    field = place["field"]
    return f"$.{place['key']}.{ProcessKey._fields[int(field)]}" if field else "$.class"


def json_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) that every line of `encode` fits."""
    classes = [*_FLAT.values(), *_NESTED.values()]
    _, definitions = msgspec.json.schema_components(classes, ref_template="#/$defs/{name}")
    for definition in definitions.values():
        if definition.get("title") == "ProcessKey":
            definition.clear()
            definition.update(
                title="ProcessKey",
                type="object",
                properties={
                    "boot_id": {"type": "string"},
                    "pid": {"type": "integer"},
                    "start_ns": {"type": "integer"},
                },
            )
        definition["properties"] = {
            key.rstrip("_"): {k: v for k, v in value.items() if k != "default"}
            for key, value in definition["properties"].items()
        }
        # Every key is always written, so a reader may rely on it.
        definition["required"] = list(definition["properties"])
        definition["additionalProperties"] = False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Linnix record",
        "oneOf": [{"$ref": f"#/$defs/{cls.__name__}"} for cls in classes],
        "$defs": definitions,
    }
