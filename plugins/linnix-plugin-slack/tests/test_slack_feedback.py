"""What people say with the buttons: over HTTP with a checked signature, and in Socket Mode."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import struct
import threading
import time
from urllib.parse import urlencode

import pytest

from linnix_core import LinnixError, Secret
from linnix_core.testing.waiting import eventually
from linnix_plugin_slack.feedback import MAX_BODY, FeedbackApp, feedback_in
from linnix_plugin_slack.handler import SlackConfig, SlackHandler

CLICK = {
    "type": "block_actions",
    "user": {"id": "U1", "username": "alice"},
    "actions": [{"action_id": "linnix_noise", "value": "9f2c-i1", "type": "button"}],
}


@pytest.fixture
def heard():
    return []


@pytest.fixture
def handler(linnix_context, heard):
    config = SlackConfig(signing_secret=Secret("shh"), webhook_url=Secret("https://slack.example"))
    return SlackHandler(config, linnix_context(feedback=heard.append))


def signed(body, secret="shh", at=None):
    at = str(int(time.time() if at is None else at))
    mark = hmac.new(secret.encode(), f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": f"v0={mark}"}


def post(app, body, headers, method="POST"):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event):
        sent.append(event)

    scope = {
        "type": "http", "method": method, "path": "/",
        "headers": [(n.lower().encode(), v.encode("latin-1")) for n, v in headers.items()],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


def form(payload):
    return urlencode({"payload": json.dumps(payload)}).encode()


def test_a_click_with_a_signature_is_feedback(handler, heard):
    (mount,) = handler.linnix_http()
    assert mount.path == "/slack/feedback"
    assert post(mount.app, form(CLICK), signed(form(CLICK))) == 200
    ((said),) = heard
    assert (said.incident, said.verdict, said.by) == ("9f2c-i1", "noise", "alice in Slack")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(form(CLICK), secret="guessed"),
        signed(b"another body"),
        signed(form(CLICK), at=time.time() - 3600),
        {"X-Slack-Request-Timestamp": "soon", "X-Slack-Signature": "v0=x"},
        {**signed(form(CLICK)), "X-Slack-Signature": "v0=\xe9"},
    ],
    ids=["none", "guessed", "of-another", "old", "no-number", "no-ascii"],
)
def test_without_a_right_signature_it_is_refused(handler, heard, headers):
    (mount,) = handler.linnix_http()
    assert post(mount.app, form(CLICK), headers) == 401
    assert heard == []


@pytest.mark.parametrize("body", [b"", b"payload=no-json", b"other=1"], ids=ascii)
def test_what_is_no_interaction_is_refused(handler, heard, body):
    (mount,) = handler.linnix_http()
    assert post(mount.app, body, signed(body)) == 400
    assert post(mount.app, b"", {}, method="GET") == 405
    assert post(mount.app, b"x" * (MAX_BODY + 1), {}) == 413
    assert heard == []


@pytest.mark.parametrize(
    "payload",
    [
        None, [], {"type": "view_submission"}, {"type": "block_actions"},
        {"type": "block_actions", "actions": "x"},
        {"type": "block_actions", "actions": [7, {"action_id": "other", "value": "x"}]},
        {"type": "block_actions", "actions": [{"action_id": "linnix_noise", "value": 7}]},
    ],
    ids=str,
)  # fmt: skip
def test_other_interactions_say_nothing(payload):
    assert feedback_in(payload) == []


def test_feedback_that_the_core_does_not_take_is_no_error_for_slack(heard, linnix_context):
    def refuse(_):
        raise LinnixError("the agent stops")

    app = FeedbackApp("shh", say=refuse, logger=linnix_context().logger)
    assert post(app, form(CLICK), signed(form(CLICK))) == 200


def test_without_a_signing_secret_nothing_is_served(linnix_context):
    config = SlackConfig(webhook_url=Secret("https://slack.example"))
    assert SlackHandler(config, linnix_context()).linnix_http() == []


# --- Socket Mode ------------------------------------------------------------------------


class SocketServer:
    """One WebSocket (RFC 6455) that sends an interaction and notes what is answered.

    Document: "Using Socket Mode": ``hello`` first, then envelopes, each to be acknowledged by
    its ``envelope_id``.
    """

    def __init__(self):
        self.acknowledged = threading.Event()
        self.answer = None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._socket.getsockname()[1]}/link"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self):
        self._socket.close()

    def _serve(self):
        connection, _ = self._socket.accept()
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(4096)
            lines = dict(
                line.split(": ", 1) for line in request.decode().split("\r\n") if ": " in line
            )
            key = next(v for k, v in lines.items() if k.lower() == "sec-websocket-key")
            guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()
            connection.sendall(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            self._send(connection, {"type": "hello", "num_connections": 1})
            self._send(connection, {"type": "interactive", "envelope_id": "e1", "payload": CLICK})
            while True:
                opcode, payload = self._receive(connection)
                if opcode == 1 and b"envelope_id" in payload:
                    self.answer = json.loads(payload)
                    self.acknowledged.set()
                if opcode in (8, None):
                    return

    @staticmethod
    def _send(connection, value):
        data = json.dumps(value).encode()
        connection.sendall(struct.pack("!BBH", 0x81, 126, len(data)) + data)

    @staticmethod
    def _receive(connection):
        def exactly(count):
            data = b""
            while len(data) < count and (part := connection.recv(count - len(data))):
                data += part
            return data

        try:
            head = exactly(2)
            if len(head) < 2:
                return None, b""
            length = head[1] & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", exactly(2))
            mask = exactly(4)
            data = exactly(length)
        except OSError:
            return None, b""
        return head[0] & 0xF, bytes(c ^ mask[n % 4] for n, c in enumerate(data))


def test_a_click_arrives_through_socket_mode(start, slack, linnix_context, heard):
    server = SocketServer()
    asked, seen = [], threading.Event()

    def open_connection(request):
        assert seen.wait(60)
        asked.append(request.headers.get("Authorization"))
        body = json.dumps({"ok": True, "url": server.url}).encode()
        return 200, {"content-type": "application/json"}, body

    slack.accept = open_connection
    said = threading.Event()

    def hear(feedback):
        heard.append(feedback)
        said.set()

    handler = start(context=linnix_context(feedback=hear), app_token=Secret("xapp-test"))
    assert handler.linnix_health().limits
    seen.set()
    assert said.wait(60)
    assert server.acknowledged.wait(60)
    assert server.answer["envelope_id"] == "e1"
    assert [(each.incident, each.verdict) for each in heard] == [("9f2c-i1", "noise")]
    assert asked == ["Bearer xapp-test"]
    handler.linnix_stop(time.monotonic() + 10)
    server.close()


def test_who_cannot_listen_says_so(start, slack):
    handler = start(app_token=Secret("xapp-test"))
    health = eventually(handler.linnix_health, lambda health: "cannot listen" in str(health.limits))
    assert health.status == "ok"
    assert "invalid_auth (give app_token an app-level token" in str(health.limits)
