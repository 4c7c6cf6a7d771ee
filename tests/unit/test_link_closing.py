"""A link that is closed by somebody who has no time left."""

from __future__ import annotations

import anyio
import pytest

from pocket_dock_mcp.agent.link import AgentLink
from pocket_dock_mcp.testing.streams import Channel, FakeStream

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
