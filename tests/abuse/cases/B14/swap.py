"""Reads what the kernel allows it together with swap."""

import pathlib

v1 = pathlib.Path("/sys/fs/cgroup/memory")
v2 = pathlib.Path("/sys/fs/cgroup")
if (v1 / "memory.memsw.limit_in_bytes").exists():
    both = int((v1 / "memory.memsw.limit_in_bytes").read_text())
    alone = int((v1 / "memory.limit_in_bytes").read_text())
    print("CONTAINED:" if both <= alone else "ESCAPED:", both, "with swap,", alone, "without")
elif (v2 / "memory.swap.max").exists():
    swap = (v2 / "memory.swap.max").read_text().strip()
    print("CONTAINED:" if swap == "0" else "ESCAPED:", swap, "of swap")
else:
    total = next(line for line in open("/proc/meminfo") if line.startswith("SwapTotal"))
    print("CONTAINED:" if total.split()[1] == "0" else "ESCAPED:", "not counted,", total.strip())
