"""Writes: a whole file in another's place, or bytes at a file's end. All of it or nothing."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING, Optional, Tuple

from . import wire
from .files import RefusedError, Walk, lstat, require_regular, version_of

if TYPE_CHECKING:
    from .main import Agent

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


MAX_EXCHANGES = 20  # who replaces a file all the time does not keep us here
RENAME_EXCHANGE = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


class Writer:
    """One write under way: into a temporary file beside the target, which takes its place at the end."""

    def __init__(self, agent: Agent, request_id: int, header: wire.Header) -> None:
        self.agent = agent
        self.id = request_id
        self._size = 0
        self._done = False
        self._expected = header.get("expect")
        with agent.user:
            walk = Walk(os.fsencode(header["path"]), agent.procfs, parents=self._expected is None)
            try:
                if walk.status is not None:
                    require_regular(walk.status)
                self._temporary = b".pocket-dock-%s.tmp" % os.urandom(6).hex().encode("ascii")
                self._fd = os.open(self._temporary, _CREATE, 0o600, dir_fd=walk.directory)
            except BaseException:
                walk.close()
                raise
        self._walk = walk
        mode = header.get("mode")
        if mode is None:
            mode = 0o644 if walk.status is None else stat.S_IMODE(walk.status.st_mode) & 0o777
        self._mode = int(mode)

    def feed(self, data: bytes, end: bool) -> None:
        """Take a piece; at the end put the file in its place. After an error nothing is left of it."""
        try:
            self._take(data)
            if end:
                self._commit()
        except OSError as error:
            self.abort()
            self.agent.fail(self.id, "file", error.errno)
        except RefusedError as refusal:
            self.abort()
            self.agent.fail(self.id, "file", 0, refusal.code)
        else:
            if not end:
                self.agent.send({"kind": "credit", "id": self.id, "n": len(data)})

    def _take(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._size += len(data)

    def abort(self) -> None:
        if self._done:
            return
        os.close(self._fd)
        with self.agent.user:
            try:
                os.unlink(self._temporary, dir_fd=self._walk.directory)
            except OSError:
                pass
        self._close()

    def _commit(self) -> None:
        with self.agent.user:
            os.fchmod(self._fd, self._mode)
            if self._expected is None:
                self._rename()
            else:
                self._replace(self._expected)
        os.close(self._fd)
        self._reply(self._size, self._walk.status is not None)

    def _rename(self) -> None:
        directory = self._walk.directory
        os.rename(self._temporary, self._walk.name, src_dir_fd=directory, dst_dir_fd=directory)

    def _replace(self, expected: str) -> None:
        """Take the place of this version of the file and of no other."""
        now = self._look(self._walk.name)
        if now != expected:
            raise RefusedError("changed")
        if not self._exchange():
            # Too old a kernel or C library: what happens between the look and this is lost. It is a moment.
            self._rename()
        elif content_of(self._look(self._temporary)) == content_of(expected):
            os.unlink(self._temporary, dir_fd=self._walk.directory)
        else:
            self._put_back()
            raise RefusedError("changed")

    def _put_back(self) -> None:
        """Give the name back to what was there, which has not been read by us, or to what has come since."""
        placed, displaced = version_of(os.fstat(self._fd)), self._look(self._temporary)
        for _ in range(MAX_EXCHANGES):
            if not self._exchange():
                return
            found = self._look(self._temporary)
            if content_of(found) == content_of(placed):
                return
            # Somebody has replaced what we had put there just now: theirs is the newest.
            placed, displaced = displaced, found

    def _look(self, name: bytes) -> str:
        status = lstat(name, self._walk.directory)
        return "" if status is None else version_of(status)

    def _exchange(self) -> bool:
        """Let the new file and what is in its place change names; False if that cannot be done here."""
        directory = self._walk.directory
        call = getattr(_LIBC, "renameat2", None)
        if call is None:
            return False
        if call(directory, self._temporary, directory, self._walk.name, RENAME_EXCHANGE) == 0:
            return True
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
            return False
        raise RefusedError("changed") if number == errno.ENOENT else OSError(number, "renameat2")

    def _reply(self, size: int, overwrote: bool) -> None:
        path = self._walk.path()
        self._close()
        self.agent.send({"kind": "reply", "id": self.id, "path": path, "size": size, "overwrote": overwrote})

    def _close(self) -> None:
        self._done = True
        self._walk.close()
        self.agent.drop(self.id)


class Appender(Writer):
    """One append under way: collected here, and added to the file at the end in one write."""

    def __init__(self, agent: Agent, request_id: int, header: wire.Header) -> None:
        self.agent = agent
        self.id = request_id
        self._done = False
        self._data = bytearray()
        mode = header.get("mode")
        self._bits = None if mode is None else int(mode)
        with agent.user:
            self._walk = Walk(os.fsencode(header["path"]), agent.procfs, parents=True)
        try:
            if self._walk.status is not None:
                require_regular(self._walk.status)
        except BaseException:
            self._walk.close()
            raise

    def _take(self, data: bytes) -> None:
        self._data += data

    def abort(self) -> None:
        if not self._done:
            self._close()

    def _commit(self) -> None:
        with self.agent.user:
            fd, is_new = self._open_end()
            try:
                size = self._add(fd, 0o644 if is_new and self._bits is None else self._bits)
            except BaseException:
                if is_new:
                    os.unlink(self._walk.name, dir_fd=self._walk.directory)
                raise
            finally:
                os.close(fd)
        self._reply(size, not is_new)

    def _open_end(self) -> Tuple[int, bool]:
        name, directory = self._walk.name, self._walk.directory
        try:
            return os.open(name, _APPEND | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory), True
        except FileExistsError:
            return os.open(name, _APPEND, dir_fd=directory), False

    def _add(self, fd: int, mode: Optional[int]) -> int:
        """Write it all or nothing, and return the new size."""
        status = os.fstat(fd)
        require_regular(status)
        if mode is not None:
            os.fchmod(fd, mode)
        written = 0
        try:
            while written < len(self._data):
                written += os.write(fd, memoryview(self._data)[written:])
        except OSError:
            # Unless somebody else has added to it since: then nobody knows whose bytes are where.
            if os.fstat(fd).st_size == status.st_size + written:
                os.ftruncate(fd, status.st_size)
            raise
        return os.fstat(fd).st_size


def content_of(version: str) -> str:
    """Return a version without its inode, which is another one after a copy to an overlay's upper layer."""
    return version.partition("-")[2]


def writer(agent: Agent, request_id: int, header: wire.Header) -> Writer:
    return (Appender if header.get("append") else Writer)(agent, request_id, header)
