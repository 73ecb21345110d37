"""HTTP with bounds: of the time that an answer takes, of its size, and of who may hear it.

What httpx calls a timeout bounds one read, and an answer may consist of many. Here the whole
exchange has an end: the connection is cut then, whatever the other side does.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import attrs

from linnix_core import LinnixError, printable
from linnix_plugin_openai.address import is_loopback, origin

if TYPE_CHECKING:
    import httpx

__all__ = ["Answered", "Exchange", "NoAnswer", "TooLate"]

#: Bytes of an answer that are taken in; a list of models may be long, a reply never is.
MAX_BYTES = 4 << 20

#: Characters of a line of an answer that comes in pieces.
MAX_LINE = 256 << 10

#: Seconds for a connection to come about.
CONNECT_S = 5.0

#: Characters of what a server says that are passed on to people.
MAX_SAID = 300


class NoAnswer(LinnixError):
    """Nobody answers there, or what comes is no answer."""


class TooLate(NoAnswer):
    """The answer was not complete in time."""

    outcome = "late"


@attrs.frozen
class Answered:
    """What a server answered: ``text`` as it came, ``document`` if it is a JSON object."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def is_success(self) -> bool:
        """Whether the status is one of the 200s."""
        return 200 <= self.status < 300

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object that it is; empty where it is none."""
        try:
            document = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}

    @property
    def words(self) -> str:
        """What it says is wrong, in one harmless line."""
        error = self.document.get("error", self.document.get("detail", ""))
        if isinstance(error, dict):
            error = error.get("message") or error.get("type") or ""
        if not error and not self.text.lstrip().startswith("<"):
            error = self.text
        return printable(" ".join(str(error)[: MAX_SAID * 4].split()), MAX_SAID)


class Exchange:
    """Questions to the servers of one address, each of which ends in time.

    ``proxy`` is used for every question; None takes HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and
    NO_PROXY of the environment, except for this machine, and an empty text takes none.
    ``ca_file`` is trusted in place of the public authorities; ``headers`` go with every
    question. Raises ``ValueError`` where the proxy or the file is none. Safe to use from
    several threads.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str = "",
        proxy: str | None = None,
        ca_file: Path | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        import httpx  # which costs more time than everything else here

        self._closed = False
        self._lock = threading.Lock()
        self._watches: set[_Watch] = set()
        # Compression would let a small answer become a large one.
        always = {"accept-encoding": "identity", "user-agent": "linnix", **(headers or {})}
        if api_key:
            if not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
                raise ValueError("api_key holds characters that no key has")
            always["authorization"] = f"Bearer {api_key}"
        parts = urlsplit(url)
        local = is_loopback(parts.hostname or "")
        verify: bool | ssl.SSLContext = True
        if ca_file is not None:
            verify = _trusting(ca_file)
        elif local and parts.scheme == "http" and not proxy:
            # No TLS, no need to load all the authorities that there are: this trusts none.
            verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            self._http = httpx.Client(
                headers=always,
                verify=verify,
                proxy=proxy or None,
                trust_env=proxy is None and not local,
                # Questions are rare: a kept connection would be a dead one.
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            # What is in the address of a proxy may be a password.
            raise ValueError(f"proxy cannot be used ({type(error).__name__})") from None

    def close(self) -> None:
        """End every question that is under way."""
        with self._lock:
            self._closed = True
            watches = tuple(self._watches)
        for watch in watches:
            watch.cut()
        self._http.close()

    def get(self, url: str, timeout_s: float) -> Answered:
        """The answer to a GET. Raises `NoAnswer`."""
        with self._sent("GET", url, timeout_s) as response:
            return _read(response)

    def post(self, url: str, body: Mapping[str, Any], timeout_s: float) -> Answered:
        """The answer to a POST of JSON. Raises `NoAnswer`."""
        with self._sent("POST", url, timeout_s, json=body) as response:
            return _read(response)

    def send(
        self,
        method: str,
        url: str,
        timeout_s: float,
        content: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """The answer to any content with any method, such as a file. Raises `NoAnswer`.

        A redirect is not followed: it is an answer like any other.
        """
        with self._sent(method, url, timeout_s, content=content, headers=headers) as response:
            return _read(response)

    @contextlib.contextmanager
    def lines(
        self, url: str, body: Mapping[str, Any], timeout_s: float
    ) -> Iterator[Iterator[str] | Answered]:
        """The lines of an answer as they come; one that is no success as a whole."""
        with self._sent("POST", url, timeout_s, json=body) as response:
            yield _lines(response) if response.is_success else _read(response)

    @contextlib.contextmanager
    def _sent(
        self, method: str, url: str, timeout_s: float, **content: Any
    ) -> Iterator[httpx.Response]:
        import httpx

        where = origin(url)
        if timeout_s <= 0:
            raise TooLate(f"no time is left to ask {where}")
        watch = _Watch(timeout_s)
        with self._lock:
            if self._closed:
                raise NoAnswer(f"{where} is not asked any more")
            self._watches.add(watch)
        try:
            with (
                watch,
                self._http.stream(
                    method,
                    url,
                    timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
                    extensions={"trace": watch.trace},
                    **content,
                ) as response,
            ):
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise NoAnswer(f"{where} answers compressed, which was not asked for")
                yield response
                if watch.is_cut:
                    # An answer without a length would seem to be complete.
                    raise httpx.ReadTimeout("cut")
        except (
            httpx.HTTPError,
            httpx.StreamError,
            httpx.InvalidURL,
            OSError,
            RuntimeError,
        ) as error:
            if self._closed:
                raise NoAnswer(f"{where} is not asked any more") from None
            if watch.is_cut or isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
                raise TooLate(f"{where} has not answered within {timeout_s:.3g} s") from None
            raise NoAnswer(f"{where} does not answer: {_why(error)}") from None
        finally:
            with self._lock:
                self._watches.discard(watch)


class _Watch:
    """Cuts a connection when its time is over, or earlier."""

    def __init__(self, seconds: float) -> None:
        self.is_cut = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self.cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        for connection in self._sockets:
            connection.close()

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear of a new connection: what httpcore calls while it works."""
        if event.endswith(".connect_tcp.complete"):
            # A second handle on the same connection: TLS takes the first one away.
            connection = info["return_value"].get_extra_info("socket").dup()
            with self._lock:
                self._sockets.append(connection)
                if self.is_cut:
                    _shut(connection)

    def cut(self) -> None:
        """End the connection; one that comes about later ends at once."""
        with self._lock:
            self.is_cut = True
            for connection in self._sockets:
                _shut(connection)


def _shut(connection: socket.socket) -> None:
    # Whoever waits for the other side hears that nothing more will come.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _trusting(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"ca_file {ca_file} cannot be used: {error}") from None


def _read(response: httpx.Response) -> Answered:
    text = b"".join(_bounded(response))
    return Answered(response.status_code, response.headers, text.decode("utf-8", "replace"))


def _lines(response: httpx.Response) -> Iterator[str]:
    rest = b""
    for part in _bounded(response):
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")
        if len(rest) > MAX_LINE:
            raise NoAnswer(f"a line of the answer is longer than {MAX_LINE >> 10} KiB")
    if rest:
        yield rest.decode("utf-8", "replace").rstrip("\r")


def _bounded(response: httpx.Response) -> Iterator[bytes]:
    taken = 0
    for part in response.iter_raw():
        taken += len(part)
        if taken > MAX_BYTES:
            raise NoAnswer(f"the answer is longer than {MAX_BYTES >> 20} MiB")
        yield part


def _why(error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return printable(said, MAX_SAID)
