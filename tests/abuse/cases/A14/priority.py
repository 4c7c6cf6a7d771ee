"""Wants to be more than others."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}


def rt_io() -> None:
    if libc.syscall(IOPRIO_SET[os.uname().machine], 1, 0, 1 << 13) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


for what, attack in {
    "FIFO": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)),
    "RR": lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)),
    "nice": lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
    "real-time I/O": rt_io,
}.items():
    try:
        attack()
    except OSError as error:
        print("CONTAINED:", what, error)
    else:
        print("ESCAPED:", what)
