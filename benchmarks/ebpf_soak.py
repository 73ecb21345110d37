"""Whether memory stays flat: ``linnix run`` under endless forks, and with 100,000 processes.

* ``soak``: the collector ebpf with rules and console while children come and go as fast as
  this shell-less generator makes them. Memory is read every second after a warm-up; the
  slope is that of least squares with its 95 % confidence interval, which should include
  zero, or nearly. Beside it the same of a Python process that does nothing but read a file.
* ``population``: what 100,000 living processes take in the decoder and the process table,
  and what twice as many leave behind when they have ended.

Needs root and a C compiler (``cc``) for the first.

    python benchmarks/ebpf_soak.py [--seconds 120]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import select
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

from linnix_core import ProcessEvent, ProcessTable

GENERATOR = r"""
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* seconds: make children one after the other for so long. */
int main(int argc, char **argv)
{
	(void)argc;
	for (alarm(atoi(argv[1])); ; ) {
		pid_t pid = vfork();
		if (pid == 0)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
}
"""

IDLE = "import time\nwhile True:\n    open('/proc/self/stat').read(); time.sleep(0.01)\n"


def slope(seconds: list[float], bytes_: list[float]) -> tuple[float, float]:
    """Bytes per second by least squares, and half the width of its 95 % interval.

    Neighbouring readings resemble each other, so the interval is widened by their
    autocorrelation (effective number of readings, n (1 - r) / (1 + r)).
    """
    count = len(seconds)
    mean_x, mean_y = sum(seconds) / count, sum(bytes_) / count
    spread = sum((x - mean_x) ** 2 for x in seconds)
    value = sum((x - mean_x) * (y - mean_y) for x, y in zip(seconds, bytes_, strict=True)) / spread
    rest = [y - mean_y - value * (x - mean_x) for x, y in zip(seconds, bytes_, strict=True)]
    total = sum(r * r for r in rest)
    if not total:
        return value, 0.0
    r = max(sum(a * b for a, b in itertools.pairwise(rest)) / total, 0.0)
    effective = max(count * (1 - r) / (1 + r), 3.0)
    return value, 1.96 * math.sqrt(total / (effective - 2) / spread * count / effective)


def soak(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "generator.c").write_text(GENERATOR)
        subprocess.run(["cc", "-O2", "-o", base / "generator", base / "generator.c"], check=True)
        linnix = subprocess.Popen(
            [
                sys.executable, "-m", "linnix_core", "run", "--collector", "ebpf",
                "--set", f"agent.data_dir='{base / 'data'}'",
            ],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert linnix.stdout is not None
        linnix.stdout.readline()
        threading.Thread(target=linnix.stdout.read, daemon=True).start()
        warm_up = seconds / 3
        generator = subprocess.Popen([base / "generator", str(int(seconds + warm_up) + 2)])
        idle = subprocess.Popen([sys.executable, "-c", IDLE])
        forks = _forks()
        watched = {
            "linnix run": psutil.Process(linnix.pid),
            "idle Python": psutil.Process(idle.pid),
        }
        times: list[float] = []
        memory: dict[str, list[float]] = {name: [] for name in watched}
        select.select([], [], [], warm_up)
        for second in range(int(seconds)):
            times.append(float(second))
            for name, process in watched.items():
                memory[name].append(float(process.memory_info().rss))
            select.select([], [], [], 1.0)
        forks = _forks() - forks
        for process in (generator, idle, linnix):
            process.terminate()
            process.wait()
    for name, readings in memory.items():
        value, half = slope(times, readings)
        print(
            json.dumps(
                {
                    "benchmark": f"ebpf_soak/{name}",
                    "rss_mb": round(readings[-1] / 1e6, 1),
                    "slope_bytes_per_s": round(value),
                    "interval_bytes_per_s": [round(value - half), round(value + half)],
                    "includes_zero": value - half <= 0 <= value + half,
                    "forks": forks,
                    "seconds": len(readings),
                }
            )
        )


def _forks() -> int:
    lines = Path("/proc/stat").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("processes ")))


def population(count: int) -> None:
    table, me = ProcessTable(), psutil.Process(os.getpid())
    before = me.memory_info().rss
    table.update(_forked(number) for number in range(count))
    living = me.memory_info().rss
    for round_ in range(1, 3):
        table.update(_ended(number + (round_ - 1) * count) for number in range(count))
        table.update(_forked(number + round_ * count) for number in range(count))
    after = me.memory_info().rss
    print(
        json.dumps(
            {
                "benchmark": "ebpf_soak/population",
                "processes": len(table.view),
                "mb": round((living - before) / 1e6, 1),
                "bytes_per_process": round((living - before) / count),
                "mb_after_twice_as_many_had_ended": round((after - before) / 1e6, 1),
            }
        )
    )


def _forked(number: int) -> ProcessEvent:
    return ProcessEvent(
        "fork", 2 + number % 200_000, (1 + number) * 10_000_000, 1, 0, 0, 0, f"job-{number}",
        args=("job", str(number)), exe="/usr/bin/job", boot_id="b", ts_ns=number,
    )  # fmt: skip


def _ended(number: int) -> ProcessEvent:
    event = _forked(number)
    event.kind, event.exit_code = "exit", 0
    return event


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    population(100_000)
    if os.geteuid() == 0:
        soak(options.seconds)


if __name__ == "__main__":
    main()
