"""Serving MCP over HTTP: streamable HTTP for both eras, and the older SSE transport, as one application."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import anyio
import uvicorn
from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.manager.access import Connect
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.server.admission import Admission
from pocket_dock_mcp.server.app import create_server
from pocket_dock_mcp.server.bodies import MAX_BYTES, BodyGuard, Budget
from pocket_dock_mcp.server.guards import (
    Either,
    NameGuard,
    Names,
    readable_from,
)
from pocket_dock_mcp.server.listening import Connections, allow_files, http_server, listen, shown
from pocket_dock_mcp.server.owners import http_lifespan
from pocket_dock_mcp.server.sse import MESSAGES_PATH, SSE_PATH, SseStreams
from pocket_dock_mcp.server.strangers import SessionAudit
from pocket_dock_mcp.settings import Settings

HEALTH_PATH = "/health"
FLUSH_S = 0.2
"""Seconds for the last answers to get out, once all sandboxes have ended."""
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Which address of this machine's own stands for all of them: they themselves are no name to call one by."""


class HttpFront:
    """The HTTP server as it is configured. It listens already, but answers nobody before it is served.

    Raises:
        ConfigError: what is configured cannot be, or must not be.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admission = Admission(settings)
        if settings.http_path in (SSE_PATH, MESSAGES_PATH, HEALTH_PATH):
            raise ConfigError(
                f"{settings.http_path} is the path of something else. Take another, such as /mcp."
            )
        names = Names.of(
            [*settings.http_allowed_hosts, *self._admission.own_hosts],
            [*settings.http_allowed_origins, *settings.http_cors_origins],
        )
        is_by_token = self._admission.is_by_token
        self._sockets = listen(settings.http_host, settings.http_port, has_tokens=is_by_token)
        listened_on = [settings.http_host, *(one.getsockname()[0] for one in self._sockets)]
        self._names = names.with_own(map(shown, listened_on))
        try:
            self._admission.check(self.url)
        except ConfigError:
            for one in self._sockets:
                one.close()
            raise

    @property
    def url(self) -> str:
        """Where streamable HTTP is."""
        return self._at(self._sockets[0].getsockname()[0])

    def _at(self, address: str) -> str:
        return f"http://{shown(address)}:{self._sockets[0].getsockname()[1]}{self._settings.http_path}"

    async def serve(self, connect: Connect) -> None:
        """Serve until a signal comes; then end all sandboxes and the process."""
        settings = self._settings
        allow_files(settings.http_max_connections)
        connections = Connections(settings.http_max_connections, settings.http_max_connections_each)
        async with contextlib.aclosing(self._admission), Manager(settings, connect) as manager:
            sessions = _Sessions(manager, settings)
            async with sessions.run(), anyio.create_task_group() as group:
                server = http_server(self._app(manager, sessions), connections, self._announce)
                await group.start(_end_on_signal, manager, server)
                await server.serve(self._sockets)

    def _announce(self) -> None:
        # For people and for programs that have started us with port 0.
        address = self._sockets[0].getsockname()[0]
        here = self._at(_HERE.get(address, address))
        others = " and on all other addresses, for the names of --allowed-host" if address in _HERE else ""
        print(  # noqa: T201
            f"pocket-dock-mcp: listening on {here} (SSE: {SSE_PATH}){others}", file=sys.stderr, flush=True
        )

    def _app(self, manager: Manager, sessions: _Sessions) -> ASGIApp:
        settings = self._settings
        streams = SseStreams(
            create_server(manager, settings), settings.http_max_sessions, settings.http_max_sessions_each
        )
        inner: ASGIApp = Router(
            [
                Route(settings.http_path, endpoint=StreamableHTTPASGIApp(sessions)),
                Route(SSE_PATH, endpoint=streams, methods=["GET"]),
                Route(MESSAGES_PATH, endpoint=_Messages(streams), methods=["POST"]),
            ]
        )
        inner = BodyGuard(SessionAudit(inner, manager), Budget())
        inner = self._admission.guard(inner, self.url)
        app: ASGIApp = Either(
            {HEALTH_PATH}, Router([Route(HEALTH_PATH, endpoint=_health, methods=["GET"])]), inner
        )
        if settings.http_cors_origins:
            app = readable_from(app, settings.http_cors_origins)
        return NameGuard(app, self._names)


class _Sessions(StreamableHTTPSessionManager):
    """The SDK's sessions, with a limit for each principal."""

    def __init__(self, manager: Manager, settings: Settings) -> None:
        server = create_server(manager, settings, http_lifespan(manager))
        super().__init__(
            server._lowlevel_server,  # noqa: SLF001  # MCPServer makes an application of its own only
            session_idle_timeout=settings.http_session_idle_s,
            max_sessions=settings.http_max_sessions,
            max_request_body_size=MAX_BYTES,
        )
        self._most_each = settings.http_max_sessions_each

    def _admit_session(self, requestor: AuthorizationContext | None) -> StreamableHTTPServerTransport | None:
        # The SDK's own question whether there is room for one more session.
        mine = sum(owner == requestor for owner in self._session_owners.values())
        return None if mine >= self._most_each else super()._admit_session(requestor)


class _Messages:
    """Where clients of the older transport send their messages; routes take no methods for applications."""

    def __init__(self, streams: SseStreams) -> None:
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._streams.take_message(scope, receive, send)


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _end_on_signal(
    manager: Manager, server: uvicorn.Server, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            # No new requests; those that are under way end with their sandboxes.
            server.should_exit = True
            await manager.aclose()
            await anyio.sleep(FLUSH_S)
            sys.stderr.flush()
            # Not by itself: whoever keeps a stream open would keep us waiting.
            os._exit(128 + number)
