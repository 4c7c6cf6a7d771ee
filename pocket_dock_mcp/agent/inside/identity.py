"""Who runs what: the agent stays uid 0 with two capabilities, everything else is the sandbox user.

The user's processes cannot signal, trace or read the agent (another uid, no capabilities,
no-new-privileges), and the agent, which has no CAP_KILL, acts on them by wearing their uid.
"""

from __future__ import annotations

import ctypes
import os
import stat

MARKER_FIRST = 61000
"""The first of the groups that tell runs apart."""

PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
CAP_SETGID = 6
CAP_SETUID = 7
LAST_CAP = 63

_HOSTS = "127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost ip6-localhost ip6-loopback\n"


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def shed_privileges() -> int:
    """Empty the bounding set and keep CAP_SETUID and CAP_SETGID only.

    The container gets CAP_SETPCAP for this one purpose. With an empty bounding set no program started
    from here can ever gain a capability, whatever its file says, even without no-new-privileges.
    Return what that set was, as a mask.
    """
    os.setgroups([])
    libc = ctypes.CDLL(None, use_errno=True)
    bounding = 0
    for capability in range(LAST_CAP + 1):
        if libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1:
            bounding |= 1 << capability
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    keep = 1 << CAP_SETGID | 1 << CAP_SETUID
    data = (_CapData * 2)(_CapData(keep, keep, 0), _CapData(0, 0, 0))
    version_3 = 0x20080522
    if libc.capset(ctypes.byref(_CapHeader(version_3, 0)), data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    return bounding


class User:
    """The sandbox user: a uid of this sandbox's own, so that per-uid limits of the kernel are its own too."""

    def __init__(self, uid: int, home: str) -> None:
        self.uid = uid
        self.home = home

    def __enter__(self) -> None:
        """Act as the user for file access and signals. Not for running code: the saved uid stays 0."""
        os.setegid(self.uid)
        os.seteuid(self.uid)

    def __exit__(self, *exc_info: object) -> None:
        os.seteuid(0)
        os.setegid(0)

    def become(self, marker: int) -> None:
        """Become the user for good, in a forked child. `marker` is the run's group."""
        os.setgroups([marker])
        os.setresgid(self.uid, self.uid, self.uid)
        os.setresuid(self.uid, self.uid, self.uid)


def settle(uid: int, home: str) -> User:
    """Give the user a home and a name, as far as the image allows it, and return the `User`.

    There is no CAP_CHOWN, so a home that is to belong to the user is made by the user.
    """
    user = User(uid, home)
    _name_user(uid, home)
    _name_machine()
    try:
        _make_home(user)
    except OSError:
        pass
    with user:
        if not os.access(home, os.W_OK | os.X_OK, effective_ids=True):
            user.home = "/tmp"
    return user


def _make_home(user: User) -> None:
    try:
        status = os.lstat(user.home)
    except FileNotFoundError:
        status = None
    if status is not None:
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0:
            return
        try:
            os.rmdir(user.home)
        except OSError:
            os.chmod(user.home, 0o1777)
            return
    parent = os.path.dirname(user.home)
    os.makedirs(parent, exist_ok=True)
    mode = stat.S_IMODE(os.stat(parent).st_mode)
    os.chmod(parent, 0o777)
    try:
        with user:
            os.mkdir(user.home, 0o755)
    finally:
        os.chmod(parent, mode)


def _name_machine() -> None:
    """Write down the names of a machine that is alone where the engine leaves that to us."""
    try:
        if os.path.getsize("/etc/hosts") == 0:
            with open("/etc/hosts", "w", encoding="utf-8") as file:
                file.write(_HOSTS % os.uname().nodename)
            os.chmod("/etc/hosts", 0o644)
    except OSError:
        # A read-only or odd image: addresses work all the same.
        pass


def _name_user(uid: int, home: str) -> None:
    """Put the user into passwd and group: `whoami`, ssh and getpass want an entry."""
    for path, line in (
        ("/etc/passwd", "sandbox:x:%d:%d:sandbox:%s:/bin/sh" % (uid, uid, home)),
        ("/etc/group", "sandbox:x:%d:" % uid),
    ):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                kept = [old for old in file.read().splitlines() if not old.startswith("sandbox:")]
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write("\n".join([*kept, line]) + "\n")
        except OSError:
            # A read-only or odd image: the numeric id works all the same.
            pass
