"""A program of the sandbox's user: puts a directory into one file, and back. Not a part of the agent.

A home directory in memory is not seen by the engine that makes a snapshot, so for that moment its files lie
in a parcel on the disk. Types, modes, times, holes and hard links are kept; sockets, which are dead anywhere
else, are not.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import sys
from contextlib import contextmanager
from typing import Any, BinaryIO, Dict, Iterator, List, Optional, Tuple

MAGIC = b"pocket-dock parcel 1\n"
PIECE = 1024 * 1024
MAX_DEPTH = 900
"""A directory is held open for each level."""
MAX_LINKED_PATH = 4000
"""Bytes of a path that a hard link can be made to."""
_HEAD = struct.Struct("!cI")
_OFFSET = struct.Struct("!Q")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class DamagedError(Exception):
    """The file is no parcel, or not a whole one."""


class Packer:
    """Writes one parcel."""

    def __init__(self, file: BinaryIO, room: int) -> None:
        self._file = file
        self._room = room
        self._linked: Dict[Tuple[int, int], str] = {}

    def pack(self, root: str) -> None:
        self._file.write(MAGIC)
        fd = os.open(root, _DIRECTORY)
        try:
            self._directory(fd, "", 0)
        finally:
            os.close(fd)
        self._frame(b"Z", b"")

    def _frame(self, kind: bytes, data: bytes) -> None:
        self._room -= len(data) + _HEAD.size
        if self._room < 0:
            raise OSError(errno.ENOSPC, "no room")
        self._file.write(_HEAD.pack(kind, len(data)))
        self._file.write(data)

    def _directory(self, fd: int, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, "too deep")
        for name in sorted(os.listdir(fd)):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                self._entry(fd, name, status, os.path.join(path, name), depth)
            except FileNotFoundError:
                # Gone meanwhile.
                pass

    def _entry(self, parent: int, name: str, status: os.stat_result, path: str, depth: int) -> None:
        kind = stat.S_IFMT(status.st_mode)
        fields = {"d": depth, "n": name, "m": stat.S_IMODE(status.st_mode), "t": status.st_mtime_ns}
        if kind == stat.S_IFDIR:
            with _readable(parent, name, status, _DIRECTORY, 0o500) as fd:
                self._note("d", fields)
                self._directory(fd, path, depth + 1)
        elif kind == stat.S_IFLNK:
            self._note("l", fields, to=os.readlink(name, dir_fd=parent))
        elif kind == stat.S_IFIFO:
            self._note("p", fields)
        elif kind == stat.S_IFREG:
            self._file_or_link(parent, name, status, path, fields)

    def _file_or_link(
        self, parent: int, name: str, status: os.stat_result, path: str, fields: Dict[str, Any]
    ) -> None:
        if status.st_nlink > 1 and len(os.fsencode(path)) <= MAX_LINKED_PATH:
            first = self._linked.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                self._note("h", fields, to=first)
                return
        with _readable(parent, name, status, _READ, 0o400) as fd:
            status = os.fstat(fd)
            self._note("f", fields, size=status.st_size)
            for start, end in _extents(fd, status.st_size):
                self._content(fd, start, end)

    def _content(self, fd: int, at: int, end: int) -> None:
        while at < end:
            data = os.pread(fd, min(PIECE, end - at), at)
            if not data:
                # Cut off meanwhile: a hole is left.
                return
            self._frame(b"D", _OFFSET.pack(at) + data)
            at += len(data)

    def _note(self, kind: str, fields: Dict[str, Any], **more: Any) -> None:
        self._frame(b"E", json.dumps({**fields, **more, "k": kind}).encode("ascii"))


@contextmanager
def _readable(parent: int, name: str, status: os.stat_result, flags: int, bits: int) -> Iterator[int]:
    """Open what its owner may have forbidden even himself to read, and leave it as forbidden as it was."""
    mode = stat.S_IMODE(status.st_mode)
    # Of a directory, what is in it can be opened only while it may be entered.
    is_shut = mode & bits != bits and status.st_uid == os.getuid()
    if is_shut:
        os.chmod(name, mode | bits, dir_fd=parent)
    try:
        fd = os.open(name, flags, dir_fd=parent)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        if is_shut:
            os.chmod(name, mode, dir_fd=parent)


def _extents(fd: int, size: int) -> List[Tuple[int, int]]:
    """Return where a file has data."""
    found = []
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            return [(0, size)]
        found.append((at, end))
        at = end
    return found


class Unpacker:
    """Reads one parcel into a directory that need not be empty."""

    def __init__(self, file: BinaryIO, root: int) -> None:
        self._file = file
        self._parents = [root]
        self._open: Optional[int] = None
        self._fields: Dict[str, Any] = {}
        self._waiting: List[Dict[str, Any]] = []
        """Of the directories on the way down: they get their modes and times when all is in them."""

    def unpack(self) -> None:
        try:
            self._unpack()
        finally:
            # Of one that is damaged something is still open.
            for fd in self._parents[1:]:
                os.close(fd)
            if self._open is not None:
                os.close(self._open)

    def _unpack(self) -> None:
        if self._file.read(len(MAGIC)) != MAGIC:
            raise DamagedError
        while True:
            kind, length = _HEAD.unpack(self._exactly(_HEAD.size))
            if length > 2 * PIECE:
                raise DamagedError
            data = self._exactly(length)
            if kind == b"D" and self._open is not None:
                self._write(data[_OFFSET.size :], *_OFFSET.unpack(data[: _OFFSET.size]))
                continue
            self._finish()
            if kind == b"Z":
                self._ascend(0)
                return
            if kind != b"E":
                raise DamagedError
            self._entry(json.loads(data))

    def _exactly(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise DamagedError
        return data

    def _entry(self, fields: Dict[str, Any]) -> None:
        self._ascend(fields["d"])
        parent, name, kind = self._parents[-1], fields["n"], fields["k"]
        if "/" in name or name in ("", ".", ".."):
            raise DamagedError
        if kind == "d":
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                pass
            self._parents.append(os.open(name, _DIRECTORY, dir_fd=parent))
            self._waiting.append(fields)
            return
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        if kind == "f":
            self._open = os.open(name, _WRITE, 0o600, dir_fd=parent)
            os.ftruncate(self._open, fields["size"])
            self._fields = fields
        elif kind == "h":
            os.link(fields["to"], name, src_dir_fd=self._parents[0], dst_dir_fd=parent, follow_symlinks=False)
        elif kind == "l":
            os.symlink(fields["to"], name, dir_fd=parent)
            os.utime(name, ns=(fields["t"], fields["t"]), dir_fd=parent, follow_symlinks=False)
        elif kind == "p":
            os.mkfifo(name, fields["m"], dir_fd=parent)
            os.utime(name, ns=(fields["t"], fields["t"]), dir_fd=parent, follow_symlinks=False)

    def _write(self, data: bytes, at: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._open or -1, view, at)
            view, at = view[done:], at + done

    def _finish(self) -> None:
        """Give the file that was written its mode and time."""
        if self._open is not None:
            _dress(self._open, self._fields)
            os.close(self._open)
            self._open = None

    def _ascend(self, depth: int) -> None:
        if not 0 <= depth < len(self._parents):
            raise DamagedError
        while len(self._waiting) > depth:
            fd = self._parents.pop()
            _dress(fd, self._waiting.pop())
            os.close(fd)


def _dress(fd: int, fields: Dict[str, Any]) -> None:
    os.fchmod(fd, fields["m"])
    os.utime(fd, ns=(fields["t"], fields["t"]))


def pack(order: Dict[str, Any]) -> None:
    where = next((path for path in order["places"] if _is_on_disk(os.path.dirname(path))), None)
    if where is None:
        raise OSError(errno.EROFS, "nowhere to put it")
    _remove(where)
    try:
        with os.fdopen(os.open(where, _WRITE, 0o600), "wb", PIECE) as file:
            Packer(file, order["room"]).pack(order["root"])
    except BaseException:
        _remove(where)
        raise


def unpack(order: Dict[str, Any]) -> None:
    root = os.open(order["root"], _DIRECTORY)
    try:
        for where in order["places"]:
            try:
                file = os.fdopen(os.open(where, _READ), "rb", PIECE)
            except FileNotFoundError:
                continue
            with file:
                Unpacker(file, root).unpack()
            _remove(where)
    finally:
        os.close(root)


def _is_on_disk(directory: str) -> bool:
    try:
        here = os.stat(directory).st_dev == os.stat("/").st_dev
    except OSError:
        return False
    return here and os.access(directory, os.W_OK | os.X_OK)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def main() -> None:
    sys.setrecursionlimit(5 * MAX_DEPTH)
    order = json.loads(sys.stdin.buffer.read())
    reply: Dict[str, Any] = {"done": True}
    try:
        if order["op"] == "pack":
            pack(order)
        elif order["op"] == "unpack":
            unpack(order)
        else:
            for path in order["places"]:
                _remove(path)
    except OSError as error:
        reply = {"errno": error.errno}
    except (DamagedError, ValueError, KeyError, TypeError, struct.error):
        reply = {"errno": errno.EBADMSG}
    sys.stdout.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
