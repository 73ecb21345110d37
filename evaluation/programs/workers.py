"""A server that starts a worker for every request and forgets them: RATE a second, MOST in all."""

import subprocess
import sys
import time

rate, most = float(sys.argv[1]), int(sys.argv[2])
begin = time.monotonic()
workers = []
while len(workers) < most:
    workers.append(subprocess.Popen(["sleep", "60"]))
    time.sleep(max(0.0, begin + len(workers) / rate - time.monotonic()))
time.sleep(5)
