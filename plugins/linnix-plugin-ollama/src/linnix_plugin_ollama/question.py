"""A question whose answer nobody can have ready: it holds a word made for this once."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from linnix_core import Message
from linnix_plugin_openai.forms import CANARY, CANARY_SCHEMA, is_canary

__all__ = ["WHAT_IS_ENFORCED", "Question", "ask_once"]


@attrs.frozen
class Question:
    """Messages, the schema of the reply, and whether a reply is what the schema allows."""

    messages: Sequence[Message]
    schema: Mapping[str, Any]
    is_answered: Callable[[str], bool]


#: The same for everybody, as reasoners ask it.
WHAT_IS_ENFORCED = Question(CANARY, CANARY_SCHEMA, is_canary)


def ask_once() -> Question:
    """A question that only a model can answer whose replies are made to fit a schema."""
    word = secrets.token_hex(4)
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["word", "number"],
        "properties": {
            "word": {"type": "string", "enum": [word]},
            "number": {"type": "integer", "enum": [len(word)]},
        },
    }

    def is_answered(text: str) -> bool:
        try:
            return bool(json.loads(text) == {"word": word, "number": len(word)})
        except (ValueError, RecursionError):
            return False

    messages: Sequence[Message] = (
        {"role": "user", "content": f"Reply with one JSON object that holds the word {word}."},
    )
    return Question(messages, schema, is_answered)
