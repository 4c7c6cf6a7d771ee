"""Namespaces of one's own, or of others: the beginning of most kernel exploits of the last ten years."""

import os

from kernel import buffer, call, check, denied, finish

SIGCHLD = 17
FLAGS = {
    "user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "uts": 0x4000000,
    "ipc": 0x8000000, "cgroup": 0x2000000, "time": 0x80,
}  # fmt: skip


def cloned(flags):
    """Fork into a new namespace."""
    return _told(call("clone", flags | SIGCHLD, 0, 0, 0, 0))


def cloned_newly(flags):
    """The same by clone3."""
    arguments = buffer(88)
    arguments.raw = flags.to_bytes(8, "little") + bytes(24) + SIGCHLD.to_bytes(8, "little") + bytes(48)
    return _told(call("clone3", arguments, 64))


def _told(child):
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "ok cloned"


for name, flag in FLAGS.items():
    denied("unshare", flag, label="unshare " + name)
    if name != "time":
        check("clone with a new %s namespace" % name, lambda flag=flag: cloned(flag))
denied("unshare", FLAGS["user"] | FLAGS["mount"] | FLAGS["net"], label="unshare user, mount and net")
denied("clone3", 0, 0, label="clone3, nothing")
for name, flag in FLAGS.items():
    check("clone3 with a new %s namespace" % name, lambda flag=flag: cloned_newly(flag))

for name in ("user", "mnt", "pid", "net", "uts", "ipc", "cgroup", "time"):
    own = "/proc/self/ns/" + name
    if not os.path.exists(own):
        continue
    check("setns, own " + name, lambda own=own: call("setns", os.open(own, os.O_RDONLY), 0))
    check(
        "open a namespace of process 1, " + name, lambda name=name: os.open("/proc/1/ns/" + name, os.O_RDONLY)
    )
denied("setns", -1, 0, label="setns nothing")


def by_pid():
    """Enter the namespaces of process 1 by its number."""
    return call("setns", call("pidfd_open", 1, 0), FLAGS["mount"])


check("setns by pidfd of process 1", by_pid)


def map_root():
    """Make our own uid 0 in this namespace."""
    return os.write(os.open("/proc/self/uid_map", os.O_WRONLY), b"0 0 1")


check("write a uid map", map_root)
finish()
