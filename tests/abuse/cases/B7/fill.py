"""Writes more than fits into what hides the volume."""

import os

written = 0
try:
    with open("/var/tmp/filler", "wb", buffering=0) as file:
        for _ in range(40):
            written += file.write(b"x" * (1 << 20)) >> 20
except OSError as error:
    print("CONTAINED: after", written, "MiB", error)
else:
    print("ESCAPED:", written, "MiB")
os.unlink("/var/tmp/filler")
