"""What the kernel tells of the host's memory, timers, keys, firmware and power use."""

import glob
import os
import re

from kernel import UNREADABLE, check, closed_to_reading, finish, outcome, report

closed_to_reading(
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/acpi",
    "/proc/asound",
    "/proc/slabinfo",
    "/proc/vmallocinfo",
    "/proc/pagetypeinfo",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/1/cwd/etc/shadow",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/sys/devices/virtual/dmi/id/product_serial",
    "/sys/devices/virtual/dmi/id/product_uuid",
    "/sys/devices/virtual/dmi/id/board_serial",
    "/sys/class/dmi/id/chassis_serial",
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/dev/kmsg",
    "/dev/nvram",
    "/dev/fuse",
    "/dev/kvm",
    "/dev/net/tun",
    "/dev/vsock",
    "/dev/uinput",
    "/dev/loop-control",
    "/dev/userfaultfd",
    "/etc/shadow",
)
for path in sorted(
    glob.glob("/sys/class/powercap/*/energy_uj") + glob.glob("/sys/devices/virtual/powercap/*/*/energy_uj")
):
    closed_to_reading(path)

DEVICES = {
    "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm", "mqueue", "fd", "core",
    "stdin", "stdout", "stderr",
}  # fmt: skip
others = sorted(set(os.listdir("/dev")) - DEVICES)
report("devices", str(others), not others)


def addresses(path, pattern):
    """Say whether a file shows an address of the kernel that is not 0."""
    with open(path, encoding="ascii", errors="replace") as file:
        for number, line in enumerate(file):
            found = re.search(pattern, line)
            if found and int(found[1], 16):
                return "ok line %d: %s" % (number, line.strip())
            if number > 20000:
                break
    return "zeros"


for path, pattern in (
    ("/proc/kallsyms", r"^([0-9a-f]+) "),
    ("/proc/modules", r"0x([0-9a-f]+)$"),
    # Every range is said to begin at 0.
    ("/proc/iomem", r"^ *([0-9a-f]+)-"),
    ("/proc/ioports", r"^ *([0-9a-f]+)-"),
    ("/proc/net/unix", r"^([0-9a-f]+): (?!0000)"),
):
    if os.path.exists(path):
        result = outcome(lambda path=path, pattern=pattern: addresses(path, pattern))
        report("addresses in " + path, result, result in UNREADABLE)


def frame_numbers():
    """Say whether the frames of our own pages are told: the lower 55 bits."""
    with open("/proc/self/maps", encoding="ascii") as maps:
        start = int(maps.readline().split("-")[0], 16)
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(start // 4096 * 8)
        frame = int.from_bytes(file.read(8), "little") & ((1 << 55) - 1)
    return "ok %x" % frame if frame else "zeros"


check("frame numbers in /proc/self/pagemap", frame_numbers, UNREADABLE)
finish()
