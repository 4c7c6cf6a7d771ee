"""Takes as much as there is of what the kernel counts by uid, and holds it."""

import ctypes
import fcntl
import os
import signal
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
held = {}


def most(name, take, at_most):
    """Take until nothing more is given."""
    count = 0
    while count < at_most:
        try:
            take()
        except OSError:
            break
        count += 1
    held[name] = count


def inotify():
    if LIBC.inotify_init1(0) < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")


def pipe():
    ends = os.pipe()
    fcntl.fcntl(ends[1], 1031, 1 << 20)


def queued():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
    value = ctypes.c_void_p(0)
    if LIBC.sigqueue(os.getpid(), signal.SIGRTMIN, value) < 0:
        raise OSError(ctypes.get_errno(), "sigqueue")


most("inotify", inotify, 1000)
most("sigpending", queued, 200_000)
# Several processes, since one has few descriptors.
for _ in range(8):
    if os.fork() == 0:
        most("pipe", pipe, 400)
        signal.pause()
print("starving", held, flush=True)
sys.stdout.close()
signal.pause()
