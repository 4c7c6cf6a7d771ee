"""Reads how much CPU time the kernel allows it."""

import pathlib

v1 = pathlib.Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
v2 = pathlib.Path("/sys/fs/cgroup/cpu.max")
if v1.exists():
    quota, period = v1.read_text().strip(), v1.with_name("cpu.cfs_period_us").read_text().strip()
else:
    quota, period = v2.read_text().split()
is_limited = quota not in ("-1", "max") and int(quota) <= int(period)
print("CONTAINED:" if is_limited else "ESCAPED:", quota, "of", period)
