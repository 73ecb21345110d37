"""Slack with a bot token, and Slack with an incoming webhook, through the vendor's slack_sdk.

Documents: "chat.postMessage", "chat.update", "conversations.history", "conversations.replies",
"Using message metadata", "Rate limits" and "Sending messages using incoming webhooks" of Slack's
developer documentation. Slack knows no idempotency key for a message. So a message of the bot
carries the page's key as metadata, and where it may have arrived already it is looked for.
"""

from __future__ import annotations

import http.client
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.error import URLError

from linnix_core import printable
from linnix_plugin_notify import Message, NotNow, Receipt, Refused
from linnix_plugin_slack.blocks import EVENT_TYPE, fallback_of, news_of, rendered

__all__ = ["BotSink", "WebhookSink"]

#: Errors that mean this message, and no other.
_OF_THE_MESSAGE = frozenset({
    "invalid_arguments", "invalid_blocks", "invalid_blocks_format", "invalid_payload",
    "metadata_too_large", "msg_blocks_too_long", "msg_too_long", "no_text", "too_many_attachments",
})  # fmt: skip

#: The message that was to be changed is not there any more.
_GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})

#: Slack may have done it all the same.
_UNSURE = frozenset({"fatal_error", "internal_error", "request_timeout", "service_unavailable"})

#: Seconds that the clocks of this host and of Slack may differ, and how far is looked back.
_SKEW_S = 300.0
_PAGE = 200
_MAX_PAGES = 10


