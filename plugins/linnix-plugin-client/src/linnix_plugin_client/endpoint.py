"""An OpenAI-compatible server, asked one question within bounds."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import httpx
from httpx_sse import EventSource, SSEError

from linnix_core import LinnixError, printable
from linnix_plugin_client.agent import read, transport, why
from linnix_plugin_client.events import bounded

__all__ = ["DEFAULT_ENDPOINT", "Endpoint", "Reply"]

DEFAULT_ENDPOINT = "http://localhost:8090/v1/chat/completions"

#: Characters of a reply that are taken in.
MAX_REPLY = 16_000

_HINT = "name a server with --endpoint or LLM_ENDPOINT; OPENAI_API_KEY holds its key"


@attrs.frozen
class Reply:
    """What a model said; ``cut`` where it was not done."""

    text: str
    model: str
    cut: bool
    usage: dict[str, Any] | None


class Endpoint:
    """The server at ``url``, which may end in ``/v1`` or in ``/v1/chat/completions``.

    ``timeout_s`` bounds a reply from the first byte of the request to the last of the answer.
    Every mistake is a `LinnixError`; an address that cannot be one is a ``ValueError``.
    """

    def __init__(self, url: str, key: str = "", *, timeout_s: float = 120.0) -> None:
        self.url = _completed(url)
        self._timeout_s = timeout_s
        headers = {"user-agent": "linnix-client", "accept-encoding": "identity"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._http = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            transport=transport(str(self.url)),
        )

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def first_model(self) -> str:
        """The model that the server lists first; the word ``default`` where it lists none."""
        path = self.url.path.removesuffix("/chat/completions") + "/models"
        with (
            self._complaining(),
            self._http.stream("GET", self.url.copy_with(path=path)) as response,
        ):
            text = read(response, ends=time.monotonic() + self._timeout_s)
        with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
            return str(json.loads(text)["data"][0]["id"])
        return "default"

    def ask(
        self,
        messages: Sequence[dict[str, str]],
        *,
        model: str,
        max_tokens: int,
        hear: Callable[[str], None] | None = None,
    ) -> Reply:
        """The reply to ``messages``; ``hear`` gets its words as they come."""
        body = {"model": model, "messages": list(messages), "max_tokens": max_tokens}
        if hear is not None:
            body["stream"] = True
        try:
            return self._ask(body, hear)
        except _OtherLimit:
            # What newer models of OpenAI call the same thing.
            body["max_completion_tokens"] = body.pop("max_tokens")
            return self._ask(body, hear)

    def _ask(self, body: dict[str, Any], hear: Callable[[str], None] | None) -> Reply:
        ends = time.monotonic() + self._timeout_s
        with self._complaining(), self._http.stream("POST", self.url, json=body) as response:
            if not response.is_success:
                self._refused(response, read(response))
            bounded(response)
            if hear is not None and "event-stream" in response.headers.get("content-type", ""):
                return self._listen(response, str(body["model"]), hear, ends)
            text = read(response, ends=ends)
            reply = self._whole(text, str(body["model"]))
        if hear is not None:
            hear(reply.text)
        return reply

    def _listen(
        self, response: httpx.Response, model: str, hear: Callable[[str], None], ends: float
    ) -> Reply:
        said, cut, usage = "", True, None
        thoughts = _Thoughts()
        for document in self._documents(response):
            if time.monotonic() > ends:
                raise httpx.ReadTimeout("too late")
            model = str(document.get("model") or model)
            usage = document.get("usage") or usage
            choice = _first(document)
            words = thoughts.without(str((choice.get("delta") or {}).get("content") or ""))
            if choice.get("finish_reason"):
                words += thoughts.rest()
            words = (words if said else words.lstrip())[: MAX_REPLY - len(said)]
            if words:
                said += words
                hear(words)
            if choice.get("finish_reason"):
                cut = choice["finish_reason"] == "length"
            if len(said) >= MAX_REPLY:
                cut = True
                break
        if not said.strip():
            raise LinnixError(f"the model {model} at {self.url} said nothing")
        return Reply(said.strip(), model, cut, usage if isinstance(usage, dict) else None)

    @staticmethod
    def _documents(response: httpx.Response) -> Iterator[dict[str, Any]]:
        for event in EventSource(response).iter_sse():
            if event.data == "[DONE]":
                return
            if event.data:
                document = json.loads(event.data)
                if isinstance(document, dict):
                    yield document

    def _whole(self, text: bytes, model: str) -> Reply:
        document = json.loads(text)
        choice = _first(document if isinstance(document, dict) else {})
        message = choice.get("message") or {}
        said = str(message.get("content") or message.get("refusal") or "")
        thoughts = _Thoughts()
        said = (thoughts.without(said) + thoughts.rest()).strip()
        if not said:
            raise LinnixError(f"the model {model} at {self.url} said nothing")
        usage = document.get("usage")
        return Reply(
            said[:MAX_REPLY],
            str(document.get("model") or model),
            choice.get("finish_reason") == "length" or len(said) > MAX_REPLY,
            usage if isinstance(usage, dict) else None,
        )

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException:
            raise LinnixError(
                f"the model at {self.url} was not done within {self._timeout_s:g} s",
                hint="allow more with --timeout, or ask a smaller model with --model",
            ) from None
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            raise LinnixError(f"no model answers at {self.url}: {why(error)}", hint=_HINT) from None
        except httpx.HTTPError as error:
            raise LinnixError(f"the model at {self.url} broke off: {why(error)}") from None
        except (ValueError, RecursionError, AttributeError, TypeError, SSEError):
            raise LinnixError(
                f"what answers at {self.url} speaks no OpenAI-compatible API", hint=_HINT
            ) from None

    def _refused(self, response: httpx.Response, text: bytes) -> None:
        code = response.status_code
        if code == 400 and b"max_completion_tokens" in text and b"max_tokens" in text:
            raise _OtherLimit("max_completion_tokens")
        said = _error_words(text) or response.reason_phrase
        hint = _HINT if code in (401, 403, 404) else None
        if code == 429 and (wait := response.headers.get("retry-after")):
            hint = f"try again in {printable(wait, 40)} s"
        raise LinnixError(f"the model at {self.url} says {code}: {said}", hint=hint)


class _OtherLimit(LinnixError):
    """This model wants its limit under another name."""


class _Thoughts:
    """Leaves out what a model thinks aloud between ``<think>`` and ``</think>``."""

    def __init__(self) -> None:
        self._thinking = False
        self._held = ""

    def without(self, words: str) -> str:
        words, self._held = self._held + words, ""
        kept = ""
        while words:
            mark = "</think>" if self._thinking else "<think>"
            before, found, words = words.partition(mark)
            kept += "" if self._thinking else before
            if found:
                self._thinking = not self._thinking
            elif partial := re.search(r"<(/?(t(h(i(n(k)?)?)?)?)?)?$", before):
                # The mark may be cut in two.
                self._held = partial[0]
                if not self._thinking:
                    kept = kept.removesuffix(partial[0])
        return kept

    def rest(self) -> str:
        """What looked like the beginning of a mark and was none."""
        held, self._held = self._held, ""
        return "" if self._thinking else held


def _completed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no address: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no address: write http://HOST:PORT/v1")
    if parsed.userinfo:
        raise ValueError("no password in the address: set OPENAI_API_KEY instead")
    path = parsed.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if path else "/v1/chat/completions"
    return parsed.copy_with(path=path)


def _first(document: dict[str, Any]) -> dict[str, Any]:
    choices = document.get("choices")
    return choices[0] if isinstance(choices, list) and choices else {}


def _error_words(text: bytes) -> str:
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(text)
        error = document.get("error", document) if isinstance(document, dict) else None
        words = error.get("message", "") if isinstance(error, dict) else error
        return printable(" ".join(str(words or "").split()), 300)
    return ""
