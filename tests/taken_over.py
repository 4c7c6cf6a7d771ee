"""An agent that somebody has taken over: what it says is the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pocket_dock_mcp.agent.agent_transport import AgentTransport
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.link import AgentLink
from pocket_dock_mcp.engine.base import STDOUT
from pocket_dock_mcp.models import Facts
from pocket_dock_mcp.testing.streams import Channel, FakeStream

Say = Callable[..., None]
"""Called with a frame's header, and its payload if it has one."""
Answer = Callable[[wire.Header, Say], None]
"""Called with the header of each frame that the host sends."""


class TakenOver(FakeStream):
    """The stream to such an agent."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(Channel())
        self._answer = answer
        self._decoder = wire.Decoder()

    async def send(self, data: bytes) -> None:
        """Have it answer at once."""
        self.send_nowait(data)

    def send_nowait(self, data: bytes) -> None:
        """Have it answer at once."""
        for header, _ in self._decoder.feed(data):
            self._answer(header, self.say)

    def say(self, header: wire.Header, payload: bytes = b"") -> None:
        """Say a frame."""
        self.output.put_nowait(STDOUT, wire.encode(header, payload))


@asynccontextmanager
async def taken_over(answer: Answer) -> AsyncIterator[tuple[AgentTransport, AgentLink]]:
    """Yield a transport to such an agent, and the link below it."""
    link = AgentLink(TakenOver(answer))
    try:
        yield AgentTransport(link, Facts(uid=1000, home="/h")), link
    finally:
        await link.aclose()
