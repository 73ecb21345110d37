"""Slack's Web API and incoming webhooks on this machine."""

import json
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from linnix_core import Secret
from linnix_plugin_notify.testing import LocalService
from linnix_plugin_slack import SlackConfig, SlackHandler

CHANNEL = "C0123456789"


class Slack(LocalService):
    """Takes messages as Slack's documentation of the methods says.

    ``chat.postMessage`` makes a message each time, there is no idempotency key;
    ``chat.update`` wants its ``ts``; ``conversations.history`` and ``.replies`` return
    metadata with ``include_all_metadata``. An incoming webhook answers ``ok`` as text.
    """

    def __init__(self):
        super().__init__()
        self.messages = []
        self.calls = []
        self.can_read = True
        self._clock = int(time.time()) * 10**6

    @property
    def roots(self):
        return [message for message in self.messages if message["thread_ts"] is None]

    def replies(self, ts):
        return [message for message in self.messages if message["thread_ts"] == ts]

    def accept(self, request):
        if request.path.startswith("/services/"):
            self.messages.append({**json.loads(request.body), "thread_ts": None})
            return 200, {"content-type": "text/html"}, b"ok"
        method = urlsplit(request.path).path.removeprefix("/api/")
        if request.headers.get("Authorization") != "Bearer xoxb-test":
            answer = {"ok": False, "error": "invalid_auth"}
        else:
            answer = getattr(self, method.replace(".", "_"))(_arguments(request))
        self.calls.append(method)
        return 200, {"content-type": "application/json"}, json.dumps(answer).encode()

    def chat_postMessage(self, given):
        if not given.get("text"):
            return {"ok": False, "error": "no_text"}
        self._clock += 1
        ts = f"{self._clock / 1e6:.6f}"
        self.messages.append({**given, "ts": ts, "thread_ts": given.get("thread_ts")})
        return {"ok": True, "channel": given["channel"], "ts": ts}

    def chat_update(self, given):
        for message in self.messages:
            if message["ts"] == given["ts"]:
                message.update(given)
                return {"ok": True, "channel": given["channel"], "ts": given["ts"]}
        return {"ok": False, "error": "message_not_found"}

    def conversations_history(self, given):
        oldest = float(given.get("oldest", 0))
        return self._listed([m for m in self.roots if float(m["ts"]) >= oldest])

    def conversations_replies(self, given):
        return self._listed([m for m in self.messages if given["ts"] in (m["ts"], m["thread_ts"])])

    def _listed(self, found):
        if not self.can_read:
            return {"ok": False, "error": "missing_scope", "needed": "channels:history"}
        shown = [{"ts": m["ts"], "metadata": m.get("metadata")} for m in found]
        return {"ok": True, "messages": shown, "response_metadata": {"next_cursor": ""}}


def _arguments(request):
    if request.headers.get("Content-Type", "").startswith("application/json"):
        return json.loads(request.body)
    query = urlsplit(request.path).query or request.body.decode()
    found = {name: values[0] for name, values in parse_qs(query).items()}
    for name in ("blocks", "metadata"):
        if name in found:
            found[name] = json.loads(found[name])
    return found


@pytest.fixture
def slack():
    with Slack() as service:
        yield service


@pytest.fixture
def start(linnix_context, slack):
    """A started handler, of a bot unless there is a webhook; stopped at the end."""
    started = []

    def make(context=None, **options):
        if "webhook_url" not in options:
            options.setdefault("bot_token", Secret("xoxb-test"))
            options.setdefault("channel", CHANNEL)
        config = SlackConfig(url=f"{slack.url}/api/", **options)
        handler = SlackHandler(config, context or linnix_context("handlers.slack"))
        started.append(handler)
        handler.linnix_start()
        handler.linnix_ready()
        return handler

    yield make
    slack.release.set()
    for handler in started:
        handler.linnix_stop(time.monotonic() + 10)
