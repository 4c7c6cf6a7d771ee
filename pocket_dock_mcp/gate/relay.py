"""Bytes between two streams, both ways at once, with an end when nothing moves any more."""

from __future__ import annotations

import anyio
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.answers import RefusedError
from pocket_dock_mcp.gate.limits import Meter, SpentError

CHUNK = 65_536
_BOTH = 2
GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError)


class Metered(ByteStream):
    """A connection to the network, of which the bytes are counted."""

    def __init__(self, stream: ByteStream, meter: Meter) -> None:
        """Count what goes through from now on."""
        self._stream = stream
        self._meter = meter

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        """Return what is next. Raises `SpentError`, too."""
        data = await self._stream.receive(max_bytes)
        self._meter.add_received(len(data))
        return data

    async def send(self, item: bytes) -> None:
        """Say something. Raises `SpentError`, too."""
        self._meter.add_sent(len(item))
        await self._stream.send(item)

    async def send_eof(self) -> None:
        """Say that no more will come."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Hang up."""
        await self._stream.aclose()


class Idle:
    """Ends a scope when nothing has happened in it for a time."""

    def __init__(self, scope: anyio.CancelScope, seconds: float) -> None:
        """Begin now."""
        self._scope = scope
        self._seconds = seconds
        self.touch()

    def touch(self) -> None:
        """Take note that something has happened."""
        self._scope.deadline = anyio.current_time() + self._seconds


async def relay(inside: ByteStream, outside: ByteStream, idle_s: float) -> None:
    """Carry bytes both ways until both sides have said all that they have to say.

    Raises:
        anyio.BrokenResourceError: one of them is gone, or nothing has moved for too long.
        SpentError: no more may go.
        RefusedError: what one of the streams raises when it does not like what it carries.
    """
    problems: list[SpentError | RefusedError] = []
    whole = 0
    async with anyio.create_task_group() as group:
        idle = Idle(group.cancel_scope, idle_s)

        async def copy(source: ByteStream, sink: ByteStream) -> None:
            nonlocal whole
            try:
                await _copy(source, sink, idle)
                whole += 1
            except (SpentError, RefusedError) as error:
                problems.append(error)
                group.cancel_scope.cancel()
            except GONE:
                group.cancel_scope.cancel()

        group.start_soon(copy, inside, outside)
        group.start_soon(copy, outside, inside)
    if problems:
        raise problems[0]
    if whole < _BOTH:
        raise anyio.BrokenResourceError


async def _copy(source: ByteStream, sink: ByteStream, idle: Idle) -> None:
    try:
        while True:
            data = await source.receive(CHUNK)
            idle.touch()
            await sink.send(data)
            idle.touch()
    except anyio.EndOfStream:
        await sink.send_eof()
