"""A stand-in for the halext backend, as it was observed, and for a gateway.

Every quirk that was seen with the public backend (its version 0.2.0) is here, and ``fixed`` is
how it would be without them. Nodes are stand-ins for Ollama; the backend really asks them.
"""

import contextlib
import hashlib
import json
import re
import struct
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from linnix_core import ModelSpec, Secret
from linnix_plugin_halext import HalextConfig, HalextDeployer
from linnix_plugin_ollama.testing import FakeOllama

MOCK = "I am a mock AI assistant. Connect me to a real backend to get started!"


class Fault(Exception):
    """An answer that is no success."""

    def __init__(self, status, detail):
        super().__init__(detail)
        self.status, self.detail = status, detail


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True

    def handle_error(self, request, client_address):
        pass


class Server:
    """What answers on a free port; ``answer(method, path, query, body, headers)`` decides."""

    def __init__(self):
        self.requests = []
        self.over = threading.Event()
        # What it asks others with: no TLS, no proxies, no connections that stay.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(verify=False, trust_env=False, timeout=10, limits=limits)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def work(self):
                length = int(self.headers["content-length"] or 0)
                raw = self.rfile.read(length)
                server.requests.append((self.command, self.path, self.headers, raw))
                parts = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(parts.query))
                try:
                    status, body, more = server.answer(
                        self.command, parts.path, query, raw, self.headers
                    )
                except Fault as fault:
                    status, body, more = fault.status, {"detail": fault.detail}, {}
                with contextlib.suppress(OSError):
                    self.send(status, body, more)

            do_GET = do_POST = do_PUT = do_DELETE = work  # noqa: N815

            def send(self, status, body, more):
                data = body if isinstance(body, str) else json.dumps(body)
                data = data.encode() if status != 204 else b""
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self):
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.http.close()


