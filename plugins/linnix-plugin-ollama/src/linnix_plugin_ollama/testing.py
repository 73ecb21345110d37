"""A stand-in for Ollama, for the tests of whoever talks to one.

The shapes are those of Ollama's ``docs/api.md`` and of its server. What models do with ``format``
and ``think`` is from reports in its tracker: a thinking model that obeys the schema only where
``think`` is not sent (14645, 15260), one whose whole reply is among its thoughts (10929), weights
for which the schema is passed over (17183), and 400 for a model that is missing (14949). Go
templates are kept and shown, not run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from linnix_core import LinnixError
from linnix_plugin_ollama.names import full_name
from linnix_plugin_ollama.templates import RAW, read_chat_template

__all__ = ["CHATML_JINJA", "FakeOllama", "Kept", "Request", "fitting"]

CHUNK = 1 << 20

#: The one chat template of a GGUF that the stand-in knows, as Ollama knows some dozens.
CHATML_JINJA = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

#: What ``quantize`` may be, and what it needs (ollama/ollama, docs/api.md).
_QUANTIZE = ("Q4_K_S", "Q4_K_M", "Q8_0")


class Request(NamedTuple):
    """What was asked: ``body`` is a JSON object, or the number of bytes of something else."""

    path: str
    headers: Message
    body: Any


@attrs.define
class Kept:
    """A model of the stand-in."""

    weights: str
    template: str = RAW
    system: str = ""
    parameters: dict[str, Any] = attrs.field(factory=dict)
    level: str = "Q4_0"

    @property
    def manifest(self) -> str:
        """A digest that changes with everything about the model."""
        text = json.dumps(attrs.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def fitting(schema: Mapping[str, Any]) -> Any:
    """The first value that a schema lets through."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema["type"]:
        case "object":
            return {key: fitting(value) for key, value in schema["properties"].items()}
        case "array":
            return [fitting(schema["items"])] * int(schema.get("minItems", 1))
        case "integer":
            return 70
        case _:
            return "fine"


class Handler(BaseHTTPRequestHandler):
    """One connection; `FakeOllama` decides."""

    protocol_version = "HTTP/1.1"
    fake: FakeOllama

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """Lists."""
        self.fake.requests.append(Request(self.path, self.headers, {}))
        self._guarded(lambda: self.fake.get(self))

    def do_HEAD(self) -> None:
        """Whether a blob is there."""
        self.fake.requests.append(Request(self.path, self.headers, {}))
        there = self.fake.blob(self.path.rpartition("/")[2]).exists()
        self._guarded(lambda: self.send("", 200 if there else 404))

    def do_POST(self) -> None:
        """Everything else."""
        if self.path.startswith("/api/blobs/"):
            self._guarded(lambda: self.fake.take_blob(self))
            return
        body = self.document()
        self.fake.requests.append(Request(self.path, self.headers, body))
        self._guarded(lambda: self.fake.post(self, body))

    def do_DELETE(self) -> None:
        """A model goes."""
        body = self.document()
        self.fake.requests.append(Request(self.path, self.headers, body))
        self._guarded(lambda: self.fake.delete(self, body))

    def document(self) -> Any:
        """The JSON that was sent."""
        length = int(self.headers["content-length"] or 0)
        return json.loads(self.rfile.read(length) or b"{}")

    def send(self, document: Any, status: int = 200) -> None:
        """Answer with JSON, or with a text as it is."""
        text = document if isinstance(document, str) else json.dumps(document)
        self.send_response(status)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def stream(self) -> Callable[..., None]:
        """Begin a successful answer, and return what adds a line to it."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n")
        self.close_connection = True

        def tell(**said: Any) -> None:
            self.wfile.write(json.dumps(said).encode() + b"\n")
            self.wfile.flush()

        return tell

    def _guarded(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            work()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that goes away is no news."""


