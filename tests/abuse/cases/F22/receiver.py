"""Looks for them."""

import ctypes
import fcntl
import os
import socket

LIBC = ctypes.CDLL(None, use_errno=True)
KEY = 0x706F636B


def seen(what):
    print("ESCAPED a mark of another container is seen:", what)


for path in ("/bin/sh", "/usr/bin/python3", "/etc/passwd", "/etc/debian_version"):
    if os.path.exists(path):
        try:
            fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            seen("a lock on " + path)
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    try:
        socket.socket(socket.AF_UNIX, kind).bind("\0pocket-dock-covert-%d" % kind)
    except OSError:
        seen("an abstract socket")
if "pocket-dock-covert" in open("/proc/net/unix").read():
    seen("a name in /proc/net/unix")
try:
    socket.create_connection(("127.0.0.1", 47001), 1)
    seen("a TCP port")
except OSError:
    pass
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", 47002))
except OSError:
    seen("a UDP port")
for name, get in (
    ("shm", lambda: LIBC.shmget(KEY, 0, 0)),
    ("sem", lambda: LIBC.semget(KEY, 0, 0)),
    ("msg", lambda: LIBC.msgget(KEY, 0)),
):
    if get() >= 0:
        seen("System V " + name)
if os.path.exists("/dev/shm/pocket-dock-covert"):
    seen("/dev/shm")
if os.path.exists("/dev/mqueue/pocket-dock-covert"):
    seen("/dev/mqueue")
print("looked")
