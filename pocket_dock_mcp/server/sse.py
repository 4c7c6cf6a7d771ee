"""The older SSE transport: a stream of answers, and a path to send messages to. Its session is the stream."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import anyio
from mcp.server.auth.middleware.bearer_auth import authorization_context
from mcp.server.mcpserver import MCPServer
from mcp.server.sse import SseServerTransport
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp.types import INVALID_REQUEST, jsonrpc_message_adapter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pocket_dock_mcp.server.bodies import MESSAGE, no_message
from pocket_dock_mcp.server.eras import serve_messages
from pocket_dock_mcp.server.guards import refused

SSE_PATH = "/sse"
MESSAGES_PATH = "/messages"


class SseStreams:
    """The streams of all clients, a limited number of each principal."""

    def __init__(self, server: MCPServer[Any], most: int, most_each: int) -> None:
        self._server = server
        self._transport = SseServerTransport(MESSAGES_PATH)
        self._most = most
        self._most_each = most_each
        self._by_principal: collections.Counter[str] = collections.Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a stream to its end."""
        principal = scope["user"].username
        if self._by_principal.total() >= self._most or self._by_principal[principal] >= self._most_each:
            await refused(503, "There are too many SSE connections.", "Close one.")(scope, receive, send)
            return
        with self._counted(principal):
            async with self._transport.connect_sse(scope, receive, send) as (read, write):
                await serve_messages(self._server, read, write)

    @contextmanager
    def _counted(self, principal: str) -> Iterator[None]:
        self._by_principal[principal] += 1
        try:
            yield
        finally:
            self._by_principal[principal] -= 1

    async def take_message(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a message for one of the streams.

        The SDK would do this, too; but it formats each body three times for a log that nobody reads, which is
        a tenth of a second of the only thread for a large one, and shows a bad one in the log at length.
        """
        answer, deliver = self._looked_up(scope, receive)
        await answer(scope, receive, send)
        if deliver is not None:
            writer, message = deliver
            try:
                await writer.send(message)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # The stream has ended meanwhile, and with it whoever would be answered.

    def _looked_up(self, scope: Scope, receive: Receive) -> tuple[Any, tuple[Any, SessionMessage] | None]:
        request = Request(scope, receive)
        writer = self._writer(scope)
        if writer is None:
            return refused(404, "There is no such SSE connection."), None
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return refused(400, "The Content-Type has to be application/json."), None
        try:
            message = jsonrpc_message_adapter.validate_python(scope[MESSAGE], by_name=False)
        except ValidationError:
            return no_message("The body is no message of JSON-RPC.", INVALID_REQUEST), None
        metadata = ServerMessageMetadata(request_context=request)
        return Response("Accepted", 202), (writer, SessionMessage(message, metadata=metadata))

    def _writer(self, scope: Scope) -> Any:
        """Return where a stream's messages go; None for no stream and for somebody else's alike."""
        ids = parse_qs(scope["query_string"].decode("latin-1")).get("session_id", [])
        try:
            session = UUID(hex=ids[0] if len(ids) == 1 else "")
        except ValueError:
            return None
        owners, writers = self._transport._session_owners, self._transport._read_stream_writers  # noqa: SLF001
        is_mine = owners.get(session) == authorization_context(scope["user"])
        return writers.get(session) if is_mine else None
