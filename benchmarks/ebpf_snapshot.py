"""What it costs to measure every process: the kernel's iterator beside psutil.

Both give pid, parent, name, state, CPU time, memory, threads and I/O of every process, the
same ones at the same time; the collector's samples are made of it as well. CPU time of
this process. Needs root.

    python benchmarks/ebpf_snapshot.py [--runs 20]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import psutil

from linnix_plugin_ebpf.libbpf import Libbpf
from linnix_plugin_ebpf.programs import Programs, read_object
from linnix_plugin_ebpf.samples import Sampler, processes_of

FIELDS = [
    "pid", "ppid", "name", "status", "cpu_times", "memory_info", "num_threads", "io_counters",
]  # fmt: skip


def spent(work: Callable[[], object], runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    programs = Programs(Libbpf(), read_object(), ring_size=1 << 16)
    programs.configure(cost_ns=0, burst_ns=0, v1_subsystem=None, v1_hierarchy=-1)
    programs.attach()
    sampler = Sampler(lambda _: None)

    def samples() -> None:
        snapshot = programs.snapshot()
        sampler.samples(snapshot, time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    works: dict[str, Callable[[], object]] = {
        "psutil": lambda: [process.info for process in psutil.process_iter(FIELDS)],
        "kernel": programs.snapshot,
        "kernel, decoded": lambda: processes_of(programs.snapshot()),
        "kernel, samples": samples,
    }
    times = {name: spent(work, options.runs) for name, work in works.items()}
    processes = len(processes_of(programs.snapshot()))
    programs.close()
    peer = min(times["psutil"])
    for name, runs in times.items():
        print(
            json.dumps(
                {
                    "benchmark": f"ebpf_snapshot/{name}",
                    "us": round(min(runs) * 1e6, 1),
                    "median_us": round(sorted(runs)[len(runs) // 2] * 1e6, 1),
                    "times_faster_than_psutil": round(peer / min(runs), 1),
                    "processes": processes,
                }
            )
        )


if __name__ == "__main__":
    main()
