"""A gate behind a real socket, servers for it to lead to, and names that mean what a test says they mean."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream

from pocket_dock_mcp.gate.client import ClientGone
from pocket_dock_mcp.gate.core import Gate, Surroundings
from pocket_dock_mcp.gate.domains import Address

LOCAL = "127.0.0.1"
PUBLIC = "203.0.113.80"
"""Stands for any address of the internet: nobody has it. `Net` leads there."""

Handler = Callable[[ByteStream], Awaitable[None]]


class SocketClient:
    """A connection from "inside" that is one of this machine."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._has_ended = False

    async def receive(self) -> bytes:
        try:
            return await self._stream.receive()
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise ClientGone from None

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise ClientGone from None

    async def send_eof(self) -> None:
        self._has_ended = True
        try:
            await self._stream.send_eof()
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise ClientGone from None

    async def aclose(self) -> None:
        if not self._has_ended:
            # As in a sandbox: who was not told that it is the end gets a reset.
            raw = self._stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._stream.aclose()


@dataclass
class Net:
    """An internet of this machine's servers: what a gate's resolver and its way out are told to be."""

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    """Where on loopback an address and port really lead."""
    asked: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)

    async def resolve(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return self.names[host]

    async def dial(self, address: Address, port: int) -> ByteStream:
        self.dialled.append((str(address), port))
        if (str(address), port) not in self.ports:
            raise ConnectionRefusedError
        return await anyio.connect_tcp(LOCAL, self.ports[str(address), port])

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(self.resolve, self.dial)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """Serve connections on a port of loopback."""
    listener = await anyio.create_tcp_listener(local_host=LOCAL)
    port: int = listener.extra(SocketAttribute.local_port)

    async def handle(stream: SocketStream) -> None:
        async with stream:
            try:
                await handler(stream)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield port
        group.cancel_scope.cancel()


@asynccontextmanager
async def standing(gate: Gate) -> AsyncIterator[int]:
    """Have a gate serve what connects to a port, and return that."""

    async def serve(stream: ByteStream) -> None:
        assert isinstance(stream, SocketStream)
        await gate.serve(SocketClient(stream))

    async with serving(serve) as port:
        yield port
    await gate.aclose()


async def read_all(stream: ByteStream) -> bytes:
    """Read to the end, also where that is abrupt."""
    data = b""
    try:
        while True:
            data += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return data


async def read_until(stream: ByteStream, end: bytes) -> bytes:
    """Read until something has been said."""
    data = b""
    while end not in data:
        data += await stream.receive()
    return data


async def said(port: int, *pieces: bytes, end: bool = True) -> bytes:
    """Say something on a new connection, and return all that comes back."""
    async with await anyio.connect_tcp(LOCAL, port) as stream:
        for piece in pieces:
            await stream.send(piece)
        if end:
            await stream.send_eof()
        with anyio.fail_after(60):
            return await read_all(stream)
