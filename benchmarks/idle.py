"""What ``linnix run`` costs on a quiet machine: CPU and memory, beside a bare psutil loop.

All follow the same processes at the same time:

* the peer: ``psutil.process_iter`` with the fields that a sample needs, in a loop, at the
  interval of the collector psutil;
* ``linnix run`` with the collector psutil, rules, heuristics, the API and the plain console;
* as root, ``linnix run`` with the collector ebpf instead, which measures every process every
  second.

CPU counts from the first poll to the end, so that starting up is not idling. What others do
on the machine meanwhile costs as well: how many processes began is told beside it.

    python benchmarks/idle.py [--seconds 60] [--interval 5]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

PEER = """
import sys, threading, psutil
fields = ["pid", "ppid", "name", "status", "cpu_times", "memory_info", "num_threads", "io_counters"]
while True:
    for process in psutil.process_iter(fields):
        pass
    print("polled", flush=True)
    threading.Event().wait(float(sys.argv[1]))
"""


def listening() -> list[str]:
    """Options that give a run a port of its own: without one it would go on without the API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return ["--set", f"handlers.http.listen='127.0.0.1:{free.getsockname()[1]}'"]


def forks() -> int:
    """Processes and threads that began since boot."""
    found = re.search(r"^processes (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--interval", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        commands = {
            "psutil loop": [sys.executable, "-c", PEER, str(options.interval)],
            "linnix run": [
                sys.executable, "-m", "linnix_core", "run", "--collector", "psutil",
                "--set", f"collectors.psutil.interval={options.interval}",
                "--set", f"agent.data_dir='{data}/psutil'", *listening(),
            ],
        }  # fmt: skip
        if os.geteuid() == 0:
            commands["linnix run ebpf"] = [
                sys.executable, "-m", "linnix_core", "run", "--collector", "ebpf",
                "--set", f"agent.data_dir='{data}/ebpf'", *listening(),
            ]  # fmt: skip
        running = {
            name: subprocess.Popen(command, stdout=subprocess.PIPE)
            for name, command in commands.items()
        }
        for process in running.values():
            assert process.stdout is not None
            process.stdout.readline()  # the first poll is over
            # Keep reading, so that nobody waits for a full pipe.
            threading.Thread(target=process.stdout.read, daemon=True).start()
        watched = {name: psutil.Process(process.pid) for name, process in running.items()}
        before = {name: sum(p.cpu_times()[:2]) for name, p in watched.items()}
        began, forked = time.monotonic(), forks()
        time.sleep(options.seconds)
        elapsed, forked = time.monotonic() - began, forks() - forked
        spent = {name: sum(p.cpu_times()[:2]) - before[name] for name, p in watched.items()}
        memory = {name: p.memory_info().rss for name, p in watched.items()}
        for process in running.values():
            process.terminate()
            process.wait()
    for name, seconds in spent.items():
        print(
            json.dumps(
                {
                    "benchmark": f"idle/{name}",
                    "cpu_percent_of_one_core": round(100 * seconds / elapsed, 3),
                    "ratio_to_psutil_loop": round(seconds / max(spent["psutil loop"], 0.01), 2),
                    "rss_mb": round(memory[name] / 1e6, 1),
                    "processes": len(psutil.pids()),
                    "began_per_s": round(forked / elapsed, 1),
                    "interval_s": options.interval,
                }
            )
        )


if __name__ == "__main__":
    main()
