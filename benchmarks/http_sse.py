"""100 readers of the event stream at 1,000 events a second, beside a bare Starlette SSE loop.

Both serve from this process, and the same program in a process of its own reads: it counts
what each reader got, and how long each event took from the moment in its ``ts_ns`` to the read
that had it. Linnix's events take the whole way: the collector's queue, the pipeline with the
process table, the handler's queue, the history. The peer encodes once, too, and has one queue
for each reader and one write for each event, as examples of Starlette do.

With ``--processes N`` a further client asks for ``/processes`` of at least that many all the
time, one answer after the other.

    python benchmarks/http_sse.py [--readers 100] [--rate 1000] [--seconds 8] [--processes 0]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from linnix_core import Context, ProcessEvent, encode
from linnix_core.codec import plain
from linnix_core.incidents import IncidentView
from linnix_core.pipeline import Pipeline, Stamp
from linnix_core.processes import ProcessTable
from linnix_plugin_http import HttpConfig, HttpHandler

#: Milliseconds within which 99 of 100 events are to be with their reader.
TARGET_MS = 100.0

#: Seconds for readers to get what is still on the way when the last event has been sent.
GRACE_S = 10.0

READER = r"""
import asyncio, json, re, sys, time
port, readers, count, seconds = map(int, sys.argv[1:])
token, stamp = b"event: exec", re.compile(rb'"ts_ns":(\d+),')
late, got = [], []

async def read():
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    ready.release()
    found, rest = 0, b""
    try:
        async with asyncio.timeout_at(deadline):
            while found < count and (new := await reader.read(2**20)):
                now, chunk = time.time_ns(), rest + new
                events, oldest = chunk.count(token), stamp.search(chunk)
                # As if all had waited for as long as the first of them.
                if oldest and events:
                    late.append((now - int(oldest[1]), events))
                found += events
                rest = chunk[1 - len(token):]
    except TimeoutError:
        pass
    got.append(found)
    writer.close()

def at(share):
    left = sum(events for _, events in late) * share
    for latency, events in late:
        left -= events
        if left <= 0:
            return round(latency / 1e6, 1)

async def main():
    global ready, deadline
    ready = asyncio.Semaphore(0)
    deadline = asyncio.get_running_loop().time() + seconds
    tasks = [asyncio.create_task(read()) for _ in range(readers)]
    for _ in tasks:
        await ready.acquire()
    print("ready", flush=True)
    await asyncio.gather(*tasks)
    late.sort()
    cpu = time.process_time()
    times = {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1)}
    counts = {"delivered": sum(got), "least": min(got)}
    print(json.dumps({**counts, **times, "reader_cpu_s": round(cpu, 2)}))

asyncio.run(main())
"""

ASKER = r"""
import http.client, json, sys, time
port, seconds = map(int, sys.argv[1:])
times, end = [], time.monotonic() + seconds
while time.monotonic() < end:
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/processes")
    assert len(connection.getresponse().read()) > 1000
    connection.close()
    times.append(time.perf_counter() - began)
