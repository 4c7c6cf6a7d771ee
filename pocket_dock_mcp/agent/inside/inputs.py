"""What programs read: bytes from the host, as fast as the program takes them."""

from __future__ import annotations

import collections
import os
from typing import TYPE_CHECKING, Deque, Optional

from .loop import WRITE

if TYPE_CHECKING:
    from .main import Agent

END_OF_TRANSMISSION = b"\x04"
"""What a terminal takes for the end of input, at the beginning of a line."""


class Input:
    """The writing end of a program's standard input. Without one, what is fed is spent all the same."""

    def __init__(self, agent: Agent, request_id: int, fd: Optional[int], is_tty: bool = False) -> None:
        self._agent = agent
        self._id = request_id
        self._fd = fd
        self._is_tty = is_tty
        self._pending: Deque[memoryview] = collections.deque()
        self._ended = False

    def feed(self, data: bytes, end: bool) -> None:
        """Take some bytes, which are the last ones if `end`."""
        if data and self._fd is None:
            # The program is gone or has no input.
            self._agent.send({"kind": "credit", "id": self._id, "n": len(data)})
        elif data:
            self._pending.append(memoryview(data))
        if end and self._is_tty and not self._ended:
            self._pending.append(memoryview(END_OF_TRANSMISSION))
        self._ended = self._ended or end
        self._pump()

    def _pump(self) -> None:
        spent = 0
        try:
            while self._pending and self._fd is not None:
                written = os.write(self._fd, self._pending[0])
                spent += written
                rest = self._pending.popleft()[written:]
                if rest:
                    self._pending.appendleft(rest)
        except BlockingIOError:
            if self._fd is not None:
                self._agent.loop.watch(self._fd, WRITE, self._pump)
        except OSError:
            # The program closed its input; that is its good right.
            spent += self.close()
        else:
            if self._fd is not None:
                self._agent.loop.unwatch(self._fd)
                # A terminal is closed with its program: whoever has it open would get a hang-up.
                if self._ended and not self._is_tty:
                    self.close()
        if spent:
            self._agent.send({"kind": "credit", "id": self._id, "n": spent})

    def close(self) -> int:
        """Close it and return how many bytes nobody has read."""
        dropped = sum(len(piece) for piece in self._pending)
        self._pending.clear()
        if self._fd is not None:
            self._agent.loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = None
        return dropped
