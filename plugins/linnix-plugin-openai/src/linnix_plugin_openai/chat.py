"""The chat completions of an OpenAI-compatible server, whichever dialect it speaks."""

from __future__ import annotations

import email.utils
import itertools
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import attrs

from linnix_core import LinnixError, Message, printable
from linnix_plugin_openai.address import join, origin
from linnix_plugin_openai.exchange import Answered, Exchange, NoAnswer, TooLate
from linnix_plugin_openai.forms import CANARY, CANARY_SCHEMA, FORMS, is_canary, is_object
from linnix_plugin_openai.usage import Usage

__all__ = [
    "Chat",
    "PromptTooLong",
    "Refused",
    "Structured",
    "completed",
    "holds_object",
    "is_prompt_too_long",
    "retry_after_s",
]

#: Seconds to wait where a server is busy and does not say how long; each time twice as many.
BUSY_S = 1.0

#: Seconds for which a server may ask to be left alone.
MAX_REST_S = 3600.0

_COMPLETIONS = "/chat/completions"

#: How servers say that they do not take a request as it is: 500 is what llama-cpp-python's
#: server answers to a json_schema.
_NOT_TAKEN = frozenset({400, 415, 422, 500, 501})

#: The words of OpenAI, llama.cpp, vLLM, LM Studio and Ollama for a prompt that does not fit.
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|maximum context|prompt (?:is )?too long", re.IGNORECASE
)


