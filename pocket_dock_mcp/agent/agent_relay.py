"""A connection to a port in a container, or of a program in there, seen from the host."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from typing_extensions import Self

from pocket_dock_mcp.agent.agent_process import CALL_DEADLINE
from pocket_dock_mcp.agent.link import AgentLink, RemoteError
from pocket_dock_mcp.agent.requests import Incoming, OnBytes, Relay
from pocket_dock_mcp.errors import AgentError, AgentProtocolError

WINDOW = 256 * 1024
"""Bytes that may be under way to the host on one connection: what a client that does not read costs there."""
UPLOAD_WINDOW = 64 * 1024
"""And to the program inside, where less memory is."""
WINDOW_OUT = 64 * 1024
"""Bytes that may be under way to the host on a connection that a program makes: it is more likely hostile."""


class AgentRelay:
    """One connection under way. Made by `open` or `accept`; see `Relayed` for the methods."""

    def __init__(self, link: AgentLink, request: Relay) -> None:
        self._link = link
        self._id, self._request = link.open_relay(request)

    @classmethod
    async def open(cls, link: AgentLink, port: int, on_bytes: OnBytes) -> Self:
        """Have the agent connect. Whether somebody listens, `wait` tells."""
        relay = cls(link, Relay(on_bytes, WINDOW, UPLOAD_WINDOW))
        await link.send(relay._id, {"op": "connect", "port": port, "window": WINDOW, "room": UPLOAD_WINDOW})
        return relay

    @classmethod
    async def accept(cls, link: AgentLink, on_bytes: OnBytes) -> Self:
        """Wait for a program to connect to the way out."""
        request = Incoming(on_bytes, WINDOW_OUT, UPLOAD_WINDOW)
        relay = cls(link, request)
        try:
            await link.send(relay._id, {"op": "accept", "window": WINDOW_OUT, "room": UPLOAD_WINDOW})
            await request.wait_accepted()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await relay.abort()
            raise
        if not request.accepted.done():
            # What is in the way is not the program's doing. Raises what broke the link, if that was it.
            request.answer.result()
            message = "The program in the container accepts no connections."
            raise AgentProtocolError(message)
        return relay

    async def send(self, data: bytes) -> None:
        """Send data, no faster than the program inside takes it."""
        await self._link.upload(self._id, self._request, data, end=False)

    async def send_end(self) -> None:
        """Say that there is no more to come."""
        if not self._request.answer.done():
            await self._link.send(self._id, {"op": "data", "end": True})

    def taken(self, amount: int) -> None:
        """So many bytes of what came need no memory any more."""
        self._link.taken(self._id, self._request, amount)

    def when_over(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it is over."""
        self._request.answer.add_done_callback(lambda _answer: callback())

    async def wait(self) -> bool:
        """Wait for its end; whether both sides have ended what they had to say."""
        try:
            await self._link.finish(self._id, self._request, None)
        except (RemoteError, AgentError):
            return False
        return True

    async def abort(self) -> None:
        """Break it off, if it is not over, and wait until it is."""
        if self._request.answer.done():
            return
        self._link.send_nowait(self._id, "cancel")
        try:
            # Without an answer the link is dead: or those that nobody answers for would be more and more.
            await self._link.finish(self._id, self._request, CALL_DEADLINE)
        except (RemoteError, AgentError):
            pass
