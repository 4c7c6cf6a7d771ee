"""Frames on their way from the host."""

from __future__ import annotations

import os
from typing import Callable, Optional

from . import wire
from .loop import READ, Loop

READ_SIZE = 256 * 1024


class Receiver:
    """Reads frames from standard input, or what takes its place."""

    def __init__(self, loop: Loop, serve: Callable[[wire.Header, bytes], object]) -> None:
        self.on_lost: Callable[[int], object] = os._exit
        """Told 0 at the end of the input, 1 when what comes are no frames."""
        self._loop = loop
        self._serve = serve
        self._fd: Optional[int] = None

    def use(self, fd: Optional[int]) -> None:
        """Read from another descriptor from here on. Half a frame of the one before is forgotten."""
        if self._fd is not None:
            self._loop.unwatch(self._fd)
        self._fd = fd
        self._decoder = wire.Decoder()
        if fd is not None:
            os.set_blocking(fd, False)
            self._loop.watch(fd, READ, self._on_input)

    def _on_input(self) -> None:
        if self._fd is None:
            return
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
            self._serve(header, payload)
