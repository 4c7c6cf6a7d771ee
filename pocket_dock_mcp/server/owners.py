"""Whose call it is. The only module that decides that, and never from anything that the client typed."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from mcp.server.mcpserver import Context, MCPServer

from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL, Owner

Lifespan = Callable[[MCPServer[Owner]], AbstractAsyncContextManager[Owner]]


def connection_lifespan(manager: Manager) -> Lifespan:
    """Return the lifespan of a connection: it is an owner, and its sandboxes end with it.

    The SDK enters it once for each stdio, in-memory or SSE connection.
    """

    @asynccontextmanager
    async def lifespan(_server: MCPServer[Owner]) -> AsyncIterator[Owner]:
        owner = Owner(session=secrets.token_hex(16), principal=LOCAL_PRINCIPAL)
        try:
            yield owner
        finally:
            await manager.end_session(owner)

    return lifespan


def owner_of(ctx: Context[Any, Any]) -> Owner:
    """Return the owner of a call."""
    owner = ctx.request_context.lifespan_context
    if not isinstance(owner, Owner):
        raise TypeError("This server runs without its lifespan.")
    return owner
