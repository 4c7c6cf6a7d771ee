"""Which of the host's devices a container may have: none through which the host's own files can be had."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pocket_dock_mcp.errors import HostPathError

_REFUSED = {
    (1, 1): "the host's memory",
    (1, 2): "the kernel's memory",
    (1, 4): "the host's input and output ports",
    (1, 6): "the kernel's memory",
    (1, 11): "the kernel's log",
    (1, 12): "the host's memory",
    (5, 0): "a terminal of the host",
    (5, 1): "the host's console",
    (5, 2): "a maker of terminals, which every sandbox has of its own",
}
"""By number. A node of another name is the same device."""
_REFUSED_MAJORS = {
    4: "a terminal of the host",
    7: "a terminal of the host",
    136: "somebody's terminal",
    202: "registers of the host's processor",
}
_PSEUDO_TERMINALS = range(136, 144)
_SERIAL = 64
"""Of major number 4: from this minor number on they are serial ports, and not terminals of people."""
_RAW_DISKS = frozenset({"bsg", "scsi_generic", "nvme", "nvme-generic", "nvme-subsystem", "raw", "mtd"})
"""Kinds of character devices (by the kernel's subsystem) that give disks away whole."""
_DISK_MAKERS = frozenset({"device-mapper", "loop-control", "btrfs-control", "md"})
"""By the kernel's name."""

Number = tuple[int, int]


def admitted_device(source: str) -> Number:
    """Return the number of a device, if it may be given to a container.

    Raises:
        HostPathError: it is none, or not there, or may not be.
    """
    try:
        found = os.lstat(source)
    except OSError as error:
        message = f"{source!r} cannot be given to a sandbox: {error.strerror}."
        raise HostPathError(message, hint="See in /dev what is there.") from error
    number = (os.major(found.st_rdev), os.minor(found.st_rdev))
    if stat.S_ISCHR(found.st_mode):
        why = _why_not_character(number)
    elif stat.S_ISBLK(found.st_mode):
        why = "a disk that the host uses" if number in _used_disks() else None
    else:
        message = f"{source!r} is no device."
        raise HostPathError(message, hint="Files and directories are for volumes=.")
    if why is not None:
        message = f"{source!r} is {why}; no sandbox is given that."
        raise HostPathError(message)
    return number


def _why_not_character(number: Number) -> str | None:
    major, minor = number
    if number in _REFUSED:
        return _REFUSED[number]
    if major in _PSEUDO_TERMINALS:
        return _REFUSED_MAJORS[136]
    if major == 4 and minor >= _SERIAL:  # the kernel's table of devices
        return None
    if major in _REFUSED_MAJORS:
        return _REFUSED_MAJORS[major]
    folder = Path(f"/sys/dev/char/{major}:{minor}")
    kind = _last(folder / "subsystem")
    if kind in _RAW_DISKS or _last(folder) in _DISK_MAKERS:
        return "a way to the host's disks"
    return None


def _last(link: Path) -> str:
    return Path(os.path.realpath(link)).name


def _used_disks() -> set[Number]:
    """Return the block devices that something of the host is on: mounted, swap, or a part of such a one."""
    used: set[Number] = set()
    waiting = [*_mounted(), *_swaps()]
    while waiting:
        number = waiting.pop()
        if number in used:
            continue
        used.add(number)
        folder = Path(os.path.realpath(f"/sys/dev/block/{number[0]}:{number[1]}"))
        waiting += _numbers([folder.parent] if (folder / "partition").exists() else [])
        waiting += _numbers(_entries(folder / "slaves"))
    return used


def _mounted() -> Iterator[Number]:
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        major, _, minor = before.split(" ")[2].partition(":")
        yield int(major), int(minor)
        # Of some file systems that number is not the disk's.
        yield from _block(after.split(" ")[1] if " " in after else "")


def _swaps() -> Iterator[Number]:
    for line in _lines("/proc/swaps")[1:]:
        yield from _block(line.split(" ")[0])


def _block(path: str) -> Iterator[Number]:
    try:
        found = os.stat(path) if path.startswith("/") else None  # noqa: PTH116
    except OSError:
        return
    if found is not None and stat.S_ISBLK(found.st_mode):
        yield os.major(found.st_rdev), os.minor(found.st_rdev)


def _numbers(folders: list[Path]) -> Iterator[Number]:
    for folder in folders:
        for line in _lines(folder / "dev"):
            major, _, minor = line.partition(":")
            yield int(major), int(minor)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
