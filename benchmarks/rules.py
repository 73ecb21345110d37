"""What the rules cost for one event, beside a loop that only looks at the records.

Records of jobs (fork, exec, exit) under a few hundred living processes, and below that the same
under many times as many: the cost has to be flat in the number of processes. Then samples of
all of them, once a second. CPU time of this thread, the best of several runs. Each batch is made
just before it is handled, as in a run, and not all records before all handling: reading what has
left the caches of the processor would be most of the cost.

    python benchmarks/rules.py [--events 300000] [--rules FILE]
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from linnix_core import Alert, ProcessEvent, ProcessSample, Record
from linnix_plugin_rules.engine import Engine
from linnix_plugin_rules.rulefile import read_rules

SECOND_NS = 10**9
BEGAN_NS = 1_767_225_600 * SECOND_NS


def living(count: int) -> list[Record]:
    """Processes that are there before, 30 children each."""
    made: list[Record] = []
    for n in range(count):
        parent = 10 + (n - 1) // 30 if n else 1
        made.append(
            ProcessEvent(
                "seen", 10 + n, (1 + n) * 10_000_000, parent, (1 + parent - 10) * 10_000_000,
                comm=f"p{n}", exe=f"/usr/bin/p{n % 50}", cgroup=f"/g{n % 100}", ts_ns=BEGAN_NS,
            )
        )  # fmt: skip
    return made


def jobs(events: int, processes: int, per_second: int) -> Iterator[Record]:
    """Fork, exec and exit of short jobs; each process starts some in turn, of 60 programs."""
    for job in range(events // 3):
        ts_ns = BEGAN_NS + SECOND_NS + job * 3 * SECOND_NS // per_second
        parent = 10 + job // 50 % processes
        pid, start_ns = 1_000_000 + job, 10**15 + job * 10_000_000
        of_parent = parent, (1 + parent - 10) * 10_000_000
        exe = f"/usr/bin/tool{job % 60}"
        yield from (
            ProcessEvent("fork", pid, start_ns, *of_parent, uid=0, comm="sh", ts_ns=ts_ns),
            ProcessEvent("exec", pid, start_ns, *of_parent, uid=0, comm="tool", exe=exe,
                         args=("tool", "-x"), ts_ns=ts_ns + 500_000),
            ProcessEvent("exit", pid, start_ns, *of_parent, uid=0, comm="tool", exit_code=0,
                         duration_ns=3_000_000, ts_ns=ts_ns + 3_000_000),
        )  # fmt: skip


def forks(events: int, per_second: int) -> Iterator[Record]:
    """A storm from one shell: every event matters to a rule."""
    for n in range(0, events, 2):
        ts_ns = BEGAN_NS + SECOND_NS + n * SECOND_NS // per_second
        key = 2_000_000 + n, 10**15 + n * 10_000_000
        yield from (
            ProcessEvent("fork", *key, 10, 10_000_000, uid=0, comm="bash", ts_ns=ts_ns),
            ProcessEvent("exit", *key, 10, 10_000_000, uid=0, comm="bash", exit_code=0,
                         duration_ns=1_000_000, ts_ns=ts_ns + 1_000_000),
        )  # fmt: skip


def samples(processes: int, rounds: int) -> Iterator[Record]:
    """A sample of each process every second."""
    return (
        ProcessSample(
            10 + n, (1 + n) * 10_000_000, SECOND_NS, f"p{n}", cpu_percent=n % 7 / 2,
            rss_bytes=10_000_000 + n * 1000, threads=2, fds=9, state="S", read_bytes=0,
            write_bytes=0, cgroup=f"/g{n % 100}", ts_ns=BEGAN_NS + (2 + second) * SECOND_NS,
        )
        for second in range(rounds)
        for n in range(processes)
    )  # fmt: skip


def look_only(batch: Sequence[Record]) -> list[Alert]:
    """What any handler in Python does at least."""
    latest = 0
    for record in batch:
        latest = max(latest, record.ts_ns)
    return []


def cost_us(make: Callable[[], Callable[[Sequence[Record]], list[Alert]]], before: list[Record],
            records: Callable[[], Iterator[Record]], runs: int) -> float:  # fmt: skip
    """Microseconds of CPU for each record, in batches of 256."""
    best = float("inf")
    for _ in range(runs):
        handle = make()
        handle(before)
        gc.collect()
        gc.freeze()
        made, spent, count = records(), 0.0, 0
        while batch := list(itertools.islice(made, 256)):
            began = time.thread_time()
            handle(batch)
            spent += time.thread_time() - began
            count += len(batch)
        best = min(best, spent * 1e6 / count)
        gc.unfreeze()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=150_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rules", type=Path, help="default: those that are shipped")
    options = parser.parse_args()
    gc.set_threshold(50_000, 20, 100)  # as in a run

    def rules() -> Callable[[Sequence[Record]], list[Alert]]:
        return Engine(read_rules(options.rules).rules).handle

    cases: list[tuple[str, int, Callable[[], Iterator[Record]]]] = [
        (f"jobs, 10000 events/s, {count} processes", count,
         functools.partial(jobs, options.events, count, 10_000))
        for count in (300, 3000, 30_000)
    ]  # fmt: skip
    storm = functools.partial(forks, options.events, 50_000)
    cases.append(("fork storm, 50000 events/s", 300, storm))
    cases += [
        (f"samples of {count} processes", count,
         functools.partial(samples, count, options.events // count))
        for count in (300, 3000, 30_000)
    ]  # fmt: skip
    print(f"{'microseconds of CPU per record':42}{'rules':>8}{'bare':>8}")
    for name, count, records in cases:
        before = living(count)
        with_rules = cost_us(rules, before, records, options.runs)
        bare = cost_us(lambda: look_only, before, records, options.runs)
        print(f"{name:42}{with_rules:8.2f}{bare:8.2f}", flush=True)


if __name__ == "__main__":
    main()
