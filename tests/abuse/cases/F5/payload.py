"""Reading and steering other processes: those of the same user, of another run, and the first one."""

import ctypes
import os

from kernel import buffer, call, check, closed_to_reading, closed_to_writing, denied, finish, reap, sibling

TRACEME, ATTACH, SEIZE = 0, 16, 0x4206


class Span(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


victim = sibling()
# What both have in common since the fork: the same place in each of them.
data = buffer(16)
place = Span(ctypes.addressof(data), 16)
local = ctypes.byref(place)

denied("ptrace", TRACEME, 0, 0, 0, label="ptrace TRACEME")
for who, pid in (("a sibling", victim), ("process 1", 1)):
    denied("ptrace", ATTACH, pid, 0, 0, label="ptrace ATTACH " + who)
    denied("ptrace", SEIZE, pid, 0, 0, label="ptrace SEIZE " + who)
    denied("process_vm_readv", pid, local, 1, local, 1, 0, label="process_vm_readv " + who)
    denied("process_vm_writev", pid, local, 1, local, 1, 0, label="process_vm_writev " + who)
    denied("kcmp", os.getpid(), pid, 0, 1, 1, label="kcmp " + who)


def steal(pid):
    """Take a copy of another's standard output."""
    return call("pidfd_getfd", call("pidfd_open", pid, 0), 1, 0)


check("pidfd_getfd a sibling", lambda: steal(victim))
check("pidfd_getfd process 1", lambda: steal(1))
denied("pidfd_getfd", -1, 0, 0, label="pidfd_getfd nothing")
reap(victim)

closed_to_reading("/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/1/pagemap", "/proc/1/auxv")
closed_to_reading("/proc/1/stack", "/proc/1/syscall", "/proc/1/fd", "/proc/1/map_files", "/proc/1/io")
closed_to_writing("/proc/1/mem", "/proc/1/oom_score_adj", "/proc/1/clear_refs")
closed_to_writing("/proc/1/uid_map", "/proc/1/gid_map", "/proc/1/setgroups")


def slacken():
    """Write to a file of process 1 that everybody may open: its usual value."""
    return os.write(os.open("/proc/1/timerslack_ns", os.O_WRONLY), b"50000")


check("write /proc/1/timerslack_ns", slacken)
finish()
