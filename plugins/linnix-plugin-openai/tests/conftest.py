"""A server that behaves as a test wants: on a real socket, spoken to by the real client."""

import contextlib
import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from linnix_plugin_openai import Chat, Exchange, OpenAIConfig, OpenAIReasoner


def form_of(body):
    """What a request asks its reply to look like, by the names of the plugin."""
    wanted = body.get("response_format")
    if wanted is None:
        return "text"
    if wanted["type"] == "json_object" and "schema" in wanted:
        return "json_object with schema"
    return wanted["type"]


def schema_of(body):
    wanted = body.get("response_format") or {}
    return wanted.get("schema") or wanted.get("json_schema", {}).get("schema")


def fitting(schema):
    """The first value that a schema lets through, as a grammar makes a model write it."""
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


def reply(text, *, reason="stop", usage=(11, 5), **message):
    """A chat completion as OpenAI documents it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "stand-in",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": reason,
            }
        ],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]},
    }


class StandIn:
    """The server. ``answer(handler, body)`` may be replaced; the default obeys every schema."""

    form_of = staticmethod(form_of)
    schema_of = staticmethod(schema_of)
    fitting = staticmethod(fitting)
    reply = staticmethod(reply)

    def __init__(self, tls=None):
        self.requests = []
        self.answer = self.obey
        self.over = threading.Event()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                stand_in.requests.append(("GET", self.path, self.headers, None))
                stand_in.get(self)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                stand_in.requests.append(("POST", self.path, self.headers, body))
                # Whoever asks may hang up first.
                with contextlib.suppress(OSError):
                    stand_in.answer(self, body)

            def send(self, document, status=200, **headers):
                text = document if isinstance(document, str) else json.dumps(document)
                self.send_response(status)
                self.send_header("content-length", str(len(text.encode())))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(text.encode())

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = True

            def handle_error(self, request, client_address):
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self):
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def get(self, handler):
        handler.send({"object": "list", "data": [{"id": "first-model"}, {"id": "second"}]})

    def obey(self, handler, body):
        schema = schema_of(body)
        handler.send(reply(json.dumps(fitting(schema)) if schema else "a colour: red"))

    def enforcing(self, *enforced, refused=(), status=400):
        """Enforce these forms, refuse those, and take the others without a care."""

        def answer(handler, body):
            form = form_of(body)
            if form in refused:
                handler.send({"error": {"message": f"no {form} here"}}, status)
            elif form in enforced:
                self.obey(handler, body)
            elif form.startswith("json_object"):
                handler.send(reply('{"colour": "red"}'))
            else:
                handler.send(reply("Red, I would say."))

        self.answer = answer

    @property
    def bodies(self):
        return [body for method, _, _, body in self.requests if method == "POST"]

    @property
    def headers(self):
        return [headers for _, _, headers, _ in self.requests]


@pytest.fixture
def stand_in():
    server = StandIn()
    yield server
    server.close()


@pytest.fixture
def tls_stand_in(tmp_path):
    """The same behind TLS, with ``ca_file``: the authority of its certificate."""
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = StandIn(context)
    server.ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(server.ca_file))
    yield server
    server.close()


@pytest.fixture
def make_chat():
    """Build a `Chat` from an address and keys, and close it at the end."""
    with contextlib.ExitStack() as cleanup:

        def make(url, *, api_key="", proxy=None, ca_file=None, **keys):
            exchange = Exchange(url, api_key=api_key, proxy=proxy, ca_file=ca_file)
            chat = Chat(exchange, url, **{"model": "stand-in", **keys})
            cleanup.callback(chat.close)
            return chat

        yield make


@pytest.fixture
def dead_url():
    """The address of a port that nobody listens on."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    """Nothing of whoever runs the tests."""
    for name in ("LLM_ENDPOINT", "LLM_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def make_reasoner(linnix_context):
    """Build a reasoner from keys, and stop it at the end."""
    made = []

    def make(context=None, **keys):
        context = context or linnix_context("reasoners.openai")
        reasoner = OpenAIReasoner(OpenAIConfig(**keys), context)
        made.append(reasoner)
        return reasoner

    yield make
    for reasoner in made:
        reasoner.linnix_stop(deadline=time.monotonic() + 60)
