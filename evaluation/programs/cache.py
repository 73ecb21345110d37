"""A cache that grows by RATE megabytes a second to MOST megabytes, and is then used for SECONDS."""

import random
import sys
import time

rate, most, seconds = float(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
cache = []
begin = time.monotonic()
while sum(map(len, cache)) < most * 1e6:
    cache.append(bytearray(b"x") * 250_000)
    time.sleep(max(0.0, begin + len(cache) * 0.25 / rate - time.monotonic()))
end = time.monotonic() + seconds
while time.monotonic() < end:
    for _ in range(200):
        random.choice(cache)[random.randrange(1000)] = 1
    time.sleep(0.02)
