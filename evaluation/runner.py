"""Runs one case in a cgroup of its own, and writes down what happened."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from evaluation.cases import PROGRAMS, Case
from evaluation.witness import (
    Group,
    Witness,
    described,
    host_counts,
    own_count,
    own_groups,
    pids_in,
)

__all__ = ["available", "end_all", "prepare_case", "run_case"]

#: Memory of all cases together.
TOTAL_BYTES = 8_000_000_000

#: Seconds that a program gets beyond those of its plan before it is stopped, and between looks.
PATIENCE_S, LOOK_S = 4.0, 0.5


def available(case: Case) -> bool:
    """Whether what it needs is on this machine."""
    return all(shutil.which(need) for need in case.family.needs)


def _compiled(name: str, folder: Path) -> str:
    """The binary of a C program of ours, compiled once."""
    source, binary = PROGRAMS / name, folder / name.removesuffix(".c")
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["gcc", "-O1", "-pthread", "-o", str(binary), str(source)],
            check=True,
            capture_output=True,
        )
    return str(binary)


def prepare_case(case: Case, root: Path) -> Path:
    """Everything that is not part of the case: its folder, its files, its binary."""
    folder = root / "work" / f"{case.name}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    if case.plan.argv[0].startswith("@"):
        _compiled(case.plan.argv[0][1:], root / "bin")
    if case.plan.prepare is not None:
        case.plan.prepare(folder)
    return folder


def run_case(case: Case, folder: Path, root: Path) -> dict[str, Any]:
    """The truth about one run. Nothing of it is left when this returns."""
    plan = case.plan
    group = Group(f"{case.name}-{os.getpid()}", plan.limit_bytes, TOTAL_BYTES)
    argv = list(plan.argv)
    if argv[0].startswith("@"):
        argv[0] = _compiled(argv[0][1:], root / "bin")
    if plan.user is not None:
        as_user = [
            "setpriv",
            f"--reuid={plan.user}",
            f"--regid={plan.user}",
            "--clear-groups",
            "--",
        ]
        argv = [*as_user, *argv]
    # The shell joins the group and becomes the program, so that the pid is that of the program.
    enter = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group.procs), *argv]
    output = folder / "output"
    before, began_ns, witness = host_counts(), time.time_ns(), Witness(group)
    with output.open("wb") as file:
        process = subprocess.Popen(
            enter, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, **plan.env, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    stopped = False
    full_ns = ended_ns = looked = held = 0
    leaks = case.family.kind == "oom_risk"
    usage = status = None
    try:
        while True:
            time.sleep(0.05)
            elapsed = time.monotonic() - witness.began_s
            if elapsed >= looked * LOOK_S:
                looked += 1
                witness.look()
                held = max(held, group.held_bytes() if leaks else 0)
                if leaks and not full_ns and held >= case.plan.least * (plan.limit_bytes or 0):
                    # Some programs lose their code before they are killed, and stand still.
                    full_ns = time.time_ns()
            if leaks and not full_ns and group.kills():
                full_ns = time.time_ns()
            pid, code, use = os.wait4(process.pid, os.WNOHANG)
            if pid:
                usage, status, ended_ns = use, os.waitstatus_to_exitcode(code), time.time_ns()
                break
            if elapsed > plan.seconds + PATIENCE_S:
                stopped = True
                os.killpg(process.pid, signal.SIGKILL)
                _, code, usage = os.wait4(process.pid, 0)
                status, ended_ns = os.waitstatus_to_exitcode(code), time.time_ns()
                break
        process.returncode = status  # Popen must not wait for it once more.
        witness.look()
    finally:
        _empty(group.procs)
    if leaks and group.kills():
        full_ns, held = full_ns or ended_ns, max(held, group.peak_bytes())
    after = host_counts()
    said = output.read_text(errors="replace")[-20_000:]
    seconds = (ended_ns - began_ns) / 1e9
    members = witness.members()
    truth: dict[str, Any] = {
        "name": case.name, "family": case.family.name, "kind": case.family.kind,
        "split": case.family.split, "seed": case.seed, "also": list(plan.also), "leak": plan.leak,
        "drawn": {k: str(v) for k, v in case.drawn.items()},
        "cgroup": group.path, "root": process.pid,
        "began_ns": began_ns, "ended_ns": ended_ns, "full_ns": full_ns or None,
        "stopped": stopped, "exit_code": status,
        "counted": own_count(said),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2) if usage else None,
        "written_bytes": usage.ru_oublock * 512 if usage else None,
        "read_bytes": usage.ru_inblock * 512 if usage else None,
        "seen_cpu_s": round(sum(m.cpu_s for m in members), 2),
        "seen_io_bytes": sum(m.io_bytes for m in members),
        "most_alive": witness.most_alive, "oom_kills": group.kills(),
        "peak_bytes": group.peak_bytes(), "held_bytes": held, "limit_bytes": plan.limit_bytes,
        "host": {name: after[name] - before[name] for name in before},
        "members": [described(member) for member in members],
        "said": said[-300:] if case.family.kind is None or not plan.least else "",
    }  # fmt: skip
    truth["measure"], truth["happened"] = _confirmed(case, truth, seconds)
    group.remove()
    shutil.rmtree(folder, ignore_errors=True)
    return truth


def end_all() -> None:
    """Kill what is left of this process's cases, when it had to stop in between."""
    for procs in own_groups():
        _empty(procs)
        with contextlib.suppress(OSError):  # Its own thread may have been quicker.
            procs.parent.rmdir()


def _empty(procs: Path) -> None:
    """Kill what is left in a group, which holds nothing but the case."""
    for _ in range(200):
        pids = pids_in(procs)
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def _confirmed(case: Case, truth: dict[str, Any], seconds: float) -> tuple[float, bool]:
    """What the witness counted in the measure of the class, and whether that is an incident."""
    kind, host = case.family.kind, truth["host"]
    measure: float
    if kind is None:
        return round(seconds, 1), seconds >= 5
    if kind in {"fork_storm", "short_job_flood"}:
        # Its own count; the machine's, which has everybody's, where it has none.
        counted = truth["counted"] if truth["counted"] is not None else host["forks"]
        measure = min(counted, host["forks"]) / seconds
    elif kind == "runaway_tree":
        measure = truth["most_alive"]
    elif kind == "cpu_spin":
        measure = max(truth["cpu_s"] or 0, truth["seen_cpu_s"]) / seconds
    elif kind == "io_saturation":
        moved = max(truth["written_bytes"] + truth["read_bytes"], truth["seen_io_bytes"])
        measure = max(moved / 1e6, host.get("io_some_us", 0) / 1e4) / seconds
    else:
        measure = truth["held_bytes"] / truth["limit_bytes"] if truth["full_ns"] else 0.0
    return round(measure, 2), measure >= case.plan.least
