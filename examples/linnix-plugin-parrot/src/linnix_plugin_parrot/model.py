"""The toy model: for each class of incident a confidence, and how many facts to cite."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import attrs

MAX_CONFIDENCE = 100


@attrs.frozen
class Habit:
    """What the parrot says about one class."""

    confidence: int
    facts: int


@attrs.frozen
class Model:
    """A file in the format ``parrot``, as it was read, with the sha256 of its bytes."""

    digest: str
    habits: dict[str, Habit]

    def answer(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Repeat the class and the first facts; None about what it never heard of."""
        habit = self.habits.get(str(question["class"]))
        if habit is None:
            return None
        return {
            "class": question["class"],
            "confidence": habit.confidence,
            "process": next(iter(question["processes"]), None),
            "facts": question["facts"][: habit.facts],
            "actions": question["actions"][:1],
        }


def digest_of(content: bytes) -> str:
    """The sha256 of a model file."""
    return hashlib.sha256(content).hexdigest()


def read_model(path: Path) -> Model:
    """Read a file; `OSError`, or `ValueError` with what is wrong in it."""
    content = path.read_bytes()
    try:
        table = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(table, dict):
        raise ValueError(f"{path} is no table of classes")
    return Model(digest_of(content), {name: _habit(path, name, row) for name, row in table.items()})


def _habit(path: Path, name: str, row: object) -> Habit:
    if not isinstance(row, dict) or set(row) != {"confidence", "facts"}:
        raise ValueError(f"{path}: {name} must have the keys confidence and facts, and no others")
    confidence, facts = row["confidence"], row["facts"]
    if type(confidence) is not int or not 0 <= confidence <= MAX_CONFIDENCE:
        raise ValueError(f"{path}: the confidence of {name} must be a whole number, 0 to 100")
    if type(facts) is not int or facts < 0:
        raise ValueError(f"{path}: the facts of {name} must be a whole number")
    return Habit(confidence, facts)
