"""Files by which the kernel, or the host, can be told what to do. None is written; that it opens is enough."""

import os
import time

from kernel import UNWRITABLE, closed_to_writing, finish, outcome, report

closed_to_writing(
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sysrq-trigger",
    "/proc/bus/pci/00/00.0",
    "/proc/irq/default_smp_affinity",
    "/proc/mtrr",
    "/proc/kcore",
    "/proc/fs/xfs/stat",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/uevent_seqnum",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/debug/sched/debug",
    "/sys/kernel/tracing/trace_marker",
    "/sys/kernel/security/apparmor/.load",
    "/sys/module/kernel/parameters/panic",
    "/sys/power/state",
    "/sys/power/disk",
    "/sys/fs/cgroup/release_agent",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/cgroup.subtree_control",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/pids.max",
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/dev/kmsg",
    "/dev/console",
    "/etc/passwd",
    "/etc/hosts",
    "/etc/ld.so.preload",
    "/bin/sh",
)


def files(top, seconds=10.0):
    """Yield the files of a tree, as many as there is time for."""
    ends = time.monotonic() + seconds
    for folder, _, names in os.walk(top):
        for name in names:
            if time.monotonic() > ends:
                return
            yield os.path.join(folder, name)


def writable(top):
    """Say which files of a tree open for writing."""
    opened, seen = [], 0
    for path in files(top):
        seen += 1
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            continue
        opened.append(path)
    return "EACCES" if not opened else "ok %d of %d: %s" % (len(opened), seen, opened[:5])


# What the lists above do not know: whatever is in these trees.
for top in (
    "/proc/sys",
    "/sys/fs/cgroup",
    "/sys/kernel",
    "/sys/module",
    "/sys/class",
    "/proc/irq",
    "/proc/fs",
):
    result = outcome(lambda top=top: writable(top), seconds=30)
    report("write anything below " + top, result, result in UNWRITABLE)


def new_group():
    """Make a control group of one's own: the way of release_agent."""
    for folder, _, _ in os.walk("/sys/fs/cgroup"):
        path = os.path.join(folder, "pocket-dock-probe")
        try:
            os.mkdir(path)
        except OSError:
            continue
        os.rmdir(path)
        return "ok in " + folder
    return "EACCES"


result = outcome(new_group)
report("make a control group", result, result in UNWRITABLE)
finish()
