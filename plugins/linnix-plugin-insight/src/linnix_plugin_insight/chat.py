"""Examples as chats, the way models are asked: what goes in is the prompt, what comes out ids."""

from __future__ import annotations

import hashlib
import json
import re

import attrs

from linnix_core import (
    Answer,
    BadAnswer,
    Message,
    narrowed,
    parse_answer,
    render_prompt,
)
from linnix_plugin_insight.example import Example, answer_document

__all__ = ["NotAsked", "chat_of", "gist", "text_hash"]

#: How many facts an answer to a model's prompt may cite.
MAX_CITED = 4


class NotAsked(ValueError):
    """The prompt does not hold what the answer needs."""


def chat_of(example: Example, *, narrow: bool = False) -> list[Message]:
    """System, user and assistant message. Raises `NotAsked` where these could not be.

    With ``narrow`` the prompt is that for models of little memory.
    """
    request = narrowed(example.bundle.request) if narrow else example.bundle.request
    given = {fact.id for fact in request.facts}
    answer = attrs.evolve(
        example.answer,
        facts=tuple(fact for fact in example.answer.facts if fact in given)[:MAX_CITED],
        sentence=None,
    )
    document = answer_document(answer)
    document["process"] = answer.process or "none"
    reply = json.dumps(document)
    try:
        read = parse_answer(reply, request)
    except BadAnswer as error:
        raise NotAsked(str(error)) from None
    if _ids(read) != _ids(answer):
        raise NotAsked("the answer cannot be said in the schema of a reply")
    return [*render_prompt(request), {"role": "assistant", "content": reply}]


def _ids(answer: Answer) -> tuple[object, ...]:
    return answer.class_, answer.confidence, answer.process, answer.facts, answer.actions


# --- what makes two prompts alike -----------------------------------------------------

_PROCESS = re.compile(r"^(P\d+) +\d+", re.MULTILINE)
_ACTION = re.compile(r"^a\d+ .*$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def gist(text: str) -> str:
    """A prompt without pids and actions and with one digit of each number: that of its kin.

    >>> gist("f1 forks = 1234 forks (P1)") == gist("f1 forks = 1183 forks (P1)")
    True
    """
    text = _ACTION.sub("", _PROCESS.sub(r"\1", text))
    return _NUMBER.sub(lambda found: f"{float(found[0]):.0e}", text)


def text_hash(text: str) -> bytes:
    """What to compare instead of a text."""
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
