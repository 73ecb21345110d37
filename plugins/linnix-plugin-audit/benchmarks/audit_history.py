"""``linnix audit`` on a history of 10,000 commits, beside ``git log -p`` of the same.

The peer only reads what was changed in each commit, and looks at nothing in it.

    python plugins/linnix-plugin-audit/benchmarks/audit_history.py [--commits 10000] [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

FILES = 400
LINES = 60
TARGET_S = 60.0


def history(commits: int) -> Iterator[bytes]:
    """What ``git fast-import`` makes a history of: each commit rewrites three files of 400."""
    rng = random.Random(1)
    words = [f"word_{number}" for number in range(5000)]
    for commit in range(1, commits + 1):
        yield b"commit refs/heads/main\n"
        yield f"committer A <a@example.org> {1_700_000_000 + commit} +0000\n".encode()
        yield b"data 6\nchange\n"
        for file in rng.sample(range(FILES), 3):
            text = "".join(f"{' '.join(rng.sample(words, 6))}\n" for _ in range(LINES)).encode()
            yield f"M 100644 inline src/module_{file}.py\ndata {len(text)}\n".encode() + text


def timed(command: list[str], folder: Path) -> tuple[float, int]:
    """Seconds, and the exit code."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began, done.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["git", "init", "-q", "-b", "main", name], check=True)
        subprocess.run(
            ["git", "fast-import", "--quiet"],
            input=b"".join(history(options.commits)),
            cwd=folder,
            check=True,
        )
        subprocess.run(["git", "checkout", "-q", "-f", "main"], cwd=folder, check=True)
        audit = [sys.executable, "-m", "linnix_core", "audit"]
        commands = {
            "split": [*audit, "split", "."],
            "segregation": [*audit, "segregation", "."],
            "git log -p": ["git", "--no-pager", "log", "-p", "--no-color"],
        }
        for what, command in commands.items():
            found = [timed(command, folder) for _ in range(options.runs)]
            print(
                json.dumps(
                    {
                        "benchmark": f"audit_history/{what}",
                        "commits": options.commits,
                        "repository_mb": round(_size(folder / ".git") / 1e6, 1),
                        "best_s": round(min(seconds for seconds, _ in found), 2),
                        "worst_s": round(max(seconds for seconds, _ in found), 2),
                        "exit_codes": sorted({code for _, code in found}),
                        "target_s": TARGET_S,
                    }
                )
            )


def _size(folder: Path) -> int:
    return sum(
        os.lstat(Path(root) / file).st_size for root, _, files in os.walk(folder) for file in files
    )


if __name__ == "__main__":
    main()
