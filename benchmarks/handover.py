"""What it costs to hand one event from a collector to three handlers.

Three figures of the same run, in CPU time of the whole process (all threads), so that
other load on the machine matters little:

* a plain ``queue.Queue`` and one thread per handler, one ``put`` and one ``get`` per event
  (the peer);
* the pipeline alone: records that the process table and redaction pass over;
* the pipeline as in a run: fork, exec and exit events through redaction and the table.

    python benchmarks/handover.py [--events 300000]
"""

from __future__ import annotations

import argparse
import gc
import json
import queue
import threading
import time
from collections.abc import Sequence

from linnix_core.pipeline import Pipeline, Stamp
from linnix_core.processes import ProcessTable
from linnix_core.records import CgroupSample, ProcessEvent, Record

HANDLERS = 3


def light_records(count: int) -> list[Record]:
    return [CgroupSample(cgroup="/app", interval_ns=1) for _ in range(count)]


def lifecycle(count: int) -> list[Record]:
    """fork, exec and exit of short jobs under one parent, every third exec with new arguments."""
    made: list[Record] = [ProcessEvent("seen", pid=1, start_ns=0, comm="init", exe="/sbin/init")]
    job = 0
    while len(made) < count:
        job += 1
        common = {"pid": 2 + job % 30_000, "start_ns": job * 10_000_000, "ppid": 1, "uid": 0}
        args = ("/usr/bin/gcc", "-O2", "-c", f"file{job if job % 3 == 0 else 0}.c")
        made += [
            ProcessEvent("fork", comm="sh", **common),
            ProcessEvent("exec", comm="gcc", exe="/usr/bin/gcc", args=args, **common),
            ProcessEvent("exit", comm="gcc", exit_code=0, duration_ns=5, **common),
        ]
    return made[:count]


def set_aside(records: Sequence[Record]) -> Sequence[Record]:
    """Keep the input, all of which a real collector would never hold, out of garbage collection."""
    gc.collect()
    gc.freeze()
    return records


def through_pipeline(records: Sequence[Record], batch: int = 256) -> float:
    """CPU seconds from the first put to the last record handled by every handler."""
    stamp = Stamp(host="bench", run_id="bench", boot_id="bench", clock=time)
    pipeline = Pipeline(stamp=stamp, table=ProcessTable(), clock=time)
    source = pipeline.source("collectors.bench", 64 * batch, "block")
    sinks = [pipeline.sink(f"handlers.h{n}", 64 * batch, "block") for n in range(HANDLERS)]
    handled = [0] * HANDLERS

    def handle(number: int) -> None:
        while (item := sinks[number].get()) is not None:
            handled[number] += len(item.argument)
            sinks[number].done(item.records)

    threads = [threading.Thread(target=handle, args=(n,)) for n in range(HANDLERS)]
    for thread in threads:
        thread.start()
    pipeline.start()
    began = time.process_time()
    for start in range(0, len(records), batch):
        source.put(records[start : start + batch])
    pipeline.stop(time.monotonic() + 600)
    for sink in sinks:
        sink.close()
    for thread in threads:
        thread.join()
    spent = time.process_time() - began
    assert handled == [len(records)] * HANDLERS, handled
    assert source.counts().lost == 0
    return spent


def through_queues(records: Sequence[Record]) -> float:
    """The same with one ``queue.Queue`` per handler and one item per event."""
    queues: list[queue.Queue[Record | None]] = [queue.Queue(16_384) for _ in range(HANDLERS)]
    handled = [0] * HANDLERS

    def handle(number: int) -> None:
        while queues[number].get() is not None:
            handled[number] += 1

    threads = [threading.Thread(target=handle, args=(n,)) for n in range(HANDLERS)]
    for thread in threads:
        thread.start()
    began = time.process_time()
    for record in records:
        for one in queues:
            one.put(record)
    for one in queues:
        one.put(None)
    for thread in threads:
        thread.join()
    spent = time.process_time() - began
    assert handled == [len(records)] * HANDLERS, handled
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    peer_count = options.events // 10
    queues, alone, full = [], [], []
    for _ in range(options.runs):
        queues.append(through_queues(set_aside(light_records(peer_count))) / peer_count)
        alone.append(through_pipeline(set_aside(light_records(options.events))) / options.events)
        full.append(through_pipeline(set_aside(lifecycle(options.events))) / options.events)
        gc.unfreeze()
    peer = min(queues)
    for name, times in (("queue.Queue", queues), ("pipeline", alone), ("pipeline+table", full)):
        best = min(times)
        print(
            json.dumps(
                {
                    "benchmark": f"handover/{name}",
                    "us_per_event": round(best * 1e6, 3),
                    "events_per_s_of_one_core": round(1 / best),
                    "times_cheaper_than_queue": round(peer / best, 1),
                    "runs_us": [round(t * 1e6, 3) for t in times],
                }
            )
        )


if __name__ == "__main__":
    main()
