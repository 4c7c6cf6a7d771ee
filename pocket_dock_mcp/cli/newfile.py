"""A file that appears whole under its name, or not at all: whatever ends us while it is written."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pocket_dock_mcp.errors import HostFileError, InvalidArgumentError

# Where a file system has no files without a name.
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing, which replaces what is at `path` when the block ends well.

    Raises:
        InvalidArgumentError: it cannot be written there; what was there stays.
        HostFileError: writing it failed; the same.
    """
    target = Path(os.path.realpath(path))
    try:
        is_other = not stat.S_ISREG(target.stat().st_mode)
    except FileNotFoundError:
        is_other = False
    except OSError as error:
        raise _unwritable(path, error) from error
    if is_other:
        raise InvalidArgumentError(
            f"{str(path)!r} is there already, and is no file.", hint="Say -o - to write into a pipe."
        )
    try:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(path, error) from error
    partial = f".{target.name[:200]}.{secrets.token_hex(4)}.partial"
    try:
        with _opened(folder, partial) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.fstat(file.fileno()).st_nlink == 0:
                _link(file.fileno(), folder, partial)
        os.replace(partial, target.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        # Not wrong from the beginning: a full disk, perhaps.
        said = _unwritable(path, error)
        raise HostFileError(said.message, hint=said.hint) from error
    finally:
        try:
            os.unlink(partial, dir_fd=folder)
        except OSError:
            # It has its name, or never had this one.
            pass
        os.close(folder)


def _opened(folder: int, partial: str) -> BinaryIO:
    """Open a file that has no name yet, so that a SIGKILL leaves nothing; or one with a name of its own."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(".", flags | os.O_TMPFILE, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        descriptor = os.open(partial, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    return os.fdopen(descriptor, "wb")


def _link(descriptor: int, folder: int, name: str) -> None:
    mine = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(str(descriptor), name, src_dir_fd=mine, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(mine)


def _unwritable(path: Path, error: OSError) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{str(path)!r} cannot be written: {error.strerror or error}.",
        hint="Choose another place with -o; what was there before is as it was.",
    )
