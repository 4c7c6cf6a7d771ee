"""A connection to a port in a container, seen from the host."""

from __future__ import annotations

from pocket_dock_mcp.agent.agent_process import CALL_DEADLINE
from pocket_dock_mcp.agent.link import AgentLink, RemoteError
from pocket_dock_mcp.agent.requests import OnBytes
from pocket_dock_mcp.errors import AgentError

WINDOW = 256 * 1024
"""Bytes that may be under way to the host on one connection: what a client that does not read costs there."""
UPLOAD_WINDOW = 64 * 1024
"""And to the program inside, where less memory is."""


class AgentRelay:
    """One connection under way. Made by `open`; see `Relayed` for the methods."""

    def __init__(self, link: AgentLink, on_bytes: OnBytes) -> None:
        self._link = link
        self._id, self._request = link.open_relay(on_bytes, WINDOW, UPLOAD_WINDOW)

    @classmethod
    async def open(cls, link: AgentLink, port: int, on_bytes: OnBytes) -> AgentRelay:
        """Have the agent connect. Whether somebody listens, `wait` tells."""
        relay = cls(link, on_bytes)
        await link.send(relay._id, {"op": "connect", "port": port, "window": WINDOW, "room": UPLOAD_WINDOW})
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
