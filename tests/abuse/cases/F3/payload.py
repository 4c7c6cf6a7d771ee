"""Mounts, by the old calls and the new ones; above all making writable again what is read-only."""

import os

from kernel import buffer, denied, finish, text

RDONLY, NOSUID, REMOUNT, BIND, REC, PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
HERE, DETACH = -100, 2
NOWHERE = "/tmp" if os.path.isdir("/tmp") else "/"

none, tmpfs = text("none"), text("tmpfs")
denied("mount", none, text(NOWHERE), tmpfs, 0, 0, label="mount tmpfs")
denied("mount", none, text(NOWHERE), text("proc"), 0, 0, label="mount proc")
denied("mount", none, text(NOWHERE), text("overlay"), 0, text("lowerdir=/"), label="mount overlay")
denied("mount", text("/"), text(NOWHERE), 0, BIND | REC, 0, label="mount --bind /")
for path in ("/proc/sys", "/sys", "/sys/fs/cgroup"):
    if os.path.isdir(path):
        denied("mount", none, text(path), 0, REMOUNT | BIND, 0, label="remount writable " + path)
denied("mount", none, text("/"), 0, PRIVATE | REC, 0, label="mount --make-rprivate /")
for path in ("/proc/sys", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/sys"):
    denied("umount2", text(path), DETACH, label="umount " + path)
denied("fsopen", tmpfs, 0)
denied("fsconfig", -1, 6, 0, 0, 0)
denied("fsmount", -1, 0, 0)
denied("fspick", HERE, text("/"), 0)
denied("open_tree", HERE, text("/"), 1, label="open_tree, a clone")
denied("move_mount", -1, text(""), HERE, text(NOWHERE), 4)
denied("mount_setattr", HERE, text("/proc/sys"), 0, buffer(32), 32)
denied("quotactl", 0x800002 << 8, 0, 0, buffer(), label="quotactl")
denied("swapon", text("/there/is/no/such/file"), 0)
denied("swapoff", text("/there/is/no/such/file"))
denied("acct", text("/there/is/no/such/file"))
finish()
