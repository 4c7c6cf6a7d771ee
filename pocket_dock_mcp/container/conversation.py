"""One client of a port of the host, and the program inside that it speaks with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio

from pocket_dock_mcp.agent.transport import Relayed, Transport
from pocket_dock_mcp.errors import PocketDockError

CHUNK = 64 * 1024
"""Bytes that are read from a client at once."""


class Conversation:
    """Bytes to and fro, until both sides have said all, or one of them breaks off."""

    def __init__(
        self, transport: Transport, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._transport = transport
        self._port = port
        self._reader = reader
        self._writer = writer
        # No more than the connection's window, however small the pieces are that it comes in.
        self._came = bytearray()
        self._has_come = asyncio.Event()
        self._program_has_ended = self._client_has_ended = False

    async def run(self) -> bool:
        """Have it take place; whether it came to its proper end. If not, the client is still connected."""
        try:
            relay = await self._transport.connect(self._port, self._take)
        except PocketDockError:
            # The sandbox is gone, or just being rebooted.
            return False
        try:
            return await self._talk(relay) and await self._part()
        finally:
            with anyio.CancelScope(shield=True):
                await relay.abort()

    def _take(self, data: bytes, is_last: bool) -> None:
        self._came += data
        self._program_has_ended = is_last
        self._has_come.set()

    async def _talk(self, relay: Relayed) -> bool:
        async with anyio.create_task_group() as group:
            broken = group.cancel_scope

            async def carry(direction: Callable[[Relayed], Awaitable[None]]) -> None:
                try:
                    await direction(relay)
                except (OSError, PocketDockError):
                    broken.cancel()

            group.start_soon(carry, self._up)
            group.start_soon(carry, self._down)
            is_whole = await relay.wait()
            if not (is_whole and self._program_has_ended and self._client_has_ended):
                broken.cancel()
        return not broken.cancel_called

    async def _up(self, relay: Relayed) -> None:
        while data := await self._reader.read(CHUNK):
            await relay.send(data)
        self._client_has_ended = True
        await relay.send_end()

    async def _down(self, relay: Relayed) -> None:
        while True:
            while self._came:
                data, self._came = self._came, bytearray()
                self._writer.write(data)
                await self._writer.drain()
                relay.taken(len(data))
            if self._program_has_ended:
                break
            self._has_come.clear()
            await self._has_come.wait()
        self._writer.write_eof()

    async def _part(self) -> bool:
        """Close the connection when the client has been given everything."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return False
        return True
