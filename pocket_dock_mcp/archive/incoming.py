"""Writes a stream into a place of its own, and trusts nothing of it.

Everything is made new, by the name of one component in a directory that was made just before and is held
open: there is nothing yet that a name could lead through, and a name that comes twice is an offence.
"""

from __future__ import annotations

import os
from typing import Callable, Dict, List, Tuple

from . import frames, names
from .frames import BadStreamError, Body
from .outgoing import Counts, Limits

TOP = b"x"
"""Of the stage: the one entry at the top of a stream."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER = 0o700
MAX_UNTIMED = 10
"""Of those that have another time than they should that are named."""
_NEAR = 2 * 10**9
"""Nanoseconds that the time of a file may be off: some file systems count in two seconds."""
_MAX_PULSES = 100_000

OnTop = Callable[[bool], int]
"""Told whether the entry at the top is a directory; returns the descriptor of an empty one to write to."""


class SenderFailedError(Exception):
    """The sender has said that it cannot go on: an errno, and about what."""

    def __init__(self, number: int, path: bytes) -> None:
        Exception.__init__(self, number, path)
        self.number = number
        self.path = path


class Incoming:
    """One stream on its way in."""

    def __init__(self, on_top: OnTop, limits: Limits) -> None:
        self.counts = Counts(limits)
        self.is_complete = False
        self.top_mode = 0
        """Of the directory at the top, which gets it when it was moved: that takes the right to write."""
        self.untimed: List[bytes] = []
        """What has another time than it should, the first few of it."""
        self.untimed_count = 0
        self._on_top = on_top
        self._decoder = frames.Decoder(self._take)
        self._fds: List[int] = []
        self._path: List[bytes] = []
        self._modes: List[Tuple[int, int]] = []
        self._file = -1
        self._name = b""
        self._size = self._at = self._mode = self._time = 0
        self._pulses = 0
        self._has_top = False
        self._handlers: Dict[bytes, Callable[[Body], None]] = {
            frames.TOTAL: self._total,
            frames.PULSE: self._pulse,
            frames.DIRECTORY: self._directory,
            frames.LEAVE: self._leave,
            frames.FILE: self._begin,
            frames.DATA: self._data,
            frames.FILE_END: self._end,
            frames.LINK: self._link,
            frames.SKIPPED: self._skipped,
            frames.FAILED: self._failed,
            frames.COMPLETE: self._complete,
        }

    @property
    def path(self) -> bytes:
        """Return what is being written, below the top, to be told."""
        return b"/".join([*self._path[1:], self._name]) if self._path else b""

    def feed(self, data: bytes) -> None:
        """Take a piece of the stream.

        Raises:
            BadStreamError: it is none that our sender has made.
            LimitError: there is more than is allowed.
            SenderFailedError: the sender gave up.
            OSError: it cannot be written.
        """
        try:
            self._decoder.feed(data)
        except FileExistsError:
            raise BadStreamError("duplicate") from None

    def close(self) -> None:
        """Let go of what is open."""
        for fd in (self._file, *self._fds):
            if fd >= 0:
                os.close(fd)
        self._file = -1
        self._fds.clear()

    def _take(self, kind: bytes, body: Body) -> None:
        is_within_file = kind in (frames.DATA, frames.FILE_END)
        # What is told of a file comes before its end.
        if self.is_complete or (kind != frames.SKIPPED and is_within_file != (self._file >= 0)):
            raise BadStreamError("order")
        self._handlers[kind](body)

    # -- what is told -----------------------------------------------------------------------------

    def _total(self, body: Body) -> None:
        if len(body) != frames.TOTALS.size or self.counts.total_bytes is not None:
            raise BadStreamError("totals")
        self.counts.total_bytes = frames.TOTALS.unpack(body)[1]

    def _pulse(self, _body: Body) -> None:
        self._pulses += 1
        if self._pulses > _MAX_PULSES:
            raise BadStreamError("pulses")

    def _skipped(self, body: Body) -> None:
        if not len(body):
            raise BadStreamError("skipped")
        reason = body[0]
        if reason not in names.REASONS:
            raise BadStreamError("skipped")
        if reason not in (names.BITS, names.CHANGED) and self._file < 0:
            self.counts.entry()
        elif not self.counts.remark():
            raise BadStreamError("skipped")
        self.counts.skip(bytes(body[1:]) or b".", reason)

    def _failed(self, body: Body) -> None:
        if len(body) < frames.FAILURE.size:
            raise BadStreamError("failure")
        raise SenderFailedError(frames.FAILURE.unpack_from(body)[0], bytes(body[frames.FAILURE.size :]))

    def _complete(self, _body: Body) -> None:
        if self._fds[1:] or not self._has_top:
            raise BadStreamError("end")
        self.is_complete = True
        self.close()

    # -- entries ----------------------------------------------------------------------------------

    def _parent(self, name: bytes, is_directory: bool = False) -> int:
        """Return the directory that an entry is to be made in."""
        if not self._fds:
            if self._has_top or name != TOP:
                raise BadStreamError("top")
            self._has_top = True
            self._fds.append(self._on_top(is_directory))
        elif len(self._fds) == 1:
            raise BadStreamError("top")
        names.check_name(name)
        return self._fds[-1]

    def _directory(self, body: Body) -> None:
        mode, time, _, name = frames.entry_of(body)
        self.counts.entry()
        if len(self._fds) > names.MAX_DEPTH:
            raise BadStreamError("depth")
        self._name = name
        parent = self._parent(name, is_directory=True)
        os.mkdir(name, _OWNER, dir_fd=parent)
        self._fds.append(os.open(name, _DIRECTORY, dir_fd=parent))
        self._path.append(name)
        self._modes.append((mode, time))
        self._name = b""

    def _leave(self, _body: Body) -> None:
        if len(self._fds) < 2:
            raise BadStreamError("order")
        mode, time = self._modes.pop()
        fd = self._fds.pop()
        if len(self._fds) == 1:
            self.top_mode = mode
            mode |= _OWNER
        self._name = b""
        try:
            os.fchmod(fd, mode)
            self._untimed(stamp(fd, time))
        finally:
            os.close(fd)
        self._path.pop()
        self.counts.directories += 1

    def _begin(self, body: Body) -> None:
        self._mode, self._time, self._size, self._name = frames.entry_of(body)
        self.counts.entry(self._size)
        self._file = os.open(self._name, _NEW, 0o600, dir_fd=self._parent(self._name))
        self._at = 0

    def _data(self, body: Body) -> None:
        if len(body) <= frames.OFFSET.size:
            raise BadStreamError("data")
        (at,) = frames.OFFSET.unpack_from(body)
        length = len(body) - frames.OFFSET.size
        if at < self._at or at + length > self._size:
            raise BadStreamError("data")
        self._at = at + length
        with body[frames.OFFSET.size :] as rest:
            done = 0
            while done < length:
                with rest[done:] as piece:
                    done += os.pwrite(self._file, piece, at + done)
        self.counts.bytes += length

    def _end(self, body: Body) -> None:
        if len(body) != frames.END.size:
            raise BadStreamError("file end")
        verdict, end = frames.END.unpack(body)
        if not self._at <= end <= self._size and verdict != frames.UNREADABLE:
            raise BadStreamError("file end")
        fd, self._file = self._file, -1
        try:
            if verdict == frames.UNREADABLE:
                os.unlink(self._name, dir_fd=self._fds[-1])
                return
            if end != self._at:
                os.ftruncate(fd, end)
            os.fchmod(fd, self._mode)
            self._untimed(stamp(fd, self._time))
            self.counts.files += 1
        finally:
            os.close(fd)

    def _link(self, body: Body) -> None:
        _, time, _, rest = frames.entry_of(body)
        name, separator, target = rest.partition(b"\0")
        self.counts.entry()
        self._name = name
        if not separator or not self._fds:
            raise BadStreamError("link")
        parent = self._parent(name)
        if not names.stays_inside(target, len(self._fds) - 2):
            self.counts.skip(self.path, names.LINK_OUT)
            return
        os.symlink(target, name, dir_fd=parent)
        self._untimed(_stamp_link(parent, name, time))
        self.counts.symlinks += 1

    def _untimed(self, is_stamped: bool) -> None:
        if is_stamped:
            return
        path = self.path.rstrip(b"/") or b"."
        self.untimed_count += 1
        if len(self.untimed) < MAX_UNTIMED:
            self.untimed.append(path)
        self.counts.skip(path, names.TIME)


def stamp(fd: int, time: int) -> bool:
    """Give a file its time, where its file system can say it; return whether it has it."""
    try:
        os.utime(fd, ns=(time, time))
    except (OSError, OverflowError):
        return False
    # What it cannot say it takes and alters.
    return abs(os.fstat(fd).st_mtime_ns - time) <= _NEAR


def _stamp_link(parent: int, name: bytes, time: int) -> bool:
    try:
        os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)
    except (OSError, OverflowError):
        return False
    return abs(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mtime_ns - time) <= _NEAR
