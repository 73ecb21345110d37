"""A stand-in for Ollama: its documented answers, and some that its users observed.

The shapes are those of Ollama's ``docs/api.md``. What models do with ``format`` and ``think`` is
from reports in its tracker: a thinking model that obeys the schema only where ``think`` is not
sent (14645, 15260), one whose whole reply is among its thoughts (10929), weights for which the
schema is passed over (17183), and 400 for a model that is missing (14949).
"""

import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from linnix_plugin_ollama import OllamaChat, OllamaConfig, OllamaReasoner, Server
from linnix_plugin_openai import Exchange


def fitting(schema):
    """The first value that a schema lets through."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema["type"]:
        case "object":
            return {key: fitting(value) for key, value in schema["properties"].items()}
        case "array":
            return [fitting(schema["items"])] * schema.get("minItems", 1)
        case "integer":
            return 70
        case _:
            return "fine"


class FakeOllama:
    """The server: ``chat(handler, body)`` may be replaced by one of its behaviours."""

    def __init__(self):
        self.requests = []
        self.chat = self.obey
        self.models = ["small:latest"]
        self.pulls = threading.Event()
        self.over = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                if self.path == "/api/tags":
                    self.send({"models": [fake.listed(name) for name in fake.models]})
                else:
                    self.send("404 page not found", 404)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.requests.append((self.path, self.headers, body))
                with contextlib.suppress(OSError):
                    if self.path == "/api/chat":
                        fake.chat(self, body)
                    elif self.path == "/api/pull":
                        fake.pull(self, body)
                    else:
                        self.send("404 page not found", 404)

            def send(self, document, status=200):
                text = document if isinstance(document, str) else json.dumps(document)
                self.send_response(status)
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = True

            def handle_error(self, request, client_address):
                pass

        self._server = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self):
        self.over.set()
        self.pulls.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @staticmethod
    def listed(name):
        return {
            "name": name,
            "model": name,
            "modified_at": "2023-12-07T09:32:18.757212583-08:00",
            "size": 3825819519,
            "digest": "fe938a131f40e6f6d40083c9f0f430a515233eb2edaa6d72eb85c50d64f2300e",
            "details": {
                "format": "gguf",
                "family": "llama",
                "families": None,
                "parameter_size": "7B",
                "quantization_level": "Q4_0",
            },
        }

    @property
    def chats(self):
        return [body for path, _, body in self.requests if path == "/api/chat"]

    # --- /api/chat --------------------------------------------------------------------

    def say(self, handler, content, *, thinking=None, reason="stop", tokens=(26, 12), **more):
        message = {"role": "assistant", "content": content}
        if thinking is not None:
            message["thinking"] = thinking
        handler.send(
            {
                "model": "small",
                "created_at": "2024-12-06T00:46:58.265747Z",
                "message": message,
                "done_reason": reason,
                "done": True,
                "total_duration": 2254970291,
                "load_duration": 574751416,
                "prompt_eval_count": tokens[0],
                "prompt_eval_duration": 1502000000,
                "eval_count": tokens[1],
                "eval_duration": 175000000,
                **more,
            }
        )

    def _written(self, body):
        return json.dumps(fitting(body["format"]) if body["format"] != "json" else {"a": "red"})

    def obey(self, handler, body):
        if body["model"].partition(":")[0] not in {m.partition(":")[0] for m in self.models}:
            handler.send({"error": f"model '{body['model']}' not found"}, 404)
        else:
            self.say(handler, self._written(body))

    def pass_over_format(self, handler, body):
        self.say(handler, "The colour is red.")

    def obey_where_think_is_not_sent(self, handler, body):
        if "think" in body:
            self.say(handler, "Sure: red.")
        else:
            self.say(handler, self._written(body), thinking="Let me see.")

    def answer_among_thoughts(self, handler, body):
        self.say(handler, "", thinking=self._written(body))

    def refuse_think(self, handler, body):
        if "think" in body:
            handler.send({"error": f'"{body["model"]}" does not support thinking'}, 400)
        else:
            self.obey(handler, body)

    def missing_as_400(self, handler, body):
        handler.send({"error": "model is required"}, 400)

    # --- /api/pull --------------------------------------------------------------------

    def pull(self, handler, body):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n")
        handler.close_connection = True

        def tell(**said):
            handler.wfile.write(json.dumps(said).encode() + b"\n")
            handler.wfile.flush()

        tell(status="pulling manifest")
        if body["model"] == "nobody-made-it":
            tell(error="pull model manifest: file does not exist")
            return
        tell(status="pulling 74701a8c35f6", digest="sha256:74701a8c35f6", total=2_000_000)
        tell(
            status="pulling 74701a8c35f6",
            digest="sha256:74701a8c35f6",
            total=2_000_000,
            completed=840_000,
        )
        self.pulls.wait()
        if self.over.is_set():
            return
        self.models.append(body["model"])
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            tell(status=status)


@pytest.fixture
def ollama():
    fake = FakeOllama()
    yield fake
    fake.close()


@pytest.fixture
def dead_url():
    """The address of a port that nobody listens on."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    """Nothing of whoever runs the tests."""
    for name in ("OLLAMA_HOST", "LLM_MODEL", "HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make_chat(ollama):
    """Build an `OllamaChat`, and close it at the end."""
    with contextlib.ExitStack() as cleanup:

        def make(model="small", **keys):
            chat = OllamaChat(Server(Exchange(ollama.url), ollama.url), model, **keys)
            cleanup.callback(chat.close)
            return chat

        yield make


@pytest.fixture
def make_reasoner(linnix_context, ollama):
    """Build a reasoner from keys, and stop it at the end."""
    made = []

    def make(context=None, **keys):
        if "deployment" not in keys:
            keys = {"host": ollama.url, "model": "small", **keys}
        context = context or linnix_context("reasoners.ollama")
        reasoner = OllamaReasoner(OllamaConfig(**keys), context)
        made.append(reasoner)
        return reasoner

    yield make
    for reasoner in made:
        reasoner.linnix_stop(deadline=time.monotonic() + 60)