class FakeHalext(Server):
    """The backend. ``fixed`` takes its quirks away."""

    def __init__(self, *, fixed=False):
        self.fixed = fixed
        self.users = {"admin": {"password": "hunter2 &=", "is_admin": True}}
        self.tokens = {}
        self.logins = 0
        self.rows = {}
        self.default_model = "gemini:gemini-2.5-flash"
        self.replaced = {}  # path of the API -> what answers in place of it
        super().__init__()

    # --- routing ----------------------------------------------------------------------

    def answer(self, method, path, query, raw, headers):
        bare = path.removeprefix("/api") or "/"  # every route is there with and without
        if bare in self.replaced:
            return self.replaced[bare]
        if len(bare) > 1 and bare.endswith("/") and bare != "/users/":
            return 307, "", {"location": path.rstrip("/")}
        for pattern, verb, needs, work in self.routes():
            match = re.fullmatch(pattern, bare)
            if match and verb == method:
                user = self.who(headers) if needs else None
                if needs == "admin" and not user["is_admin"]:
                    raise Fault(403, "Admin access required")
                if bare == "/token":
                    return 200, work(dict(urllib.parse.parse_qsl(raw.decode()))), {}
                body = json.loads(raw) if raw else {}
                made = work(*match.groups(), body)
                return made if isinstance(made, tuple) else (200, made, {})
        raise Fault(404, "Not Found")

    def routes(self):
        node = r"/admin/ai-clients/(\d+)"
        return [
            ("/version", "GET", None, self.version),
            ("/health", "GET", None, lambda _: {"status": "healthy", "version": "0.2.0"}),
            ("/token", "POST", None, self.log_in),
            ("/users/", "POST", None, self.add_user),
            ("/admin/ai-clients", "GET", "admin", lambda _: self.shown(list(self.rows))),
            ("/admin/ai-clients", "POST", "admin", self.add_node),
            ("/admin/ai-clients/health-check-all", "POST", "admin", self.check_all),
            (node, "GET", "admin", lambda i, _: self.shown(self.row(i)["id"])),
            (node, "PUT", "admin", self.change),
            (node, "DELETE", "admin", self.remove_node),
            (f"{node}/test", "POST", "admin", self.test),
            (f"{node}/models", "GET", "admin", self.models_of),
            (f"{node}/info", "GET", "admin", self.info),
            (f"{node}/pull-model", "POST", "admin", self.pull),
            (f"{node}/delete-model", "POST", "admin", self.delete_model),
            ("/ai/models", "GET", "user", self.models),
            ("/admin/ai/default-model", "POST", "admin", self.choose_default),
            ("/ai/chat", "POST", "user", self.chat),
            ("/ai/chat/stream", "POST", "user", self.stream),
            ("/ai/embeddings", "POST", "user", self.embed),
        ]  # fmt: skip

    def version(self, _):
        return {
            "version": "0.2.0-refactored",
            "api_name": "Halext Org API",
            "docs_url": "/docs",
            "features": ["distributed_ai_nodes"],
        }

    # --- users ------------------------------------------------------------------------

    def log_in(self, form):
        for name in ("username", "password"):
            if name not in form:
                raise Fault(422, [{"type": "missing", "loc": ["body", name], "input": form}])
        user = self.users.get(form["username"])
        if user is None or user["password"] != form["password"]:
            raise Fault(401, "Incorrect username or password")
        self.logins += 1
        token = f"eyJhbGciOiJIUzI1NiJ9.token{self.logins}.sig"
        self.tokens[token] = form["username"]
        return {"access_token": token, "token_type": "bearer"}

    def add_user(self, body):
        is_admin = bool(body.get("is_admin")) and not self.fixed
        self.users[body["username"]] = {"password": body["password"], "is_admin": is_admin}
        return {"username": body["username"], "is_admin": is_admin}

    def who(self, headers):
        said = headers["authorization"]
        if not said:
            raise Fault(401, "Not authenticated")
        user = self.tokens.get(said.removeprefix("Bearer "))
        if user is None:
            raise Fault(401, "Could not validate credentials")
        return self.users[user]

    # --- nodes ------------------------------------------------------------------------

    def row(self, node_id):
        row = self.rows.get(int(node_id))
        if row is None:
            raise Fault(404, "Client not found")
        return row

    def shown(self, which):
        """Rows as the API shows them: their times are no texts, and nobody expected that."""
        rows = [self.rows[i] for i in (which if isinstance(which, list) else [which])]
        if any(row["last_seen_at"] for row in rows) and not self.fixed:
            return 500, "Internal Server Error", {}
        rows = [{**row, "base_url": self.base(row)} for row in rows]
        return rows if isinstance(which, list) else rows[0]

    @staticmethod
    def base(row):
        return f"http://{row['hostname']}:{row['port']}"

    def add_node(self, body):
        for name in ("name", "node_type", "hostname"):
            if name not in body:
                raise Fault(422, [{"type": "missing", "loc": ["body", name], "input": body}])
        if self.fixed:
            if body["node_type"] not in ("ollama", "openwebui"):
                raise Fault(422, "unknown node_type")
            if any(
                self.base(row) == self.base({"port": 11434, **body}) for row in self.rows.values()
            ):
                raise Fault(409, "there is a node of that address")
        row = {
            "id": max(self.rows, default=0) + 1,
            "port": 11434,
            "is_public": False,
            "node_metadata": {},
            "is_active": True,
            "status": "unknown",
            "last_seen_at": None,
            "capabilities": {},
            "owner_id": 1,
            **{k: v for k, v in body.items() if k != "metadata"},
        }
        self.rows[row["id"]] = row
        self.test(row["id"], {})
        return self.shown(row["id"])

    def change(self, node_id, body):
        row = self.row(node_id)
        allowed = ("name", "is_active", "is_public", "node_metadata")
        row.update({key: body[key] for key in allowed if key in body})
        return self.shown(row["id"])

    def remove_node(self, node_id, _):
        self.rows.pop(self.row(node_id)["id"])
        return 204, "", {}

    def asked(self, row):
        """The names of the models of a node, or what kept it from answering."""
        if row["node_type"] == "openwebui":
            answer = self.http.get(f"{self.base(row)}/api/v1/models")
            return [each["id"] for each in answer.json()["data"]]
        if row["node_type"] != "ollama":
            raise ValueError(f"Unknown node type: {row['node_type']}")
        answer = self.http.get(f"{self.base(row)}/api/tags")
        return [each["name"] for each in answer.json()["models"]]

    def test(self, node_id, _):
        row = self.rows.get(int(node_id))
        if row is None:
            if self.fixed:
                raise Fault(404, "Client not found")
            return 500, "Internal Server Error", {}
        down = {"online": False, "models": None, "model_count": None, "response_time_ms": None}
        try:
            models = self.asked(row)
        except httpx.ConnectError:
            row["status"] = "offline"
            message = "Connection refused - service not running"
            return {**down, "status": "offline", "message": message}
        except (ValueError, KeyError, httpx.HTTPError) as error:
            row["status"] = "error"
            return {**down, "status": "error", "message": str(error)}
        row.update(
            status="online",
            last_seen_at="2025-11-22T10:00:00",
            capabilities={"models": models, "model_count": len(models)},
        )
        return {
            "status": "online",
            "online": True,
            "message": None,
            "models": models,
            "model_count": len(models),
            "response_time_ms": 7,
        }

    def check_all(self, _):
        results = []
        for row in self.rows.values():
            if row["is_active"]:
                found = self.test(row["id"], {})
                results.append({"node_id": row["id"], "name": row["name"], **found})
        return {"results": results}

    def models_of(self, node_id, _):
        row = self.row(node_id)
        if self.fixed:
            return {"models": self.test(row["id"], {})["models"] or []}
        kept = row["capabilities"].get("models")
        return {"models": kept or self.test(row["id"], {})["models"] or []}

    def info(self, node_id, _):
        row = self.row(node_id)
        if row["node_type"] != "ollama":
            return {}
        try:
            version = self.http.get(f"{self.base(row)}/api/version").json()["version"]
            models = self.asked(row)
        except httpx.HTTPError:
            return {"error": "All connection attempts failed"}
        return {
            "version": version,
            "models": models,
            "model_count": len(models),
            "type": "ollama",
            "url": self.base(row),
        }

    def pull(self, node_id, body):
        row = self.row(node_id)
        if row["node_type"] != "ollama":
            raise Fault(400, "Only Ollama nodes support model pulling")
        try:
            answer = self.http.post(f"{self.base(row)}/api/pull", json={"name": body["model_name"]})
        except httpx.HTTPError:
            raise Fault(400, "All connection attempts failed") from None
        if self.fixed:
            for line in answer.text.splitlines():
                if "error" in json.loads(line):
                    raise Fault(400, json.loads(line)["error"])
            self.test(row["id"], {})
        said = f"Started pulling {body['model_name']} on {row['name']}"
        return {"status": "success", "message": said}

    def delete_model(self, node_id, body):
        row = self.row(node_id)
        if not self.fixed:
            raise Fault(400, "AsyncClient.delete() got an unexpected keyword argument 'json'")
        name = {"name": body["model_name"]}
        self.http.request("DELETE", f"{self.base(row)}/api/delete", json=name)
        return {"status": "success"}

    # --- models and chat --------------------------------------------------------------

    def models(self, _):
        entries = [
            {
                "id": f"client:{row['id']}:{name}",
                "name": name,
                "provider": "ollama",
                "size": None,
                "source": "client",
                "node_id": row["id"],
                "node_name": row["name"],
                "endpoint": self.base(row),
            }
            for row in self.rows.values()
            if row["is_active"] and row["status"] == "online"
            for name in row["capabilities"].get("models", ())
        ]
        mocks = [{"id": "mock:llama3.1", "name": "llama3.1", "provider": "mock"}]
        return {"models": entries or ([] if self.fixed else mocks), "provider": "mock"}

    def choose_default(self, body):
        wanted = body["default_model_id"]
        if wanted not in [each["id"] for each in self.models(None)["models"]]:
            raise Fault(400, "Model is not available on this backend")
        self.default_model = wanted
        return self.models(None)

    def chat(self, body):
        if "prompt" not in body:
            raise Fault(422, [{"type": "missing", "loc": ["body", "prompt"], "input": body}])
        text = self.said_by_node(body)
        if text is not None:
            return {"response": text, "model": body["model"], "provider": "client"}
        if self.fixed:
            raise Fault(503, "AI provider timed out")
        known = body["model"].split(":")[1] in map(str, self.rows)
        model = "mock:llama3.1" if known else "mock:mock"
        return {"response": MOCK, "model": model, "provider": "mock"}

    def said_by_node(self, body):
        provider, _, rest = body["model"].partition(":")
        node_id, _, model = rest.partition(":")
        row = self.rows.get(int(node_id)) if provider == "client" and node_id.isdigit() else None
        if row is None:
            return None
        sent = {
            "model": model,
            "messages": [*body.get("history", []), {"role": "user", "content": body["prompt"]}],
            "stream": False,
            "options": {"temperature": 0.7, "num_predict": 2000},
        }
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            answer = self.http.post(f"{self.base(row)}/api/chat", json=sent)
            return answer.raise_for_status().json()["message"]["content"]
        return None

    def stream(self, body):
        text = self.said_by_node(body)
        if text is None and self.fixed:
            raise Fault(503, "AI provider timed out")
        words = (text or MOCK).split(" ")
        lines = "".join(f"data: {word} \n\n" for word in words) + "data: [DONE]\n\n"
        return 200, lines, {"x-halext-ai-model": body["model"]}

    def embed(self, body):
        if self.fixed:
            raise Fault(503, "AI provider timed out")
        return {"embeddings": [0.1] * 384, "model": body.get("model"), "dimension": 384}


