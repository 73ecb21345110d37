"""What people say with the buttons: through Socket Mode, or over HTTP with a checked signature.

Documents: "Using Socket Mode", "Verifying requests from Slack" (v0 signatures, HMAC-SHA256 over
``v0:timestamp:body``, at most five minutes old) and "Handling user interaction".
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from linnix_core import Feedback, LinnixError, printable

__all__ = ["FeedbackApp", "SocketListener", "feedback_in"]

#: Bytes of a request that are read, and of the name of a person.
MAX_BODY = 256 * 1024

#: Seconds between two tries to connect.
_FIRST_PAUSE_S = 2.0
_LAST_PAUSE_S = 300.0

_VERDICTS = {"linnix_useful": "useful", "linnix_noise": "noise"}

Say: TypeAlias = Callable[[Feedback], None]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def feedback_in(payload: Any) -> list[Feedback]:
    """What the payload of an interaction says of incidents; empty for any other."""
    if not isinstance(payload, dict) or payload.get("type") != "block_actions":
        return []
    user = payload.get("user")
    name = ""
    if isinstance(user, dict):
        name = str(user.get("username") or user.get("name") or user.get("id") or "")
    found = []
    actions = payload.get("actions")
    for action in actions if isinstance(actions, list) else ():
        if not isinstance(action, dict):
            continue
        verdict = _VERDICTS.get(str(action.get("action_id")))
        incident = action.get("value")
        if verdict is not None and isinstance(incident, str) and incident:
            found.append(
                Feedback(
                    incident=incident[:100],
                    verdict=verdict,  # type: ignore[arg-type]
                    by=printable(f"{name} in Slack" if name else "Slack", 100),
                )
            )
    return found


def pass_on(payload: Any, say: Say, logger: logging.Logger) -> None:
    """Give the core what an interaction says."""
    for feedback in feedback_in(payload):
        try:
            say(feedback)
        except LinnixError as error:
            logger.warning("feedback from Slack was not taken: %s", error)


class SocketListener:
    """Listens to the buttons through Socket Mode: the host opens the connection, no port here."""

    def __init__(
        self, app_token: str, *, url: str, timeout_s: float, say: Say, logger: logging.Logger
    ) -> None:
        self._app_token = app_token
        self._url = url
        self._timeout_s = timeout_s
        self._say = say
        self._logger = logger
        self._stop = threading.Event()
        self._client: Any = None
        self._thread = threading.Thread(target=self._run, name="linnix-slack-socket", daemon=True)
        #: Why nobody listens now; empty while somebody does.
        self.problem = "not connected to Slack yet"

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Listen no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(max(deadline - time.monotonic(), 0.0))

    def _run(self) -> None:
        from slack_sdk import WebClient
        from slack_sdk.socket_mode.builtin import SocketModeClient

        web = WebClient(base_url=self._url, timeout=round(self._timeout_s), retry_handlers=[])
        # Later reconnections are the client's own business.
        client = SocketModeClient(
            self._app_token, web_client=web, logger=_quiet(self._logger), concurrency=2
        )
        client.socket_mode_request_listeners.append(self._listen)
        pause = _FIRST_PAUSE_S
        try:
            while not self._stop.is_set():
                try:
                    client.connect()
                    break
                except Exception as error:  # noqa: BLE001 - tokens, networks, answers of any sort
                    said = _words(error)
                    if not self.problem.endswith(said):
                        self._logger.warning("the buttons are without effect: %s", said)
                    self.problem = f"cannot listen to the buttons: {said}"
                self._stop.wait(pause)
                pause = min(pause * 2, _LAST_PAUSE_S)
            else:
                return
            self.problem = ""
            self._stop.wait()
        finally:
            client.close()

    def _listen(self, client: Any, request: Any) -> None:
        from slack_sdk.socket_mode.response import SocketModeResponse

        # First the answer: Slack shows an error to who waits longer than three seconds.
        client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
        if request.type == "interactive":
            pass_on(request.payload, self._say, self._logger)


class FeedbackApp:
    """The same over HTTP, for who serves it (ASGI): signed requests only."""

    def __init__(self, signing_secret: str, *, say: Say, logger: logging.Logger) -> None:
        self._secret = signing_secret
        self._say = say
        self._logger = logger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request of Slack's."""
        if scope["type"] != "http":
            return
        if scope["method"] != "POST":
            await _answer(send, 405)
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if len(body) > MAX_BODY or part["type"] != "http.request":
                await _answer(send, 413)
                return
            if not part.get("more_body"):
                break
        headers = {name.decode("latin-1"): value.decode("latin-1")
                   for name, value in scope["headers"]}  # fmt: skip
        if not self._is_signed(body, headers):
            self._logger.warning("a request that is not signed by Slack was refused")
            await _answer(send, 401)
            return
        try:
            payload = json.loads(parse_qs(body.decode())["payload"][0])
        except (ValueError, KeyError):
            await _answer(send, 400)
            return
        pass_on(payload, self._say, self._logger)
        await _answer(send, 200)

    def _is_signed(self, body: bytes, headers: dict[str, str]) -> bool:
        from slack_sdk.signature import SignatureVerifier

        try:
            return bool(SignatureVerifier(self._secret).is_valid_request(body, headers))
        except (ValueError, TypeError):  # a time that is no number, a signature that is no ASCII
            return False


async def _answer(send: Send, status: int) -> None:
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _words(error: Exception) -> str:
    """What is wrong in one line: Slack's own word for it, if there is one, and what to do."""
    answer = getattr(getattr(error, "response", None), "data", None)
    word = answer.get("error") if isinstance(answer, dict) else None
    if word in _HINTS:
        return f"{word} ({_HINTS[word]})"
    return printable(" ".join(str(word or error).split()), 200) or type(error).__name__


_TOKEN = "give app_token an app-level token of your app: xapp-…"  # noqa: S105 - words, no token
_HINTS = {
    "invalid_auth": _TOKEN,
    "not_authed": _TOKEN,
    "not_allowed_token_type": _TOKEN,
    "missing_scope": "give the app-level token the scope connections:write",
}


def _quiet(logger: logging.Logger) -> logging.Logger:
    """The client tells every reconnection, and tokens in what it tells when debugging."""
    child = logger.getChild("socket")
    child.setLevel(logging.CRITICAL)
    return child
