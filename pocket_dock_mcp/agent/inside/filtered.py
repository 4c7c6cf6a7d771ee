"""Which system calls get past the filter: tried, since the kernel only says that there is one.

Each is made with arguments that the kernel refuses before it does anything. So it is told apart by its error
who has refused, the filter or the kernel, and nothing happens where there is no filter.
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Not otherwise: see `early`.
    from typing import Iterator, List, Optional, Tuple

PERM, BAD = errno.EPERM, -1
MARK = errno.ENOANO
"""What our filter, and nothing else, answers to a call that no kernel has."""
GENERIC = ("aarch64", "riscv64", "loongarch64")
"""Machines whose system calls have the numbers of the kernel's common table."""

# Name, number on x86_64 and in the common table (0: there is none), arguments, the filter's answer.
CALLS = (
    ("mark", 180, 42, (), MARK),
    ("unshare", 272, 97, (0,), PERM),
    ("setns", 308, 268, (BAD, 0), PERM),
    # NEWNS with FS: a contradiction.
    ("clone", 56, 220, (0x20211, 0, 0, 0, 0), PERM),
    ("clone3", 435, 435, (0, 0), errno.ENOSYS),
    ("mount", 165, 40, (0, 0, 0, 0, 0), PERM),
    ("umount2", 166, 39, (0, BAD), PERM),
    ("chroot", 161, 51, (0,), PERM),
    ("open_tree", 428, 428, (BAD, 0, BAD), PERM),
    ("fsconfig", 431, 431, (BAD, 0, 0, 0, 0), PERM),
    ("mount_setattr", 442, 442, (BAD, 0, BAD, 0, 0), PERM),
    ("quotactl", 179, 60, (BAD, 0, 0, 0), PERM),
    ("ptrace", 101, 117, (1, 0, 0, 0), PERM),
    ("process_vm_readv", 310, 270, (0, 0, 0, 0, 0, 1), PERM),
    ("process_vm_writev", 311, 271, (0, 0, 0, 0, 0, 1), PERM),
    ("process_madvise", 440, 440, (BAD, 0, 0, 0, 1), PERM),
    ("move_pages", 279, 239, (0, 0, 0, 0, 0, BAD), PERM),
    ("mbind", 237, 235, (0, 0, 9999, 0, 0, BAD), PERM),
    ("pidfd_getfd", 438, 438, (BAD, BAD, 1), PERM),
    ("kcmp", 312, 272, (0, 0, 99, 0, 0), PERM),
    ("keyctl", 250, 219, (9999, 0, 0, 0, 0), PERM),
    ("add_key", 248, 217, (0, 0, 0, BAD, 0), PERM),
    ("request_key", 249, 218, (0, 0, 0, 0), PERM),
    ("io_uring_setup", 425, 425, (0, 0), PERM),
    ("io_uring_enter", 426, 426, (BAD, 0, 0, BAD, 0, 0), PERM),
    ("io_uring_register", 427, 427, (BAD, 0, 0, 0), PERM),
    ("io_destroy", 207, 1, (0,), errno.ENOSYS),
    ("userfaultfd", 323, 282, (BAD,), PERM),
    ("bpf", 321, 280, (9999, 0, 0), PERM),
    ("perf_event_open", 298, 241, (0, 0, 0, 0, BAD), PERM),
    ("fanotify_init", 300, 262, (BAD, 0), PERM),
    ("vmsplice", 278, 75, (BAD, 0, 0, BAD), PERM),
    ("name_to_handle_at", 303, 264, (BAD, 0, 0, 0, BAD), PERM),
    ("open_by_handle_at", 304, 265, (BAD, 0, 0), PERM),
    ("clock_settime", 227, 112, (9999, 0), PERM),
    ("settimeofday", 164, 170, (1, 0), PERM),
    ("syslog", 103, 116, (10, 0, 0), PERM),
    ("modify_ldt", 154, 0, (9999, 0, 0), PERM),
)
SOCKET = 41, 198
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
STREAM, RAW, DCCP = 1, 3, 6
SCTP = 132
MOST_FAMILIES = 46
WRONG = 0x4000
"""A flag that no socket has: the kernel says EINVAL before it looks at family or protocol."""


def let_through() -> Optional[List[str]]:
    """Name the calls that our filter refuses and that get past; None where nobody knows their numbers."""
    machine = os.uname().machine
    if machine != "x86_64" and machine not in GENERIC:
        return None
    column = 0 if machine == "x86_64" else 1
    system_call = ctypes.CDLL(None, use_errno=True).syscall
    found = []
    for name, *numbers, arguments, refusal in CALLS:
        number = numbers[column]
        if not number:
            continue
        result = system_call(number, *arguments)
        if name == "clone" and result == 0:
            # A kernel of another make, such as gVisor's, saw no contradiction: this is the child.
            os._exit(0)
        if result != -1 or ctypes.get_errno() != refusal:
            found.append(name)
    for name, arguments in sockets():
        if system_call(SOCKET[column], *arguments) != -1 or ctypes.get_errno() == errno.EINVAL:
            found.append(name)
    return found


def sockets() -> Iterator[Tuple[str, Tuple[int, int, int]]]:
    for family in range(MOST_FAMILIES):
        if family not in (UNIX, INET, INET6, NETLINK):
            yield "socket(%d)" % family, (family, STREAM | WRONG, 0)
    for family in (INET, INET6):
        yield "socket(%d, raw)" % family, (family, RAW | WRONG, 0)
        yield "socket(%d, dccp)" % family, (family, DCCP | WRONG, 0)
        yield "socket(%d, sctp)" % family, (family, STREAM | WRONG, SCTP)
    yield "socket(netlink, 12)", (NETLINK, RAW | WRONG, 12)
