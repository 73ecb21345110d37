"""What ``linnix --help`` costs: CPU time and modules, beside a bare click program.

CPU is that of the whole process, interpreter included, the best of several runs; the peer
is a click group with one command in the same environment, so that what differs is ours.

    python benchmarks/startup.py
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

PEER = """
import click

@click.group()
def cli():
    pass

@cli.command()
def run():
    pass

cli(["--help"])
"""

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "click --help": [sys.executable, "-c", PEER],
    "linnix --help": [sys.executable, "-m", "linnix_core", "--help"],
    "linnix --version": [sys.executable, "-m", "linnix_core", "--version"],
    "linnix models --help": [sys.executable, "-m", "linnix_core", "models", "--help"],
    "linnix plugins list": [sys.executable, "-m", "linnix_core", "plugins", "list"],
}

COUNT_MODULES = """
import atexit, sys
atexit.register(lambda: print(len(sys.modules), file=sys.stderr))
sys.argv = ["linnix", *sys.argv[1:]]
from linnix_core.cli import main
main()
"""


def cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Compiled modules are cached as they are in an installation.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(11):
        for name, command in COMMANDS.items():
            times[name].append(cpu_seconds(command))
    peer = min(times["click --help"])
    for name, runs in times.items():
        figures: dict[str, object] = {
            "benchmark": f"startup/{name}",
            "cpu_ms": round(min(runs) * 1000),
            "median_cpu_ms": round(sorted(runs)[len(runs) // 2] * 1000),
            "ratio_to_click": round(min(runs) / peer, 2),
        }
        if name.startswith("linnix"):
            arguments = COMMANDS[name][3:]
            counted = subprocess.run(
                [sys.executable, "-c", COUNT_MODULES, *arguments],
                check=True,
                capture_output=True,
                text=True,
            )
            figures["modules"] = int(counted.stderr.split()[-1])
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
