"""Which of the host's paths a container may be given, looked at before each of its starts.

A path that was good when the container was made need not be so now: whoever can write to a directory above
it may have put a symbolic link there, and the engine would follow that.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pocket_dock_mcp.errors import HostPathError

_ENGINES = (
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "~/.local/share/docker",
    "~/.local/share/containers",
)
_OURS = ("~/.pocket-dock",)
_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/boot", "/etc/docker", "/etc/containers")
_ROOTS_HINT = (
    "Volumes have to be below one of the directories in POCKET_DOCK_HOST_ROOTS (separated as in PATH); "
    "without it below the project or the current directory, and for a server nowhere."
)


@dataclass(frozen=True, slots=True)
class HostAccess:
    """What of the host containers may see."""

    roots: tuple[Path, ...] = ()
    """Directories below which volumes may be; without any, none may."""
    private: tuple[Path, ...] = ()
    """Besides what no container is ever given: paths that are not to be seen from any."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one file of the running kernel from all others."""

    device: int
    inode: int


def admitted(source: str, access: HostAccess) -> Identity:
    """Return what is to be mounted, if it may be.

    Raises:
        HostPathError: says why not.
    """
    roots = [Path(os.path.realpath(root)) for root in access.roots]
    path = Path(source)
    if not any(path.is_relative_to(root) for root in roots):
        known = f" ({', '.join(map(str, roots))})" if roots else ""
        message = f"{source!r} is not below a directory whose files sandboxes may be given{known}."
        raise HostPathError(message, hint=_ROOTS_HINT)
    for private in (*map(_real, (*_SYSTEM, *_ENGINES, *_OURS)), *map(_real, access.private)):
        if path.is_relative_to(private):
            message = f"{source!r} is in {str(private)!r}, which no sandbox is given."
            raise HostPathError(message, hint="Copy what is needed to another place.")
        if private.is_relative_to(path) and private.exists():
            message = f"{source!r} has {str(private)!r} in it, which no sandbox is given."
            raise HostPathError(message, hint="Name a directory further down.")
    return _identity(source)


def _real(path: str | Path) -> Path:
    return Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111  # a path need not exist


def _identity(source: str) -> Identity:
    """Look at a path without following any symbolic link in it."""
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open("/", flags)
    try:
        for name in Path(source).parts[1:]:
            inner = os.open(name, flags, dir_fd=fd)
            os.close(fd)
            fd = inner
        found = os.fstat(fd)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise _link(source) from error
        message = f"{source!r} cannot be given to a sandbox: {error.strerror}."
        raise HostPathError(message, hint="Nothing is made where nothing is: make it first.") from error
    finally:
        os.close(fd)
    if stat.S_ISLNK(found.st_mode):
        raise _link(source)
    if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
        message = f"{source!r} is neither a directory nor a regular file."
        raise HostPathError(
            message, hint="Sockets and FIFOs are not given to sandboxes; devices= is for devices."
        )
    return Identity(found.st_dev, found.st_ino)


def _link(source: str) -> HostPathError:
    message = f"A part of {source!r} has become a symbolic link since it was named."
    return HostPathError(message, hint="Name the path anew, in a new sandbox, if it is still meant.")
