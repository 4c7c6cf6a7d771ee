"""Says who this is, where, and who is process 1."""

import os

first = dict(line.split(":", 1) for line in open("/proc/1/status").read().splitlines())
print("ESCAPED: uid of the image" if os.getuid() in (0, 1234) else "CONTAINED:", os.getuid(), os.getcwd())
print(
    "CONTAINED: process 1 is root" if first["Uid"].split()[0] == "0" else "ESCAPED: process 1 is",
    first["Uid"],
)
