"""Frames on their way from a client."""

from __future__ import annotations

import os
from typing import Callable

from . import wire
from .loop import READ, Loop

READ_SIZE = 256 * 1024


class Receiver:
    """Reads frames from a descriptor."""

    def __init__(self, loop: Loop, fd: int, serve: Callable[[wire.Header, bytes], object]) -> None:
        self.on_lost: Callable[[int], object] = os._exit
        """Told 0 at the end of the input, 1 when what comes are no frames."""
        self._loop = loop
        self._serve = serve
        self._decoder = wire.Decoder()
        self._fd = fd
        self._is_closed = False
        os.set_blocking(fd, False)
        loop.watch(fd, READ, self._on_input)

    def close(self) -> None:
        """Read no more. Half a frame is forgotten."""
        if not self._is_closed:
            self._loop.unwatch(self._fd)
        self._is_closed = True

    def _on_input(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.on_lost(0)
            return
        try:
            frames = self._decoder.feed(data)
        except wire.FrameError:
            # Whoever holds the lease does not speak with us any more.
            self.on_lost(1)
            return
        for header, payload in frames:
            if not self._is_closed:
                # Else it was let go of for the frame before.
                self._serve(header, payload)