class FakeGateway(Server):
    """An OpenAI-style gateway with a key, in front of one node."""

    def __init__(self, node, key="gk"):
        self.node, self.key = node, key
        self.chat = None
        super().__init__()

    def answer(self, method, path, query, raw, headers):
        if not path.startswith("/v1/"):
            raise Fault(404, "Not Found")
        if headers["authorization"] != f"Bearer {self.key}":
            raise Fault(401, "invalid key")
        if path == "/v1/models":
            names = [{"id": name, "object": "model"} for name in self.node.models]
            return 200, {"object": "list", "data": names}, {}
        body = json.loads(raw)
        if self.chat is not None:
            text = self.chat(body)
        else:
            schema = body["response_format"]["json_schema"]["schema"]
            sent = {"model": body["model"], "messages": body["messages"], "format": schema}
            answer = self.http.post(f"{self.node.url}/api/chat", json=sent)
            text = answer.json()["message"]["content"]
        message = {"role": "assistant", "content": text}
        return 200, {"choices": [{"message": message, "finish_reason": "stop"}]}, {}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    """Nothing of whoever runs the tests."""
    for name in ("API_KEY", "ORG_ID", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"HALEXT_{name}", raising=False)
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def node():
    """A halext node: an Ollama server."""
    fake = FakeOllama()
    yield fake
    fake.close()


