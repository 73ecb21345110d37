"""A real agent that is asked, and a stand-in for a model server."""

import contextlib
import functools
import json
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from linnix_core import (
    Alert,
    Evidence,
    LinnixError,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    Subject,
    SystemSample,
    hookimpl,
)
from linnix_core.testing.waiting import eventually
from linnix_plugin_heuristics import HeuristicsReasoner
from linnix_plugin_http import HttpHandler

#: Seconds for what takes milliseconds on a machine with nothing else to do.
PATIENCE_S = 30.0

#: A name that clears the screen, ends a line, turns the direction, and is rich's markup.
HOSTILE = "\x1b[2J\n\u202e[red]evil[/red]"
SHOWN = r"\x1b[2J\x0a\u202e[red]evil[/red]"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("LINNIX_URL", "LINNIX_API_TOKEN", "LLM_ENDPOINT", "LLM_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def linnix():
    """Run a command in this process and return what it printed; a mistake is raised."""

    def run(name, *arguments, code=0, **environment):
        (found,) = entry_points(group="linnix.commands", name=name)
        result = CliRunner().invoke(found.load(), arguments, env=environment)
        if isinstance(result.exception, LinnixError):
            raise result.exception
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return Said(result)

    return run


class Said(str):
    """Standard output; ``remarks`` is standard error."""

    __slots__ = ("remarks",)

    def __new__(cls, result):
        """Of a `click.testing.Result`."""
        said = super().__new__(cls, result.stdout)
        said.remarks = result.stderr
        return said

    def json(self):
        return json.loads(self)


# --- an agent ------------------------------------------------------------------------------


class Feed:
    """A collector that emits what a test puts in."""

    def __init__(self):
        self._records = queue.Queue()

    def __call__(self, *records):
        self._records.put(records)

    @hookimpl
    def linnix_collect(self, sink, stop):
        while not stop.is_set():
            with contextlib.suppress(queue.Empty):
                sink.emit_many(self._records.get(timeout=0.02))


class Running:
    """A real agent with the HTTP API, on a TCP port and on a unix socket."""

    def __init__(self, agent, feed, socket):
        self.agent, self.feed = agent, feed
        self.socket = f"unix://{socket}"
        found = next(c.instance for c in agent.host.components if c.name == "http")
        self.url = found.urls[0]

    def alert(self, *, wait=True, **parts):
        """Have a rule fire; returns when the incident is there, and explained."""
        known = {
            "rule": "fork_storm",
            "class_": "fork_storm",
            "severity": "high",
            "message": "212 forks in 5 s by sh (pid 10)",
            "subject": Subject(
                key=ProcessKey(boot_id(), 10, 100_000_000), comm="sh", exe="/bin/sh"
            ),
            "evidence": (Evidence("forks", 212, "forks"), Evidence("limit", 100, "forks")),
            "ts_ns": time.time_ns(),
        }
        self.agent.submit(Alert(**(known | parts)))
        if wait:
            assert self.agent.wait_idle(PATIENCE_S)

    @property
    def handled(self):
        """Records that the API has taken in."""
        (found,) = (c for c in self.agent.status() if c.component == "handlers.http")
        return found.counters["handled"]

    def until(self, happened):
        """Wait for something that the agent is about to do."""
        eventually(happened, said=self.agent.status)

    @property
    def incident(self):
        """The id of the only incident."""
        (incident,) = self.agent.incidents.recent()
        return incident.id


@pytest.fixture
def start_agent(linnix_runtime, tmp_path):
    """Start an agent that knows these records; ``http`` are keys of its API."""

    def start(*records, http=None, handlers=None):
        feed = Feed()
        socket = tmp_path / "api.sock"
        options = {"listen": "127.0.0.1:0", "unix_socket": str(socket), **(http or {})}
        agent = linnix_runtime(
            collectors={"feed": feed},
            handlers={"http": HttpHandler, **(handlers or {})},
            reasoners={"heuristics": HeuristicsReasoner},
            options={"handlers.http": options},
            records=records,
        )
        assert agent.wait_idle(PATIENCE_S)
        return Running(agent, feed, socket)

    return start


@pytest.fixture
def agent(start_agent):
    """An agent of a machine with init, a shell below it, and two workers below that."""
    return start_agent(*family())


def boot_id():
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def event(pid, ppid=None, comm="worker", kind="fork", **more):
    known = {
        "start_ns": pid * 10_000_000,
        "ppid": ppid,
        "parent_start_ns": None if ppid is None else ppid * 10_000_000,
        "uid": 1000,
        "comm": comm,
        "exe": f"/usr/bin/{comm}",
        "args": (comm, "-x"),
        "cgroup": f"/system.slice/{comm}.service",
        "ts_ns": time.time_ns(),
        "boot_id": boot_id(),
    }
    return ProcessEvent(kind, pid=pid, **(known | more))


def sample(pid, cpu, rss, **more):
    return ProcessSample(
        pid=pid, start_ns=pid * 10_000_000, interval_ns=10**9, comm="x", cpu_percent=cpu,
        rss_bytes=rss, threads=2, fds=9, state="S", ts_ns=time.time_ns(), boot_id=boot_id(), **more,
    )  # fmt: skip


def family():
    return [
        event(1, None, "init", "seen"),
        event(10, 1, "sh"),
        event(11, 10, "worker"),
        event(12, 10, HOSTILE, exe=f"/usr/bin/{HOSTILE}", args=(HOSTILE, "--token=hunter2")),
        sample(11, 150.0, 2**20),
        sample(12, 50.0, 2**30),
        SystemSample(
            interval_ns=10**9, cpus=4, cpu_percent=25.0, memory_total_bytes=8 * 2**30,
            memory_available_bytes=6 * 2**30, load1=1.0, load5=0.5, load15=0.25,
            ts_ns=time.time_ns(),
        ),
    ]  # fmt: skip


@pytest.fixture
def make():
    """Makers of records: ``make.event(pid, ppid, comm)``, ``make.sample(pid, cpu, rss)``."""
    return SimpleNamespace(event=event, sample=sample)


# --- a model server ------------------------------------------------------------------------


class ModelServer(ThreadingHTTPServer):
    """Answers as OpenAI's chat completions and llama.cpp's server do, or as a test wants."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Model)
        self.requests = []
        self.answer = "java spins."
        self.replies = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def asked(self):
        """The bodies of the questions."""
        return [body for method, path, headers, body in self.requests if method == "POST"]


class _Model(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.requests.append(("GET", self.path, dict(self.headers), None))
        self._send(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(("POST", self.path, dict(self.headers), body))
        if self.server.replies:
            reply = self.server.replies.pop(0)
            if callable(reply):
                reply(self)
            else:
                self._send(*reply)
        elif body.get("stream"):
            self._stream(body["model"])
        else:
            message = {"role": "assistant", "content": self.server.answer}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
            self._send(200, {"model": body["model"], "choices": [choice], "usage": usage})

    def _send(self, code, document, **headers):
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(code)
        self.send_header("content-type", headers.pop("content_type", "application/json"))
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, model):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        words = self.server.answer
        for start in range(0, len(words), 4):
            self._event(model, {"content": words[start : start + 4]}, None)
        self._event(model, {}, "stop")
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, model, delta, finish):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        data = json.dumps({"model": model, "choices": [choice]})
        self.wfile.write(f"data: {data}\n\n".encode())


@pytest.fixture
def serving():
    """Serve HTTP from a thread until the test ends."""
    servers = []

    def serve(server):
        thread = threading.Thread(
            target=functools.partial(server.serve_forever, poll_interval=0.02), daemon=True
        )
        thread.start()
        servers.append((server, thread))
        return server

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def model(serving):
    """A model server; ``answer`` is what it says, ``replies`` what comes before that."""
    return serving(ModelServer())
