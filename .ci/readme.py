"""Take both commands out of the README and run them in an empty copy of the repository.

The first ends in ``linnix run``: it is interrupted, as a person would, once it has said
that it follows processes. The second runs every test; its exit code is ours.

    python .ci/readme.py COPY
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

#: Seconds for installing and for the first words of ``linnix run``.
FIRST_LINE_TIMEOUT_S = 900


def commands(readme: str) -> list[str]:
    """The lines of the README's shell blocks that begin with a prompt for a checkout."""
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("python3 ")]


def first(line: str, copy: Path) -> None:
    print(f"$ {line}", flush=True)
    run = subprocess.Popen(
        ["bash", "-c", line],
        cwd=copy,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    late = threading.Timer(FIRST_LINE_TIMEOUT_S, os.killpg, (run.pid, signal.SIGKILL))
    late.start()
    following = False
    assert run.stdout is not None
    for output in run.stdout:
        print(output, end="", flush=True)
        if not following and re.search(r"following [1-9]\d* processes", output):
            following = True
            os.killpg(run.pid, signal.SIGINT)
    code = run.wait()
    late.cancel()
    if not following:
        sys.exit(f"the first line of the README never followed a process (exit {code})")
    # bash reports the signal that it got along with its child; linnix itself ends with 0.
    if code not in (0, 130, -signal.SIGINT):
        sys.exit(f"the first line of the README ended with {code}")


def main() -> None:
    # A shell that starts CI in the background has told everyone below to ignore ctrl-C,
    # which the first line of the README and some tests press. What is caught here is the
    # default again in whoever is started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    copy = Path(sys.argv[1])
    lines = commands((copy / "README.md").read_text(encoding="utf-8"))
    if len(lines) != 2:
        sys.exit(f"the README should hold two commands for a checkout, not {len(lines)}")
    first(lines[0], copy)
    print(f"$ {lines[1]}", flush=True)
    sys.exit(subprocess.run(["bash", "-c", lines[1]], cwd=copy, check=False).returncode)


if __name__ == "__main__":
    main()
