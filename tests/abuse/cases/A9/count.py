"""Says whether there is a zombie."""

import pathlib
import time


def zombies() -> list[str]:
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text()
        except OSError:
            continue
        if fields.rpartition(")")[2].split()[0] == "Z":
            found.append(fields)
    return found


for _ in range(100):
    if not zombies():
        print("CONTAINED: no zombie")
        break
    time.sleep(0.05)
else:
    print("ESCAPED:", zombies())
