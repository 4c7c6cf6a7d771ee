"""What a program inside says to the gate: requests of HTTP/1.1, one after the other."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import anyio
import h11
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.answers import RefusedError
from pocket_dock_mcp.gate.exchange import Exchange
from pocket_dock_mcp.gate.limits import SpentError
from pocket_dock_mcp.gate.messages import Side, has_header
from pocket_dock_mcp.gate.outbound import Outbound
from pocket_dock_mcp.gate.relay import GONE
from pocket_dock_mcp.gate.streams import Prefixed
from pocket_dock_mcp.gate.targets import Target, Url, parse_authority, parse_url

_WHOLE = (h11.IDLE, h11.DONE, h11.MUST_CLOSE, h11.SWITCHED_PROTOCOL)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LINGER_S = 2.0
_LINGER_BYTES = 1 << 20

Tunnel = Callable[[Target, Callable[[], Awaitable[ByteStream]]], Awaitable[None]]
"""Carries on with what a program has asked to be connected to. Called before that is said to be so: it gets
what says it, and returns the stream behind it. Raises `RefusedError` and `SpentError`, before or after."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom all requests are for, of which a tunnel has been opened."""

    scheme: str
    target: Target


class Conversation:
    """The requests of one connection."""

    def __init__(
        self,
        stream: ByteStream,
        outbound: Outbound,
        refuse: Callable[[RefusedError | SpentError], None],
        *,
        origin: Origin | None = None,
        tunnel: Tunnel | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            stream: from inside.
            outbound: the ways out.
            refuse: is told of what has been refused.
            origin: whom the requests are for; None where each says it, as to a proxy.
            tunnel: of what CONNECT asks for; None where nobody may.
        """
        self._side = Side(stream, "server")
        self._outbound = outbound
        self._refuse = refuse
        self._origin = origin
        self._tunnel = tunnel
        self._exchange = Exchange(self._side, outbound)

    async def run(self) -> bool:
        """Serve until one of the two ends it.

        Returns:
            whether all answers are whole: where one is not, the connection has to break off, too.
        """
        try:
            while await self._serve_one():
                self._side.parser.start_next_cycle()
            return self._side.parser.our_state in _WHOLE
        except GONE:
            return False
        finally:
            await self._exchange.aclose()

    async def _serve_one(self) -> bool:
        """Serve a request; return whether another may follow."""
        request: h11.Request | None = None
        try:
            await self._outbound.pace.take()
            request = await self._next_request()
            if request is None:
                return False
            _require_usable(request)
            if request.method == b"CONNECT":
                await self._connect(request)
                return False
            url = self._wanted(request)
            await self._exchange.run(request, url)
        except h11.RemoteProtocolError as error:
            await self._answer(request, RefusedError(error.error_status_hint, f"no HTTP/1.1: {error}"))
        except RefusedError as error:
            self._refuse(error)
            await self._answer(request, error)
        except SpentError as error:
            self._refuse(error)
            await self._answer(request, RefusedError(403, error.reason))
        return self._side.is_done

    async def _next_request(self) -> h11.Request | None:
        with anyio.move_on_after(self._outbound.limits.request_s):
            event = await self._side.next_event()
            return event if isinstance(event, h11.Request) else None
        return None

    async def _connect(self, request: h11.Request) -> None:
        target = parse_authority(request.target.decode("ascii"))
        if self._tunnel is None:
            raise RefusedError(405, "there is a tunnel already")
        length = [value for name, value in request.headers if name == b"content-length"]
        if target is None or has_header(request, b"transfer-encoding") or length not in ([], [b"0"]):
            raise RefusedError(400, "CONNECT needs host:port, and has no body")
        self._outbound.require_allowed(target)
        await self._tunnel(target, self._agree)

    async def _agree(self) -> ByteStream:
        """Say that a tunnel is open."""
        while not isinstance(await self._side.next_event(), h11.EndOfMessage):
            pass
        await self._side.send(h11.Response(status_code=200, reason=b"Connection established", headers=[]))
        return Prefixed(self._side.stream, self._side.parser.trailing_data[0])

    def _wanted(self, request: h11.Request) -> Url:
        text = request.target.decode("ascii")
        url = parse_url(text) if self._origin is None else self._of_origin(self._origin, request, text)
        if url is None:
            raise RefusedError(
                400, "this is a proxy: it needs CONNECT, or a whole http:// URL without a user"
            )
        self._outbound.require_allowed(url.target)
        return url

    def _of_origin(self, origin: Origin, request: h11.Request, text: str) -> Url:
        """Return what is wanted of a server, for whom the host has to be the one of the tunnel."""
        ports = {"http": 80, "https": 443}
        hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
        named = parse_authority(hosts[0], ports[origin.scheme]) if len(hosts) == 1 else None
        if named != origin.target:
            asked = Target(hosts[0][:253] if hosts else "", origin.target.port) if named is None else named
            raise self._outbound.denied(asked, f"is asked for in a tunnel to {origin.target.host}")
        if not text.startswith("/") and not (text == "*" and request.method == b"OPTIONS"):
            raise RefusedError(400, "a server's request begins with its path")
        return Url(origin.scheme, origin.target, text)

    async def _answer(self, request: h11.Request | None, error: RefusedError) -> None:
        """Answer a request ourselves, if that can still be done; else the connection breaks off."""
        parser = self._side.parser
        if parser.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        has_more = parser.their_state is not h11.DONE and not await self._ends_at_once()
        body = f"pocket-dock: {error.text}\n".encode("ascii")
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        if has_more:
            headers.append(("Connection", "close"))
        reason = (error.text or HTTPStatus(error.status).phrase).encode("ascii")
        await self._side.send(h11.Response(status_code=error.status, reason=reason, headers=headers))
        if request is None or request.method != b"HEAD":
            await self._side.send(h11.Data(data=body))
        await self._side.send(h11.EndOfMessage())
        if has_more:
            await self._linger()

    async def _ends_at_once(self) -> bool:
        """Whether a request has no body to come, so that the connection can be used on."""
        parser = self._side.parser
        if parser.their_state is not h11.SEND_BODY:
            return False
        try:
            return isinstance(parser.next_event(), h11.EndOfMessage)
        except h11.RemoteProtocolError:
            return False

    async def _linger(self) -> None:
        """Let what is under way arrive, so that the answer is read and not lost to a reset."""
        count = 0
        with anyio.move_on_after(_LINGER_S):
            try:
                await self._side.stream.send_eof()
                while count < _LINGER_BYTES:
                    count += len(await self._side.stream.receive())
            except (anyio.EndOfStream, NotImplementedError):
                pass


def _require_usable(request: h11.Request) -> None:
    if request.http_version not in (b"1.0", b"1.1"):
        raise RefusedError(505, "this is a proxy for HTTP/1.1")
    if has_header(request, b"transfer-encoding") and (
        has_header(request, b"content-length") or request.http_version == b"1.0"
    ):
        raise RefusedError(400, "a request's body has one length")
    if any(_CONTROL.search(value) for _, value in request.headers):
        # RFC 9110, 5.5. What a server makes of them, nobody knows.
        raise RefusedError(400, "a header has a control character")
    if request.method == b"TRACE":
        # The answer would show what the gate has added.
        raise RefusedError(405, "TRACE is not for sandboxes")
