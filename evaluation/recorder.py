"""Records: the real agent with its collectors, while cases run."""

from __future__ import annotations

import gzip
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from evaluation import ordinary
from evaluation.cases import Case
from evaluation.runner import end_all, prepare_case, run_case
from evaluation.witness import dumps

__all__ = ["Agent", "Live", "record", "watch"]

#: Seconds before the first case and after the last one, and between two of a lane.
LEAD_S, PAUSE_S = 3.0, 5.0

_CONFIG = """
[agent]
data_dir = "{folder}/data"
drop_privileges = false

[collectors.ebpf]
ring_size = "32MiB"

[collectors.psi]

{handlers}
"""

#: Nothing may be missing, so the collectors wait where the writer does not keep up.
_RECORDING = """
[handlers.jsonl]
path = "{path}"
max_bytes = 0
max_total_bytes = 0
fsync = "never"
queue = 1024
overflow = "block"
types = ["event", "sample", "cgroup", "system", "loss"]
"""


class Agent:
    """``linnix run`` with the collectors that follow processes and cgroups."""

    def __init__(self, folder: Path, handlers: str, stdout: int = subprocess.DEVNULL) -> None:
        config = folder / "linnix.toml"
        config.write_text(_CONFIG.format(folder=folder, handlers=handlers))
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "linnix_core", "run", "-c", str(config)],
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=log,
            )  # fmt: skip
        self.usage: dict[str, float] = {}

    def stop(self) -> None:
        """End it, and know what it cost."""
        began = time.monotonic()
        # Not send_signal, which would take the status of one that has ended by itself.
        os.kill(self.process.pid, signal.SIGINT)
        _, status, use = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.usage = {
            "cpu_s": round(use.ru_utime + use.ru_stime, 2), "max_rss_bytes": use.ru_maxrss * 1024,
            "exit_code": self.process.returncode, "stop_s": round(time.monotonic() - began, 2),
        }  # fmt: skip


@attrs.frozen
class Live:
    """What the agent said while cases ran, each line with the time at which it came."""

    truth: dict[str, Any]
    lines: list[tuple[int, bytes]]


def record(
    lanes: Sequence[Sequence[Case]], root: Path, name: str, *, lead_s: float = LEAD_S
) -> Path:
    """Run each lane's cases one after the other, all lanes at once; the folder of the recording."""
    scratch = _scratch(root)
    raw = scratch / "records.jsonl"
    handlers = _RECORDING.format(path=raw)
    folders = _prepare(lanes, root)
    agent = Agent(scratch, handlers)
    truth = _run(lanes, folders, root, scratch, agent, lambda: _size(raw), lead_s)
    folder = root / "recordings" / name
    folder.mkdir(parents=True)
    with raw.open("rb") as source, gzip.open(folder / "records.jsonl.gz", "wb", 4) as packed:
        shutil.copyfileobj(source, packed, 2**20)
    (folder / "truth.json").write_text(dumps(truth))
    shutil.rmtree(scratch, ignore_errors=True)
    return folder


def watch(
    lanes: Sequence[Sequence[Case]], root: Path, rules: Path | None, *, lead_s: float = LEAD_S
) -> Live:
    """The same with the rules at work, and nothing but their alerts written."""
    scratch = _scratch(root)
    path = "" if rules is None else f'path = "{rules}"\n'
    handlers = (
        f'[handlers.rules]\n{path}[handlers.jsonl]\npath = "-"\ntypes = ["alert", "system"]\n'
    )
    folders = _prepare(lanes, root)
    agent = Agent(scratch, handlers, subprocess.PIPE)
    lines: list[tuple[int, bytes]] = []

    def read() -> None:
        assert agent.process.stdout is not None
        with agent.process.stdout as stdout:
            lines.extend((time.time_ns(), line) for line in stdout)

    reader = threading.Thread(target=read)
    reader.start()
    truth = _run(lanes, folders, root, scratch, agent, lambda: len(lines), lead_s)
    reader.join()
    shutil.rmtree(scratch, ignore_errors=True)
    return Live(truth, lines)


def _scratch(root: Path) -> Path:
    """Where nothing that is written touches a disk, as the disk is what is watched."""
    memory = Path("/dev/shm")
    scratch = (memory if memory.is_dir() else root) / f"linnix-evaluation-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    return scratch


def _prepare(lanes: Sequence[Sequence[Case]], root: Path) -> dict[str, Path]:
    ordinary.WHEELS = root / "wheels"
    return {case.name: prepare_case(case, root) for lane in lanes for case in lane}


def _run(
    lanes: Sequence[Sequence[Case]], folders: dict[str, Path], root: Path, scratch: Path,
    agent: Agent, said: Callable[[], int], lead_s: float,
) -> dict[str, Any]:  # fmt: skip
    """Everything runs, and ends; the truth about it."""
    truths: list[dict[str, Any]] = []
    began_ns = time.time_ns()
    try:
        _await(said, scratch)
        time.sleep(lead_s)
        threads = [
            threading.Thread(target=_lane, args=(lane, n, folders, root, truths), daemon=True)
            for n, lane in enumerate(lanes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(lead_s)
    finally:
        end_all()
        agent.stop()
    return {
        "format": 1, "began_ns": began_ns, "ended_ns": time.time_ns(), "agent": agent.usage,
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release()},
        "harness": os.getpid(), "agent_pid": agent.process.pid,
        "log": (scratch / "log").read_text(errors="replace")[-2000:],
        "cases": sorted(truths, key=lambda truth: truth["began_ns"]),
    }  # fmt: skip


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _await(said: Callable[[], int], scratch: Path) -> None:
    """Until the agent has said something."""
    end = time.monotonic() + 30
    while not said():
        if time.monotonic() > end:
            log = (scratch / "log").read_text(errors="replace")
            raise TimeoutError(f"the agent said nothing for 30 seconds: {log[-1000:]}")
        time.sleep(0.1)


def _lane(
    lane: Sequence[Case],
    number: int,
    folders: dict[str, Path],
    root: Path,
    truths: list[dict[str, Any]],
) -> None:
    time.sleep(2.0 * number)
    for n, case in enumerate(lane):
        if n:
            time.sleep(PAUSE_S)
        truths.append(run_case(case, folders[case.name], root))
