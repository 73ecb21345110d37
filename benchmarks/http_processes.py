"""``GET /processes`` with 10,000 processes, beside a bare Starlette route that only encodes.

The time of a whole request, from connecting to the last byte, as a client has it, and the CPU
time of this process meanwhile, which holds client and server. The peer answers with the same
JSON from a list that it has already: what differs is looking at the process table, and
shaping, filtering and sorting what is there.

    python benchmarks/http_processes.py [--processes 10000] [--requests 15]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import logging
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from linnix_core import Context, ProcessEvent, ProcessSample, ProcessTable
from linnix_core.incidents import IncidentView
from linnix_core.processes import boot_id
from linnix_plugin_http import HttpConfig, HttpHandler
from linnix_plugin_http.living import FRESH_S

TARGET_MS = 50.0


def table_of(count: int) -> ProcessTable:
    """A tree of ten children each, every process measured."""
    table, boot = ProcessTable(), boot_id()
    for number in range(count):
        parent = max(number // 10, 1)
        args = (f"/usr/bin/service-{number % 100}", "--config", "/etc/service.conf")
        process = {"pid": number + 1, "start_ns": number * 10_000_000, "boot_id": boot}
        table.update(
            [
                ProcessEvent(
                    "fork",
                    ppid=parent,
                    parent_start_ns=(parent - 1) * 10_000_000,
                    uid=1000,
                    gid=1000,
                    comm=f"service-{number % 100}",
                    exe=args[0],
                    args=args,
                    cwd="/",
                    cgroup=f"/system.slice/service-{number % 100}.service",
                    ts_ns=number,
                    **process,
                ),
                ProcessSample(
                    interval_ns=10**9,
                    cpu_percent=number % 97 / 3,
                    rss_bytes=number * 4096,
                    threads=4,
                    fds=12,
                    state="S",
                    **process,
                ),
            ]
        )
    return table


@contextmanager
def serving(table: ProcessTable, folder: Path) -> Iterator[int]:
    """The port of the plugin's server."""
    context = Context(
        component="handlers.http",
        logger=logging.getLogger("bench"),
        processes=table.view,
        incidents=IncidentView(),
        data_dir=folder,
    )
    handler = HttpHandler(HttpConfig(listen="127.0.0.1:0"), context)
    handler.linnix_start()
    handler.linnix_ready()
    try:
        yield int(handler.urls[0].rpartition(":")[2])
    finally:
        handler.linnix_stop(time.monotonic() + 10)


@contextmanager
def bare(document: object) -> Iterator[int]:
    """The port of a Starlette route that encodes the document for every request."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def processes(request: object) -> JSONResponse:
        return JSONResponse(document)

    sock = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/processes", processes)])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, loop="asyncio"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
    thread.start()
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def asked(port: int, path: str) -> tuple[tuple[float, float], bytes]:
    began, cpu = time.perf_counter(), time.process_time()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path)
        body = connection.getresponse().read()
    return (time.perf_counter() - began, time.process_time() - cpu), body


def timed(
    port: int, path: str, requests: int, before: Callable[[], object]
) -> list[tuple[float, float]]:
    asked(port, path)
    times = []
    for _ in range(requests):
        before()
        times.append(asked(port, path)[0])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=15)
    options = parser.parse_args()
    table = table_of(options.processes)

    def stale() -> None:
        # Each request looks at the table itself.
        time.sleep(FRESH_S + 0.01)

    with tempfile.TemporaryDirectory() as folder, serving(table, Path(folder)) as port:
        every = asked(port, "/processes")[1]
        found = {
            "all": timed(port, "/processes", options.requests, stale),
            "all, again within 250 ms": timed(port, "/processes", options.requests, lambda: None),
            "the 50 that use most CPU": timed(
                port, "/processes?sort=cpu_pct:desc&limit=50", options.requests, stale
            ),
        }
    with bare(json.loads(every)) as port:
        found["bare Starlette, from a list"] = timed(
            port, "/processes", options.requests, lambda: None
        )
    for name, times in found.items():
        ordered = sorted(wall for wall, _ in times)
        cpu = sorted(cpu for _, cpu in times)
        print(
            json.dumps(
                {
                    "benchmark": f"http_processes/{name}",
                    "processes": options.processes,
                    "bytes": len(every) if "most" not in name else None,
                    "best_ms": round(ordered[0] * 1000, 1),
                    "median_ms": round(ordered[len(ordered) // 2] * 1000, 1),
                    "worst_ms": round(ordered[-1] * 1000, 1),
                    "cpu_ms": round(cpu[len(cpu) // 2] * 1000, 1),
                    "target_ms": TARGET_MS,
                }
            )
        )


if __name__ == "__main__":
    main()
