"""Notes on the audit log who asks for an HTTP session that is not his, or that there is not."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pocket_dock_mcp.errors import HttpSessionNotFoundError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner

_MAX_ID = 200


class SessionAudit:
    """An application whose answers to such requests are noted. It sees authenticated requests only."""

    def __init__(self, app: ASGIApp, manager: Manager) -> None:
        self._app = app
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        session = _session_of(scope) if scope["type"] == "http" else None
        if session is None:
            await self._app(scope, receive, send)
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 404:
                # The log has a digest of it, as of the sessions of owners.
                stranger = Owner(session=f"session:{session}", principal=scope["user"].username)
                self._manager.failed(stranger, "http", HttpSessionNotFoundError(), {})
            await send(message)

        await self._app(scope, receive, noted)


def _session_of(scope: Scope) -> str | None:
    """Return the id of the session that a request names."""
    named = Headers(scope=scope).get("mcp-session-id")
    if named is None:
        named = next(iter(parse_qs(scope["query_string"].decode("latin-1")).get("session_id", ())), None)
    return None if named is None else named[:_MAX_ID]
