"""One line of a dataset: an incident, what is true of it, and the insight that says so."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeAlias

import attrs
import msgspec

from linnix_core import (
    Answer,
    Bundle,
    IncidentClass,
    LinnixError,
    NotGrounded,
    dump_bundle,
    ground,
    insight_document,
    load_bundle,
    printable,
)

__all__ = ["SCHEMA", "BadExample", "Example", "Label", "Source", "dump_example", "load_example"]

#: The version of the format: it changes when a reader of the one before cannot read it.
SCHEMA = 1


class BadExample(LinnixError):
    """A line that is no example; the message names the place in it and what is wrong there."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


#: Whether it happened on a machine, or was made up; "unknown" where nobody said.
Source: TypeAlias = Literal["recorded", "synthetic", "unknown"]


@attrs.frozen
class Label:
    """What is true of an incident, said by somebody who knows it and not by a reasoner.

    ``also`` are classes that are just as true. ``processes`` are the ids of those that did it,
    each a right answer: none for work that is wanted, and where the request names none of them.
    """

    class_: IncidentClass
    also: tuple[IncidentClass, ...] = ()
    processes: tuple[str, ...] = ()


@attrs.frozen
class Example:
    """An incident with its answer, which holds ids, and the insight that the answer stands for.

    ``family`` names what makes incidents alike (one program with other parameters): a family is
    never in two splits. ``held_out`` keeps it out of training.
    """

    id: str
    bundle: Bundle
    answer: Answer
    insight: dict[str, Any]
    label: Label | None = None
    family: str | None = None
    held_out: bool = False
    source: Source = "unknown"
    notes: str = ""

    @property
    def class_(self) -> IncidentClass:
        """The true class or, where nobody knows it, that of the answer."""
        return self.label.class_ if self.label else self.answer.class_

    @property
    def agrees(self) -> bool:
        """Whether the answer is a right one; also where nobody knows."""
        if self.label is None:
            return True
        if self.answer.class_ not in (self.label.class_, *self.label.also):
            return False
        return self.answer.process in (self.label.processes or (None, self.answer.process))


# --- as JSON --------------------------------------------------------------------------


def dump_example(example: Example) -> str:
    """The example as one line of ASCII, without its end."""
    label, answer = example.label, example.answer
    document = {
        "type": "example",
        "schema": SCHEMA,
        "id": example.id,
        "source": {"type": example.source, "notes": example.notes},
        "family": example.family,
        "held_out": example.held_out,
        "label": label
        and {"class": label.class_, "also": label.also, "process": list(label.processes) or None},
        "answer": answer_document(answer),
        "insight": example.insight,
        "bundle": json.loads(dump_bundle(example.bundle)),
    }
    return json.dumps(document, allow_nan=False)


def answer_document(answer: Answer) -> dict[str, Any]:
    """The keys that a model is asked for, and a sentence if there is one."""
    document = {
        "class": answer.class_,
        "confidence": answer.confidence,
        "process": answer.process,
        "facts": list(answer.facts),
        "actions": list(answer.actions),
    }
    return document if answer.sentence is None else {**document, "sentence": answer.sentence}


def load_example(line: bytes | str) -> Example:
    """The example of one line. Raises `BadExample`."""
    try:
        parts = msgspec.json.decode(line, type=_Line)
    except msgspec.ValidationError as error:
        raise _placed(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise BadExample("$", f"is no JSON: {printable(str(error), 120)}") from None
    if parts.schema != SCHEMA:
        raise BadExample("$.schema", f"{parts.schema} is not {SCHEMA}, which is known")
    try:
        bundle = load_bundle(bytes(parts.bundle))
    except ValueError as error:
        raise BadExample("$.bundle", printable(str(error), 200)) from None
    label = None if parts.label is None else _label(parts.label, bundle)
    said = parts.answer
    answer = Answer(
        said.class_, said.confidence, said.process, said.facts, said.actions, said.sentence
    )
    insight = msgspec.to_builtins(parts.insight)
    wanted = rendered(bundle, answer)
    for key, value in wanted.items():
        if insight[key] != value:
            raise BadExample(
                f"$.insight.{key}", f"the answer stands for {printable(repr(value), 160)}"
            )
    return Example(
        id=parts.id,
        bundle=bundle,
        answer=answer,
        insight=insight,
        label=label,
        family=parts.family,
        held_out=parts.held_out,
        source=parts.source.type,
        notes=parts.source.notes,
    )


def rendered(bundle: Bundle, answer: Answer) -> dict[str, Any]:
    """The insight that an answer stands for. Raises `BadExample` unless it is grounded."""
    try:
        return insight_document(ground(bundle.request, answer, "dataset"))
    except NotGrounded as error:
        raise BadExample("$.answer", printable(str(error), 160)) from None


def _label(parts: _Label, bundle: Bundle) -> Label:
    given = parts.process
    processes = () if given is None else (given,) if isinstance(given, str) else given
    known = {process.id for process in bundle.request.processes}
    for process in processes:
        if process not in known:
            raise BadExample("$.label.process", f"{printable(process, 20)!r} was not given")
    if parts.class_ == "normal" and processes:
        raise BadExample("$.label.process", "nobody is to blame for what is normal")
    return Label(parts.class_, parts.also, processes)


_PLACE = re.compile(r" - at `(?P<place>[^`]+)`$")


def _placed(error: str) -> BadExample:
    found = _PLACE.search(error)
    place = found["place"] if found else "$"
    return BadExample(printable(place, 80), printable(_PLACE.sub("", error), 160))


# --- what is in a line ----------------------------------------------------------------


class _Label(msgspec.Struct, forbid_unknown_fields=True, rename={"class_": "class"}):
    class_: IncidentClass
    also: tuple[IncidentClass, ...] = ()
    process: str | Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] | None = None


class _Source(msgspec.Struct, forbid_unknown_fields=True):
    type: Source
    notes: Annotated[str, msgspec.Meta(max_length=500)] = ""


class _Answer(msgspec.Struct, forbid_unknown_fields=True, rename={"class_": "class"}):
    class_: IncidentClass
    confidence: Annotated[int, msgspec.Meta(ge=0, le=100)]
    process: str | None
    facts: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]
    actions: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)]
    sentence: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class _Insight(msgspec.Struct, forbid_unknown_fields=True, rename={"class_": "class"}):
    """The insight schema; a test holds it against `linnix_core.insight_schema`."""

    class_: IncidentClass
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]
    primary_process: Annotated[str, msgspec.Meta(min_length=1, max_length=120)] | None
    why: Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
    actions: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=160)]],
        msgspec.Meta(max_length=3),
    ]


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["example"]
    schema: int
    id: Annotated[str, msgspec.Meta(pattern=r"^[\w.:+-]{1,120}$")]
    source: _Source
    answer: _Answer
    insight: _Insight
    bundle: msgspec.Raw
    label: _Label | None = None
    family: Annotated[str, msgspec.Meta(min_length=1, max_length=120)] | None = None
    held_out: bool = False
