"""Connections from inside in the vocabulary of anyio, so that TLS can be put around them."""

from __future__ import annotations

import anyio
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.client import Client, ClientGone


class ClientStream(ByteStream):
    """A client as a stream."""

    def __init__(self, client: Client) -> None:
        """Take nothing yet."""
        self._client = client
        self._rest = b""
        self._has_ended = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return what it says next. Raises what anyio's streams raise."""
        data = self._rest
        if not data:
            try:
                data = await self._client.receive()
            except ClientGone:
                raise anyio.BrokenResourceError from None
        if not data:
            raise anyio.EndOfStream
        self._rest = data[max_bytes:]
        return data[:max_bytes]

    async def send(self, item: bytes) -> None:
        """Say something."""
        try:
            await self._client.send(item)
        except ClientGone:
            raise anyio.BrokenResourceError from None

    async def send_eof(self) -> None:
        """Say that no more will come. Idempotent."""
        if self._has_ended:
            return
        self._has_ended = True
        try:
            await self._client.send_eof()
        except ClientGone:
            raise anyio.BrokenResourceError from None

    async def aclose(self) -> None:
        """Hang up."""
        await self._client.aclose()


class Prefixed(ByteStream):
    """A stream of which something has been read already."""

    def __init__(self, stream: ByteStream, prefix: bytes) -> None:
        """Put that in front again."""
        self._stream = stream
        self._prefix = prefix

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return what is next."""
        if not self._prefix:
            return await self._stream.receive(max_bytes)
        data, self._prefix = self._prefix[:max_bytes], self._prefix[max_bytes:]
        return data

    async def send(self, item: bytes) -> None:
        """Say something."""
        await self._stream.send(item)

    async def send_eof(self) -> None:
        """Say that no more will come."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Hang up."""
        await self._stream.aclose()
