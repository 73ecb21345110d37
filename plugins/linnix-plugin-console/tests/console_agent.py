"""A run in small: feeds a console handler with what the other end of a socket says.

Started by the tests of the live view, with a terminal as standard input, output and error.
Stands in for the agent in one point only: the components' states are made up.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import Any

import attrs

from linnix_core import (
    Alert,
    Batch,
    Context,
    Incident,
    Insight,
    Loss,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    ProcessTable,
    Subject,
    SystemSample,
)
from linnix_plugin_console import ConsoleConfig, ConsoleHandler

START_NS = 1_700_000_000_000_000_000


@attrs.frozen
class Status:
    component: str
    state: str = "running"
    code: str = ""
    reason: str = ""
    hint: str | None = None

    @property
    def kind(self) -> str:
        return self.component.split(".")[0]

    @property
    def name(self) -> str:
        return self.component.split(".")[1]


class Run:
    """What the tests can say: each method is a command."""

    def __init__(self, **config: Any) -> None:
        self.table = ProcessTable()
        self.components = [Status("collectors.ebpf"), Status("handlers.console")]
        self.context = Context(
            component="handlers.console",
            logger=logging.getLogger("linnix.handlers.console"),
            host="web-01",
            run_id="run",
            processes=self.table.view,
            incidents=None,
            components=lambda: list(self.components),
            data_dir=Path(tempfile.gettempdir()) / "never-made",
        )
        self.handler = ConsoleHandler(ConsoleConfig(**config), self.context)
        self.handler.linnix_start()
        self.handler.linnix_ready()

    def batch(self, *records: Any) -> None:
        self.table.update(records)
        self.handler.linnix_handle(Batch(records))

    def process(
        self,
        pid: int,
        comm: str,
        *args: str,
        cpu: float = 0.0,
        rss: int = 4 << 20,
        threads: int = 1,
    ) -> None:
        start = pid * 10_000_000
        self.batch(
            ProcessEvent("seen", pid, start, ppid=1, comm=comm, args=args or None),
            ProcessSample(
                pid, start, 10**9, comm=comm, cpu_percent=cpu, rss_bytes=rss, threads=threads
            ),
        )

    def events(self, kind: Any, number: int) -> None:
        self.batch(*[ProcessEvent(kind, 5000 + n, n * 10_000_000) for n in range(number)])

    def machine(self, **measures: Any) -> None:
        self.batch(SystemSample(10**9, **measures))

    def lose(self, component: str, why: str, number: int) -> None:
        self.batch(Loss(component, why, number, number, 10**10))

    def component(self, *status: Any) -> None:
        self.components.append(Status(*status))

    def alert(
        self,
        message: str,
        rule: str = "fork_storm",
        severity: Any = "high",
        comm: str = "",
        pid: int = 0,
    ) -> None:
        key = ProcessKey("boot", pid, 0) if pid else None
        subject = Subject(key, comm=comm)
        self.handler.linnix_alert(Alert(rule, severity, message, subject=subject, ts_ns=START_NS))

    def incident(
        self, name: str, summary: str, change: Any = "opened", severity: Any = "high", **more: Any
    ) -> None:
        self.handler.linnix_incident(
            Incident(
                name, severity, summary, "fork_storm", change=change, id=name,
                opened_ns=START_NS, ts_ns=START_NS + 10**9, **more,
            )
        )  # fmt: skip

    def insight(self, incident: str, why: str, *actions: str) -> None:
        self.handler.linnix_insight(
            Insight(
                "fork_storm", 0.92, None, why, actions,
                incident=incident, reasoner="heuristics", ts_ns=START_NS + 2 * 10**9,
            )
        )  # fmt: skip

    def log(self, text: str) -> None:
        print(text, file=sys.stderr)

    def stop(self) -> None:
        self.handler.linnix_stop(time.monotonic() + 10)

    def health(self) -> None:
        health = self.handler.linnix_health()
        print(f"{health.status}: {health.reason}")

    def ignore_hangup(self) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def wait_until_degraded(self) -> None:
        # It brings pytest along, which no other screen has any use for.
        from linnix_core.testing.waiting import eventually

        eventually(self.handler.linnix_health, lambda health: health.status != "ok")

    def crash(self) -> None:
        raise RuntimeError("a bug elsewhere")

    def wait_for_interrupt(self) -> None:
        ready.sendall(b"\n")
        threading.Event().wait()


if __name__ == "__main__":
    # The shell's part: this terminal is ours to be interrupted from.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if sys.argv[2:] == ["background"]:
        if child := os.fork():
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os.setpgid(0, 0)
    ready = socket.socket(fileno=int(sys.argv[1]))
    run: Any = None
    try:
        for line in ready.makefile():
            name, args, options = eval(line)
            if name == "start":
                run = Run(**options)
            else:
                getattr(run, name)(*args, **options)
            ready.sendall(b"\n")
    except KeyboardInterrupt:
        run.stop()