@pytest.fixture(params=["as observed", "fixed"])
def halext(request):
    """The backend, with its quirks and without."""
    fake = FakeHalext(fixed=request.param == "fixed")
    yield fake
    fake.close()


@pytest.fixture
def observed():
    """The backend with its quirks."""
    fake = FakeHalext()
    yield fake
    fake.close()


@pytest.fixture
def gateway(node):
    """A gateway in front of the node."""
    fake = FakeGateway(node)
    yield fake
    fake.close()


@pytest.fixture
def spec(tmp_path):
    """Make what a command hands to the deployer: ``spec(node_url, **options)``."""

    def make(address, name="oracle-farore", **options):
        def text(value):
            return struct.pack("<Q", len(value)) + value

        path = tmp_path / "oracle.gguf"
        pair = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair)
        known = {
            "model_id": "oracle-farore",
            "base_model": "Qwen/Qwen2.5-1.5B",
            "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
            "node": address,
        }
        return ModelSpec(name, str(path), options={**known, **options})

    return make


@pytest.fixture
def make_deployer(linnix_context):
    """Build a deployer from keys, and stop it at the end."""
    made = []

    def make(**keys):
        keys = {"username": "admin", "password": Secret("hunter2 &="), **keys}
        deployer = HalextDeployer(HalextConfig(**keys), linnix_context("deployers.halext"))
        made.append(deployer)
        return deployer

    yield make
    for deployer in made:
        deployer.linnix_stop(deadline=time.monotonic() + 60)


@pytest.fixture
def add_node(node):
    """Have a backend know a node: ``add_node(halext)``, as somebody did before."""

    def add(halext, name="Node1", url=None, kind="ollama"):
        parts = urllib.parse.urlsplit(url or node.url)
        body = {"name": name, "node_type": kind, "hostname": parts.hostname, "port": parts.port}
        halext.add_node(body)
        return max(halext.rows)

    return add


@pytest.fixture
def dead_url():
    """The address of a server that has gone."""
    server = Server()
    server.close()
    return server.url
