"""Clients for the tests, and what an agent can be made to see."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from typing import Any, Self
from urllib.parse import urlsplit

from linnix_core import (
    Alert,
    Answer,
    Evidence,
    ProcessEvent,
    ProcessSample,
    Subject,
    SystemSample,
    hookimpl,
)
from linnix_plugin_http import HttpHandler

#: Seconds for anything that takes milliseconds on a machine with nothing else to do.
PATIENCE_S = 30.0


class Client:
    """Speaks HTTP over a socket of its own for each request."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read()

    def get(self, path: str, **headers: str) -> Any:
        status, _, body = self.request("GET", path, headers=headers)
        assert status == 200, (status, body)
        return json.loads(body)

    def refused(self, path: str, method: str = "GET", **parts: Any) -> tuple[int, str]:
        status, _, body = self.request(method, path, **parts)
        assert status >= 400, body
        return status, json.loads(body)["error"]


class Reader:
    """Reads server-sent events as a client would, event by event."""

    def __init__(self, client: Client, path: str, **headers: str) -> None:
        self.socket = socket.create_connection((client.host, client.port), timeout=PATIENCE_S)
        asked = {"Host": f"{client.host}:{client.port}", "Accept": "text/event-stream", **headers}
        lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in asked.items()), "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        self._connection = http.client.HTTPResponse(self.socket)
        self._connection.begin()
        self.status = self._connection.status
        self.comments: list[str] = []
        self.last_id = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self.socket.close()

    def event(self) -> dict[str, Any] | None:
        """The next event; None at the end of the stream."""
        found: dict[str, Any] = {}
        while line := self._connection.readline():
            text = line.decode().rstrip("\n")
            if not text:
                if "data" in found:
                    return found
                found = {}
            elif text.startswith(":"):
                self.comments.append(text[1:].strip())
                if not found:
                    return {"comment": text}
            else:
                name, _, value = text.partition(": ")
                found[name] = json.loads(value) if name == "data" else value
                self.last_id = found.get("id", self.last_id)
        return None

    def events(self, count: int) -> list[dict[str, Any]]:
        """The next so many events, without comments."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            event = self.event()
            assert event is not None, found
            if "comment" not in event:
                found.append(event)
        return found

    def numbers(self, until: int) -> list[int]:
        """The numbers of the events up to that one, without looking at what is in them."""
        found = bytearray()
        while b"\nid: %d\n" % until not in found[-100_000:]:
            found += self._connection.read1(65536)
        return [int(number) for number in re.findall(rb"^id: (\d+)$", found, re.MULTILINE)]

    def rest(self) -> list[dict[str, Any]]:
        """Everything up to the end."""
        return [event for event in iter(self.event, None) if "comment" not in event]


def family() -> list[Any]:
    """init, a shell below it, three workers below that, and what they use."""
    boot = boot_id()
    now = time.time_ns()

    def event(pid: int, ppid: int | None, comm: str, **more: Any) -> ProcessEvent:
        return ProcessEvent(
            more.pop("kind", "fork"),
            pid=pid,
            start_ns=pid * 10_000_000,
            ppid=ppid,
            parent_start_ns=None if ppid is None else ppid * 10_000_000,
            uid=1000,
            gid=1000,
            comm=comm,
            exe=f"/usr/bin/{comm}",
            args=(comm, "-x"),
            cgroup=f"/system.slice/{comm}.service",
            ts_ns=now,
            boot_id=boot,
            **more,
        )

    def sample(pid: int, cpu: float, rss: int) -> ProcessSample:
        return ProcessSample(
            pid=pid,
            start_ns=pid * 10_000_000,
            interval_ns=10**9,
            comm="x",
            cpu_percent=cpu,
            rss_bytes=rss,
            threads=2,
            fds=9,
            state="S",
            ts_ns=now,
            boot_id=boot,
        )

    return [
        event(1, None, "init", kind="seen"),
        event(10, 1, "sh"),
        event(11, 10, "worker"),
        event(12, 10, "worker"),
        event(13, 10, "idler"),
        sample(11, 150.0, 2**20),
        sample(12, 50.0, 2**30),
        SystemSample(
            interval_ns=10**9,
            cpus=4,
            cpu_percent=25.0,
            memory_total_bytes=8 * 2**30,
            memory_available_bytes=6 * 2**30,
            load1=1.0,
            load5=0.5,
            load15=0.25,
            ts_ns=now,
        ),
    ]


def boot_id() -> str:
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
    return "boot"


def handler_of(agent: Any) -> HttpHandler:
    """The object behind ``handlers.http`` of an agent."""
    for component in agent.host.components:
        if component.name == "http":
            return component.instance
    raise AssertionError("there is no handler http")


class Alarm:
    """Raises one alert about the process 11 as soon as it sees it."""

    @hookimpl
    def linnix_handle(self, batch: Any) -> list[Alert]:
        return [
            Alert(
                rule="busy",
                severity="high",
                class_="cpu_spin",
                message="worker (pid 11) uses 150 % of a core",
                subject=Subject(
                    key=record.key, exe=record.exe, comm=record.comm, cgroup=record.cgroup
                ),
                evidence=(Evidence("cpu", 150.0, "%"), Evidence("limit", 95.0, "%")),
                ts_ns=record.ts_ns,
            )
            for record in batch
            if record.type == "event" and record.pid == 11
        ]


class Guess:
    """A reasoner that believes the first fact."""

    @hookimpl
    def linnix_reason(self, request: Any) -> Answer:
        return Answer(
            class_="cpu_spin",
            confidence=80,
            process=request.processes[0].id if request.processes else None,
            facts=(request.facts[0].id,),
            actions=tuple(action.id for action in request.actions[:1]),
        )
