"""Frames on their way to the host."""

from __future__ import annotations

import collections
import os
from typing import Deque

from . import wire
from .loop import WRITE, Loop

LITTLE = 4096
"""Bytes of output that are not worth a write of their own, ..."""
MOMENT = 0.002
"""... for so many seconds."""
MOST_AT_ONCE = 64


class Sender:
    """Writes frames to standard output, as many as come together in one."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._unsent: Deque[memoryview] = collections.deque()
        self._is_urgent = self._is_waiting = False
        loop.after_turn = self._after_turn

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
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                written = os.writev(
                    1, [self._unsent[at] for at in range(min(len(self._unsent), MOST_AT_ONCE))]
                )
                while written:
                    written -= len(self._unsent[0])
                    frame = self._unsent.popleft()
                    if written < 0:
                        self._unsent.appendleft(frame[written:])
                        written = 0
        except BlockingIOError:
            self._loop.watch(1, WRITE, self._flush)
        except OSError:
            os._exit(0)
        else:
            self._loop.unwatch(1)
