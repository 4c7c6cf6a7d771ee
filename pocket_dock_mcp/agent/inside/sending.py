"""Frames on their way to a client."""

from __future__ import annotations

import collections
import os
from typing import Callable, Deque, Dict, Optional

from . import wire
from .loop import WRITE, Loop

LITTLE = 4096
"""Bytes of output that are not worth a write of their own, ..."""
MOMENT = 0.002
"""... for so many seconds."""
MOST_AT_ONCE = 64
ENOUGH = 2 * 1024 * 1024
"""Bytes on their way, with which what can wait does."""


class Sender:
    """Writes frames to a descriptor, as many as come together in one."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop = loop
        self.on_lost: Callable[[int], object] = os._exit
        """Told 0 when nobody reads any more, 1 when too much is to be read."""
        self.most: Optional[int] = None
        """Bytes on their way that are too many."""
        self.queued = 0
        """Bytes on their way."""
        self.written = 0
        self.waiting: Dict[int, Callable[[], object]] = {}
        """What goes on when there is less on its way, by request."""
        self._unsent: Deque[memoryview] = collections.deque()
        self._is_urgent = self._is_waiting = False
        self._fd: Optional[int] = fd
        os.set_blocking(fd, False)

    def close(self) -> None:
        """Write no more. What was not sent, a half frame too, is never sent."""
        if self._fd is not None:
            self._loop.unwatch(self._fd)
        self._fd = None
        self._unsent.clear()
        self.waiting.clear()

    @property
    def has_enough(self) -> bool:
        """Whether what can wait should."""
        return self.queued > ENOUGH

    def send(self, header: wire.Header, payload: bytes = b"") -> None:
        """Queue a frame. What comes together goes together: each write wakes everybody up to the host.

        So a little output waits for a moment, in which most programs that print little have ended.
        """
        if self._fd is None:
            return
        frame = memoryview(wire.encode(header, payload))
        self._unsent.append(frame)
        self.queued += len(frame)
        if header["kind"] != "data" or len(payload) > LITTLE:
            self._hurry()
        elif not self._is_waiting:
            self._is_waiting = True
            self._loop.later(MOMENT, self._waited)

    def _waited(self) -> None:
        self._is_waiting = False
        self._hurry()

    def _hurry(self) -> None:
        if not self._is_urgent:
            self._is_urgent = True
            self._loop.soon.append(self._go)

    def _go(self) -> None:
        self._is_urgent = False
        self.flush()
        if self.most is not None and self.queued > self.most and self._fd is not None:
            self.on_lost(1)

    def flush(self) -> None:
        """Write as much as goes without waiting."""
        fd = self._fd
        if fd is None:
            return
        try:
            while self._unsent:
                written = os.writev(
                    fd, [self._unsent[at] for at in range(min(len(self._unsent), MOST_AT_ONCE))]
                )
                self.written += written
                self.queued -= written
                while written:
                    written -= len(self._unsent[0])
                    frame = self._unsent.popleft()
                    if written < 0:
                        self._unsent.appendleft(frame[written:])
                        written = 0
        except BlockingIOError:
            self._loop.watch(fd, WRITE, self.flush)
        except OSError:
            self.on_lost(0)
            return
        else:
            self._loop.unwatch(fd)
        if self.waiting and not self.has_enough:
            waiting, self.waiting = self.waiting, {}
            for go_on in waiting.values():
                go_on()
