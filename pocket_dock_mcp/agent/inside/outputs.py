"""What programs write, on its way to the host: no faster than the host takes it, and to the last byte."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING, Callable, Dict, Optional

from . import children, wire
from .loop import READ

if TYPE_CHECKING:
    from .main import Agent

OUT, ERR, REPORT = 1, 2, 3
"""Streams in data frames: standard output, standard error, and what an interpreter says of its program."""

CHUNK = wire.MAX_PAYLOAD
DEFAULT_PIPE_SIZE = 64 * 1024


class Outputs:
    """The reading ends of some pipes, whose bytes belong to one request.

    `finish` is called when no more is to be expected. What the pipes hold then is sent; counted, because
    somebody else may hold a pipe's other end and go on writing.
    """

    def __init__(self, agent: Agent, request_id: int, fds: Dict[int, int], keep: bool = False) -> None:
        self.credit = wire.WINDOW
        self.limit: Optional[int] = None
        self.on_limit: Callable[[], object] = _nothing
        self._agent = agent
        self._id = request_id
        self._fds = fds
        self._keep = keep
        self._left: Dict[int, int] = {}
        self._sent = 0
        self._enlarged = False
        self._done: Optional[Callable[[], object]] = None
        self._kept = agent.kept(request_id)
        for stream in fds:
            self._watch(stream)

    def _watch(self, stream: int) -> None:
        self._agent.loop.watch(self._fds[stream], READ, lambda: self._on_readable(stream))

    def _on_readable(self, stream: int) -> bool:
        """Send one chunk; stop listening when the window is used up, or the room where output is kept."""
        fd = self._fds[stream]
        room = self._room(fd)
        if room <= 0:
            self._agent.loop.unwatch(fd)
            return False
        try:
            data = os.read(fd, min(CHUNK, room, self._left.get(stream, CHUNK)))
        except BlockingIOError:
            return False
        except OSError:
            # EIO: nobody has the terminal open any more.
            data = b""
        if not data:
            self._drop(stream)
            return False
        if len(data) >= DEFAULT_PIPE_SIZE and not self._enlarged:
            self._enlarged = True
            children.enlarge(fd)
        self.credit -= len(data)
        if stream in self._left:
            self._left[stream] -= len(data)
        self._agent.send({"kind": "data", "id": self._id, "s": stream}, data)
        self._count(stream, len(data))
        return True

    def _room(self, fd: int) -> int:
        if self._kept is None:
            return self.credit
        room = self._kept.tape.room(min(CHUNK, max(1, _readable(fd))))
        if room <= 0:
            self._kept.hold(self._go_on)
        return room

    def _count(self, stream: int, size: int) -> None:
        if stream == REPORT:
            return
        self._sent += size
        if self.limit is not None and self._sent > self.limit:
            self.limit = None
            self.on_limit()

    def _drop(self, stream: int) -> None:
        fd = self._fds.pop(stream)
        self._agent.loop.unwatch(fd)
        if not self._keep:
            os.close(fd)
        if not self._fds and self._done is not None:
            self._call_done()

    def add_credit(self, amount: int) -> None:
        """The host has consumed some."""
        self.credit += amount
        self._go_on()

    def _go_on(self) -> None:
        if self._done is not None:
            self._drain()
        else:
            for stream in self._fds:
                self._watch(stream)

    def finish(self, done: Callable[[], object]) -> None:
        """Send what the pipes hold now, then call `done`."""
        self._done = done
        for stream, fd in self._fds.items():
            self._left[stream] = _readable(fd)
        if self._fds:
            self._drain()
        else:
            self._call_done()

    def _drain(self) -> None:
        for stream in list(self._fds):
            while self._left[stream] and self._on_readable(stream):
                pass
            if not self._left[stream] and stream in self._fds:
                self._drop(stream)

    def _call_done(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done()

    def close(self) -> None:
        """Send no more."""
        self._done = None
        for stream in list(self._fds):
            self._drop(stream)


def _readable(fd: int) -> int:
    """Return how many bytes a pipe or terminal holds."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])
    except OSError:
        return 0


def _nothing() -> None:
    pass
