"""Serving one connection of messages, stdio's or SSE's, whichever revision of the protocol it speaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server.connection import Connection
from mcp.server.mcpserver import MCPServer
from mcp.server.runner import modern_error_data, serve_dual_era_loop, serve_one
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext
from mcp.types import ErrorData, JSONRPCError, JSONRPCRequest, JSONRPCResponse

from pocket_dock_mcp.server.malformed import answer


async def serve_messages(server: MCPServer[Any], read: Any, write: Any) -> None:
    """Answer the messages of one connection to its end; it has a lifespan of its own."""
    lowlevel = server._lowlevel_server  # noqa: SLF001  # MCPServer has no way to wrap its streams
    async with lowlevel.lifespan(lowlevel) as state:
        await serve_dual_era_loop(
            lowlevel,
            _ProbeTolerantStream(read, write, lowlevel, state),
            write,
            lifespan_state=state,
            init_options=lowlevel.create_initialization_options(),
        )


class _ProbeTolerantStream:
    """The client's messages; leading `server/discover` probes and what is no message are answered here.

    The SDK lets the first request decide the protocol era. Some hosts probe with `server/discover`, do not
    wait long for the answer, and then send `initialize` on the same pipe: with the probe deciding, that is
    refused and the host gives up. So a probe decides nothing; the first other request does.
    """

    def __init__(self, inner: Any, write: Any, server: Any, state: Any) -> None:
        self._inner = inner
        self._write = write
        self._server = server
        self._state = state
        self._probing = True

    @property
    def last_context(self) -> Any:
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> Any:
        while True:
            item = await self._inner.receive()
            if isinstance(item, Exception):
                if (refusal := answer(item)) is not None:
                    await self._write.send(SessionMessage(refusal))
                continue
            request = item.message if isinstance(item, SessionMessage) else None
            if not self._probing or not isinstance(request, JSONRPCRequest):
                return item
            if request.method != "server/discover":
                self._probing = False
                return item
            await self._write.send(SessionMessage(await self._answer(request)))

    async def _answer(self, request: JSONRPCRequest) -> JSONRPCResponse | JSONRPCError:
        route = classify_inbound_request({"method": request.method, "params": request.params})
        if isinstance(route, InboundLadderRejection):
            failure = ErrorData(code=route.code, message=route.message, data=route.data)
            return JSONRPCError(jsonrpc="2.0", id=request.id, error=failure)
        connection = Connection.from_envelope(
            route.protocol_version, route.client_info, route.client_capabilities
        )
        try:
            result = await serve_one(
                self._server,
                _OneRequest(request.id),
                request.method,
                request.params,
                connection=connection,
                lifespan_state=self._state,
            )
        except Exception as error:  # noqa: BLE001  # the SDK's own mapping from any failure to the wire
            return JSONRPCError(jsonrpc="2.0", id=request.id, error=modern_error_data(error))
        return JSONRPCResponse(jsonrpc="2.0", id=request.id, result=result)

    def __aiter__(self) -> _ProbeTolerantStream:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> _ProbeTolerantStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


@dataclass
class _OneRequest:
    """The dispatch context of a request that is answered on its own."""

    request_id: Any
    transport: TransportContext = field(
        default_factory=lambda: TransportContext(kind="stdio", can_send_request=False)
    )
    message_metadata: Any = None
    can_send_request: bool = False
    cancel_requested: anyio.Event = field(default_factory=anyio.Event)

    async def send_raw_request(self, method: str, _params: Any, _options: Any = None) -> Any:
        raise NoBackChannelError(method)

    async def notify(self, _method: str, _params: Any, _options: Any = None) -> None:
        return None

    async def progress(
        self, _progress: float, _total: float | None = None, _message: str | None = None
    ) -> None:
        return None
