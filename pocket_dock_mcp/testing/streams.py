"""Byte streams in memory, which end, stall and break as those of an engine do."""

from __future__ import annotations

from collections import deque

import anyio
import anyio.lowlevel

from pocket_dock_mcp.engine.base import ExecState
from pocket_dock_mcp.errors import StreamLostError

CAPACITY = 256 * 1024
"""Bytes under way before a writer has to wait: a pipe and some socket buffers."""


class Channel:
    """Chunks of ``(source, data)`` one way. What was written before the end is still read after it."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._ended = False
        self._error: StreamLostError | None = None
        self._changed = anyio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing can be written any more."""
        return self._ended

    def put_nowait(self, source: int, data: bytes) -> None:
        """Write without waiting for room. Into an ended channel nothing goes."""
        if data and not self._ended:
            self._chunks.append((source, data))
            self._size += len(data)
            self._notify()

    async def put(self, source: int, data: bytes) -> None:
        """Wait for room and write."""
        await anyio.lowlevel.checkpoint()
        while self._size >= CAPACITY and not self._ended:
            await self._changed.wait()
        self.put_nowait(source, data)

    async def get(self) -> tuple[int, bytes] | None:
        """Return the next chunk, or None at the end.

        Raises:
            StreamLostError: the channel was broken.
        """
        await anyio.lowlevel.checkpoint()
        while not self._chunks and not self._ended:
            await self._changed.wait()
        if self._chunks:
            chunk = self._chunks.popleft()
            self._size -= len(chunk[1])
            self._notify()
            return chunk
        if self._error is not None:
            raise StreamLostError(self._error.message)
        return None

    def end(self) -> None:
        """Let readers come to the end."""
        self._ended = True
        self._notify()

    def cut(self, error: StreamLostError | None) -> None:
        """Break: what is still under way is lost. Without an error it looks like a normal end."""
        if not self._ended:
            self._chunks.clear()
            self._error = error
            self.end()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class Credit:
    """How many bytes a sender may still send before its receiver gives credit."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._closed = False
        self._changed = anyio.Event()

    def add(self, amount: int) -> None:
        """Take credit."""
        self._room += amount
        self._notify()

    def close(self) -> None:
        """Nobody receives any more."""
        self._closed = True
        self._notify()

    async def take(self, wanted: int) -> int:
        """Wait for room and return how much of `wanted` may be sent; 0 when nobody receives any more."""
        await anyio.lowlevel.checkpoint()
        while self._room <= 0 and not self._closed:
            await self._changed.wait()
        amount = 0 if self._closed else min(wanted, self._room)
        self._room -= amount
        return amount

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class FakeStream:
    """An attached stream: `Stream` to the host, with a channel to either side of the program."""

    def __init__(self, stdin: Channel, *, cut_after: int | None = None, clean: bool = False) -> None:
        self.output = Channel()
        self._stdin = stdin
        self._left = cut_after
        self._clean = clean
        self._closed = False

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the next piece of output, or None at the end."""
        if self._closed:
            raise StreamLostError("The stream was closed.")
        chunk = await self.output.get()
        if chunk is None or self._left is None:
            return chunk
        source, data = chunk
        data = data[: self._left]
        self._left -= len(data)
        if self._left == 0:
            self.lose(clean=self._clean)
        return (source, data) if data else await self.output.get()

    async def send(self, data: bytes) -> None:
        """Write to the program's standard input."""
        if self._closed or self._stdin.ended:
            raise StreamLostError("The connection to the container broke: it is closed.")
        await self._stdin.put(0, data)

    def send_nowait(self, data: bytes) -> None:
        """Write to standard input without waiting for room."""
        if not self._closed:
            self._stdin.put_nowait(0, data)

    async def send_eof(self) -> None:
        """Close the program's standard input."""
        self._stdin.end()

    async def aclose(self) -> None:
        """Close both directions: a program that reads its input sees the end."""
        self._closed = True
        self.lose(clean=False)

    def lose(self, *, clean: bool) -> None:
        """Break the connection under both sides; `clean` is when it looks like a normal end."""
        self._stdin.end()
        self.output.cut(None if clean else StreamLostError("The connection to the container broke."))


class FakeExecStream(FakeStream):
    """The streams of an exec."""

    def __init__(self, stdin: Channel) -> None:
        super().__init__(stdin)
        self.exit_code: int | None = None

    async def state(self) -> ExecState:
        """Say how the program fares."""
        await anyio.lowlevel.checkpoint()
        return ExecState(running=self.exit_code is None, exit_code=self.exit_code)
