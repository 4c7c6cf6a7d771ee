"""Writes as much as `fill.py`, and does not wait."""

import os

with open("/tmp/filler", "wb", buffering=0) as file:
    for _ in range(128):
        file.write(os.urandom(1 << 20))
print("ESCAPED: 128 MiB")