middle = sorted(times)[len(times) // 2]
print(json.dumps({"answers": len(times), "answer_median_ms": round(middle * 1000, 1)}))
"""


def event(number: int) -> ProcessEvent:
    return ProcessEvent(
        "exec",
        pid=2 + number % 30_000,
        start_ns=number * 10_000_000,
        ppid=1,
        uid=0,
        comm="gcc",
        exe="/usr/bin/gcc",
        args=("/usr/bin/gcc", "-O2", "-c", f"file{number % 500}.c"),
        cgroup="/system.slice/build.service",
        ts_ns=time.time_ns(),
    )


def living(count: int) -> list[ProcessEvent]:
    """Those who live before the others come."""
    return [
        ProcessEvent(
            "seen",
            pid=100_000 + number,
            start_ns=number * 10_000_000,
            ppid=1,
            uid=1000,
            comm=f"service-{number % 100}",
            exe=f"/usr/bin/service-{number % 100}",
            args=(f"/usr/bin/service-{number % 100}", "--config", "/etc/service.conf"),
            cwd="/",
            cgroup=f"/system.slice/service-{number % 100}.service",
            ts_ns=1,
            boot_id="bench",
        )
        for number in range(count)
    ]


@contextmanager
def linnix(processes: int) -> Iterator[tuple[int, Callable[[list[ProcessEvent]], None]]]:
    """The port of the plugin's server, and where its events go in."""
    table = ProcessTable()
    table.update(living(processes))
    stamp = Stamp(host="bench", run_id="bench", boot_id="bench", clock=time)
    pipeline = Pipeline(stamp=stamp, table=table, clock=time)
    source = pipeline.source("collectors.bench", 16_384, "block")
    sink = pipeline.sink("handlers.http", 16_384, "block")
    with tempfile.TemporaryDirectory() as folder:
        context = Context(
            component="handlers.http",
            logger=logging.getLogger("bench"),
            processes=table.view,
            incidents=IncidentView(),
            data_dir=Path(folder),
        )
        handler = HttpHandler(HttpConfig(listen="127.0.0.1:0"), context)
        handler.linnix_start()
        handler.linnix_ready()

        def handle() -> None:
            while (item := sink.get()) is not None:
                handler.linnix_handle(item.argument)
                sink.done(item.records)

        thread = threading.Thread(target=handle)
        thread.start()
        pipeline.start()
        try:
            yield int(handler.urls[0].rpartition(":")[2]), source.put
        finally:
            pipeline.stop(time.monotonic() + 10)
            sink.close()
            thread.join()
            handler.linnix_stop(time.monotonic() + 10)


@contextmanager
def bare(processes: int) -> Iterator[tuple[int, Callable[[list[ProcessEvent]], None]]]:
    """The port of a loop of a dozen lines, and where its events go in."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    queues: set[asyncio.Queue[bytes]] = set()
    document = [plain(each) for each in living(processes)]

    async def everybody(request: object) -> JSONResponse:
        return JSONResponse(document)

    async def events() -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    async def stream(request: object) -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    def send(frames: list[bytes]) -> None:
        for queue in queues:
            for frame in frames:
                queue.put_nowait(frame)

    sock = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=[Route("/stream", stream), Route("/processes", everybody)]),
            log_config=None,
            access_log=False,
            loop="asyncio",
            http="h11",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(sockets=[sock])))
    thread.start()
    try:
        yield (
            sock.getsockname()[1],
            lambda events: loop.call_soon_threadsafe(
                send, [b"event: exec\ndata: %b\n\n" % encode(each) for each in events]
            ),
        )
    finally:
        server.should_exit = True
        thread.join()
        loop.close()


def program(source: str, *arguments: int) -> subprocess.Popen[str]:
    """A client in a process of its own, so that it takes nothing from the server's."""
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run(
    readers: int, rate: int, seconds: int, processes: int, port: int, put: Callable[..., None]
) -> dict[str, object]:
    """Send at that rate to that many readers; what they say, and what it cost this process."""
    count = rate * seconds
    with ExitStack() as stack:
        reader = stack.enter_context(program(READER, port, readers, count, seconds + int(GRACE_S)))
        assert reader.stdout.readline() == "ready\n"
        asker = stack.enter_context(program(ASKER, port, seconds)) if processes else None
        cpu, began, sent = time.process_time(), time.monotonic(), 0
        while sent < count:
            due = min(int((time.monotonic() - began) * rate), count)
            if due > sent:
                put([event(number) for number in range(sent, due)])
                sent = due
            time.sleep(0.005)
        said = json.loads(reader.stdout.readline())
        cpu = time.process_time() - cpu
        answers = json.loads(asker.stdout.readline()) if asker is not None else {}
    return {
        "sent": sent * readers,
        **said,
        **answers,
        "lost": sent * readers - said["delivered"],
        "server_cpu_s": round(cpu, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--processes", type=int, default=0)
    options = parser.parse_args()
    for noisy in ("uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    for name, serving in (("linnix", linnix), ("bare Starlette", bare)):
        with serving(options.processes) as (port, put):
            found = run(
                options.readers, options.rate, options.seconds, options.processes, port, put
            )
        print(
            json.dumps(
                {
                    "benchmark": f"http_sse/{name}",
                    "readers": options.readers,
                    "events_per_s": options.rate,
                    **found,
                    "target_p99_ms": TARGET_MS,
                }
            )
        )


if __name__ == "__main__":
    main()
