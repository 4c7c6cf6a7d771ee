"""What of the MCP SDK the owners of calls rest on, as it is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.connection import Connection
from mcp.server.mcpserver import Context, MCPServer

from tests.engines import eventually
from tests.servers import ERAS, Era

pytestmark = pytest.mark.anyio


class Seen:
    """A server with one tool, and what it saw of its calls."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.ended: list[str | None] = []
        self.lifespans = 0
        self.server: MCPServer[Any] = MCPServer("seen", lifespan=self._lifespan, log_level="ERROR")
        self.server.add_tool(self.look, structured_output=False)

    @asynccontextmanager
    async def _lifespan(self, _server: MCPServer[Any]) -> AsyncIterator[None]:
        self.lifespans += 1
        yield

    async def look(self, ctx: Context[Any, Any]) -> str:
        """Look at the connection."""
        connection = cast("Connection", ctx.session._connection)
        self.connections.append(connection)
        if "seen" not in connection.state:
            connection.state["seen"] = True
            connection.exit_stack.callback(self.ended.append, connection.session_id)
        return "seen"


@pytest.mark.parametrize("era", ERAS)
async def test_a_session_has_one_connection_that_says_when_it_ends_and_the_newest_revision_has_none(
    era: Era,
) -> None:
    seen = Seen()
    app = seen.server.streamable_http_app()
    transport = httpx2.ASGITransport(app=app)
    async with (
        seen.server.session_manager.run(),
        httpx2.AsyncClient(
            transport=transport, headers={"Mcp-Session-Id": "typed"} if era == "auto" else {}
        ) as http,
    ):
        async with Client(
            streamable_http_client("http://127.0.0.1:1/mcp", http_client=http), mode=era
        ) as client:
            for _ in range(2):
                assert not (await client.call_tool("look", {})).is_error
            first, second = seen.connections
            if era == "auto":
                assert first is not second
                assert [first.session_id, second.session_id] == [None, None]
                assert seen.ended == [None, None]
            else:
                assert first is second
                assert first.session_id is not None
                assert seen.ended == []

        async def ended() -> bool:
            return len(seen.ended) == (2 if era == "auto" else 1)

        await eventually(ended, within=10)
        assert seen.lifespans == 1
