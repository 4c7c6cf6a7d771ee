"""What any program may need of that: a few of each, and a pipe that holds 64 KiB."""

import ctypes
import fcntl
import os
import signal

LIBC = ctypes.CDLL(None, use_errno=True)

for number in range(16):
    if LIBC.inotify_init1(0) < 0:
        print("ESCAPED inotify: none is left after", number)
        break
ends = os.pipe()
if fcntl.fcntl(ends[1], 1032) < 65536:
    print("ESCAPED pipes: one holds", fcntl.fcntl(ends[1], 1032))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
for number in range(1000):
    if LIBC.sigqueue(os.getpid(), signal.SIGRTMIN, ctypes.c_void_p(0)) < 0:
        print("ESCAPED queued signals: none is left after", number)
        break
if LIBC.fork() == 0:
    os._exit(0)
os.wait()
print("all there")
