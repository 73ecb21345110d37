"""Busy with nothing for SECONDS: HOW is loop, poll, exceptions or threads."""

import os
import sys
import threading
import time

end = time.monotonic() + float(sys.argv[1])
how = sys.argv[2]


def loop() -> None:
    """Retry for ever."""
    while time.monotonic() < end:
        for _ in range(10_000):
            pass


def poll() -> None:
    """Ask again and again whether there is something to do."""
    while time.monotonic() < end:
        os.access("/", os.F_OK)


def exceptions() -> None:
    """Fail and try again."""
    while time.monotonic() < end:
        try:
            {}["no"]
        except KeyError:
            continue


if how == "threads":
    for _ in range(4):
        threading.Thread(target=loop).start()
else:
    {"loop": loop, "poll": poll, "exceptions": exceptions}[how]()
