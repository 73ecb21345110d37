"""For the tests of sinks: a story to tell, a service that misbehaves, and a kill between any steps.

service = LocalService()                  # answers as its subclass says, or fails on demand
service.next("reset", (429, {"Retry-After": "0"}))
for steps in kill_everywhere("linnix_plugin_x:XHandler", {"url": service.url}, tmp_path):
    ...                                   # the agent was killed after so many steps, and restarted
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeAlias

import attrs

from linnix_core import (
    Context,
    Evidence,
    Feedback,
    Incident,
    IncidentProcess,
    Insight,
    Origin,
    ProcessKey,
    ProcessView,
    Subject,
)
from linnix_plugin_notify.message import (
    Message,
    message_of,
    test_message,
    with_feedback,
    with_insight,
)

__all__ = ["HOSTILE", "LocalService", "example_messages", "incident", "kill_everywhere", "story"]

#: Names that are markup, mentions, links, orders to a terminal or no text somewhere.
HOSTILE = (
    "<!channel>",
    "<!here|x>",
    "<@U0123456789>",
    "<http://evil.example|click here>",
    "[click here](http://evil.example)",
    "![x](http://evil.example/x.png)",
    "@everyone @here",
    "*bold* _it_ ~gone~ `code`",
    "```\ncode\n```",
    "<b>bold</b><script>alert(1)</script>",
    "&lt;!channel&gt;",
    "\x1b[2J\x1b[31mred",
    "line\nbreak\r\nInjected: header",
    "\u202egnp.exe\u202c",
    "zero\u200bwidth\ufeff",
    "nul\0byte",
    "lone \udcff surrogate",
    "# heading\n- list\n> quote",
    "||spoiler|| :smile: {color:red}x{color}",
    "x" * 5000,
)

_BOOT = "8d9a1c52-boot"
_MINUTE_NS = 60 * 10**9
#: 2026-11-22 04:10:03 UTC.
_BEGAN_NS = 1_795_320_603 * 10**9


def incident(name: str = "backup.sh", **changes: Any) -> Incident:
    """A fork storm by a process of that name, as the core publishes it."""
    key = ProcessKey(_BOOT, 4711, 900_000_000)
    cron = ProcessKey(_BOOT, 700, 10_000_000)
    exe = "/usr/bin/bash" if name == "backup.sh" else f"/tmp/{name}"  # noqa: S108 - a name
    cgroup = "/system.slice/cron.service"
    subject = Subject(key=key, exe=exe, comm=name, cgroup=cgroup)
    parts: dict[str, Any] = {
        "fingerprint": "5f3a11c0d2e4b687",
        "severity": "high",
        "summary": f"{name} (pid 4711) started 812 processes in 5 s",
        "class_": "fork_storm",
        "subject": subject,
        "rules": ("fork_rate",),
        "evidence": (
            Evidence("forks", 812, "forks"),
            Evidence("threshold", 100, "forks"),
            Evidence("window", 5.0, "s"),
        ),
        "peak": (Evidence("forks", 812, "forks"),),
        "actions": ("look at what the process starts",),
        "origin": Origin("cron", "cron", cron),
        "tree": (
            IncidentProcess(cron, "ancestor", comm="cron", exe="/usr/sbin/cron", uid=0),
            IncidentProcess(
                key, "subject", parent=cron, comm=name, exe=exe,
                args=("bash", "/opt/backup.sh", "--password=***"), uid=1000, cgroup=cgroup,
            ),
        ),
        "opened_ns": _BEGAN_NS,
        "updated_ns": _BEGAN_NS,
        "ts_ns": _BEGAN_NS,
        "id": "9f2c-i1",
        "host": "web-1",
        "run_id": "9f2c",
        "boot_id": _BOOT,
    }  # fmt: skip
    return Incident(**{**parts, **changes})


def story(run_id: str = "9f2c", name: str = "backup.sh") -> list[Incident]:
    """One incident as it is published: it opens, gets worse, is over."""
    of_run = {"run_id": run_id, "id": f"{run_id}-i1"}
    later = _BEGAN_NS + 3 * _MINUTE_NS
    over = later + 5 * _MINUTE_NS
    worse = {
        "severity": "critical", "alerts": 31, "updated_ns": later,
        "summary": f"{name} (pid 4711) started 9,204 processes in 5 s",
        "peak": (Evidence("forks", 9204, "forks"),),
    }  # fmt: skip
    return [
        incident(name, **of_run),
        incident(name, **of_run, **worse, change="worse", ts_ns=later),
        incident(name, **of_run, **worse, change="closed", ts_ns=over, closed_ns=over),
    ]


def explanation(run_id: str = "9f2c") -> Insight:
    """Why the incident of the story happened."""
    return Insight(
        "fork_storm", 0.92, "backup.sh (pid 4711)",
        "backup.sh forks 812 times in 5 s and waits for none of them",
        ("stop the cron job of /opt/backup.sh", "limit its cgroup: pids.max"),
        incident=f"{run_id}-i1", reasoner="heuristics", run_id=run_id,
    )  # fmt: skip


def example_messages(name: str = "backup.sh") -> dict[str, Message]:
    """Every sort of message, by what it is an example of."""
    opened, worse, closed = story(name=name)
    key = "linnix-00112233445566778899aabbccddeeff"
    one = message_of(opened, key, paged_ns=_BEGAN_NS)
    explained = with_insight(one, explanation())
    heard = with_feedback(explained, Feedback("9f2c-i1", "useful", by="alice in Slack"))
    over = attrs.evolve(
        message_of(closed, key, paged_ns=_BEGAN_NS), why=explained.why, actions=explained.actions,
        said=heard.said,
    )  # fmt: skip
    again = message_of(attrs.evolve(worse, reopened=1, change="updated"), key, paged_ns=_BEGAN_NS)
    unknown = incident(name, class_=None, rules=("fd_count",), subject=Subject(), tree=(),
                       origin=None, actions=(), peak=(), evidence=())  # fmt: skip
    return {
        "opened": one,
        "explained": attrs.evolve(explained, change="explained", version=2),
        "worse": attrs.evolve(message_of(worse, key), change="worse", version=3),
        "feedback": attrs.evolve(heard, change="explained", version=4),
        "resolved": attrs.evolve(over, change="resolved", version=5),
        "reopened": attrs.evolve(again, change="reopened", version=6),
        "little-known": message_of(unknown, key),
        "test": test_message("web-1", key="linnix-test-00", now_ns=_BEGAN_NS),
    }


# --- a service --------------------------------------------------------------------------

#: A status with headers, or a way to fail.
Answer: TypeAlias = int | tuple[int, Mapping[str, str]] | str


@attrs.frozen
class Request:
    """What a service was sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class LocalService:
    """An HTTP server on this machine that answers as a vendor documents, or fails on demand.

    A subclass answers in `accept`. `next` says how the next requests fare instead: a status
    (with headers), ``"reset"`` (the connection breaks before anything is taken),
    ``"taken-reset"`` (after it was), ``"taken-cut"`` (in the middle of the answer), ``"hang"``
    (no answer until `release` is set), ``"slow"`` (the request is read byte by byte).
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.release = threading.Event()
        self.changed = threading.Condition()
        self._plan: deque[Answer] = deque()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service._serve(self)

            do_GET = do_POST  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that are killed break their connections

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def accept(self, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        """Take a request, and answer."""
        return 200, {"content-type": "application/json"}, b"{}"

    def next(self, *answers: Answer) -> None:
        """How the next requests fare, in their order."""
        self._plan.extend(answers)

    def wait_for(self, count: int, timeout_s: float = 60.0) -> bool:
        """Wait until so many requests have come; whether they have."""
        with self.changed:
            return self.changed.wait_for(lambda: len(self.requests) >= count, timeout_s)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        plan = self._plan.popleft() if self._plan else ""
        length = int(handler.headers.get("content-length") or 0)
        if plan == "slow":
            body = b"".join(handler.rfile.read(1) for _ in range(length))
        else:
            body = handler.rfile.read(length)
        request = Request(handler.command, handler.path, dict(handler.headers.items()), body)
        try:
            self._answer(handler, request, plan)
        finally:
            with self.changed:
                self.requests.append(request)
                self.changed.notify_all()

    def _answer(self, handler: BaseHTTPRequestHandler, request: Request, plan: Answer) -> None:
        if plan == "reset":
            _reset(handler)
            return
        if plan == "hang":
            self.release.wait()
            return
        if isinstance(plan, int):
            plan = (plan, {})
        if isinstance(plan, tuple):
            status, headers, body = *plan, b""
        else:
            status, headers, body = self.accept(request)
        if plan == "taken-reset":
            _reset(handler)
            return
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        if plan == "taken-cut":
            # Not even the headers are whole.
            handler._headers_buffer = [b"".join(handler._headers_buffer)[:12]]  # type: ignore[attr-defined]
            handler.flush_headers()
            _reset(handler)
            return
        handler.end_headers()
        handler.wfile.write(body)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
    handler.wfile = open(os.devnull, "wb")  # noqa: PTH123, SIM115 - what is written there is gone


# --- a kill -----------------------------------------------------------------------------


def kill_everywhere(
    handler: str, options: Mapping[str, Any], folder: Path, *, continues: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Kill an agent that tells the story after 1, 2, 3 … steps, and start it again.

    A step is the beginning or the end of a write to the outbox or of a delivery. The agent that
    is started again resolves what it finds, or, with ``continues``, sees the same incident under
    another id until it is over. Yields how many steps were taken, with their names, after the
    second run; ends with the first run that was not killed. SIGKILL, real processes.
    """
    program = "from linnix_plugin_notify.testing import _runs; _runs()"
    given = {"handler": handler, "options": dict(options), "folder": str(folder),
             "continues": continues}  # fmt: skip
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", program, json.dumps(given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as runs:
        assert runs.stdin is not None
        assert runs.stdout is not None
        for line in runs.stdout:
            said = json.loads(line)
            yield said["steps"], said["names"]
            runs.stdin.write("\n")
            runs.stdin.flush()
            if said["whole"]:
                break
        else:
            raise AssertionError(f"the runs ended with exit code {runs.wait()}")


