"""Writes twice as much as the sandbox may have, and waits for what a guard does about it."""

import os
import time

with open("/tmp/filler", "wb", buffering=0) as file:
    for _ in range(128):
        file.write(os.urandom(1 << 20))
time.sleep(40)
print("ESCAPED: 128 MiB")
