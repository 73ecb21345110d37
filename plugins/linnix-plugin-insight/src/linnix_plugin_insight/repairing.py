"""Mends a line as far as that needs no guess; what it did is told, place by place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import attrs

from linnix_core import (
    CLASSES,
    Answer,
    BadAnswer,
    Bundle,
    RequestProcess,
    load_bundle,
    parse_answer,
    printable,
)
from linnix_plugin_insight.example import (
    SCHEMA,
    BadExample,
    answer_document,
    load_example,
    rendered,
)
from linnix_plugin_insight.making import name_of

__all__ = ["Mended", "repair"]

#: The keys of each part; others are taken out.
_KEYS = {
    "$": "type schema id source family held_out label answer insight bundle",
    "$.source": "type notes",
    "$.label": "class also process",
    "$.answer": "class confidence process facts actions sentence",
}

_ID = re.compile(r"[\w.:+-]{1,120}", re.ASCII)


@attrs.frozen
class Mended:
    """A line that is an example, its name, and what was done to it: nothing, where it was one."""

    line: str
    name: str
    notes: tuple[str, ...]


def repair(line: bytes) -> Mended:
    """The line mended. Raises `BadExample` where something would have to be invented.

    Never made up: an incident, a true class, who did it, which facts were cited.
    """
    try:
        example = load_example(line)
    except BadExample:
        pass
    else:
        return Mended(line.decode(), example.id, ())
    notes: list[str] = []
    document = _parsed(line, notes)
    _take_out(document, "$", notes)
    bundle = _bundle(document, notes)
    for key, value in (("type", "example"), ("schema", SCHEMA)):
        if key not in document:
            document[key] = value
            notes.append(f"$.{key}: was missing")
    name = document.get("id")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        document["id"] = name_of(bundle)
        notes.append("$.id: named by its content")
    _source(document, notes)
    if document.get("label") is not None:
        _label(document, bundle, notes)
    answer = _answer(document, bundle, notes)
    insight = rendered(bundle, answer)
    if document.get("insight") != insight:
        notes.append("$.insight: written anew from the answer")
    document["insight"] = insight
    mended = json.dumps(document, allow_nan=False)
    example = load_example(mended)  # which says what is still wrong
    return Mended(mended, example.id, tuple(notes))


# --- the line -------------------------------------------------------------------------

# Possessive, with the end of a string optional: a line that is made to be slow is not.
_TRAILING_COMMA = re.compile(r'"(?:[^"\\]|\\.)*+"?|,(?=\s*[}\]])', re.DOTALL)


def _parsed(line: bytes, notes: list[str]) -> dict[str, Any]:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise BadExample("$", f"byte {error.start} is no UTF-8") from None
    if text.startswith("\ufeff"):
        text = text.removeprefix("\ufeff")
        notes.append("$: a byte order mark was taken out")
    document = _json(text)
    if document is None:
        document = _json(_TRAILING_COMMA.sub(lambda m: "" if m[0] == "," else m[0], text))
        notes.append("$: trailing commas were taken out")
    if not isinstance(document, dict):
        raise BadExample("$", "is no JSON object")
    return document


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None


def _take_out(part: dict[str, Any], place: str, notes: list[str]) -> None:
    known = _KEYS[place].split()
    for key in [key for key in part if key not in known]:
        del part[key]
        notes.append(f"{place}.{printable(key, 40)}: taken out, there is no such key")


def _bundle(document: dict[str, Any], notes: list[str]) -> Bundle:
    given = document.get("bundle")
    if isinstance(given, str):
        given = document["bundle"] = _json(given)
        notes.append("$.bundle: was a text that holds JSON")
    if given is None:
        raise BadExample("$.bundle", "is missing, and an incident cannot be made up")
    try:
        return load_bundle(json.dumps(given))
    except ValueError as error:
        raise BadExample("$.bundle", printable(str(error), 200)) from None


def _source(document: dict[str, Any], notes: list[str]) -> None:
    source = document.get("source")
    if source in ("recorded", "synthetic"):
        document["source"] = {"type": source}
        notes.append("$.source: was a text")
    elif not isinstance(source, dict) or "type" not in source:
        kept = source if isinstance(source, dict) else {}
        document["source"] = {**kept, "type": "unknown"}
        notes.append("$.source.type: nobody said")
    _take_out(document["source"], "$.source", notes)


# --- the label and the answer ---------------------------------------------------------


def _label(document: dict[str, Any], bundle: Bundle, notes: list[str]) -> None:
    label = document["label"]
    if isinstance(label, str):
        label = document["label"] = {"class": label}
        notes.append("$.label: was a text")
    if not isinstance(label, dict):
        raise BadExample("$.label", "is no object")
    _take_out(label, "$.label", notes)
    _class(label, "$.label", notes)
    given = label.get("process")
    if isinstance(given, list):
        label["process"] = [_process(p, bundle, "$.label.process", notes) for p in given]
    elif given is not None:
        label["process"] = _process(given, bundle, "$.label.process", notes)


def _answer(document: dict[str, Any], bundle: Bundle, notes: list[str]) -> Answer:
    answer = document.get("answer")
    if not isinstance(answer, dict):
        raise BadExample("$.answer", "is missing, and which facts it cited nobody knows")
    _take_out(answer, "$.answer", notes)
    _class(answer, "$.answer", notes)
    request = bundle.request
    process = answer.get("process")
    if process is not None and str(process).casefold() not in ("none", "null", ""):
        answer["process"] = _process(process, bundle, "$.answer.process", notes)
    for key, given in (("facts", request.facts), ("actions", request.actions)):
        items = answer.get(key)
        if isinstance(items, list):
            known = {item.id.casefold() for item in given}
            kept = [item for item in items if str(item).strip().casefold() in known]
            if kept != items:
                answer[key] = kept
                notes.append(f"$.answer.{key}: ids that were not given were taken out")
    try:
        said = parse_answer(json.dumps(answer), request)
    except BadAnswer as error:
        raise BadExample("$.answer", printable(str(error), 160)) from None
    mended = answer_document(said)
    notes.extend(
        f"$.answer.{key}: {printable(json.dumps(answer.get(key)), 60)} became {json.dumps(value)}"
        for key, value in mended.items()
        if json.dumps(answer.get(key)) != json.dumps(value)
    )
    document["answer"] = mended
    return said


def _class(part: dict[str, Any], place: str, notes: list[str]) -> None:
    said = part.get("class")
    if said in CLASSES:
        return
    meant = re.sub(r"[\s_-]+", "_", str(said).strip().casefold())
    if meant not in CLASSES:
        raise BadExample(f"{place}.class", f"{printable(repr(said), 40)} is no class")
    part["class"] = meant
    notes.append(f"{place}.class: {printable(repr(said), 40)} became {meant}")


def _process(said: Any, bundle: Bundle, place: str, notes: list[str]) -> str:
    """The id of a process that is named by its id in another case, its pid or its own name."""
    processes = bundle.request.processes
    if any(process.id == said for process in processes):
        return str(said)
    ways: tuple[Callable[[RequestProcess], Any], ...] = (
        lambda process: process.id.casefold() == str(said).strip().casefold(),
        lambda process: str(process.key.pid) == str(said).strip(),
        lambda process: f"{process.comm} (pid {process.key.pid})" == said,
        lambda process: process.comm == said,
    )
    for way in ways:
        found = [process.id for process in processes if way(process)]
        if len(found) == 1:
            notes.append(f"{place}: {printable(repr(said), 40)} became {found[0]}")
            return found[0]
    raise BadExample(place, f"{printable(repr(said), 40)} is none of the processes")
