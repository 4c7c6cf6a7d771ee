"""What a sandbox learns of its host, and is documented to learn: none of it may be more than facts.

Each readable file is reported as such. What must not be in it: addresses of the kernel, and files of the host.
"""

import os
import re

from kernel import finish, report

FACTS = (
    "/proc/meminfo", "/proc/cpuinfo", "/proc/interrupts", "/proc/softirqs", "/proc/stat", "/proc/loadavg",
    "/proc/uptime", "/proc/version", "/proc/cmdline", "/proc/filesystems", "/proc/partitions", "/proc/diskstats",
    "/proc/vmstat", "/proc/zoneinfo", "/proc/buddyinfo", "/proc/swaps", "/proc/modules", "/proc/kallsyms",
    "/proc/config.gz", "/proc/key-users", "/proc/net/dev", "/proc/sys/kernel/hostname", "/proc/sys/kernel/random/boot_id",
    "/sys/class/dmi/id/product_name", "/sys/devices/system/cpu/online", "/sys/block",
    "/sys/kernel/boot_params/data", "/proc/self/mountinfo",
)  # fmt: skip

for path in FACTS:
    try:
        readable = os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(64)
        report("documented " + path, "readable" if readable else "empty", True)
    except OSError as error:
        report("documented " + path, type(error).__name__, True)

with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
    MOUNTS = [line.split() for line in file]
# Single files that the engine has made for this container; all else would be the host's.
ENGINE = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv", "/dev/termination-log"}
KINDS = {"overlay", "proc", "tmpfs", "devpts", "sysfs", "cgroup", "cgroup2", "mqueue", "fuse.fuse-overlayfs"}
for fields in MOUNTS:
    kind = fields[fields.index("-") + 1]
    where = fields[4]
    report("mount of %s on %s" % (kind, where), kind, kind in KINDS or where in ENGINE)
# Names of other containers on the same host, or of our user, are more than facts.
paths = {match for fields in MOUNTS for match in re.findall(r"/[0-9a-f]{64}", " ".join(fields))}
report("containers that are named", str(len(paths)), len(paths) <= 2)
report("host name", os.uname().nodename, os.uname().nodename != "")
finish()
