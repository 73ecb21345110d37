"""The halext backend: an API over nodes, each of which is an Ollama server.

It is never believed: observed are answers of 500 for what was done, of success for what was
not, lists of what is gone, and a mock's words with status 200 in place of a dead node's.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import attrs

from linnix_core import LinnixError, Secret, printable
from linnix_plugin_halext.config import HalextConfig, revealed
from linnix_plugin_ollama import is_same_model
from linnix_plugin_openai import Answered, Exchange, is_loopback

__all__ = ["Backend", "BackendNode", "Refresh"]

#: Seconds for a question that asks no node, for one that asks one, and one that asks all.
QUICK_S = 10.0
NODE_S = 30.0
ALL_NODES_S = 120.0

_FORM = {"content-type": "application/x-www-form-urlencoded"}
_JSON = {"content-type": "application/json"}

#: How the mock of the backend introduces itself.
_MOCK = re.compile(r"\bmock AI assistant\b", re.IGNORECASE)


@attrs.frozen
class BackendNode:
    """A node as the backend knows it."""

    id: int
    name: str


@attrs.frozen
class Refresh:
    """What the backend found when it asked a node just now."""

    online: bool
    models: tuple[str, ...]
    message: str

    def has(self, model: str) -> bool:
        """Whether a model is among them."""
        return any(is_same_model(each, model) for each in self.models)


class Backend:
    """The backend whose API is at ``api``. Logs in when it has to. Raises `LinnixError`."""

    def __init__(self, config: HalextConfig, api: str) -> None:
        self.api = api
        self._config = config
        self._wire: Exchange | None = None
        self._secrets: list[str] = []

    def close(self) -> None:
        """End what is under way."""
        if self._wire is not None:
            self._wire.close()

    # --- nodes ------------------------------------------------------------------------

    def nodes(self) -> list[BackendNode]:
        """The nodes that are active.

        The list of nodes itself answers 500 as soon as one of them was ever online.
        """
        answer = self._ask("POST", "/admin/ai-clients/health-check-all", None, ALL_NODES_S)
        results = answer.document.get("results")
        if not isinstance(results, list):
            raise self._refused(answer, "its nodes")
        return [
            BackendNode(each["node_id"], printable(str(each.get("name", "")), 80))
            for each in results
            if isinstance(each, dict) and type(each.get("node_id")) is int
        ]

    def url_of(self, node: BackendNode) -> str | None:
        """Where the backend reaches a node; None where it does not say."""
        for path, key in ((f"/{node.id}/info", "url"), (f"/{node.id}", "base_url")):
            # The first says nothing of a dead node, the second nothing of a living one.
            answer = self._ask("GET", f"/admin/ai-clients{path}", None, NODE_S)
            url = answer.document.get(key)
            if answer.is_success and isinstance(url, str) and url:
                return url
        return None

    def see_that_it_is_alike(self, url: str) -> None:
        """See that an address means the same machine here as there."""
        host, own = (urllib.parse.urlsplit(each).hostname or "" for each in (url, self.api))
        if is_loopback(host) and not is_loopback(own):
            raise LinnixError(
                f"{printable(url, 120)} means another machine for {self.api} than for this one",
                hint="say where this machine reaches the node: -o ollama=http://HOST:11434",
            )

    def add(self, name: str, url: str) -> BackendNode:
        """Have the backend know an Ollama server, at ``http://HOST:PORT``."""
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme != "http" or parts.path:
            raise LinnixError(
                f"{self.api} reaches nodes at http://HOST:PORT only, and not at {url}",
                hint="add the node there by hand, and name it with -o client=NAME",
            )
        self.see_that_it_is_alike(url)
        known = {node.id for node in self.nodes()}
        body = {
            "name": name,
            "node_type": "ollama",
            "hostname": f"[{host}]" if ":" in host else host,
            "port": parts.port or 80,
        }
        answer = self._ask("POST", "/admin/ai-clients", body, NODE_S)
        made = answer.document.get("id")
        if answer.is_success and type(made) is int:
            return BackendNode(made, name)
        if answer.status == 500:
            # Observed: it is made, and cannot be shown.
            fresh = [n for n in self.nodes() if n.name == name and n.id not in known]
            if len(fresh) == 1:
                return fresh[0]
        raise self._refused(answer, f"a node called {printable(name, 80)}")

    def refresh(self, node_id: int, timeout_s: float = NODE_S) -> Refresh:
        """Have the backend ask a node which models it has; its lists are stale until then."""
        answer = self._ask("POST", f"/admin/ai-clients/{node_id}/test", None, timeout_s)
        said = answer.document
        if not answer.is_success or "online" not in said:
            raise self._refused(answer, f"node {node_id}")
        models = said.get("models")
        return Refresh(
            said["online"] is True,
            tuple(each for each in models if isinstance(each, str))
            if isinstance(models, list)
            else (),
            self._clean(str(said.get("message") or said.get("status") or "")),
        )

    # --- chat -------------------------------------------------------------------------

    def why_not_answered_by(self, model: str, timeout_s: float) -> str:
        """Ask a model, and say what is wrong with the answer; ``""`` where it is the model's."""
        body = {"prompt": "Say hello.", "history": [], "model": model}
        answer = self._ask("POST", "/ai/chat", body, timeout_s)
        said = answer.document
        if not answer.is_success or "response" not in said:
            raise self._refused(answer, printable(model, 120))
        provider = self._clean(str(said.get("provider", "")))
        from_whom = self._clean(str(said.get("model", "")))
        text = str(said.get("response") or "")
        if provider != "client" or said.get("model") != model:
            return f"it answers with {from_whom or 'nobody'} of {provider or 'nobody'} instead"
        if _MOCK.search(text):
            return "the answer is a mock's"
        return "" if text.strip() else "the answer is empty"

    # --- questions --------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> Answered:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {} if body is None else _JSON
        for is_last in (False, True):
            wire = self._logged_in(again=is_last)
            answer = wire.send(method, f"{self.api}{path}", timeout_s, content, headers)
            # A token lives for half an hour, and cannot be renewed.
            if answer.status != 401 or is_last or self._config.account() is None:
                break
        return answer

    def _logged_in(self, *, again: bool) -> Exchange:
        if self._wire is not None and not again:
            return self._wire
        account = self._config.account()
        token = revealed(self._config.token) if not again else ""
        if not token and account is not None:
            token = self._log_in(*account, QUICK_S)
        if not token:
            raise LinnixError(
                f"{self.api} wants to know who asks",
                hint="set username and password, or token, in [deployers.halext]",
            )
        self._secrets = [*self._secrets[-8:], token]
        before, self._wire = self._wire, self._config.wire(self.api, token)
        if before is not None:
            before.close()
        return self._wire

    def _log_in(self, user: str, password: Secret, timeout_s: float) -> str:
        self._secrets.append(password.reveal())
        form = urllib.parse.urlencode({"username": user, "password": password.reveal()})
        wire = self._config.wire(self.api)
        try:
            answer = wire.send("POST", f"{self.api}/token", timeout_s, form.encode(), _FORM)
        finally:
            wire.close()
        token = answer.document.get("access_token")
        if not answer.is_success or not isinstance(token, str) or not token:
            raise self._refused(answer, f"the account {printable(user, 80)}")
        if len(token) > 8192:
            raise LinnixError(f"{self.api} gives out a token of {len(token)} characters")
        return token

    def _refused(self, answer: Answered, what: str) -> LinnixError:
        # Before it is shortened, and after its escapes are undone.
        words = self._clean(attrs.evolve(answer, text=self._told(answer.text)).words)
        said = f"{self.api} says {answer.status} of {what}: {words}"
        hints = {
            401: "look at username, password and token in [deployers.halext]",
            403: "the account has to be an administrator's",
        }
        if 300 <= answer.status < 400:
            return LinnixError(said, hint="name where it leads: nothing is followed")
        if answer.is_success:
            return LinnixError(f"{self.api} answers as no halext backend does about {what}")
        return LinnixError(said, hint=hints.get(answer.status))

    def _clean(self, text: str) -> str:
        return printable(" ".join(self._told(text).split()), 300)

    def _told(self, text: str) -> str:
        """What a server says, without what it was told in confidence."""
        for secret in filter(None, self._secrets):
            text = text.replace(secret, "…")
        return text
