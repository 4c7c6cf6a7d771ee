"""Whose a call is. The only module that decides that, and never from anything that the client typed."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.connection import Connection
from mcp.server.mcpserver import Context, MCPServer

from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL, Owner

_KNOWN = "pocket_dock.owner"


class HttpOwners:
    """Whose the calls over streamable HTTP are: a session's where there is one, else a principal's.

    Sessions are those of the revisions until 2025-11-25; the SDK binds each to the principal that began it.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def owner_of(self, ctx: Context[Any, Any]) -> Owner:
        """Return the owner of a call."""
        principal = _principal_of_request(ctx)
        connection = _connection(ctx)
        if connection.session_id is None:
            # The newest revision has no sessions: what there is lives until its time is over or it is killed.
            return Owner(session=f"principal:{principal}", principal=principal)
        owner = Owner(session=f"session:{connection.session_id}", principal=principal)
        if _KNOWN not in connection.state:
            connection.state[_KNOWN] = owner
            # Only schedules: the SDK abandons what takes long at the end of a session.
            connection.exit_stack.callback(self._manager.session_is_over, owner)
        return owner


ServerState = Owner | HttpOwners
"""What the SDK hands to each call: the owner where a connection is one, else who decides."""
Lifespan = Callable[[MCPServer[ServerState]], AbstractAsyncContextManager[ServerState]]


def connection_lifespan(manager: Manager) -> Lifespan:
    """Return the lifespan of a connection: it is an owner, and its sandboxes end with it.

    The SDK enters it once for each stdio, in-memory or SSE connection.
    """

    @asynccontextmanager
    async def lifespan(_server: MCPServer[ServerState]) -> AsyncIterator[ServerState]:
        token = get_access_token()
        principal = LOCAL_PRINCIPAL if token is None else token.client_id
        owner = Owner(session=secrets.token_hex(16), principal=principal)
        try:
            yield owner
        finally:
            await manager.end_session(owner)

    return lifespan


def http_lifespan(manager: Manager) -> Lifespan:
    """Return the lifespan of streamable HTTP, which the SDK enters once for the process."""

    @asynccontextmanager
    async def lifespan(_server: MCPServer[ServerState]) -> AsyncIterator[ServerState]:
        yield HttpOwners(manager)

    return lifespan


def owner_of(ctx: Context[Any, Any]) -> Owner:
    """Return the owner of a call."""
    state = ctx.request_context.lifespan_context
    if isinstance(state, HttpOwners):
        return state.owner_of(ctx)
    if not isinstance(state, Owner):
        raise TypeError("This server runs without its lifespan.")
    return state


def _principal_of_request(ctx: Context[Any, Any]) -> str:
    """Return who has sent a request; our guard has put that into it, and nothing gets past the guard."""
    user = ctx.request_context.request.scope.get("user") if ctx.request_context.request else None
    if not isinstance(user, AuthenticatedUser):
        raise TypeError("This request did not come through the guard.")
    return str(user.access_token.client_id)


def _connection(ctx: Context[Any, Any]) -> Connection:
    """Return the SDK's state of a connection: made anew for each request where there is no session."""
    connection: Connection = ctx.session._connection  # noqa: SLF001  # it has no public way to it
    return connection
