"""Leaves marks where another container might find them, and holds them."""

import ctypes
import fcntl
import os
import signal
import socket

LIBC = ctypes.CDLL(None, use_errno=True)
KEY = 0x706F636B
held = []
for path in ("/bin/sh", "/usr/bin/python3", "/etc/passwd", "/etc/debian_version"):
    try:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        held.append(descriptor)
    except OSError:
        continue
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    unix = socket.socket(socket.AF_UNIX, kind)
    unix.bind("\0pocket-dock-covert-%d" % kind)
    held.append(unix)
tcp = socket.create_server(("127.0.0.1", 47001))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 47002))
LIBC.shmget(KEY, 4096, 0o1666)
LIBC.semget(KEY, 1, 0o1666)
LIBC.msgget(KEY, 0o1666)
open("/dev/shm/pocket-dock-covert", "w").close()
LIBC.mq_open(b"/pocket-dock-covert", os.O_CREAT | os.O_RDWR, 0o666, None)
print("marked", flush=True)
signal.pause()
