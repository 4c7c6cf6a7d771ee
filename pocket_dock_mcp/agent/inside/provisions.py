"""What the container has been given of its host: whether it is really there, and the user may use it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Dict, Iterable, Optional, Set

from . import wire

if TYPE_CHECKING:
    from .main import Agent

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PATH, _OPTIONS = 4, 5
"""Where they are in a line of ``/proc/self/mountinfo``."""


def provide(agent: Agent, request_id: int, header: wire.Header, _payload: bytes) -> None:
    """Say what is at these paths, and let the user open these devices."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = parse_mounts(file)
    devices = {path: _device(agent, path, path in mounts) for path in header["devices"]}
    agent.send(
        {
            "kind": "reply",
            "id": request_id,
            "boot": _boot_id(),
            "volumes": {path: _volume(path, mounts.get(path)) for path in header["volumes"]},
            "devices": devices,
        }
    )


def _volume(path: str, mount: Optional[Set[str]]) -> Optional[Dict[str, Any]]:
    """Say what is mounted there; None for nothing."""
    if mount is None:
        return None
    found = os.lstat(path)
    return {"device": found.st_dev, "inode": found.st_ino, "read_only": "ro" in mount}


def _device(agent: Agent, path: str, is_mount: bool) -> Optional[Dict[str, Any]]:
    """Say which device is there, and whether the user may open it; None for none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISCHR(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        return None
    if not is_mount:
        _open_up(path, found)
    with agent.user:
        usable = [os.access(path, mode, effective_ids=True) for mode in (os.R_OK, os.W_OK)]
    return {
        "block": stat.S_ISBLK(found.st_mode),
        "number": [os.major(found.st_rdev), os.minor(found.st_rdev)],
        "readable": usable[0],
        "writable": usable[1],
    }


def _open_up(path: str, found: os.stat_result) -> None:
    """Let the user open a node, as its owner may: it is the container's own, and not the host's.

    What may be done with the device is for the device controller of the cgroup to say.
    """
    try:
        os.seteuid(found.st_uid)
        os.chmod(path, 0o666)
    except OSError:
        # Its owner is nobody in here; whether the user may open it all the same is looked at next.
        pass
    finally:
        os.seteuid(0)


def parse_mounts(lines: Iterable[str]) -> Dict[str, Set[str]]:
    """Return the options of what is mounted, by path; of several at one path the last one counts."""
    found = {}
    for line in lines:
        fields = line.split(" ")
        if len(fields) > _OPTIONS:
            found[_unescaped(fields[_PATH])] = set(fields[_OPTIONS].split(","))
    return found


def _unescaped(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def _boot_id() -> Optional[str]:
    """Return what tells one start of one kernel from all others."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


HANDLERS = {"provide": provide}
