"""Fork RATE times a second (0: without a pause) for SECONDS; HOW is fork, process or run."""

import json
import multiprocessing
import os
import subprocess
import sys
import time


def nothing() -> None:
    """What a child does."""


def main(rate: float, seconds: float, how: str, *commands: str) -> None:
    """Fork, and tell how often."""
    fork = multiprocessing.get_context("fork")
    begin, made = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        if how == "fork":
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
        elif how == "process":
            process = fork.Process(target=nothing)
            process.start()
            process.join()
        else:
            subprocess.run([commands[made % len(commands)]], stdout=subprocess.DEVNULL, check=False)
        made += 1
        if rate:
            time.sleep(max(0.0, begin + made / rate - time.monotonic()))
    print(json.dumps({"count": made}))


main(float(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:])
