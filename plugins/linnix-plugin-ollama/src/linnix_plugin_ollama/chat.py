"""Replies through Ollama's own ``/api/chat``, whose fields its OpenAI route does not have."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any

import attrs

from linnix_core import Message
from linnix_plugin_ollama.question import WHAT_IS_ENFORCED, Question
from linnix_plugin_ollama.server import ModelMissing, Server
from linnix_plugin_openai import (
    Answered,
    NoAnswer,
    PromptTooLong,
    Refused,
    Structured,
    Usage,
    holds_object,
    is_prompt_too_long,
)
from linnix_plugin_openai.forms import is_object

__all__ = ["OllamaChat"]

#: Seconds to wait where the server is busy with others; each time twice as many.
BUSY_S = 1.0


@attrs.frozen
class _Form:
    """A way to ask for a reply that fits: with the schema or for any JSON, thinking or not."""

    name: str
    schema: bool
    think: bool | None


#: Most models want to be told not to think. For some, observed with Ollama 0.18 and 0.20, the
#: schema counts only where nothing is said about thinking.
FORMS = (
    _Form("format with schema", schema=True, think=False),
    _Form("format with schema, thinking as it likes", schema=True, think=None),
    _Form("format json", schema=False, think=False),
)


class OllamaChat:
    """One model of an Ollama server. Every call ends in time and raises `LinnixError`.

    ``keep_alive_s`` is how long the model stays in memory after a reply. ``on_missing`` is
    called when the server has no such model.
    """

    def __init__(
        self,
        server: Server,
        model: str,
        *,
        num_ctx: int = 4096,
        keep_alive_s: float = 300.0,
        max_tokens: int = 400,
        temperature: float = 0.0,
        options: Mapping[str, Any] | None = None,
        usage: Usage | None = None,
        stop: Event | None = None,
        on_missing: Callable[[], None] | None = None,
    ) -> None:
        self.server = server
        self.model = model
        self.usage = usage or Usage()
        self.structured: Structured | None = None
        #: Which model answered last, as the server says.
        self.answered_by = ""
        self._keep_alive_s = keep_alive_s
        self._options = {
            "num_ctx": num_ctx,
            "num_predict": max_tokens,
            "temperature": temperature,
            **(options or {}),
        }
        self._stop = stop or Event()
        self._on_missing = on_missing
        self._form = 0
        self._may_say_think = True

    #: Ollama queues, or says 503 and not for how long.
    rests = False

    def close(self) -> None:
        """End what is under way."""
        self.server.close()

    def complete(
        self, messages: Sequence[Message], schema: Mapping[str, Any], timeout_s: float
    ) -> str:
        """The text of a reply that fits the schema as far as the server enforces it."""
        return self._reply(messages, schema, FORMS[self._form], time.monotonic() + timeout_s)

    def probe(self, timeout_s: float, question: Question = WHAT_IS_ENFORCED) -> Structured:
        """Find out, with a question of no weight, in which form this model obeys a schema.

        Ollama takes every ``format`` and passes over it for some models, formats of weights
        and in its cloud; only a reply tells.
        """
        ends = time.monotonic() + timeout_s
        best = (-1, 0)
        for number, form in enumerate(FORMS):
            try:
                text = self._reply(question.messages, question.schema, form, ends)
            except Refused as error:
                if isinstance(error, PromptTooLong) or error.outcome != "cut":
                    raise
                continue
            if question.is_answered(text):
                return self._found(number, "enforced")
            best = max(best, (int(is_object(text)), -number))
        return self._found(-best[1], "best effort")

    def _found(self, form: int, verdict: str) -> Structured:
        self._form = form
        self.structured = Structured(verdict, FORMS[form].name)
        return self.structured

    # --- one reply --------------------------------------------------------------------

    def _reply(
        self, messages: Sequence[Message], schema: Mapping[str, Any], form: _Form, ends: float
    ) -> str:
        with self.usage.counted():
            return self._text(self._answer(messages, schema, form, ends))

    def _answer(
        self, messages: Sequence[Message], schema: Mapping[str, Any], form: _Form, ends: float
    ) -> Answered:
        wait = BUSY_S
        while True:
            body: dict[str, Any] = {
                "model": self.model,
                "messages": list(messages),
                "stream": False,
                "format": schema if form.schema else "json",
                # Rather an error than a prompt that lost its beginning.
                "truncate": False,
                "options": self._options,
                "keep_alive": math.ceil(self._keep_alive_s),
            }
            if form.think is not None and self._may_say_think:
                body["think"] = form.think
            answer = self.server.post("/api/chat", body, ends - time.monotonic())
            if answer.is_success and "error" not in answer.document:
                return answer
            words = answer.words
            if answer.status == 503:
                # Its queue is full.
                if wait > (ends - time.monotonic()) / 2:
                    raise Refused(f"{self.server.url} is busy: {words}", outcome="limited")
                if self._stop.wait(wait):
                    raise NoAnswer(f"{self.server.url} is not asked any more")
                wait *= 2
            elif "think" in body and "think" in words:
                # Some versions and models refuse the word, whatever it says.
                self._may_say_think = False
            elif is_prompt_too_long(words):
                raise PromptTooLong(
                    f"the prompt does not fit into the model: {words}", hint="raise num_ctx"
                )
            else:
                error = self.server.refused(answer)
                if isinstance(error, ModelMissing) and self._on_missing is not None:
                    self._on_missing()
                raise error

    def _text(self, answer: Answered) -> str:
        document = answer.document
        message = document.get("message")
        if not isinstance(message, dict):
            raise NoAnswer(f"{self.server.url} is no Ollama server", hint="look at host")
        self.answered_by = _words(document.get("model"))
        self.usage.add_tokens(document.get("prompt_eval_count"), document.get("eval_count"))
        self._see_what_was_cut(document)
        text = _words(message.get("content"))
        thought = _words(message.get("thinking"))
        if not text.strip() and holds_object(thought):
            # Observed: a model that thinks puts all that it says there.
            text = thought
        if document.get("done_reason") == "length" and not holds_object(text):
            raise Refused(
                f"the model was not done after {self._options['num_predict']} tokens",
                outcome="cut",
                hint="raise max_tokens, or choose a model that does not think",
            )
        return text

    def _see_what_was_cut(self, document: Mapping[str, Any]) -> None:
        read = document.get("prompt_eval_count")
        limit = self._options["num_ctx"]
        if type(read) is int and type(limit) is int and read >= limit:
            # Older versions know no "truncate" and cut off what the prompt begins with.
            raise PromptTooLong(
                f"the prompt fills the {limit} tokens of the model's context",
                hint="raise num_ctx",
            )


def _words(value: Any) -> str:
    return value if isinstance(value, str) else ""
