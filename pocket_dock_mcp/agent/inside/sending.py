"""Frames on their way to the host."""

from __future__ import annotations

import collections
import os
from typing import Callable, Deque, Optional

from . import wire
from .loop import WRITE, Loop

LITTLE = 4096
"""Bytes of output that are not worth a write of their own, ..."""
MOMENT = 0.002
"""... for so many seconds."""
MOST_AT_ONCE = 64


class Sender:
    """Writes frames to standard output, or what takes its place, as many as come together in one."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.on_lost: Callable[[int], object] = os._exit
        """Told 0 when nobody reads any more."""
        self._unsent: Deque[memoryview] = collections.deque()
        self._is_urgent = self._is_waiting = False
        self._fd: Optional[int] = None
        self.use(1)
        loop.after_turn = self._after_turn

    def use(self, fd: Optional[int]) -> None:
        """Write to another descriptor from here on. What was not sent, a half frame too, is never sent."""
        if self._fd is not None:
            self._loop.unwatch(self._fd)
        self._fd = fd
        self._unsent.clear()
        if fd is not None:
            os.set_blocking(fd, False)

    def send(self, header: wire.Header, payload: bytes = b"") -> None:
        """Queue a frame. What comes together goes together: each write wakes everybody up to the host.

        So a little output waits for a moment, in which most programs that print little have ended.
        """
        self._unsent.append(memoryview(wire.encode(header, payload)))
        if header["kind"] != "data" or len(payload) > LITTLE:
            self._is_urgent = True
        elif not self._is_waiting:
            self._is_waiting = True
            self._loop.later(MOMENT, self._hurry)

    def _hurry(self) -> None:
        self._is_waiting = False
        self._is_urgent = True

    def _after_turn(self) -> None:
        if self._is_urgent:
            self._is_urgent = False
            self.flush()

    def flush(self) -> None:
        """Write as much as goes without waiting."""
        fd = self._fd
        if fd is None:
            self._unsent.clear()
            return
        try:
            while self._unsent:
                written = os.writev(
                    fd, [self._unsent[at] for at in range(min(len(self._unsent), MOST_AT_ONCE))]
                )
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
        else:
            self._loop.unwatch(fd)
