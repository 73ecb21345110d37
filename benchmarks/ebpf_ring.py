"""What it costs to bring one event from the kernel's ring to a handler.

A ring is filled with fork, exec and exit records as the programs write them, beyond the
rate that any machine forks at, and read through the real reader, decoder, redaction and
process table. CPU time of the whole process; ``struct`` alone, one unpacking for each
record, is the bare operation beside it. Needs no privileges.

    python benchmarks/ebpf_ring.py [--events 200000]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

from linnix_core.pipeline import Pipeline, Stamp
from linnix_core.processes import ProcessTable
from linnix_plugin_ebpf import wire
from linnix_plugin_ebpf.events import Decoder
from linnix_plugin_ebpf.ring import Ring

RING_BYTES = 4 << 20
CHUNK = 2048
TICK_NS = 10_000_000


class Groups:
    """Stands in for the paths of cgroups: there is one."""

    paths: ClassVar = {7: "/system.slice/build.service"}


def records() -> Iterator[bytes]:
    """fork, fork, exec, exit, exit … as a build makes them: every other child execs."""
    exe, cwd = b"cc1\0libexec\0usr\0", b"project\0src\0"
    for job in itertools.count(1):
        now, pid = job * TICK_NS, 2 + job % 30_000
        common = (now, now, TICK_NS, 7, pid, 1, 1000, 1000)
        yield wire.EVENT.pack(*common, b"make", wire.FORK, 0, 0)
        if job % 2:
            args = b"cc1\0-O2\0-c\0file%d.c\0" % job  # never the same, as in a build
            part = wire.EXEC_PART.pack(len(exe), len(cwd), len(args))
            yield wire.EVENT.pack(*common, b"cc1", wire.EXEC, 0, 0) + part + exe + cwd + args
        yield wire.EVENT.pack(*common, b"cc1", wire.EXIT, 0, 0) + wire.EXIT_PART.pack(5000, 300)


def fill(descriptor: int, source: Iterator[bytes]) -> int:
    """Write a ring full of records behind the descriptor; how many."""
    data, count = bytearray(), 0
    while len(data) < RING_BYTES - 4096:
        record = next(source)
        data += struct.pack("=II", len(record), 0) + record + bytes(-len(record) % 8)
        count += 1
    page = mmap.PAGESIZE
    os.pwrite(descriptor, data, 2 * page)
    os.pwrite(descriptor, struct.pack("=Q", len(data)), page)
    os.pwrite(descriptor, struct.pack("=Q", 0), 0)
    return count


def unpacked(ring: Ring) -> None:
    """The bare operation, as plainly as it can be written, whatever the reader does."""
    words, unpack = memoryview(ring.data)[mmap.PAGESIZE :].cast("I"), wire.EVENT.unpack_from
    data, mask = memoryview(ring.data)[mmap.PAGESIZE :], RING_BYTES - 1
    position, end = ring.consumed, ring.produced
    while position < end:
        offset = position & mask
        unpack(data, offset + 8)
        position += (words[offset >> 2] + 8 + 7) & ~7
    words.release()
    data.release()
    ring.release(position)


def decoded(ring: Ring, decoder: Decoder, pipeline_source: object = None) -> None:
    """Decode everything, and hand it over where there is somebody to take it."""
    while True:
        offsets, position = ring.next_records(CHUNK)
        if not offsets:
            return
        events = decoder.decode(ring.data, offsets, 0)
        ring.release(position)
        if pipeline_source is not None:
            pipeline_source.put(events)  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    gc.set_threshold(50_000, 20, 100)  # as in a run
    descriptor = os.memfd_create("ring")
    os.ftruncate(descriptor, 2 * mmap.PAGESIZE + 2 * RING_BYTES)
    times: dict[str, list[float]] = {"struct": [], "decoded": [], "delivered": []}
    for _ in range(options.runs):
        for name, spent in times.items():
            spent.append(measure(name, descriptor, options.events))
    bare = min(times["struct"])
    for name, spent in times.items():
        best = min(spent)
        print(
            json.dumps(
                {
                    "benchmark": f"ebpf_ring/{name}",
                    "us_per_event": round(best * 1e6, 3),
                    "events_per_s_of_one_core": round(1 / best),
                    "times_struct": round(best / bare, 1),
                    "runs_us": [round(one * 1e6, 3) for one in spent],
                }
            )
        )


def measure(name: str, descriptor: int, events: int) -> float:
    """CPU seconds of an event."""
    source = records()
    decoder = Decoder(Groups())  # type: ignore[arg-type]
    pipeline = Pipeline(
        stamp=Stamp(host="bench", run_id="bench", boot_id="bench", clock=time),
        table=ProcessTable(),
        clock=time,
    )
    queue = pipeline.source("collectors.ebpf", 64 * 256, "block")
    sink = pipeline.sink("handlers.bench", 64 * 256, "block")
    handled = 0

    def handle() -> None:
        nonlocal handled
        while (item := sink.get()) is not None:
            handled += len(item.argument)
            sink.done(item.records)

    handler = threading.Thread(target=handle)
    handler.start()
    pipeline.start()
    count, spent = 0, 0.0
    while count < events:
        count += fill(descriptor, source)
        ring = Ring(descriptor, RING_BYTES)
        gc.collect()
        began = time.process_time()
        if name == "struct":
            unpacked(ring)
        else:
            decoded(ring, decoder, queue if name == "delivered" else None)
            queue.wait_idle(time.monotonic() + 60)
            sink.wait_idle(time.monotonic() + 60)
        spent += time.process_time() - began
        ring.close()
    pipeline.stop(time.monotonic() + 60)
    sink.close()
    handler.join()
    assert name != "delivered" or handled >= count, (handled, count)
    return spent / count


if __name__ == "__main__":
    main()
