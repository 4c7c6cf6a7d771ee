"""What holds in here, for the host to compare with what it asked for."""

from __future__ import annotations

import os
import sys

from . import filtered, identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Not otherwise: see `early`.
    from typing import Any, Dict, List, Optional, Union

    from .early import Early
    from .main import Agent

PARKED = ("/var/tmp/.pocket-dock-home", "/tmp/.pocket-dock-home")
"""Where the files of a home directory in memory are put for a snapshot."""

TO_MASK = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
"""Files about the kernel, which all engines hide."""


def pick_uid(wanted: int) -> int:
    """Return the wanted uid, or one that the user namespace maps when it does not."""
    ranges = []
    with open("/proc/self/uid_map", encoding="ascii") as file:
        for line in file:
            first, _outside, count = (int(word) for word in line.split())
            ranges.append((first, first + count))
    if any(first <= wanted < end for first, end in ranges):
        return wanted
    first, end = max(ranges, key=lambda pair: pair[1] - pair[0])
    low = max(first, 1000)
    # Markers have the top of the first 65536 ids.
    return low + wanted % (min(end, identity.MARKER_FIRST) - low)


def collect(agent: Union[Agent, Early]) -> Dict[str, Any]:
    """Say what holds in here, for the host to compare with what it asked for."""
    status = {}
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            status[name] = value.strip()
    return {
        "uid": agent.user.uid,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "caps": {name: status.get(name) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
        "no_new_privs": status.get("NoNewPrivs"),
        "seccomp": status.get("Seccomp"),
        "let_through": filtered.let_through(),
        "bounding": agent.bounding,
        "pid": os.getpid(),
        "hostname": os.uname().nodename,
        "oom_score": _text("/proc/self/oom_score_adj"),
        "ulimits": _text("/proc/self/limits"),
        "mounts": _text("/proc/self/mountinfo"),
        "cgroup": _text("/proc/self/cgroup"),
        "devices": os.listdir("/dev"),
        "to_mask": [path for path in TO_MASK if os.path.lexists(path)],
        "shm_bytes": _size("/dev/shm"),
        "swap": agent.cgroup.swap(),
        "memory_limit": agent.cgroup.number("memory_limit"),
        "pids_limit": agent.cgroup.number("pids_limit"),
        "cpus": agent.cgroup.cpus(),
        "interfaces": _interfaces_up(),
        "home_bytes": _own_size(agent.user.home),
        "disk_free": room("/"),
        "parked": any(os.path.lexists(path) for path in PARKED),
    }


def _text(path: str) -> str:
    """Return what the kernel tells there; nothing where there is another kernel, which does not."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _size(path: str) -> Optional[int]:
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_blocks * status.f_frsize


def disk_free(path: str) -> Optional[int]:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


FILE_BYTES = 16 * 1024
"""That a file system has for each file that it can hold: ext4's usual `inode_ratio` (mke2fs.conf(5))."""


def room(path: str) -> Optional[int]:
    """Return how many bytes, in files of usual size, a disk still holds: it may run out of files first."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    free = found.f_bavail * found.f_frsize
    # Some count no files.
    return min(free, found.f_favail * FILE_BYTES) if found.f_files else free


def _own_size(home: str) -> Optional[int]:
    """Return the size of the home's file system, if it is not the root's."""
    try:
        if os.stat(home).st_dev == os.stat("/").st_dev:
            return None
    except OSError:
        return None
    return _size(home)


def _interfaces_up() -> Optional[List[str]]:
    """Names of the network interfaces that are up; None where the kernel does not tell."""
    try:
        names = os.listdir("/sys/class/net")
    except OSError:
        return None
    up = []
    for name in names:
        try:
            with open("/sys/class/net/%s/flags" % name, encoding="ascii") as file:
                if int(file.read(), 16) & 1:
                    up.append(name)
        except (OSError, ValueError):
            up.append(name)
    return sorted(up)
