"""Requests under way on a link: what comes for them, and how much may be on its way in each direction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.errors import AgentProtocolError

Header = dict[str, Any]
OnData = Callable[[int, bytes], None]
OnBytes = Callable[[bytes, bool], None]


class Request:
    """One request under way. Its final frame arrives once; data before it goes to `on_data`.

    There may be `most` bytes of an answer that is kept in memory: windows bound what is under way only.
    """

    __slots__ = ("_left", "answer", "is_held", "on_data", "owed", "upload", "window")

    def __init__(self, on_data: OnData | None, most: int | None = None) -> None:
        self.on_data = on_data
        self._left = most
        self.answer: asyncio.Future[tuple[Header, bytes]] = asyncio.get_running_loop().create_future()
        self.window = wire.WINDOW
        self.owed = 0
        self.is_held = False
        self.upload = UploadWindow()

    def count(self, amount: int) -> None:
        """So many bytes more have come. Raises `AgentProtocolError` for more than there may be."""
        if self._left is None:
            return
        self._left -= amount
        if self._left < 0:
            reason = "more than was asked for"
            raise AgentProtocolError(reason)


class Relay(Request):
    """A connection to a port inside. What comes goes to `on_bytes`, which is told whether it is the last.

    Credit is for whoever takes that to give: see `AgentLink.taken`.
    """

    __slots__ = ("has_ended", "on_bytes", "size")

    def __init__(self, on_bytes: OnBytes, size: int, upload_size: int) -> None:
        super().__init__(None)
        self.on_bytes = on_bytes
        self.window = self.size = size
        self.upload = UploadWindow(upload_size)
        self.has_ended = False

    def take(self, header: Header, payload: bytes) -> None:
        """Take a frame of it. Raises `AgentProtocolError` for one that cannot be."""
        if header["kind"] != "relay":
            reason = "a connection that was not asked for"
            raise AgentProtocolError(reason)
        end = header.get("end", False)
        self.window -= len(payload)
        if self.has_ended or self.window < 0 or type(end) is not bool or not (payload or end):
            reason = "a connection's data beyond its window or its end"
            raise AgentProtocolError(reason)
        self.has_ended = end
        self.on_bytes(payload, end)


class Incoming(Relay):
    """A connection that a program inside makes, once it does."""

    __slots__ = ("accepted",)

    def __init__(self, on_bytes: OnBytes, size: int, upload_size: int) -> None:
        super().__init__(on_bytes, size, upload_size)
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait_accepted(self) -> None:
        """Wait until it is there, or is not to be expected any more."""
        futures: list[asyncio.Future[Any]] = [self.accepted, self.answer]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)

    def take(self, header: Header, payload: bytes) -> None:
        """Take a frame of it; first of all the one that says that it is there."""
        is_first = header["kind"] == "accepted"
        if is_first == self.accepted.done() or (is_first and payload):
            reason = "a connection's data before it was there"
            raise AgentProtocolError(reason)
        if is_first:
            self.accepted.set_result(None)
        else:
            super().take(header, payload)


class UploadWindow:
    """How many bytes may still be sent on one request before the agent gives credit."""

    def __init__(self, size: int = wire.UPLOAD_WINDOW) -> None:
        self._size = self._room = size
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, amount: int) -> None:
        """Take credit. More than was used is a lie and stops nothing but the liar."""
        self._room = min(self._room + amount, self._size)
        self._changed.set()

    def close(self) -> None:
        """Nobody reads any more."""
        self._closed = True
        self._changed.set()

    async def take(self, wanted: int) -> int:
        """Wait for room and return how much of `wanted` may be sent; 0 when nobody reads any more."""
        while self._room <= 0 and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if self._closed:
            return 0
        amount = min(wanted, self._room)
        self._room -= amount
        return amount
