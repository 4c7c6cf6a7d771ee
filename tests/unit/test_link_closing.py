"""Links that end: closed by somebody who has no time left, or given up because the agent is too late."""

from __future__ import annotations

import anyio
import pytest

from pocket_dock_mcp.agent import agent_transport
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.link import AgentLink
from pocket_dock_mcp.errors import AgentTimeoutError
from pocket_dock_mcp.testing.streams import Channel, FakeStream
from tests.taken_over import taken_over

pytestmark = pytest.mark.anyio


class Watched(FakeStream):
    """A stream that knows whether it was closed."""

    is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True
        await super().aclose()


async def test_its_stream_is_closed_though_whoever_closes_it_is_cancelled() -> None:
    stream = Watched(Channel())
    link = AgentLink(stream)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await link.aclose()

    assert stream.is_closed, "the lease would hold until somebody collects garbage"


async def test_an_agent_that_takes_no_outfit_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_transport, "CALL_DEADLINE", 0.2)
    async with taken_over(lambda _header, _say: None) as (transport, link):
        # More than the agent may be sent before it gives credit, which it never does.
        with anyio.fail_after(10), pytest.raises(AgentTimeoutError, match="did not answer"):
            await transport.outfit({}, {"/etc/ca": bytes(2 * wire.UPLOAD_WINDOW)})

        assert isinstance(link.broken, AgentTimeoutError)
