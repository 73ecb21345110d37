"""A running agent, asked over its HTTP API: where it is, what it answers, why it does not."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import httpx

from linnix_core import LinnixError, printable

__all__ = [
    "DEFAULT_URL",
    "Agent",
    "NoAnswer",
    "NotFound",
    "not_linnix",
    "read",
    "transport",
    "why",
    "without_none",
]

DEFAULT_URL = "http://127.0.0.1:3000"

#: Bytes of one answer: 10,000 processes are about 8 MB.
MAX_ANSWER = 64 * 2**20

#: Characters of an agent's own words in a message.
MAX_SAID = 300


#: Shorter than servers keep a quiet connection: none is used that was just closed there.
_LIMITS = httpx.Limits(keepalive_expiry=2.0)


class NoAnswer(LinnixError):
    """Nobody answers there, or not in time."""


class NotFound(LinnixError):
    """The agent does not have what was asked for."""


class Agent:
    """The agent at ``url``: ``http://``, ``https://``, or ``unix:///path/of/socket``.

    ``token`` is sent as a bearer token, to that address only: redirects are not followed.
    Everything that goes wrong is a `LinnixError` that says what to do next.
    Raises ``ValueError`` for an address that cannot be one.
    """

    def __init__(self, url: str = DEFAULT_URL, token: str = "", *, timeout_s: float = 10.0) -> None:
        self.url, base, socket = _parse(url)
        self.token = token
        self.timeout_s = timeout_s
        headers = {"user-agent": "linnix-client", "accept-encoding": "identity"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self.http = httpx.Client(
            base_url=base,
            headers=headers,
            timeout=timeout_s,
            limits=_LIMITS,
            transport=httpx.HTTPTransport(uds=socket, limits=_LIMITS)
            if socket
            else transport(base),
        )

    def close(self) -> None:
        """Give the connections back."""
        self.http.close()

    def get(self, path: str, *, ok: Collection[int] = (), **query: Any) -> Any:
        """The JSON document at ``path``; what is None of the query is left out.

        ``ok`` lists codes besides 2xx whose answers are documents too.
        """
        return self._ask("GET", path, ok, params=without_none(query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the agent answers to ``body``."""
        return self._ask("POST", path, (), json=dict(body or {}))

    def _ask(self, method: str, path: str, ok: Collection[int], **parts: Any) -> Any:
        headers = {"accept": "application/json"}
        with (
            self.complaining(),
            self.http.stream(method, path, headers=headers, **parts) as response,
        ):
            text = read(response)
            if response.status_code not in ok:
                self.check(response, text)
        if not text:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise not_linnix(self, f"{path} is not JSON") from None

    @contextlib.contextmanager
    def complaining(self) -> Iterator[None]:
        """Make an error of the network one with a sentence and a next step."""
        try:
            yield
        except httpx.TimeoutException:
            raise NoAnswer(
                f"the agent at {self.url} did not answer within {self.timeout_s:g} s",
                hint="try again, or see what the machine is doing",
            ) from None
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            reason = why(error)
            raise NoAnswer(
                f"no agent answers at {self.url}: {reason}",
                hint="name the certificate of whoever signed the agent's with SSL_CERT_FILE"
                if "CERTIFICATE_VERIFY" in reason
                else "start one with `linnix run`, or name another with --url or LINNIX_URL",
            ) from None
        except httpx.HTTPError as error:
            raise NoAnswer(
                f"the agent at {self.url} broke off: {why(error)}",
                hint="see whether it still runs, then try again",
            ) from None

    def check(self, response: httpx.Response, text: bytes) -> None:
        """Raise what an answer that is no success means."""
        if response.is_success:
            return
        code = response.status_code
        said, hint = _said(text)
        if code == 401:
            raise LinnixError(
                f"the agent at {self.url} "
                + ("refuses the token of LINNIX_API_TOKEN" if self.token else "wants a token"),
                hint="set LINNIX_API_TOKEN to a token of this agent",
            )
        if code == 403:
            raise LinnixError(
                f"the agent at {self.url} does not allow this: {said or 'forbidden'}",
                hint=hint or "use a token that may, in LINNIX_API_TOKEN",
            )
        if code == 404:
            path = printable(response.request.url.path, MAX_SAID)
            raise NotFound(said or f"the agent at {self.url} has nothing at {path}", hint=hint)
        said = said or response.reason_phrase or "no reason given"
        raise LinnixError(f"the agent at {self.url} says {code}: {said}", hint=hint)


def not_linnix(agent: Agent, reason: str) -> LinnixError:
    """Somebody answers, and it is somebody else."""
    return LinnixError(
        f"what answers at {agent.url} is no Linnix agent: {reason}",
        hint="name the agent with --url or LINNIX_URL",
    )


def _parse(url: str) -> tuple[str, str, str | None]:
    """What to call an address, the base of its paths, and the path of its unix socket."""
    said = url.strip()
    if said.startswith("unix:"):
        path = said.removeprefix("unix:")
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        if not path.startswith("/") or path == "/":
            raise ValueError(f"{url!r} names no socket: write unix:///run/linnix/api.sock")
        return f"unix://{path}", "http://localhost", path
    if "://" not in said:
        said = f"http://{said}"
    try:
        parsed = httpx.URL(said)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no address: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no address: write http://HOST:PORT or unix:///PATH")
    if parsed.userinfo:
        raise ValueError("no password in the address: set LINNIX_API_TOKEN instead")
    said = str(parsed.copy_with(query=None, fragment=None)).rstrip("/")
    return said, said, None


def transport(url: str) -> httpx.HTTPTransport | None:
    """For this machine a transport of its own, because then no proxy sees the token."""
    return httpx.HTTPTransport(limits=_LIMITS) if _is_loopback(httpx.URL(url).host) else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read(response: httpx.Response, *, ends: float = math.inf) -> bytes:
    """The whole of an answer, within bounds: of its size, and of the time until ``ends``."""
    text = bytearray()
    for part in response.iter_bytes():
        text += part
        if time.monotonic() > ends:
            raise httpx.ReadTimeout("too late")
        if len(text) > MAX_ANSWER:
            raise LinnixError(f"the answer is longer than {MAX_ANSWER >> 20} MiB")
    return bytes(text)


def _said(text: bytes) -> tuple[str, str | None]:
    """The agent's own reason and next step, from ``{"error": …, "hint": …}`` or plain text."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        error, hint = document.get("error"), document.get("hint")
        return _one_line(error or ""), _one_line(hint) if hint else None
    words = text[: MAX_SAID * 4].decode("utf-8", "replace")
    # A page of some other server is no sentence.
    return ("" if words.lstrip().startswith("<") else _one_line(words)), None


def _one_line(words: object) -> str:
    return printable(" ".join(str(words).split()), MAX_SAID)


def why(error: Exception) -> str:
    """The innermost words: httpx wraps what the system said."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return printable(str(inner) or str(error) or type(error).__name__, MAX_SAID)


def without_none(query: Mapping[str, Any]) -> dict[str, Any]:
    """A query without what nobody asked for."""
    return {name: value for name, value in query.items() if value is not None}
