"""Writes four times as much as the sandbox may have, at a speed that leaves a guard its time."""

import os
import time

with open("/tmp/filler", "wb", buffering=0) as file:
    for _ in range(256):
        file.write(os.urandom(1 << 20))
        time.sleep(0.05)
print("ESCAPED: 256 MiB")
