"""Files for the host: read, write, stat, list, always with the sandbox user's rights and never blocking.

A path is walked one component at a time, with directory descriptors and without following anything that
the kernel would follow by magic: the agent itself has a ``/proc/self``, and a link of the user's into it
must not make the agent open its own memory or descriptors.
"""

from __future__ import annotations

import collections
import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Deque, List, Optional, Tuple

from . import wire
from .clients import is_to_wait

if TYPE_CHECKING:
    from .main import Agent

MAX_LINKS = 40
"""Symbolic links in one path, as in Linux (see path_resolution(7))."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking, so that a FIFO that takes a file's place cannot hang the agent between check and open.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class RefusedError(Exception):
    """RefusedError for a reason that has no errno of its own."""

    def __init__(self, code: str) -> None:
        Exception.__init__(self, code)
        self.code = code


class Walk:
    """A walk along a path; afterwards `directory` is open and holds `name`, whose `status` it is.

    `status` is None when nothing is there. `name` is no symbolic link, unless it was not to be followed.
    """

    def __init__(self, path: bytes, procfs: int, follow: bool = True, parents: bool = False) -> None:
        self.directory = os.open(b"/", _DIRECTORY)
        self.name = b"."
        self.status: Optional[os.stat_result] = None
        self._open = True
        self._procfs = procfs
        try:
            self._walk(collections.deque(_parts(path)), follow, parents)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self.directory)

    def _walk(self, todo: Deque[bytes], follow: bool, parents: bool) -> None:
        links = 0
        while todo:
            name = todo.popleft()
            status = None if name == b".." else lstat(name, self.directory)
            if status is not None and stat.S_ISLNK(status.st_mode) and (todo or follow):
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, "too many symbolic links")
                self._follow(name, todo)
            elif not todo and name != b"..":
                self.name, self.status = name, status
                return
            else:
                if status is None and parents and name != b"..":
                    os.mkdir(name, 0o755, dir_fd=self.directory)
                self._enter(name)
        self.status = os.fstat(self.directory)

    def _follow(self, name: bytes, todo: Deque[bytes]) -> None:
        target = os.readlink(name, dir_fd=self.directory)
        if target.startswith(b"/"):
            self._enter(b"/")
        todo.extendleft(reversed(_parts(target)))

    def _enter(self, name: bytes) -> None:
        inner = os.open(name, _DIRECTORY, dir_fd=self.directory)
        os.close(self.directory)
        self.directory = inner
        if os.fstat(inner).st_dev == self._procfs:
            raise RefusedError("procfs")

    def path(self) -> str:
        """Return the absolute path that the walk ended at."""
        directory = os.readlink("/proc/self/fd/%d" % self.directory)
        return directory if self.name == b"." else os.path.join(directory, os.fsdecode(self.name))


def _parts(path: bytes) -> List[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def lstat(name: bytes, directory: int) -> Optional[os.stat_result]:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError("not_regular")


class Reader:
    """One read under way: sends as far as the window allows, then waits for credit."""

    def __init__(self, agent: Agent, request_id: int, header: wire.Header) -> None:
        self.agent = agent
        self.id = request_id
        self.credit = wire.WINDOW
        with agent.user, Walk(os.fsencode(header["path"]), agent.procfs) as walk:
            if walk.status is None:
                raise FileNotFoundError(errno.ENOENT, "no such file")
            require_regular(walk.status)
            self._fd = os.open(walk.name, _READ, dir_fd=walk.directory)
        try:
            self._status = os.fstat(self._fd)
            require_regular(self._status)
        except BaseException:
            os.close(self._fd)
            raise
        self._offset = header.get("offset", 0)
        self._left = header["length"]

    def start(self) -> None:
        """Answer in one frame when the file fits, else begin to stream."""
        data = os.pread(self._fd, min(self._left, wire.MAX_PAYLOAD), self._offset)
        if len(data) == self._left or self._offset + len(data) == self._status.st_size:
            self._reply(data)
            return
        self._sent(data)
        self._pump()

    def add_credit(self, amount: int) -> None:
        self.credit += amount
        self._pump()

    def abort(self) -> None:
        os.close(self._fd)
        self.agent.drop(self.id)

    def _pump(self) -> None:
        while self._left and self.credit > 0 and self.agent.work.get(self.id) is self:
            if is_to_wait(self.agent, self.id, self._pump):
                return
            try:
                data = os.pread(self._fd, min(self._left, wire.MAX_PAYLOAD, self.credit), self._offset)
            except OSError as error:
                self.abort()
                self.agent.fail(self.id, "file", error.errno)
                return
            if not data:
                self._left = 0
                break
            self._sent(data)
        if not self._left and self.agent.work.get(self.id) is self:
            self._reply(b"")

    def _sent(self, data: bytes) -> None:
        self._offset += len(data)
        self._left -= len(data)
        self.credit -= len(data)
        self.agent.send({"kind": "data", "id": self.id, "s": 1}, data)

    def _reply(self, data: bytes) -> None:
        self.abort()
        fields = {**describe(self._status), "version": version_of(self._status)}
        self.agent.send({"kind": "reply", "id": self.id, **fields}, data)


def version_of(status: os.stat_result) -> str:
    """Return what is another after each change of a file, as far as the file system's clock goes."""
    return "%d-%d-%d" % (status.st_ino, status.st_size, status.st_mtime_ns)


def describe(status: os.stat_result) -> wire.Header:
    """Return what a header says of a file."""
    return {
        "type": file_type(status.st_mode),
        "size": status.st_size,
        "mode": stat.S_IMODE(status.st_mode),
        "mtime": status.st_mtime,
        "uid": status.st_uid,
    }


def file_type(mode: int) -> str:
    for test, name in (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISLNK, "symlink"),
        (stat.S_ISFIFO, "fifo"),
        (stat.S_ISSOCK, "socket"),
    ):
        if test(mode):
            return name
    return "device"


def stat_path(agent: Agent, header: wire.Header) -> wire.Header:
    """Return the header fields for one path."""
    path, follow = os.fsencode(header["path"]), header.get("follow", True)
    with agent.user, Walk(path, agent.procfs, follow=follow) as walk:
        if walk.status is None:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        return {**describe(walk.status), "path": walk.path()}


def list_directory(agent: Agent, header: wire.Header) -> Tuple[wire.Header, List[bytes]]:
    """Return ``(fields, pieces)``: JSON lines of the entries, cut off at the caller's limit or ours."""
    lines: List[bytes] = []
    size = 0
    truncated = False
    with agent.user, Walk(os.fsencode(header["path"]), agent.procfs) as walk:
        if walk.status is None:
            raise FileNotFoundError(errno.ENOENT, "no such directory")
        if not stat.S_ISDIR(walk.status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory")
        fd = os.open(walk.name, _READ | os.O_DIRECTORY, dir_fd=walk.directory)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    line = _entry(entry)
                    if line is None:
                        continue
                    size += len(line)
                    if len(lines) >= header["limit"] or size > wire.MAX_LISTING:
                        truncated = True
                        break
                    lines.append(line)
        finally:
            os.close(fd)
    data = b"".join(lines)
    pieces = [data[at : at + wire.MAX_PAYLOAD] for at in range(0, len(data), wire.MAX_PAYLOAD)]
    return {"truncated": truncated}, pieces


def _entry(entry: os.DirEntry[str]) -> Optional[bytes]:
    try:
        fields = {"name": entry.name, **describe(entry.stat(follow_symlinks=False))}
    except OSError:
        # It vanished while we looked: then it is not there.
        return None
    return (json.dumps(fields, separators=(",", ":")) + "\n").encode("ascii")