def _runs() -> None:
    given = json.loads(sys.argv[1])
    from importlib import import_module

    module, _, name = given["handler"].partition(":")
    cls = getattr(import_module(module), name)
    # What is imported once is there in every child.
    cls.open_sink(_configured(cls, given["options"]), logging.getLogger("linnix.test")).close()
    steps = 0
    while True:
        steps += 1
        folder = Path(given["folder"]) / str(steps)
        folder.mkdir(parents=True)
        killed = _in_a_child(lambda f=folder, n=steps: _tell(cls, given["options"], f, n))  # type: ignore[misc]
        names = (folder / "steps").read_text(encoding="utf-8").split()
        _in_a_child(
            lambda f=folder: _recover(cls, given["options"], f, continues=given["continues"])  # type: ignore[misc]
        )
        print(json.dumps({"steps": steps, "names": names, "whole": not killed}), flush=True)  # noqa: T201
        sys.stdin.readline()
        if not killed:
            return


def _in_a_child(run: Callable[[], None]) -> bool:
    """Whether the child was killed."""
    child = os.fork()
    if not child:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if status:
        raise AssertionError(f"a run failed with status {status}")
    return False


def _tell(cls: Any, options: Mapping[str, Any], folder: Path, kill_after: int) -> None:
    """The story, killed after so many steps; each step is noted as it is taken."""
    from linnix_plugin_notify.outbox import Outbox

    taken = 0
    lock = threading.Lock()
    log = os.open(folder / "steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def step(name: str) -> None:
        nonlocal taken
        with lock:
            taken += 1
            os.write(log, f"{name}\n".encode())
            if taken == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

    def watched(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **parts: Any) -> Any:
            step(f"{name}-begins")
            answer = function(*args, **parts)
            step(f"{name}-ended")
            return answer

        return call

    setattr(Outbox, "save", watched(Outbox.save, "save"))  # noqa: B010 - mypy
    handler = _started(cls, options, folder, "first")
    delivery = handler._delivery
    delivery._sink.deliver = watched(delivery._sink.deliver, "deliver")
    for told in story("first"):
        handler.linnix_incident(told)
        _wait_told(delivery)
    handler.linnix_stop(time.monotonic() + 30)


def _recover(cls: Any, options: Mapping[str, Any], folder: Path, *, continues: bool) -> None:
    from linnix_plugin_notify import pages

    if not continues:
        pages.ORPHAN_NS = 0
    handler = _started(cls, options, folder, "second")
    if continues:
        for told in story("second"):
            handler.linnix_incident(told)
            _wait_told(handler._delivery)
    else:
        _wait_told(handler._delivery)
    handler.linnix_stop(time.monotonic() + 30)


def _started(cls: Any, options: Mapping[str, Any], folder: Path, run_id: str) -> Any:
    handler = cls(_configured(cls, options), _context(folder, run_id))
    handler.linnix_start()
    handler.linnix_ready()
    return handler


def _configured(cls: Any, options: Mapping[str, Any]) -> Any:
    from linnix_core.commands import Problem, structure

    problems: list[Problem] = []
    config = structure(cls.Config, options, "", problems)
    assert not problems, problems
    return config


def _context(folder: Path, run_id: str) -> Context:
    return Context(
        component="handlers.test",
        logger=logging.getLogger("linnix.test"),
        host="web-1",
        run_id=run_id,
        processes=ProcessView(),
        incidents=_NoIncidents(),  # type: ignore[arg-type]
        data_dir=folder / "data",
    )


class _NoIncidents:
    def get(self, incident_id: str) -> None:
        return None


def _wait_told(delivery: Any) -> None:
    """Wait until everything is told that was to be told."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with delivery._changed:
            book, now_ns = delivery._book, time.time_ns()
            due = [book._when(page, now_ns) for page in book if page.sending <= page.told]
            told = len(due) == len(book) and not any(w is not None and w <= now_ns for w in due)
            if told and not book.unsaved:
                return
            delivery._changed.wait(0.01)
    raise AssertionError("not everything was told in a minute")
