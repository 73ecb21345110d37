"""A reply in pieces, for whoever prints it as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from linnix_core import LinnixError, Message
from linnix_plugin_openai.address import parse_address
from linnix_plugin_openai.chat import Chat
from linnix_plugin_openai.exchange import Exchange

__all__ = ["stream_text"]


def stream_text(
    endpoint: str,
    messages: Sequence[Message],
    *,
    model: str | None = None,
    api_key: str = "",
    max_tokens: int = 700,
    timeout_s: float = 120.0,
    plain_http: bool = False,
) -> Iterator[str]:
    """Yield the pieces of a model's reply to ``messages`` as they come.

    It is complete within ``timeout_s`` or raises. What a model says is hostile text: print it
    through `linnix_core.printable`. Raises `LinnixError`.

        for piece in stream_text("http://localhost:8090", [{"role": "user", "content": "Hi"}]):
            print(printable(piece), end="", flush=True)
    """
    try:
        url = parse_address(endpoint, plain_http=plain_http)
        exchange = Exchange(url, api_key=api_key)
    except ValueError as error:
        raise LinnixError(f"{endpoint} {error}") from None
    with closing(Chat(exchange, url, model=model, max_tokens=max_tokens)) as chat:
        yield from chat.stream(messages, timeout_s)
