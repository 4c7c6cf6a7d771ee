"""Where a stream goes: written beside its destination under a name of its own, and renamed when it is whole.

What is found at the destination is merged with: files and links are replaced one by one, each at once, and
directories are gone into. Who uses the destination meanwhile sees a file as it was or as it will be.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
from typing import List, Optional, Tuple

from . import names
from .incoming import TOP, Incoming, OnTop, stamp
from .outgoing import Limits

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_INNER = _OPEN | os.O_NOFOLLOW
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_OWNER = 0o700
_MAX_LOOKED_AT = 10_000
"""Entries of a directory that are looked at for such stages."""


class InTheWayError(OSError):
    """Something else is at the destination: a directory for a file, or no directory for one."""


class Destination:
    """Where one transfer ends.

    A path that is a directory takes a file, or a directory that is meant as a whole, under its name (`name`);
    without a name it takes the content. A path where nothing is becomes what comes. Parents are made.
    """

    def __init__(self, path: bytes, name: bytes) -> None:
        self._path = path
        self._name = name
        self._parent = self._stage = -1
        self._stage_name = b""
        self._made: List[bytes] = []
        self._is_directory = self._merges = self._is_done = False
        self.path = path
        """Where it lands."""

    def prepare(self, is_directory: bool) -> int:
        """Make a directory to write to and return a descriptor of it. Raises `OSError`."""
        self._is_directory = is_directory
        self.path = self._resolved(is_directory)
        self._merges = is_directory and os.path.isdir(self.path) and not os.path.islink(self.path)
        where = self.path if self._merges else os.path.dirname(self.path)
        self._make(where)
        self._parent = os.open(where, _PLACE)
        self._sweep()
        self._stage_name, self._stage = _staged(self._parent)
        return os.dup(self._stage)

    def _resolved(self, is_directory: bool) -> bytes:
        is_meant_as_directory = self._path.endswith((b"/", b"/.", b"/.."))
        path = os.path.realpath(self._path)
        if os.path.isdir(path):
            if not self._name and not is_directory:
                raise InTheWayError(errno.EISDIR, "is a directory")
            path = os.path.join(path, self._name) if self._name else path
        elif os.path.lexists(path):
            if is_directory or is_meant_as_directory:
                raise InTheWayError(errno.ENOTDIR, "is no directory")
        elif is_meant_as_directory and not is_directory:
            path = os.path.join(path, self._name)
        self._refuse_what_is_in_the_way(path, is_directory)
        return path

    def _refuse_what_is_in_the_way(self, path: bytes, is_directory: bool) -> None:
        try:
            is_there_directory = stat.S_ISDIR(os.lstat(path).st_mode)
        except FileNotFoundError:
            return
        if is_directory != is_there_directory:
            self.path = path
            raise InTheWayError(errno.EISDIR if is_there_directory else errno.ENOTDIR, "in the way")

    def _make(self, directory: bytes) -> None:
        missing = []
        while not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for path in reversed(missing):
            try:
                os.mkdir(path)
            except FileExistsError:
                # Somebody was faster; what is not fit to be one is found out next.
                continue
            self._made.append(path)

    def sweep(self) -> None:
        """Remove what a killed transfer to this place has left."""
        path = os.path.realpath(self._path)
        for where in (path, os.path.dirname(path)):
            try:
                self._parent = os.open(where, _PLACE)
            except OSError:
                continue
            self._sweep()
            os.close(self._parent)
        self._parent = -1

    def _sweep(self) -> None:
        try:
            with os.scandir("/proc/self/fd/%d" % self._parent) as entries:
                found = [
                    os.fsencode(entry.name)
                    for entry in itertools.islice(entries, _MAX_LOOKED_AT)
                    if names.is_stage(os.fsencode(entry.name))
                ]
        except OSError:
            # It may be written to and not read, say.
            return
        for name in found:
            try:
                self._remove_abandoned(name)
            except OSError:
                # Somebody else's, or gone.
                pass

    def _remove_abandoned(self, name: bytes) -> None:
        fd = os.open(name, _INNER, dir_fd=self._parent)
        try:
            if os.fstat(fd).st_uid == os.geteuid() and _lock(fd):
                remove(name, self._parent)
        finally:
            os.close(fd)

    # -- the end ----------------------------------------------------------------------------------

    def commit(self, top_mode: int) -> None:
        """Put what was written where it belongs. Raises `OSError`, and `InTheWayError` before all."""
        if not self._is_directory:
            os.rename(TOP, self._last(), src_dir_fd=self._stage, dst_dir_fd=self._parent)
        elif self._merges:
            _merge(self._stage, TOP, self._parent, None, acts=False)
            _merge(self._stage, TOP, self._parent, None, acts=True)
        else:
            _move(self._stage, TOP, self._parent, self._last(), top_mode)
        self._is_done = True

    def _last(self) -> bytes:
        return os.path.basename(self.path)

    def close(self) -> None:
        """Remove what is left of it, and if it did not come to its end the parents that were made for it."""
        if self._stage >= 0:
            try:
                remove(self._stage_name, self._parent)
            except (OSError, RecursionError):
                # The next transfer to this place tries again.
                pass
            os.close(self._stage)
        if self._parent >= 0:
            os.close(self._parent)
        self._stage = self._parent = -1
        for path in reversed([] if self._is_done else self._made):
            try:
                os.rmdir(path)
            except OSError:
                # Somebody uses it already.
                break
        self._made.clear()


def receiver(destination: Destination, limits: Limits) -> Incoming:
    """Return what writes a stream to a destination."""
    on_top: OnTop = destination.prepare
    return Incoming(on_top, limits)


def _staged(parent: int) -> Tuple[bytes, int]:
    """Make a stage. It is locked before it has its name, so that nobody takes it for one that was left."""
    name = names.STAGE_PREFIX + os.urandom(8).hex().encode()
    os.mkdir(name, _OWNER, dir_fd=parent)
    fd = os.open(name, _INNER, dir_fd=parent)
    try:
        _lock(fd)
        os.rename(name, name + names.STAGE_SUFFIX, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.close(fd)
        os.rmdir(name, dir_fd=parent)
        raise
    return name + names.STAGE_SUFFIX, fd


def _merge(parent: int, name: bytes, target: int, status: Optional[os.stat_result], acts: bool) -> None:
    """Move what is in one directory into another, which then has the status of the first."""
    source = _opened(parent, name)
    try:
        for entry in os.listdir(source):
            _merge_entry(source, os.fsencode(entry), target, acts)
        if acts and status is not None:
            _dress(target, status)
    finally:
        if status is not None:
            os.fchmod(source, stat.S_IMODE(status.st_mode))
        os.close(source)


def _merge_entry(source: int, name: bytes, target: int, acts: bool) -> None:
    new = os.stat(name, dir_fd=source, follow_symlinks=False)
    try:
        old: Optional[os.stat_result] = os.stat(name, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        old = None
    is_directory = stat.S_ISDIR(new.st_mode)
    if old is not None and stat.S_ISDIR(old.st_mode) != is_directory:
        raise InTheWayError(errno.ENOTDIR if is_directory else errno.EISDIR, "in the way", name)
    if not is_directory:
        if acts:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    elif old is None:
        if acts:
            _move(source, name, target, name, stat.S_IMODE(new.st_mode))
    else:
        inner = _opened(target, name) if acts else os.open(name, _PLACE | os.O_NOFOLLOW, dir_fd=target)
        is_well = False
        try:
            _merge(source, name, inner, new, acts)
            is_well = True
        finally:
            if acts and not is_well:
                os.fchmod(inner, stat.S_IMODE(old.st_mode))
            os.close(inner)


def _move(source: int, name: bytes, target: int, new_name: bytes, mode: int) -> None:
    """Move a directory, which has to be its owner's to write to for that."""
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    fd = _opened(source, name)
    try:
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        os.fchmod(fd, mode)
        stamp(fd, status.st_mtime_ns)
    finally:
        os.close(fd)


def _dress(fd: int, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
        os.fchmod(fd, mode)
    stamp(fd, status.st_mtime_ns)


def _opened(parent: int, name: bytes) -> int:
    """Open a directory for reading, and let its owner work in it."""
    place = os.open(name, _PLACE | os.O_NOFOLLOW, dir_fd=parent)
    try:
        mode = stat.S_IMODE(os.fstat(place).st_mode)
        this = "/proc/self/fd/%d" % place
        if mode & _OWNER != _OWNER:
            os.chmod(this, mode | _OWNER)
        return os.open(this, _OPEN)
    finally:
        os.close(place)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove(name: bytes, parent: int) -> None:
    """Remove a directory with all that is in it, whatever modes that has. Links are not followed."""
    fd = _opened(parent, name)
    try:
        for entry in os.listdir(fd):
            inner = os.fsencode(entry)
            try:
                os.unlink(inner, dir_fd=fd)
            except OSError as error:
                if error.errno not in (errno.EISDIR, errno.EPERM):
                    raise
                remove(inner, fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