class Refused(LinnixError):
    """The server, or the model, does not want to; ``outcome`` is the word for it."""

    def __init__(self, message: str, *, outcome: str = "failed", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.outcome = outcome


class PromptTooLong(Refused):
    """The messages do not fit into the model's context."""


@attrs.frozen
class Structured:
    """Whether replies are made to fit the schema, and by which form that is asked for."""

    verdict: str
    form: str

    def __str__(self) -> str:
        return f"structured: {self.verdict} ({self.form})"


@attrs.frozen
class _Dialect:
    """What a server turned out to want."""

    limit: str = "max_tokens"
    temperature: bool = True
    stream_options: bool = True


def completed(url: str) -> str:
    """The address of the chat completions, from it, from ``…/v1`` or from the server's own.

    >>> completed("http://localhost:8090")
    'http://localhost:8090/v1/chat/completions'
    """
    path = urlsplit(url).path.rstrip("/")
    if not path.endswith(_COMPLETIONS):
        path = f"{path or '/v1'}{_COMPLETIONS}"
    return join(url, path)


class Chat:
    """A model behind the chat completions at ``url``. Every call ends in time.

    ``model`` may be None: then it is the first that the server lists. ``extra`` is added to
    the body of every request. Waiting ends when ``stop`` is set. Raises `LinnixError`.
    """

    def __init__(
        self,
        exchange: Exchange,
        url: str,
        *,
        model: str | None = None,
        max_tokens: int = 400,
        temperature: float = 0.0,
        extra: Mapping[str, Any] | None = None,
        usage: Usage | None = None,
        stop: Event | None = None,
    ) -> None:
        self.url = completed(url)
        self.usage = usage or Usage()
        self.structured: Structured | None = None
        self._exchange = exchange
        self._model = model
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._extra = dict(extra or {})
        self._stop = stop or Event()
        self._dialect = _Dialect()
        self._form = 0
        self._rests_until = 0.0

    def close(self) -> None:
        """End what is under way."""
        self._exchange.close()

    @property
    def rests(self) -> bool:
        """Whether the server asked to be left alone for now."""
        return time.monotonic() < self._rests_until

    # --- the model --------------------------------------------------------------------

    def model(self, timeout_s: float) -> str:
        """The name of the model; ``default`` where nobody names one and none is listed."""
        if self._model is not None:
            return self._model
        path = urlsplit(self.url).path.removesuffix(_COMPLETIONS) + "/models"
        answer = self._exchange.get(join(self.url, path), timeout_s)
        if answer.status in (401, 403):
            raise self._refused(answer)
        listed = answer.document.get("data")
        first = listed[0] if isinstance(listed, list) and listed else None
        name = first.get("id") if isinstance(first, dict) else None
        name = name if isinstance(name, str) and name else "default"
        # A server that is only busy may have a list later.
        if answer.is_success or answer.status in (404, 405):
            self._model = name
        return name

    # --- one reply --------------------------------------------------------------------

    def complete(
        self, messages: Sequence[Message], schema: Mapping[str, Any], timeout_s: float
    ) -> str:
        """The text of a reply that fits the schema as far as the server enforces it."""
        ends = time.monotonic() + timeout_s
        refusal: Refused | None = None
        for form in range(self._form, len(FORMS)):
            try:
                text = self._reply(messages, schema, form, ends)
            except _NotTaken as error:
                # What the strictest form is refused with says most.
                refusal = refusal or error
                continue
            if form != self._form:
                self._form = form
                self.structured = None
            return text
        assert refusal is not None
        raise refusal

    def probe(self, timeout_s: float) -> Structured:
        """Find out, with a question of no weight, which form this server enforces."""
        ends = time.monotonic() + timeout_s
        best: tuple[int, int] | None = None
        for form in range(len(FORMS) - 1):
            try:
                text = self._reply(CANARY, CANARY_SCHEMA, form, ends)
            except _NotTaken:
                continue
            except _Cut as error:
                text = error.text
            if is_canary(text):
                return self._found(form, "enforced")
            best = max(best or (-1, 0), (int(is_object(text)), -form))
        return self._found(-best[1] if best else len(FORMS) - 1, "best effort")

    def _found(self, form: int, verdict: str) -> Structured:
        self._form = form
        self.structured = Structured(verdict, FORMS[form].name)
        return self.structured

    def _reply(
        self, messages: Sequence[Message], schema: Mapping[str, Any], form: int, ends: float
    ) -> str:
        def send(left: float) -> Answered:
            body = self._body(messages, left)
            if (wanted := FORMS[form].of(schema)) is not None:
                body["response_format"] = wanted
            return self._exchange.post(self.url, body, ends - time.monotonic())

        with self.usage.counted():
            return self._text(self._until_taken(send, ends))

    # --- a reply in pieces ------------------------------------------------------------

    def stream(self, messages: Sequence[Message], timeout_s: float) -> Iterator[str]:
        """The text of a reply in pieces, as they come. Free text: nothing makes it fit."""
        ends = time.monotonic() + timeout_s
        for tries in itertools.count():
            body = {**self._body(messages, ends - time.monotonic()), "stream": True}
            if self._dialect.stream_options:
                body["stream_options"] = {"include_usage": True}
            left = ends - time.monotonic()
            began = time.monotonic()
            outcome = "failed"
            try:
                with self._exchange.lines(self.url, body, left) as lines:
                    if isinstance(lines, Answered):
                        self._adapt(lines, ends, tries)
                        continue
                    outcome = "answered"
                    yield from self._pieces(lines)
                    return
            except TooLate:
                outcome = "late"
                raise
            finally:
                self.usage.add_request(outcome, time.monotonic() - began)

    def _pieces(self, lines: Iterator[str]) -> Iterator[str]:
        whole: list[str] = []
        for line in lines:
            if not line.startswith("data:"):
                # A server that does not stream answers at once, maybe in several lines.
                if line.strip() and not line.startswith((":", "event:", "id:", "retry:")):
                    whole.append(line)
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                return
            document = Answered(200, {}, data).document
            if "error" in document:
                raise self._refused(Answered(200, {}, data))
            self._count_tokens(document)
            if piece := _words_of(_first(document).get("delta")):
                yield piece
        if whole:
            yield self._text(Answered(200, {}, "\n".join(whole)))

    # --- requests ---------------------------------------------------------------------

    def _body(self, messages: Sequence[Message], left: float) -> dict[str, Any]:
        dialect = self._dialect
        body: dict[str, Any] = {
            "model": self.model(left),
            "messages": list(messages),
            dialect.limit: self._max_tokens,
        }
        if dialect.temperature:
            body["temperature"] = self._temperature
        return {**body, **self._extra}

    def _until_taken(self, send: Callable[[float], Answered], ends: float) -> Answered:
        for tries in itertools.count():
            answer = send(ends - time.monotonic())
            if answer.is_success and "error" not in answer.document:
                break
            self._adapt(answer, ends, tries)
        return answer

    def _adapt(self, answer: Answered, ends: float, tries: int) -> None:
        """Make the next request one that the server takes, or say why there is none.

        Each time it waits, or leaves out one thing more.
        """
        said = f"{answer.words} {answer.text[:2000]}"
        dialect = self._dialect
        if answer.status in (429, 503):
            self._wait(answer, ends, BUSY_S * 2**tries)
            return
        if is_prompt_too_long(said):
            raise PromptTooLong(f"the prompt does not fit into the model: {answer.words}")
        changed = dialect
        if answer.status in _NOT_TAKEN:
            if dialect.limit == "max_tokens" and "max_completion_tokens" in said:
                # What the newer models of OpenAI call the same thing.
                changed = attrs.evolve(dialect, limit="max_completion_tokens")
            elif dialect.temperature and "temperature" in said:
                changed = attrs.evolve(dialect, temperature=False)
            elif dialect.stream_options and "stream_options" in said:
                changed = attrs.evolve(dialect, stream_options=False)
        if changed == dialect:
            raise self._refused(answer)
        self._dialect = changed

    def _wait(self, answer: Answered, ends: float, least: float) -> None:
        asked = retry_after_s(answer.headers.get("retry-after", ""))
        seconds = max(asked or 0.0, least)
        # Half of the time is kept for the reply itself.
        if seconds > (ends - time.monotonic()) / 2:
            if asked is not None:
                self._rests_until = time.monotonic() + min(asked, MAX_REST_S)
            raise self._refused(answer)
        if self._stop.wait(seconds):
            raise NoAnswer(f"{origin(self.url)} is not asked any more")

    def _refused(self, answer: Answered) -> Refused:
        status, words = answer.status, answer.words
        said = f"{origin(self.url)} says {status}" + (f": {words}" if words else "")
        if status in (429, 503):
            wait = math.ceil(max(self._rests_until - time.monotonic(), 0))
            again = f"; asked again in {wait} s" if wait else ""
            return Refused(said + again, outcome="limited")
        hints = {
            401: "set api_key, or OPENAI_API_KEY",
            403: "this key may not use that model",
            404: "endpoint or model is not what the server has",
        }
        if 300 <= status < 400:
            return Refused(said, hint="set endpoint to where it leads: nothing is followed")
        kind = _NotTaken if status in _NOT_TAKEN else Refused
        return kind(said, hint=hints.get(status))

    # --- replies ----------------------------------------------------------------------

    def _text(self, answer: Answered) -> str:
        document = answer.document
        self._count_tokens(document)
        choice = _first(document)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise NoAnswer(
                f"{origin(self.url)} speaks no OpenAI-compatible API", hint="look at endpoint"
            )
        if refusal := message.get("refusal"):
            raise Refused(f"the model refused: {printable(str(refusal), 200)}", outcome="refused")
        reason = choice.get("finish_reason")
        if reason == "content_filter":
            raise Refused("a filter of the server held the reply back", outcome="refused")
        text = _words_of(message)
        if reason == "length" and not holds_object(text):
            raise _Cut(
                f"the model was not done after {self._max_tokens} tokens",
                text,
                hint="raise max_tokens",
            )
        return text

    def _count_tokens(self, document: Mapping[str, Any]) -> None:
        used = document.get("usage")
        if isinstance(used, dict):
            self.usage.add_tokens(used.get("prompt_tokens"), used.get("completion_tokens"))


class _NotTaken(Refused):
    """The server does not take the request in this form."""


class _Cut(Refused):
    """The reply ended before the model was done."""

    def __init__(self, message: str, text: str, *, hint: str) -> None:
        super().__init__(message, outcome="cut", hint=hint)
        self.text = text


def _first(document: Mapping[str, Any]) -> dict[str, Any]:
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else {}


def _words_of(message: Any) -> str:
    """The text of a message, which may be in parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        content = "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def is_prompt_too_long(said: str) -> bool:
    """Whether the words of a server mean that the prompt does not fit into the context.

    >>> is_prompt_too_long("request (9412 tokens) exceeds the available context size")
    True
    """
    return _TOO_LONG.search(said) is not None


def holds_object(text: str) -> bool:
    """Whether a text that was cut off holds a whole JSON object all the same.

    >>> holds_object('{"class": "normal"} and then'), holds_object('{"class": "nor')
    (True, False)
    """
    begin = text.find("{")
    try:
        json.JSONDecoder(strict=False).raw_decode(text, begin)
    except (ValueError, RecursionError):
        return False
    return begin >= 0


def retry_after_s(said: str) -> float | None:
    """The seconds that a ``Retry-After`` asks for; None where it says nothing.

    >>> retry_after_s("20"), retry_after_s("soon")
    (20.0, None)
    """
    said = said.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", said):
        return float(said)
    try:
        moment = email.utils.parsedate_to_datetime(said)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(moment.timestamp() - time.time(), 0.0)
