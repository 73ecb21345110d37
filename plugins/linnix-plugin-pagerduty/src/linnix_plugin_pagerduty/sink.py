"""The Events API v2, as PagerDuty documents it.

``reference/events-v2/openapiv3.json`` of PagerDuty's public API schema: 202 is accepted, 400 is
never, 429 and 5xx are to be tried again after some time, as are network errors. Events with
one ``dedup_key`` are one alert: the key is the page's, so that nothing is told twice whatever
is sent twice.

PagerDuty's own client (``pagerduty``) is not used: on 429 it sleeps and tries again for as long
as that lasts, in the calling thread and whatever ``Retry-After`` says, so that neither a stop nor
another page gets past it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from linnix_core import printable
from linnix_plugin_notify import Message, NotNow, Receipt, Refused, sections

__all__ = ["PagerDutySink", "event_of"]

#: What PagerDuty takes in a summary; the rest it cuts.
MAX_SUMMARY = 1024

#: Bytes of an answer that are read.
_MAX_ANSWER = 64 * 1024

_SEVERITIES = {
    "info": "info", "low": "info", "medium": "warning", "high": "error", "critical": "critical",
}  # fmt: skip


class PagerDutySink:
    """One connection to the Events API, for every integration key."""

    updates = True
    idempotent = True

    def __init__(self, keys: Mapping[str, str], *, url: str, timeout_s: float) -> None:
        self._keys = dict(keys)
        self._url = url.rstrip("/") + "/v2/enqueue"
        self._timeout_s = timeout_s
        self._client = httpx.Client(timeout=timeout_s, follow_redirects=False)

    def deliver(self, message: Message, to: str, receipt: Receipt, *, again: bool) -> Receipt:
        """Trigger the alert of this page, again for an update, or resolve it."""
        if to not in self._keys:
            raise NotNow(
                f"there is no integration key called {to!r}",
                hint="add it to routing_keys",
                sure=True,
            )
        self._send({"routing_key": self._keys[to], **event_of(message)})
        if message.change == "test":
            self._send({
                "routing_key": self._keys[to], "event_action": "resolve", "dedup_key": message.key,
            })  # fmt: skip
        return {"dedup_key": message.key}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _send(self, event: dict[str, Any]) -> None:
        body = json.dumps(event, separators=(",", ":")).encode()
        try:
            status, headers, answer = self._post(body)
        except httpx.ConnectError as error:
            raise NotNow(f"PagerDuty cannot be reached: {_words(error)}", sure=True) from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise NotNow(f"PagerDuty did not answer: {_words(error)}") from None
        except RuntimeError:  # closed meanwhile: the agent stops
            raise NotNow("the agent stops") from None
        if status == 202:
            return
        said = f"PagerDuty answered {status}{_reason(answer)}"
        if status == 400:
            raise Refused(said)
        raise NotNow(
            said, retry_after_s=retry_after_s(headers.get("retry-after")), sure=status < 500
        )

    def _post(self, body: bytes) -> tuple[int, httpx.Headers, bytes]:
        """Post, and read the answer until it ends, is long enough or took too long."""
        deadline = time.monotonic() + self._timeout_s
        answer = b""
        headers = {"content-type": "application/json", "user-agent": "linnix-plugin-pagerduty"}
        with self._client.stream("POST", self._url, content=body, headers=headers) as response:
            if response.status_code != 202:  # else its words do not matter
                for part in response.iter_bytes(4096):
                    answer += part
                    if len(answer) > _MAX_ANSWER or time.monotonic() > deadline:
                        break
            return response.status_code, response.headers, answer


def event_of(message: Message) -> dict[str, Any]:
    """The event of a message, without the integration key.

    PagerDuty shows summary and details as plain text: there is nothing to escape.
    """
    if not message.open:
        return {"event_action": "resolve", "dedup_key": message.key}
    details: dict[str, Any] = {
        heading: lines[0] if len(lines) == 1 else list(lines)
        for heading, lines in sections(message)
    }
    payload = {
        "summary": printable(message.title, MAX_SUMMARY),
        "severity": _SEVERITIES[message.severity],
        "source": message.host,
        "component": "linnix",
        "timestamp": _timestamp(message.opened_ns),
        "custom_details": details,
    }
    if message.class_:
        payload["class"] = message.class_
    return {
        "event_action": "trigger",
        "dedup_key": message.key,
        "client": "Linnix",
        "payload": payload,
    }


def retry_after_s(value: str | None) -> float | None:
    """``Retry-After`` (RFC 9110, 10.2.3): seconds, or the seconds until a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)


def _timestamp(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).isoformat(timespec="seconds")


def _reason(answer: bytes) -> str:
    try:
        found = json.loads(answer)
        said = [found.get("message"), *found.get("errors", [])]
    except (ValueError, AttributeError, TypeError):
        return ""
    words = ", ".join(text for text in said if isinstance(text, str))
    return f": {printable(words, 200)}" if words else ""


def _words(error: Exception) -> str:
    return printable(str(error), 200) or type(error).__name__
