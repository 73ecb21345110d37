"""Write blocks of KB to FILE for SECONDS, each forced to disk; begin anew after MB megabytes."""

import json
import os
import sys
import time
from pathlib import Path

path, seconds, block, size = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
end, made = time.monotonic() + seconds, 0
data = os.urandom(1024) * block
with Path(path).open("wb", buffering=0) as file:
    while time.monotonic() < end:
        file.write(data)
        os.fdatasync(file.fileno())
        made += 1
        if file.tell() > size * 1_000_000:
            file.seek(0)
print(json.dumps({"count": made}))
