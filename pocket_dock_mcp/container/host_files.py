"""Paths on this machine: as callers say them, and what went wrong with one."""

from __future__ import annotations

import errno
import os

from pocket_dock_mcp.errors import (
    HostFileDeniedError,
    HostFileError,
    HostFileInTheWayError,
    HostFileNotFoundError,
    InvalidArgumentError,
)

_ERRORS: dict[int, tuple[type[HostFileError], str, str]] = {
    errno.ENOENT: (HostFileNotFoundError, "does not exist on this machine", ""),
    errno.EACCES: (HostFileDeniedError, "is not accessible to you", ""),
    errno.EPERM: (HostFileDeniedError, "is not accessible to you", ""),
    errno.EROFS: (HostFileDeniedError, "is on a read-only file system", ""),
    errno.ENXIO: (HostFileError, "is neither a file nor a directory", "Only those can be transferred."),
    errno.ENOTDIR: (HostFileInTheWayError, "is no directory, and one is needed there", "Remove it first."),
    errno.EISDIR: (HostFileInTheWayError, "is a directory, and a file is to be there", "Remove it first."),
    errno.ENOSPC: (HostFileError, "could not be written: no space is left on this machine", ""),
    errno.EDQUOT: (HostFileError, "could not be written: your quota on this machine is used up", ""),
    errno.EFBIG: (HostFileError, "could not be written: it is larger than one file may be", ""),
    errno.ENAMETOOLONG: (HostFileError, "has a name that is too long for this machine", ""),
    errno.EXDEV: (
        HostFileError,
        "is on another file system than what is around it",
        "Transfer what goes there by itself.",
    ),
}


def host_path(path: str | os.PathLike[str]) -> bytes:
    """Return a path as absolute bytes; a slash at its end stays. Raises `InvalidArgumentError` for none."""
    try:
        raw = os.fsencode(path)
    except (TypeError, UnicodeEncodeError):
        message = f"{path!r} is no path on this machine."
        raise InvalidArgumentError(message) from None
    if not raw or b"\0" in raw:
        message = f"{os.fsdecode(raw)!r} is no path on this machine."
        raise InvalidArgumentError(message)
    return os.path.join(os.getcwdb(), raw)  # noqa: PTH109, PTH118  # a Path would drop the slash


def host_error(error: OSError, path: bytes) -> HostFileError:
    """Return the error for what the kernel said of a path, or of something below it."""
    cls, what, hint = _ERRORS.get(
        error.errno or 0, (HostFileError, f"could not be used ({error.strerror or error})", "")
    )
    name = error.filename
    where = os.fsdecode(path)
    if isinstance(name, (str, bytes)) and os.fsdecode(name) != where:
        where = os.path.join(where, os.fsdecode(name))  # noqa: PTH118  # one that is no directory, perhaps
    return cls(f"{where!r} {what}.", hint=hint)


def host_write_error(error: OSError, path: bytes) -> HostFileError:
    """Return the error for what was to be written. Its parents are made, so that none is missing."""
    if error.errno == errno.ENOENT:
        message = f"{os.fsdecode(path)!r} cannot be made there on this machine."
        return HostFileError(message, hint="Choose another destination.")
    return host_error(error, path)
