"""Every fork, exec and exit under load: Linnix beside bpftrace and forkstat.

A generator in C makes children as fast as this machine can, some of which exec with
arguments of their own, and counts them: an independent witness. One observer at a time
follows it and writes what it sees to a file. For each: how many of the events it told, how
many commands came whole, and its CPU time for each event that happened.

* ``linnix``: ``linnix run`` with the collector ebpf and the handler jsonl;
* ``linnix, delivered``: the same, where the handler gets all events and writes none of them;
* ``bpftrace``: three tracepoints and ``join(args.argv)``;
* ``forkstat``: the netlink connector.

Needs root, a C compiler (``cc``), and the Debian packages bpftrace and forkstat.

    python benchmarks/ebpf_peers.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import attrs
import psutil

GENERATOR = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* children every: make so many children, of which every so-manieth execs. */
int main(int argc, char **argv)
{
	int children = atoi(argv[1]), every = atoi(argv[2]), child, execs = 0;
	char word[32];

	(void)argc;
	for (child = 0; child < children; child++) {
		int exec = every && child % every == 0;
		pid_t pid;

		snprintf(word, sizeof(word), "child-%d-%d", getpid(), child);
		pid = exec ? fork() : vfork();
		if (pid < 0)
			return 1;
		if (pid == 0) {
			if (exec)
				execl("/bin/true", "true", word, "with two words", "", NULL);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
		execs += exec;
	}
	printf("%d %d\n", children, execs);
	return 0;
}
"""

BPFTRACE = """
tracepoint:sched:sched_process_fork { printf("fork %d\\n", args->child_pid); }
tracepoint:syscalls:sys_enter_execve { printf("exec %d ", pid); join(args->argv); }
tracepoint:sched:sched_process_exit { printf("exit %d\\n", pid); }
"""

#: Children of each generator, and of how many one execs.
WORKLOADS = {"forks": (20_000, 50), "execs": (3_000, 1)}

#: What a child that execs is called with, as each observer writes it.
COMMAND = re.compile(r"\btrue (child-\d+-\d+ with two words)\s*$")


@attrs.frozen
class Round:
    """One observer under one load: events by the generator's count and as told, the share of
    commands that came whole, seconds of the load, CPU seconds and memory of the observer."""

    happened: int
    told: int
    whole: float
    seconds: float
    cpu_s: float
    rss: int

    @property
    def us_per_event(self) -> float:
        return self.cpu_s / self.happened * 1e6


Told: TypeAlias = Callable[[str], tuple[int, int]]


