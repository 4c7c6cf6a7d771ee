"""Computes in four processes for two seconds; says how much CPU time it got of the one CPU that it has."""

import os
import time

began = time.monotonic()
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        while time.monotonic() < began + 2:
            pass
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
used = os.times()
cores = (used.children_user + used.children_system) / (time.monotonic() - began)
print("ESCAPED:" if cores > 1.25 else "CONTAINED:", round(cores, 2), "cores")
