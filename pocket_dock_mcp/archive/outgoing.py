"""Reads a file or a tree into a stream. Links in it are not followed, and nothing in it is waited for."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

from . import frames, names
from .names import REASONS

MAX_TOLD = 100
"""Of what was left out that is told by name."""
_BATCH = 1024 * 1024
_LITTLE = 4096
"""Bytes that are copied together, rather than being pieces of their own."""
_PULSE_EVERY = 10_000
"""Entries that are counted between two signs of life."""
_ROOT = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = _ROOT | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = {
    stat.S_IFCHR: names.DEVICE,
    stat.S_IFBLK: names.DEVICE,
    stat.S_IFSOCK: names.SOCKET,
    stat.S_IFIFO: names.FIFO,
}


class LimitError(Exception):
    """More than was allowed: ``files`` or ``bytes``, and how many were."""

    def __init__(self, what: str, most: int) -> None:
        Exception.__init__(self, what, most)
        self.what = what
        self.most = most


class Limits(NamedTuple):
    """What one transfer may have."""

    files: int
    """Entries of all kinds, with those that are left out."""
    bytes: int
    """Of all files together as they look: a hole counts as what it stands for."""


class Counts:
    """What has been transferred, and what was left out."""

    def __init__(self, limits: Limits) -> None:
        self.files = self.directories = self.symlinks = self.bytes = 0
        self.total_bytes: Optional[int] = None
        self.skipped: List[Tuple[bytes, str]] = []
        self.skipped_count = 0
        self._limits = limits
        self._entries = self._room = self._remarks = 0

    def entry(self, size: int = 0) -> None:
        """Count one more, which looks as large as that, before anything is done with it."""
        self._entries += 1
        self._room += size
        if self._entries > self._limits.files:
            raise LimitError("files", self._limits.files)
        if self._room > self._limits.bytes:
            raise LimitError("bytes", self._limits.bytes)

    def remark(self) -> bool:
        """Count something that is said of an entry that is counted by itself; whether there can be so many.

        Of one its bits and how it ended, at most; its bits before it is there.
        """
        self._remarks += 1
        return self._remarks <= 2 * (self._entries + 1)

    def skip(self, path: bytes, reason: int) -> None:
        """Note what was left out."""
        self.skipped_count += 1
        if len(self.skipped) < MAX_TOLD:
            self.skipped.append((path, REASONS[reason]))


class Step(NamedTuple):
    """Something that a walk has come to."""

    kind: bytes
    """As in frames: a directory, which is left later, a file, a link, or something to be skipped."""
    name: bytes
    status: Optional[os.stat_result]
    fd: int
    """Of the directory that it is in, or for directories its own."""
    reason: int = 0


class Walk:
    """Goes through one directory, depth first."""

    def __init__(self, root: int) -> None:
        self._fds: List[int] = []
        self._entries: List[Any] = []
        self.path: List[bytes] = []
        """The names of the directories that it is in, below the root."""
        self._enter(root)

    def _enter(self, fd: int) -> None:
        try:
            self._entries.append(os.scandir(fd))
        except OSError:
            os.close(fd)
            raise
        self._fds.append(fd)

    @property
    def depth(self) -> int:
        return len(self._fds) - 1

    def steps(self) -> Iterator[Step]:
        """Yield what there is. Descriptors are good until the next step."""
        while self._fds:
            try:
                entry = next(self._entries[-1], None)
            except OSError as error:
                yield Step(frames.SKIPPED, b".", None, self._fds[-1], _why(error))
                entry = None
            if entry is None:
                yield self._leave()
            else:
                yield self._step(os.fsencode(entry.name))

    def _leave(self) -> Step:
        self._entries.pop().close()
        os.close(self._fds.pop())
        if self.path:
            self.path.pop()
        return Step(frames.LEAVE, b"", None, -1)

    def _step(self, name: bytes) -> Step:
        parent = self._fds[-1]
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            return Step(frames.SKIPPED, name, None, parent, _why(error))
        kind = stat.S_IFMT(status.st_mode)
        if kind in _SPECIAL:
            return Step(frames.SKIPPED, name, status, parent, _SPECIAL[kind])
        if kind == stat.S_IFDIR:
            return self._directory(parent, name)
        return Step(frames.LINK if kind == stat.S_IFLNK else frames.FILE, name, status, parent)

    def _directory(self, parent: int, name: bytes) -> Step:
        if names.is_stage(name):
            return Step(frames.SKIPPED, name, None, parent, names.STAGE)
        if len(self._fds) >= names.MAX_DEPTH:
            return Step(frames.SKIPPED, name, None, parent, names.DEEP)
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
            self._enter(fd)
        except OSError as error:
            return Step(frames.SKIPPED, name, None, parent, _why(error))
        self.path.append(name)
        return Step(frames.DIRECTORY, name, os.fstat(fd), fd)

    def close(self) -> None:
        """Let go of all that is open."""
        while self._entries:
            self._leave()


class Outgoing:
    """One file or tree on its way out. Opening it raises `OSError` if it is not there, or no such thing."""

    def __init__(self, path: bytes, limits: Limits) -> None:
        self.counts = Counts(limits)
        self._limits = limits
        self._walk: Optional[Walk] = None
        self._root = os.open(path, _ROOT)
        self._status = os.fstat(self._root)
        kind = stat.S_IFMT(self._status.st_mode)
        self.is_directory = kind == stat.S_IFDIR
        is_file = kind == stat.S_IFREG and not _is_odd(self._root, self._status)
        if not self.is_directory and (not is_file or path.endswith(b"/")):
            os.close(self._root)
            raise OSError(errno.ENOTDIR if is_file else errno.ENXIO, "no file or directory")

    def close(self) -> None:
        """Let go of it."""
        if self._walk is not None:
            self._walk.close()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def batches(self) -> Iterator[List[bytes]]:
        """Yield the stream, as much at once as is worth a system call. Raises `LimitError`."""
        batch: List[bytes] = []
        little: List[bytes] = []
        size = 0
        for body in self._all():
            size += len(body)
            little.append(body)
            if len(body) > _LITTLE or size >= _BATCH:
                little.pop()
                batch += [b"".join(little), body]
                little.clear()
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
        yield [*batch, b"".join(little)]

    def _all(self) -> Iterator[bytes]:
        yield from self._scan()
        if self.is_directory:
            self.counts.entry()
            yield self._entry(frames.DIRECTORY, b"x", self._status)
            self._walk = Walk(os.dup(self._root))
            os.lseek(self._root, 0, os.SEEK_SET)
            yield from self._tree(self._walk)
        else:
            self.counts.entry(self._status.st_size)
            yield from self._content(b"x", self._root, self._status)
        yield frames.frame(frames.COMPLETE)

    def _scan(self) -> Iterator[bytes]:
        """Say how much is to come."""
        counted = Counts(self._limits)
        total = self._status.st_size
        if self.is_directory:
            total = 0
            self._walk = Walk(os.dup(self._root))
            for number, step in enumerate(self._walk.steps()):
                if step.kind != frames.LEAVE:
                    size = step.status.st_size if step.kind == frames.FILE and step.status else 0
                    counted.entry(size)
                    total += size
                if number % _PULSE_EVERY == _PULSE_EVERY - 1:
                    yield frames.frame(frames.PULSE)
            os.lseek(self._root, 0, os.SEEK_SET)
        self.counts.total_bytes = total
        yield frames.frame(frames.TOTAL, frames.TOTALS.pack(0, total))

    def _tree(self, walk: Walk) -> Iterator[bytes]:
        for step in walk.steps():
            if step.kind == frames.LEAVE:
                yield frames.frame(frames.LEAVE)
                continue
            status = step.status
            self.counts.entry(status.st_size if step.kind == frames.FILE and status else 0)
            if step.kind == frames.FILE:
                yield from self._file(step)
            elif step.kind == frames.LINK:
                yield self._link(walk, step)
            elif step.kind == frames.DIRECTORY and status is not None:
                yield self._entry(frames.DIRECTORY, step.name, status)
            else:
                yield self._skip(step.name, step.reason)

    def _path(self, name: bytes) -> bytes:
        """Return where something is, to be told: of a long path the end."""
        return b"/".join([*(self._walk.path if self._walk else ()), name])[-frames.MAX_SHOWN :]

    def _skip(self, name: bytes, reason: int) -> bytes:
        path = self._path(name)
        self.counts.skip(path, reason)
        return frames.frame(frames.SKIPPED, frames.REASON.pack(reason) + path)

    def _entry(self, kind: bytes, name: bytes, status: os.stat_result) -> bytes:
        mode = stat.S_IMODE(status.st_mode)
        said = b""
        if mode & 0o7000:
            # A directory is on the path by now.
            shown = (
                b"/".join(self._walk.path) if kind == frames.DIRECTORY and self._walk else self._path(name)
            )
            self.counts.skip(shown[-frames.MAX_SHOWN :] or b".", names.BITS)
            said = frames.frame(frames.SKIPPED, frames.REASON.pack(names.BITS) + shown[-frames.MAX_SHOWN :])
        size = status.st_size if kind == frames.FILE else 0
        self.counts.directories += kind == frames.DIRECTORY
        return said + frames.frame(kind, frames.entry(mode, status.st_mtime_ns, size) + name)

    def _link(self, walk: Walk, step: Step) -> bytes:
        try:
            target = os.readlink(step.name, dir_fd=step.fd)
        except OSError as error:
            return self._skip(step.name, _why(error))
        if step.status is None or not names.stays_inside(target, walk.depth):
            return self._skip(step.name, names.LINK_OUT)
        self.counts.symlinks += 1
        head = frames.entry(0o777, step.status.st_mtime_ns, 0)
        return frames.frame(frames.LINK, head + step.name + b"\0" + target)

    def _file(self, step: Step) -> Iterator[bytes]:
        try:
            fd = os.open(step.name, _FILE, dir_fd=step.fd)
        except OSError as error:
            yield self._skip(step.name, _why(error))
            return
        try:
            status = os.fstat(fd)
            if _is_odd(fd, status):
                yield self._skip(step.name, names.ODD)
            elif stat.S_ISREG(status.st_mode):
                yield from self._content(step.name, fd, status)
            else:
                yield self._skip(step.name, names.GONE)
        finally:
            os.close(fd)

    def _content(self, name: bytes, fd: int, status: os.stat_result) -> Iterator[bytes]:
        size = status.st_size
        yield self._entry(frames.FILE, name, status)
        verdict, end = frames.WHOLE, size
        at = 0
        try:
            for start, stop in _extents(fd, status):
                at = start
                while at < stop:
                    data = os.pread(fd, min(frames.PIECE, stop - at), at)
                    if not data:
                        break
                    yield frames.data_head(at, len(data))
                    yield data
                    at += len(data)
                    self.counts.bytes += len(data)
                if at < stop:
                    verdict, end = frames.CHANGED, at
                    break
            now = os.fstat(fd)
            if (now.st_mtime_ns, now.st_size) != (status.st_mtime_ns, size):
                # What it was cut to may be less than has been sent by now.
                verdict, end = frames.CHANGED, max(at, min(end, now.st_size))
        except OSError:
            verdict = frames.UNREADABLE
        if verdict == frames.UNREADABLE:
            yield self._skip(name, names.CLOSED)
        else:
            self.counts.files += 1
            if verdict == frames.CHANGED:
                yield self._skip(name, names.CHANGED)
        yield frames.frame(frames.FILE_END, frames.END.pack(verdict, end))


def _is_odd(fd: int, status: os.stat_result) -> bool:
    """Whether something is in a file that says that it is empty."""
    if status.st_size or not stat.S_ISREG(status.st_mode):
        return False
    try:
        return bool(os.pread(fd, 1, 0))
    except OSError:
        return True


def _extents(fd: int, status: os.stat_result) -> Iterator[Tuple[int, int]]:
    """Yield where a file has data; all of it where nobody knows."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        yield 0, size
        return
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = min(size, os.lseek(fd, at, os.SEEK_HOLE))
        except OSError as error:
            if error.errno != errno.ENXIO:
                yield at, size
            return
        if at >= end:
            return
        yield at, end
        at = end


def _why(error: OSError) -> int:
    """Return the reason to leave something out; what is not its own fault is raised again."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error
    return names.GONE if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR) else names.CLOSED