def load(generator: Path, children: int, copies: int, every: int) -> tuple[int, int, float]:
    """Run the generator; forks and execs by its own count, and seconds."""
    began = time.monotonic()
    command = [str(generator), str(children), str(every)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(copies)]
    told = [tuple(map(int, process.communicate()[0].split())) for process in running]
    return sum(t[0] for t in told), sum(t[1] for t in told), time.monotonic() - began


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds so far, to the nanosecond where the kernel tells (schedstat), of all threads."""
    total = 0
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


@contextmanager
def observer(command: list[str], out: Path, ready: str | None) -> Iterator[psutil.Process]:
    """A program that follows, once it has said so; one that says nothing has a second."""
    with out.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + (30 if ready else 1)
        while time.monotonic() < deadline:
            text = out.read_text(errors="replace")
            if ready and re.search(ready, text):
                break
            select.select([], [], [], 0.05)
        else:
            if ready:
                raise SystemExit(f"{command[0]} did not begin: {text}")
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def quiet(process: psutil.Process) -> None:
    """Wait until an observer has caught up: it has stopped using the processor."""
    before = cpu_s(process)
    while True:
        select.select([], [], [], 0.5)
        now = cpu_s(process)
        if now - before < 0.02:
            return
        before = now


def told_by_linnix(text: str) -> tuple[int, int]:
    """How many events, and how many commands whole; the empty argument counts here."""
    events = commands = 0
    for line in text.splitlines():
        record = json.loads(line) if line.startswith("{") else {}
        if record.get("source") == "kernel":
            events += 1
            args = record["args"] or [""]
            commands += record["kind"] == "exec" and bool(
                len(args) == 4 and COMMAND.search(" ".join(args))
            )
    return events, commands


def told_by_account(text: str) -> tuple[int, int]:
    """How many events reached the collector by its own account; no commands are written."""
    records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return max((r["received"] for r in records if r.get("emitted") is not None), default=0), 0


def told_by_bpftrace(text: str) -> tuple[int, int]:
    # What a printf and a join write of one event may stand on two lines.
    events = len(re.findall(r"\b(?:fork|exec|exit) \d+ ", text.replace("\n", " \n")))
    return events, sum(bool(COMMAND.search(line)) for line in text.splitlines())


def told_by_forkstat(text: str) -> tuple[int, int]:
    lines = text.splitlines()
    # A fork is two lines, one for the parent and one for the child.
    events = sum(bool(re.match(r"\S+ (?:fork +\d+ child|exec|exit)\b", line)) for line in lines)
    commands = sum(bool(re.match(r"\S+ exec ", line) and COMMAND.search(line)) for line in lines)
    return events, commands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, default=2, help="generators at once")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for program in ("cc", "bpftrace", "forkstat"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is needed")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "generator.c").write_text(GENERATOR)
        generator = base / "generator"
        subprocess.run(["cc", "-O2", "-o", generator, base / "generator.c"], check=True)
        # The others throttle nobody, and this is one group that does more than it may.
        run = [
            sys.executable, "-m", "linnix_core", "run", "--no-plugins", "--collector", "ebpf",
            "--handler", "jsonl:-", "--set", f"agent.data_dir='{base / 'data'}'",
            "--set", "collectors.ebpf.cgroup_rate=0",
        ]  # fmt: skip
        silent = [*run, "--set", "handlers.jsonl.types=['system', 'loss']"]
        observers: dict[str, tuple[list[str], str | None, Told]] = {
            "linnix": (run, '"type":"system"', told_by_linnix),
            "linnix, delivered": (silent, '"type":"system"', told_by_account),
            "bpftrace": (["bpftrace", "-e", BPFTRACE], "Attaching", told_by_bpftrace),
            "forkstat": (["forkstat", "-e", "fork,exec,exit"], None, told_by_forkstat),
        }
        for workload, (children, every) in WORKLOADS.items():
            rounds: dict[str, list[Round]] = {name: [] for name in observers}
            for _ in range(options.rounds):
                for name, (command, ready, told) in observers.items():
                    with observer(command, base / "out", ready) as process:
                        quiet(process)
                        before = cpu_s(process)
                        forks, execs, seconds = load(generator, children, options.copies, every)
                        quiet(process)
                        used = cpu_s(process) - before
                        rss = process.memory_info().rss
                    events, commands = told((base / "out").read_text(errors="replace"))
                    rounds[name].append(
                        Round(2 * forks + execs, events, commands / execs, seconds, used, rss)
                    )
            report(workload, rounds)


def report(workload: str, rounds: dict[str, list[Round]]) -> None:
    cheapest = {name: min(r.us_per_event for r in each) for name, each in rounds.items()}
    for name, each in rounds.items():
        print(
            json.dumps(
                {
                    "benchmark": f"ebpf_peers/{workload}/{name}",
                    "us_per_event": round(cheapest[name], 2),
                    "times_cheaper_than_bpftrace": round(cheapest["bpftrace"] / cheapest[name], 1),
                    "runs_us": [round(r.us_per_event, 2) for r in each],
                    "happened": [r.happened for r in each],
                    # Others on this machine make a few as well.
                    "told": [r.told for r in each],
                    "commands_whole": [round(r.whole, 4) for r in each],
                    "events_per_s": [round(r.happened / r.seconds) for r in each],
                    "rss_mb": round(max(r.rss for r in each) / 1e6, 1),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