class BotSink:
    """One message per incident, changed in place; what is news goes into its thread."""

    updates = True

    def __init__(
        self, token: str, *, url: str, timeout_s: float, buttons: bool, logger: logging.Logger
    ) -> None:
        from slack_sdk import WebClient

        self.idempotent = True
        self._buttons = buttons
        self._logger = logger
        # Tries are the outbox's business, which survives this process.
        self._client = WebClient(
            token, base_url=url, timeout=max(round(timeout_s), 1), retry_handlers=[]
        )

    def deliver(self, message: Message, to: str, receipt: Receipt, *, again: bool) -> Receipt:
        """Post the message, or change the one that is there and tell its thread the news."""
        ts = receipt.get("ts")
        if ts is None and again:
            ts = self._find_message(message, to)
        content = {
            "channel": to,
            "text": fallback_of(message),
            "blocks": rendered(message, buttons=self._buttons),
            "metadata": _metadata(message),
        }
        if ts is None:
            ts = self._call(self._client.chat_postMessage, **content, **_PLAIN)["ts"]
            return {"ts": ts, "version": message.version}
        self._call(self._client.chat_update, ts=ts, **content)
        self._reply(message, to, ts, receipt, again=again)
        return {"ts": ts, "version": message.version}

    def close(self) -> None:
        """Nothing is kept open between two calls."""

    def _reply(self, message: Message, to: str, ts: str, receipt: Receipt, *, again: bool) -> None:
        news = news_of(message)
        if news is None or (again and self._has_reply(message, to, ts, receipt)):
            return
        block = {"type": "section", "text": {"type": "plain_text", "text": news, "emoji": False}}
        self._call(
            self._client.chat_postMessage, channel=to, thread_ts=ts, text=news, blocks=[block],
            metadata=_metadata(message), **_PLAIN,
        )  # fmt: skip

    def _find_message(self, message: Message, to: str) -> str | None:
        since = f"{max(message.paged_ns / 1e9 - _SKEW_S, 0.0):.6f}"
        found = self._metadata_of(self._client.conversations_history, channel=to, oldest=since)
        for ts, payload in found:
            if payload.get("key") == message.key:
                return ts
        return None

    def _has_reply(self, message: Message, to: str, ts: str, receipt: Receipt) -> bool:
        known = receipt.get("version", 0)
        return any(
            payload.get("key") == message.key
            and payload.get("change") == message.change
            and isinstance(payload.get("version"), int)
            and payload["version"] > known
            for reply, payload in self._metadata_of(
                self._client.conversations_replies, channel=to, ts=ts
            )
            if reply != ts
        )

    def _metadata_of(
        self, method: Callable[..., Any], **arguments: str
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The time stamp and our metadata of each message that has some, page by page."""
        cursor = ""
        for _ in range(_MAX_PAGES):
            more = {"cursor": cursor} if cursor else {}
            try:
                answer = self._call(
                    method, **arguments, **more, limit=_PAGE, include_all_metadata=True
                )
            except NotNow as error:
                if "missing_scope" not in str(error):
                    raise
                # It is told again then, and counted: better twice than not at all.
                if self.idempotent:
                    self._logger.warning(
                        "the bot may not read the channel: a message that may have arrived is "
                        "sent again (add the scope channels:history, or groups:history)"
                    )
                self.idempotent = False
                return
            for found in answer.get("messages") or ():
                data = found.get("metadata") or {}
                if data.get("event_type") == EVENT_TYPE:
                    yield str(found.get("ts")), data.get("event_payload") or {}
            cursor = (answer.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return

    def _call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            return method(**arguments)
        except SlackApiError as error:
            response: Any = error.response
            status = getattr(response, "status_code", 0)
            data = getattr(response, "data", None)
            why = data.get("error") if isinstance(data, dict) else None
            raise _failure(status, str(why or ""), getattr(response, "headers", None)) from None
        except (SlackClientError, UnicodeDecodeError) as error:
            raise NotNow(f"Slack's answer is none: {_words(error)}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unreachable(error) from None


#: Nothing in a message turns into a mention, a link or a preview.
_PLAIN: dict[str, Any] = {
    "parse": "none", "link_names": False, "mrkdwn": False,
    "unfurl_links": False, "unfurl_media": False,
}  # fmt: skip


class WebhookSink:
    """Two messages per incident: an incoming webhook cannot change what it sent."""

    updates = False
    idempotent = False

    def __init__(self, urls: Mapping[str, str], *, timeout_s: float) -> None:
        from slack_sdk.webhook import WebhookClient

        self._clients = {
            name: WebhookClient(url, timeout=max(round(timeout_s), 1), retry_handlers=[])
            for name, url in urls.items()
        }

    def deliver(self, message: Message, to: str, receipt: Receipt, *, again: bool) -> Receipt:
        """Post the message."""
        client = self._clients.get(to)
        if client is None:
            hint = "add it to webhook_urls"
            raise NotNow(f"there is no webhook called {to!r}", hint=hint, sure=True)
        try:
            answer = client.send(
                text=fallback_of(message),
                blocks=rendered(message, buttons=False),
                unfurl_links=False,
                unfurl_media=False,
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unreachable(error) from None
        if answer.status_code != 200:
            raise _failure(answer.status_code, answer.body.strip(), answer.headers)
        return {}

    def close(self) -> None:
        """Nothing is kept open between two calls."""


def _metadata(message: Message) -> dict[str, Any]:
    payload = {"key": message.key, "version": message.version, "change": message.change}
    return {"event_type": EVENT_TYPE, "event_payload": payload}


def _failure(status: int, why: str, headers: Mapping[str, Any] | None) -> NotNow | Refused:
    # Slack has a word for what is wrong. Else it is a page, or what slack_sdk says of one.
    shown = why if _WORD.fullmatch(why) else ""
    said = f"Slack answered {status} {shown}".rstrip()
    if why in _OF_THE_MESSAGE:
        return Refused(said)
    if why in _GONE:
        return Refused(f"the message is not there any more ({shown})")
    asked = {str(name).lower(): value for name, value in (headers or {}).items()}
    after = asked.get("retry-after")
    after = after[0] if isinstance(after, list) and after else after
    return NotNow(
        said,
        hint=_HINTS.get(why),
        retry_after_s=float(str(after)[:9]) if str(after or "").isdigit() else None,
        sure=why not in _UNSURE and status < 500,
    )


_WORD = re.compile(r"[a-z_]{1,100}")

_HINTS = {
    "invalid_auth": "give bot_token the bot token of your app: xoxb-…",
    "not_authed": "give bot_token the bot token of your app: xoxb-…",
    "missing_scope": "add the scope to your app and install it again",
    "channel_not_found": "give the id of the channel, and invite the bot to it",
    "not_in_channel": "invite the bot to the channel",
    "is_archived": "choose another channel",
    "no_service": "the webhook was taken away: make another one",
    "invalid_token": "the webhook was taken away: make another one",
}


def _unreachable(error: Exception) -> NotNow:
    cause = error.reason if isinstance(error, URLError) else error
    # Only what failed to connect has certainly not been read by anybody.
    sure = isinstance(cause, ConnectionRefusedError) or type(cause).__name__ == "gaierror"
    return NotNow(f"Slack cannot be reached: {_words(cause)}", sure=sure)


def _words(error: object) -> str:
    return printable(str(error), 200) or type(error).__name__
