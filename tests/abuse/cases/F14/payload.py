"""Files by their handles, past every directory: the "shocker" of 2014."""

import ctypes
import os

from kernel import buffer, call, check, denied, finish, text

HERE, EMPTY_PATH = -100, 0x1000


def by_handle(path):
    """Open what a handle stands for that the kernel has given for a file."""
    handle, mount = buffer(136), ctypes.c_int()
    handle.raw = (128).to_bytes(4, "little") + bytes(132)
    call("name_to_handle_at", HERE, text(path), handle, ctypes.byref(mount), 0)
    return call("open_by_handle_at", os.open(path, os.O_RDONLY), handle, os.O_RDONLY)


def root_of(path):
    """Open inode 2, the root of most file systems, of that which a file lies on: the host's disk."""
    handle = buffer(16)
    handle.raw = (8).to_bytes(4, "little") + (1).to_bytes(4, "little") + (2).to_bytes(8, "little")
    return call("open_by_handle_at", os.open(path, os.O_RDONLY), handle, os.O_RDONLY)


denied("name_to_handle_at", HERE, text("/"), buffer(136), buffer(8), 0)
check("a handle of /", lambda: by_handle("/"))
for path in ("/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
    if os.path.exists(path):
        check("inode 2 beside " + path, lambda path=path: root_of(path))
finish()
