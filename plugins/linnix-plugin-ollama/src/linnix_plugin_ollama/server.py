"""The native API of an Ollama server, as far as it is about which models it has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_openai import Answered, Exchange, NoAnswer

__all__ = ["ModelMissing", "Progress", "Server", "pull"]

#: Seconds for a question that needs no model.
QUICK_S = 10.0

#: Seconds that the download of a model may take.
PULL_S = 6 * 3600.0


class ModelMissing(LinnixError):
    """The server has no such model."""


@attrs.frozen
class Progress:
    """How far the download of a model is: bytes of the layer that is loaded now.

    ``total`` is 0 where the server does not say.
    """

    status: str
    completed: int = 0
    total: int = 0

    def __str__(self) -> str:
        if not self.total:
            return self.status
        return f"{self.status}: {min(100 * self.completed // self.total, 100)} %"


class Server:
    """An Ollama server at ``url``, such as ``http://127.0.0.1:11434``. Raises `LinnixError`."""

    def __init__(self, exchange: Exchange, url: str) -> None:
        self.url = url
        self.exchange = exchange

    def close(self) -> None:
        """End what is under way."""
        self.exchange.close()

    def models(self) -> list[str]:
        """The names of the models that the server has."""
        answer = self.exchange.get(f"{self.url}/api/tags", QUICK_S)
        listed = answer.document.get("models")
        if not answer.is_success or not isinstance(listed, list):
            raise self.refused(answer)
        names = (entry.get("name") for entry in listed if isinstance(entry, dict))
        return [name for name in names if isinstance(name, str)]

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> Answered:
        """The answer to a POST; errors are in the answer."""
        return self.exchange.post(f"{self.url}{path}", body, timeout_s)

    def pull(self, model: str, timeout_s: float = PULL_S) -> Iterator[Progress]:
        """Have the server download a model, and tell how far it is.

        The server goes on where an earlier download ended.
        """
        body = {"model": model, "stream": True}
        what = f"download of {printable(model, 80)}"
        yield from self.follow("/api/pull", body, timeout_s, what)

    def follow(
        self, path: str, body: Mapping[str, Any], timeout_s: float, what: str
    ) -> Iterator[Progress]:
        """Have the server do what takes a while, and tell how far it is.

        What goes wrong on the way is in a line of an answer that began as a success, and is
        raised from here.
        """
        done = False
        with self.exchange.lines(f"{self.url}{path}", body, timeout_s) as lines:
            if isinstance(lines, Answered):
                raise self.refused(lines)
            for line in lines:
                progress = self._progress(line)
                if progress is not None:
                    done = progress.status == "success"
                    yield progress
        if not done:
            raise NoAnswer(f"{self.url} ended the {what} half way")

    def _progress(self, line: str) -> Progress | None:
        if not line.strip():
            return None
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise NoAnswer(f"{self.url} is no Ollama server")
        if "error" in said:
            raise self.refused(Answered(200, {}, line))
        return Progress(
            printable(str(said.get("status", "")), 80),
            _size(said.get("completed")),
            _size(said.get("total")),
        )

    def refused(self, answer: Answered) -> LinnixError:
        """What an answer that is no success says, as an error."""
        words = answer.words
        missing = "not found" in words or "model is required" in words
        if answer.status in (400, 404) and missing and answer.document:
            return ModelMissing(f"{self.url} says: {words}", hint="ollama pull MODEL")
        if answer.is_success and "error" not in answer.document:
            return NoAnswer(f"{self.url} is no Ollama server", hint="look at host")
        hint = "set api_key" if answer.status in (401, 403) else None
        return LinnixError(f"{self.url} says {answer.status}: {words}", hint=hint)


def _size(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def pull(
    url: str, model: str, *, api_key: str = "", timeout_s: float = PULL_S
) -> Iterator[Progress]:
    """Have the Ollama server at ``url`` download a model, and tell how far it is.

        for progress in pull("http://127.0.0.1:11434", "some-model:3b"):
            print(progress)

    Raises `LinnixError`.
    """
    try:
        exchange = Exchange(url, api_key=api_key)
    except ValueError as error:
        raise LinnixError(str(error)) from None
    with closing(Server(exchange, url)) as server:
        yield from server.pull(model, timeout_s)
