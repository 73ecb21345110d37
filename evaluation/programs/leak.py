"""Keep RATE megabytes a second more, in steps of STEP seconds, growing as SHAPE says.

``linear``; ``noisy``: with short-lived garbage beside it; ``busy``: and compute half of the time;
``late``: steady for 20 seconds before it begins.
"""

import random
import sys
import time

rate, step, shape = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
kept = []
if shape == "late":
    kept.append(bytearray(20_000_000))
    time.sleep(20)
begin, taken = time.monotonic(), 0.0
while True:
    due = rate * (time.monotonic() - begin)
    if due > taken:
        kept.append(bytearray(b"x") * int((due - taken) * 1e6))
        taken = due
    end = time.monotonic() + step
    if shape == "noisy":
        garbage = bytearray(b"x") * random.randrange(1_000_000, 8_000_000)
        time.sleep(step / 2)
        del garbage
    while shape == "busy" and time.monotonic() < end - step / 2:
        sum(range(10_000))
    time.sleep(max(0.0, end - time.monotonic()))
