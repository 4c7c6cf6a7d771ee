"""A request goes out and its response comes back: nothing of either is held but what is under way."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import h11

from pocket_dock_mcp.gate.answers import UnreachableError
from pocket_dock_mcp.gate.limits import SpentError
from pocket_dock_mcp.gate.masking import Masker, masked
from pocket_dock_mcp.gate.messages import HeaderList, Side, end_to_end, has_header, with_headers
from pocket_dock_mcp.gate.outbound import Outbound, Way
from pocket_dock_mcp.gate.relay import GONE, Idle
from pocket_dock_mcp.gate.secrets import READING, Secret, headers_of
from pocket_dock_mcp.gate.targets import Url

_CONTINUE = 100


class _StaleError(Exception):
    """A connection that was kept open for the next request was closed by the server meanwhile."""


class _ServerError(Exception):
    """What comes from the server breaks off, or is no HTTP."""


class Exchange:
    """The requests of one connection from inside, each to the server that it is for."""

    def __init__(self, inside: Side, outbound: Outbound) -> None:
        """Connect to nothing yet."""
        self._inside = inside
        self._outbound = outbound
        self._kept: tuple[str, Way, Side] | None = None
        """The last connection, if it can be used again, and what it leads to."""

    async def run(self, request: h11.Request, url: Url) -> None:
        """Have a request answered. It has been allowed.

        Raises:
            DeniedError, UnreachableError, SpentError: it cannot be; the answer may have begun nevertheless.
            anyio.BrokenResourceError: the program inside is gone.
            h11.RemoteProtocolError: its body is none.
        """
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == url.origin and _may_repeat(request):
            try:
                await self._over(kept[1], kept[2], request, url, is_used=True)
            except _StaleError:
                pass
            else:
                return
        elif kept is not None:
            await anyio.aclose_forcefully(kept[2].stream)
        way = await self._outbound.way(url.scheme, url.target)
        await self._over(way, Side(way.stream, "client"), request, url)

    async def aclose(self) -> None:
        """Close what is kept open."""
        if self._kept is not None:
            await anyio.aclose_forcefully(self._kept[2].stream)

    async def _over(
        self, way: Way, server: Side, request: h11.Request, url: Url, *, is_used: bool = False
    ) -> None:
        secrets = self._outbound.secrets.said_to(url, request.method)
        masks = sorted({shape for secret in secrets for shape in secret.shapes}, key=len, reverse=True)
        transfer = _Transfer(self._inside, server, self._outbound.limits.idle_s, masks)
        is_kept = False
        try:
            await transfer.run(_outgoing(request, url, way, secrets), url, is_used=is_used)
            if server.is_done:
                server.parser.start_next_cycle()
                self._kept = (url.origin, way, server)
                is_kept = True
        finally:
            if not is_kept:
                await anyio.aclose_forcefully(server.stream)


class _Transfer:
    """One request and its response, both under way at the same time."""

    def __init__(self, inside: Side, server: Side, idle_s: float, masks: Sequence[bytes]) -> None:
        self._inside = inside
        self._server = server
        self._idle_s = idle_s
        self._masks = masks
        self._masker = Masker(masks)
        self._problem: Exception | None = None
        self._has_begun = self._is_answered = False

    async def run(self, request: h11.Request, url: Url, *, is_used: bool) -> None:
        async with anyio.create_task_group() as group:
            scope = group.cancel_scope
            idle = Idle(scope, self._idle_s)
            try:
                await self._to_server(request)
                group.start_soon(self._upload, scope, idle)
                await self._download(idle)
                self._is_answered = True
            except (*GONE, _ServerError, SpentError) as error:
                self._problem = self._problem or error
            scope.cancel()
        if self._is_answered and self._problem is None:
            return
        if isinstance(self._problem, _ServerError):
            if is_used and not self._has_begun:
                raise _StaleError
            why = "breaks off" if self._has_begun else "breaks off, or speaks no HTTP"
            raise UnreachableError(url.target, why) from self._problem
        raise self._problem or UnreachableError(url.target, "does not answer in time", 504)

    async def _upload(self, scope: anyio.CancelScope, idle: Idle) -> None:
        """Send the request's body on, if there is one."""
        try:
            while self._inside.parser.their_state is h11.SEND_BODY:
                event = await self._inside.next_event()
                idle.touch()
                if isinstance(event, h11.Data):
                    await self._to_server(h11.Data(data=event.data))
            # The headers behind a body are left out: nobody needs them, and they may be anything.
            await self._to_server(h11.EndOfMessage())
        except _ServerError:
            # It may have answered before it had read all; if not, that is seen there.
            pass
        except (*GONE, h11.RemoteProtocolError, SpentError) as error:
            self._problem = error
            scope.cancel()

    async def _download(self, idle: Idle) -> None:
        """Send the response back."""
        while True:
            event = await self._from_server()
            idle.touch()
            if isinstance(event, h11.Response):
                self._has_begun = True
                await self._inside.send(_incoming(event, self._masks))
            elif isinstance(event, h11.InformationalResponse):
                await self._inform(event)
            elif isinstance(event, h11.Data):
                await self._show(self._masker.feed(event.data))
            elif isinstance(event, h11.EndOfMessage):
                await self._show(self._masker.end())
                await self._inside.send(h11.EndOfMessage())
                return
            else:
                raise _ServerError

    async def _show(self, data: bytes) -> None:
        if data:
            await self._inside.send(h11.Data(data=data))

    async def _inform(self, event: h11.InformationalResponse) -> None:
        # What lets a client go on with its body has been said by the gate itself.
        version = self._inside.parser.their_http_version
        if event.status_code != _CONTINUE and version is not None and version >= b"1.1":
            await self._inside.send(
                h11.InformationalResponse(
                    status_code=event.status_code, headers=_masked_headers(end_to_end(event), self._masks)
                )
            )

    async def _to_server(self, event: h11.Event) -> None:
        try:
            await self._server.send(event)
        except GONE as error:
            raise _ServerError from error

    async def _from_server(self) -> h11.Event:
        try:
            return await self._server.next_event()
        except (*GONE, h11.RemoteProtocolError) as error:
            raise _ServerError from error


def _may_repeat(request: h11.Request) -> bool:
    """Whether it may be made again when a connection was stale."""
    has_body = has_header(request, b"content-length") or has_header(request, b"transfer-encoding")
    return request.method in READING and not has_body


def _outgoing(request: h11.Request, url: Url, way: Way, secrets: Sequence[Secret]) -> h11.Request:
    """Return a request as the server gets it."""
    headers: HeaderList = [(b"Host", url.target.host_header(url.scheme).encode("ascii"))]
    left_out = (b"host", b"expect")
    headers += [(name, value) for name, value in end_to_end(request) if name.lower() not in left_out]
    if has_header(request, b"transfer-encoding"):
        headers.append((b"Transfer-Encoding", b"chunked"))
    if secrets:
        # Nothing that is compressed can be masked.
        headers = with_headers(headers, [*headers_of(secrets), (b"Accept-Encoding", b"identity")])
    target = f"{url.origin}{url.path}" if way.is_proxys else url.path
    return h11.Request(method=request.method, target=target, headers=[*headers, *way.headers])


def _incoming(response: h11.Response, masks: Sequence[bytes]) -> h11.Response:
    """Return a response as the program inside gets it."""
    return h11.Response(
        status_code=response.status_code,
        reason=masked(response.reason, masks),
        headers=_masked_headers(end_to_end(response), masks),
    )


def _masked_headers(headers: HeaderList, masks: Sequence[bytes]) -> HeaderList:
    return [(name, masked(value, masks)) for name, value in headers]
