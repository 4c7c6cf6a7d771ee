"""A program inside that has connected to the way out of its container."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from typing_extensions import Self

from pocket_dock_mcp.agent.transport import Relayed, Transport
from pocket_dock_mcp.errors import AgentError
from pocket_dock_mcp.gate.client import ClientGone

LINGER = 60.0
"""Seconds for a program to take the last of what it was told, and to end its side."""


class Caller:
    """One connection of a program's; a `pocket_dock_mcp.gate.client.Client`."""

    def __init__(self) -> None:
        self._relay: Relayed | None = None
        self._came = bytearray()
        """No more than the connection's window, however small the pieces are that it comes in."""
        self._news = anyio.Event()
        self._has_ended = self._is_over = self._was_told_all = False

    @classmethod
    async def next(cls, transport: Transport) -> Self:
        """Wait for the next program that connects.

        Raises:
            AgentError, RemoteError: its container is not reached any more, or takes no connections.
        """
        caller = cls()
        caller._relay = relay = await transport.accept(caller._take)
        relay.when_over(caller._over)
        return caller

    def _take(self, data: bytes, is_last: bool) -> None:
        self._came += data
        self._has_ended = is_last
        self._tell()

    def _over(self) -> None:
        self._is_over = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when both sides have said all, or it was broken off from inside."""
        self._connected.when_over(callback)

    @property
    def _connected(self) -> Relayed:
        if self._relay is None:
            raise ClientGone
        return self._relay

    async def receive(self) -> bytes:
        """Return what it says next; nothing at the end of it."""
        while not self._came:
            if self._has_ended:
                return b""
            if self._is_over:
                raise ClientGone
            await self._news.wait()
        data, self._came = bytes(self._came), bytearray()
        self._connected.taken(len(data))
        return data

    async def send(self, data: bytes) -> None:
        """Say something; returns when it is under way, within the connection's window."""
        try:
            await self._connected.send(data)
        except AgentError as error:
            raise ClientGone from error
        if self._is_over:
            raise ClientGone

    async def send_eof(self) -> None:
        """Say that there is no more to come."""
        if self._is_over:
            raise ClientGone
        try:
            await self._connected.send_end()
        except AgentError as error:
            raise ClientGone from error
        self._was_told_all = True

    async def aclose(self) -> None:
        """Break it off, unless it was told all: then `part` ends it when the program has had that."""
        if not self._was_told_all:
            await self._connected.abort()

    async def part(self) -> None:
        """End it: if it was told all, when it has had that and ended its side, else at once."""
        try:
            if self._was_told_all:
                with anyio.move_on_after(LINGER):
                    await self._see_off()
        finally:
            with anyio.CancelScope(shield=True):
                await self._connected.abort()

    async def _see_off(self) -> None:
        try:
            while await self.receive():
                pass
        except ClientGone:
            return
        await self._connected.wait()
