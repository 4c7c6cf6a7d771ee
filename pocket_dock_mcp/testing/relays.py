"""TCP ports inside a fake container: functions that listen, and connections to them through the agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.testing.streams import Channel, Credit

if TYPE_CHECKING:
    from pocket_dock_mcp.models import ContainerSpec
    from pocket_dock_mcp.testing.agent import FakeAgent

NULL = [1, 3]
"""The number of every device in here."""


class FakeSocket:
    """A program's end of a connection."""

    def __init__(self, relay: FakeRelay) -> None:
        self._relay = relay

    async def receive(self) -> bytes:
        """Return what the client says; nothing at its end."""
        return await self._relay.receive()

    async def send(self, data: bytes) -> None:
        """Say something, no faster than the host takes it."""
        await self._relay.send(data)

    async def end(self) -> None:
        """Say that there is no more to come."""
        self._relay.end()


Listener = Callable[[FakeSocket], Awaitable[None]]
"""Serves one connection, which ends when it returns, and is reset by a `ConnectionResetError`."""


class FakeRelay:
    """One connection."""

    def __init__(
        self, agent: FakeAgent, request_id: int, header: wire.Header, listener: Listener | None
    ) -> None:
        self.credit = Credit(header["window"])
        self._room = header["room"]
        self._agent = agent
        self._id = request_id
        self._listener = listener
        self._came = Channel()
        self._scope = anyio.CancelScope()
        self._spent = 0
        self._has_ended = False

    def feed(self, data: bytes, *, end: bool) -> None:
        """Take what the host says."""
        self._came.put_nowait(1, data)
        if end:
            self._came.end()

    async def receive(self) -> bytes:
        """Return the next of it."""
        piece = await self._came.get()
        if piece is None:
            return b""
        self._spent += len(piece[1])
        if self._spent >= self._room // 4:
            self._agent.send({"kind": "credit", "id": self._id, "n": self._spent})
            self._spent = 0
        return piece[1]

    async def send(self, data: bytes) -> None:
        """Send it to the host."""
        while data:
            amount = await self.credit.take(min(len(data), wire.MAX_PAYLOAD))
            if not amount:
                raise ConnectionResetError
            self._agent.send({"kind": "relay", "id": self._id}, data[:amount])
            data = data[amount:]

    def end(self) -> None:
        """Tell the host that there is no more to come. Once."""
        if not self._has_ended:
            self._has_ended = True
            self._agent.send({"kind": "relay", "id": self._id, "end": True})

    async def run(self) -> None:
        """Serve it to its end."""
        if self._listener is None:
            self._fail("ECONNREFUSED")
            return
        with self._scope:
            try:
                await self._listener(FakeSocket(self))
                self.end()
                while await self.receive():
                    pass
            except ConnectionResetError:
                self._fail("ECONNRESET")
            else:
                self._agent.drop_transfer(self._id)
                self._agent.reply(self._id)

    def _fail(self, code: str) -> None:
        self._agent.drop_transfer(self._id)
        self._agent.fail(self._id, "connect", code)

    def abort(self) -> None:
        """The host breaks it off."""
        self._scope.cancel()
        self.credit.close()

    async def begin(self, program: Listener) -> None:
        """Be a connection that a program makes. Raises `ConnectionResetError` if it is broken off."""
        self._listener = program
        self._agent.send({"kind": "accepted", "id": self._id})
        try:
            await self.run()
        except anyio.get_cancelled_exc_class():
            # The program was killed.
            self._fail("ECONNRESET")
            raise
        if self._scope.cancelled_caught:
            raise ConnectionResetError


class FakeDoor:
    """Where the programs of a fake container connect to something outside."""

    def __init__(self, agent: FakeAgent) -> None:
        self._agent = agent
        self.env: dict[str, str] = {}
        self._host: int | None = None
        self._waiting: list[FakeRelay] = []
        self._changed = anyio.Event()

    async def connect(self, program: Listener) -> None:
        """Connect, and serve the connection by a function of yours, to its end.

        Raises:
            ConnectionResetError: nobody answers, or it is broken off.
        """
        while not self._waiting:
            if self._host is None:
                raise ConnectionResetError
            await self._changed.wait()
        await self._waiting.pop(0).begin(program)

    def serve(self, client: int, env: dict[str, str]) -> None:
        """A client of the agent's is there to answer, and says what programs need to know."""
        self._host, self.env = client, env
        self._tell()

    def accept(self, request_id: int, header: wire.Header) -> FakeRelay:
        """The host asks for the next connection."""
        self._waiting.append(FakeRelay(self._agent, request_id, header, None))
        self._tell()
        return self._waiting[-1]

    def leave(self, client: int) -> None:
        """A client has gone."""
        if client == self._host:
            self._host = None
            self._waiting.clear()
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def provided(spec: ContainerSpec, header: wire.Header) -> dict[str, Any]:
    """Return what a faithful engine has mounted and made of what was asked for."""
    volumes = {volume.target: volume for volume in spec.volumes}
    devices = {device.target for device in spec.devices}
    usable = {"block": False, "number": NULL, "readable": True, "writable": True}
    return {
        "boot": None,
        "volumes": {
            path: {"device": 1, "inode": 1, "read_only": volumes[path].read_only} if path in volumes else None
            for path in header["volumes"]
        },
        "devices": {path: usable if path in devices else None for path in header["devices"]},
    }