class FakeOllama:
    """The server, on a free port. ``chat`` may be replaced by one of its behaviours.

    ``infer(path, body)`` answers a chat with the weights at that path; without it, what is
    said is the first that the schema lets through.
    """

    def __init__(self, infer: Callable[[Path, Mapping[str, Any]], str] | None = None) -> None:
        self.requests: list[Request] = []
        self.chat: Callable[[Handler, Any], None] = self.obey
        self.create: Callable[[Handler, Any], None] = self.make
        self.infer = infer
        self.folder = Path(tempfile.mkdtemp(prefix="linnix-fake-ollama-"))
        self.models = {"small:latest": Kept(f"sha256:{'5' * 64}")}
        self.loaded: set[str] = set()
        self.version = "0.12.6"
        self.pulls = threading.Event()
        self.over = threading.Event()
        handler = type("FakeHandler", (Handler,), {"fake": self})
        self._server = _Listener(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """End it, and whoever waits for it."""
        self.over.set()
        self.pulls.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        shutil.rmtree(self.folder)

    @property
    def chats(self) -> list[Any]:
        """What was asked of models."""
        return [body for path, _, body in self.requests if path == "/api/chat"]

    def asked(self, path: str) -> list[Any]:
        """The bodies of the requests whose path begins so."""
        return [request.body for request in self.requests if request.path.startswith(path)]

    def blob(self, digest: str) -> Path:
        """Where a file of that digest is kept."""
        return self.folder / digest.replace(":", "-")

    # --- routes -----------------------------------------------------------------------

    def get(self, handler: Handler) -> None:
        """Answer a GET."""
        match handler.path:
            case "/":
                handler.send("Ollama is running")
            case "/api/version":
                handler.send({"version": self.version})
            case "/api/tags":
                handler.send({"models": [self.listed(name) for name in self.models]})
            case "/api/ps":
                handler.send({"models": [self.listed(name) for name in sorted(self.loaded)]})
            case _:
                handler.send("404 page not found", 404)

    def post(self, handler: Handler, body: Any) -> None:
        """Answer a POST of JSON."""
        match handler.path:
            case "/api/chat":
                self.chat(handler, body)
            case "/api/generate":
                self.load(handler, body)
            case "/api/show":
                self.show(handler, body)
            case "/api/create":
                self.create(handler, body)
            case "/api/pull":
                self.pull(handler, body)
            case _:
                handler.send("404 page not found", 404)

    def delete(self, handler: Handler, body: Any) -> None:
        """Answer a DELETE."""
        name = _named(body)
        if handler.path != "/api/delete":
            handler.send("404 page not found", 404)
        elif self.models.pop(name, None) is None:
            self.missing(handler, body)
        else:
            self.loaded.discard(name)
            handler.send("")

    @staticmethod
    def missing(handler: Handler, body: Any) -> None:
        """There is no such model."""
        handler.send({"error": f"model '{body.get('model') or body.get('name')}' not found"}, 404)

    def listed(self, name: str) -> dict[str, Any]:
        """A model as lists have it."""
        kept = self.models[name]
        blob = self.blob(kept.weights)
        return {
            "name": name,
            "model": name,
            "modified_at": "2023-12-07T09:32:18.757212583-08:00",
            "size": blob.stat().st_size if blob.exists() else 3825819519,
            "digest": kept.manifest,
            "details": self.details(kept),
        }

    @staticmethod
    def details(kept: Kept) -> dict[str, Any]:
        """What a model is, in a few words."""
        return {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": None,
            "parameter_size": "7B",
            "quantization_level": kept.level,
        }

    def show(self, handler: Handler, body: Any) -> None:
        """Everything about a model."""
        kept = self.models.get(_named(body))
        if kept is None:
            self.missing(handler, body)
            return
        handler.send(
            {
                "modelfile": '# Modelfile generated by "ollama show"\n# To build a new Modelfile '
                f"based on this, replace FROM with:\n# FROM {body['model']}\n\n"
                f'FROM {self.blob(kept.weights)}\nTEMPLATE """{kept.template}"""\n',
                "parameters": "\n".join(
                    f"{key:30} {kept.parameters[key]}" for key in kept.parameters
                ),
                "template": kept.template,
                "system": kept.system,
                "details": self.details(kept),
                "model_info": {"general.architecture": "llama"},
                "capabilities": ["completion"],
            }
        )

    # --- models come ------------------------------------------------------------------

    def take_blob(self, handler: Handler) -> None:
        """Keep a file, if it has the digest that it should have."""
        digest = handler.path.rpartition("/")[2]
        length = int(handler.headers["content-length"])
        self.requests.append(Request(handler.path, handler.headers, length))
        target = self.blob(digest)
        partial = target.with_suffix(".partial")
        read = hashlib.sha256()
        with partial.open("wb") as file:
            while length > 0 and (chunk := handler.rfile.read(min(CHUNK, length))):
                read.update(chunk)
                file.write(chunk)
                length -= len(chunk)
        found = f"sha256:{read.hexdigest()}"
        if found != digest:
            partial.unlink()
            said = f'digest mismatch, expected "{digest}", got "{found}"'
            handler.send({"error": said}, 400)
            return
        was_there = target.exists()
        partial.replace(target)
        handler.send("", 200 if was_there else 201)

    def make(self, handler: Handler, body: Any) -> None:
        """Make a model of files, or of another model; errors are in a stream of status 200."""
        files, source = body.get("files"), body.get("from")
        try:
            name = _named(body)
        except LinnixError:
            handler.send({"error": "invalid model name"}, 400)
            return
        if not files and not source:
            handler.send({"error": "neither 'from' or 'files' was specified"}, 400)
            return
        if any(path.startswith("/") for path in files or ()):
            handler.send({"error": "file path must be relative"}, 400)
            return
        if body.get("stream") is False:
            *_, last = self._making(name, files or {}, source, body)
            handler.send(last, 500 if "error" in last else 200)
            return
        tell = handler.stream()
        for line in self._making(name, files or {}, source, body):
            tell(**line)

    def _making(
        self, name: str, files: Mapping[str, str], source: str | None, body: Any
    ) -> Iterator[dict[str, Any]]:
        level = str(body.get("quantize") or "").upper()
        if source:
            made = attrs.evolve(self.models[full_name(source)])
        else:
            yield {"status": "parsing GGUF"}
            ((_, weights),) = files.items()
            path = self.blob(weights)
            if not path.exists():
                yield {"error": f"open {path}: no such file or directory"}
                return
            with path.open("rb") as file:
                if file.read(4) != b"GGUF":
                    yield {"error": "invalid file magic"}
                    return
            if level and level not in _QUANTIZE:
                said = f"unsupported quantization type {level} - supported types are"
                yield {"error": f"{said} F32, F16, {', '.join(_QUANTIZE)}"}
                return
            yield {"status": f"using existing layer {weights}"}
            made = Kept(weights)
            if read_chat_template(path) == CHATML_JINJA:
                yield {"status": "using autodetected template chatml"}
                made.template = "{{ range .Messages }}(chatml){{ end }}"
            if level:
                yield {"status": f"quantizing F16 model to {level}"}
                # What it makes of a file is another file.
                text = path.read_bytes() + level.encode()
                made.weights = f"sha256:{hashlib.sha256(text).hexdigest()}"
                made.level = level
                self.blob(made.weights).write_bytes(text)
        made.template = body.get("template") or made.template
        made.system = body.get("system") or made.system
        made.parameters.update(body.get("parameters") or {})
        yield {"status": "writing manifest"}
        self.models[name] = made
        yield {"status": "success"}

    def load(self, handler: Handler, body: Any) -> None:
        """Bring a model into memory: what ``/api/generate`` does without a prompt."""
        name = _named(body)
        if name not in self.models:
            self.missing(handler, body)
            return
        self.loaded.add(name)
        handler.send({"model": body["model"], "response": "", "done": True, "done_reason": "load"})

    def pull(self, handler: Handler, body: Any) -> None:
        """Download a model, when ``pulls`` is set."""
        tell = handler.stream()
        name = _named(body)
        tell(status="pulling manifest")
        if name.startswith("nobody-made-it"):
            tell(error="pull model manifest: file does not exist")
            return
        layer = {"status": "pulling 74701a8c35f6", "digest": "sha256:74701a8c35f6"}
        tell(**layer, total=2_000_000)
        tell(**layer, total=2_000_000, completed=840_000)
        self.pulls.wait()
        if self.over.is_set():
            return
        self.models[name] = Kept(f"sha256:{'7' * 64}")
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            tell(status=status)

    # --- /api/chat --------------------------------------------------------------------

    def say(
        self,
        handler: Handler,
        content: str,
        *,
        thinking: str | None = None,
        reason: str = "stop",
        tokens: tuple[int, int] = (26, 12),
        model: str = "small",
        **more: Any,
    ) -> None:
        """Answer with a reply."""
        message = {"role": "assistant", "content": content}
        if thinking is not None:
            message["thinking"] = thinking
        handler.send(
            {
                "model": model,
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

    def written(self, body: Any) -> str:
        """What a model says that obeys."""
        path = self.blob(self.models[_named(body)].weights)
        if self.infer is not None and path.exists():
            return self.infer(path, body)
        wanted = body.get("format")
        return json.dumps(fitting(wanted) if isinstance(wanted, dict) else {"a": "red"})

    def obey(self, handler: Handler, body: Any) -> None:
        """Reply as the schema says."""
        name = _named(body)
        if name not in self.models:
            self.missing(handler, body)
            return
        self.loaded.add(name)
        self.say(handler, self.written(body), model=body["model"])

    def pass_over_format(self, handler: Handler, body: Any) -> None:
        """Reply as if there were no schema."""
        self.say(handler, "The colour is red.", model=body["model"])

    def obey_where_think_is_not_sent(self, handler: Handler, body: Any) -> None:
        """Pass over the schema where ``think`` is mentioned."""
        if "think" in body:
            self.say(handler, "Sure: red.", model=body["model"])
        else:
            self.say(handler, self.written(body), thinking="Let me see.", model=body["model"])

    def answer_among_thoughts(self, handler: Handler, body: Any) -> None:
        """Put the whole reply among the thoughts."""
        self.say(handler, "", thinking=self.written(body), model=body["model"])

    def refuse_think(self, handler: Handler, body: Any) -> None:
        """Know no ``think``."""
        if "think" in body:
            handler.send({"error": f'"{body["model"]}" does not support thinking'}, 400)
        else:
            self.obey(handler, body)

    def missing_as_400(self, handler: Handler, body: Any) -> None:
        """Say in another way that there is no such model."""
        handler.send({"error": "model is required"}, 400)


def _named(body: Any) -> str:
    # "name" is what older clients send.
    return full_name(body.get("model") or body.get("name") or "")
