"""Delivery through Apprise, one address after the other.

Apprise tells whether a service took a message and nothing else: no ``Retry-After``, no reason.
What a service may take as markup differs among more than a hundred of them; so the few
characters that any of them does are replaced by others that look alike.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any
from urllib.parse import parse_qsl, urlencode

from linnix_core import PluginUnavailable
from linnix_plugin_notify import Message, NotNow, Receipt, sections

__all__ = ["AppriseSink", "body_of", "escaped"]

#: Timeouts for which a service is waited for: some take several requests for one message.
_PATIENCE = 6

#: Mentions, links, HTML, entities, emphasis, code, tables, spoilers and headings, by what looks
#: alike: mostly the full-width forms of the same characters (U+FF00 to U+FF5E).
_LOOK_ALIKE: dict[int, int | str] = {
    **{ord(character): ord(character) + 0xFEE0 for character in "@[]*|&\\#{}"},
    ord("<"): "\u2039",
    ord(">"): "\u203a",
    ord("`"): "\u02b9",
    ord("~"): "\u223c",
}
_COLON, _LINE, _DOT = "\uff1a", "\uff3f", "\u00b7"


def escaped(text: str) -> str:
    """Text that no service takes for more than that.

    Links go as well: ``://`` is what makes services find one.
    """
    text = text.translate(_LOOK_ALIKE).replace("://", f"{_COLON}//").replace("__", f"_{_LINE}")
    # A line that begins like a list or a quotation becomes one in Markdown.
    return f"{_DOT}{text}" if text[:1] in ("-", "+", "=") else text


def body_of(message: Message) -> str:
    """The message below its title."""
    return "\n\n".join(
        "\n".join((f"{heading}:", *map(escaped, lines))) for heading, lines in sections(message)
    )


class AppriseSink:
    """Every address of every group, as Apprise services."""

    updates = False
    idempotent = False

    def __init__(self, groups: Mapping[str, Sequence[str]], *, timeout_s: float) -> None:
        self._groups: dict[str, dict[str, Any]] = {}
        self._patience_s = _PATIENCE * timeout_s
        self._sent: dict[str, Future[bool]] = {}
        with warnings.catch_warnings():
            # It tries the libraries of every service that it knows, also those of nobody here.
            warnings.simplefilter("ignore")
            self._open(groups, timeout_s)

    def _open(self, groups: Mapping[str, Sequence[str]], timeout_s: float) -> None:
        import apprise

        # Its own bound on a service takes threads for which the interpreter waits at its end,
        # however long the service hangs.
        asset = apprise.AppriseAsset(service_timeout=0)
        for name, urls in groups.items():
            services: dict[str, Any] = {}
            for number, url in enumerate(urls):
                one = apprise.Apprise(asset=asset)
                if not one.add(_patient(url, timeout_s)):
                    raise PluginUnavailable(
                        f"Apprise knows no service for address {number + 1} of "
                        f"{f'groups.{name}' if name else 'urls'}",
                        hint="see Apprise's documentation for how the address is written",
                    )
                services[hashlib.blake2b(url.encode(), digest_size=8).hexdigest()] = one
            self._groups[name] = services

    def deliver(self, message: Message, to: str, receipt: Receipt, *, again: bool) -> Receipt:
        """Send to each address that has not had this version of the message."""
        services = self._groups.get(to)
        if services is None:
            hint = "add it to groups"
            raise NotNow(f"there is no group called {to!r}", hint=hint, sure=True)
        had = dict(receipt)
        failed = []
        for mark, service in services.items():
            if had.get(mark, 0) >= message.version:
                continue
            if self._send(mark, service, message):
                had[mark] = message.version
            else:
                failed.append(service[0].service_name)
        if failed:
            names = ", ".join(dict.fromkeys(map(str, failed)))
            raise NotNow(f"Apprise could not deliver to {names}", receipt=had)
        return had

    def close(self) -> None:
        """Nothing is kept open between two messages."""

    def _send(self, mark: str, service: Any, message: Message) -> bool:
        """Whether the service took it. One that does not end is left alone until it does."""
        before = self._sent.get(mark)
        if before is not None and not before.done():
            return False
        sent = self._sent[mark] = Future()
        threading.Thread(
            target=_notify, args=(sent, service, message), name="linnix-apprise", daemon=True
        ).start()
        try:
            return sent.result(self._patience_s)
        except TimeoutError:
            return False


def _notify(sent: Future[bool], service: Any, message: Message) -> None:
    kind = "failure" if message.open else "success"
    try:
        taken = service.notify(
            title=escaped(message.title),
            body=body_of(message),
            notify_type="info" if message.change == "test" else kind,
            body_format="text",
        )
    except BaseException as error:  # noqa: BLE001 - whoever waits raises it
        sent.set_exception(error)
    else:
        sent.set_result(bool(taken))


def _patient(url: str, timeout_s: float) -> str:
    """The address with our timeouts, where it has none of its own: ``cto`` and ``rto``."""
    base, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    named = {name for name, _ in pairs}
    more = [(name, f"{timeout_s:g}") for name in ("cto", "rto") if name not in named]
    if not more:
        return url
    return f"{base}?{query}{'&' if query else ''}{urlencode(more)}"
