"""What CONNECT opens: to a name only what greets that very name in TLS, or asks it in HTTP."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from pocket_dock_mcp.gate.answers import DeniedError, RefusedError
from pocket_dock_mcp.gate.conversation import Conversation, Origin
from pocket_dock_mcp.gate.hello import ACCESS_DENIED, Hello, NoHelloError, parse_hello
from pocket_dock_mcp.gate.limits import SpentError
from pocket_dock_mcp.gate.outbound import Outbound
from pocket_dock_mcp.gate.relay import CHUNK, GONE, relay
from pocket_dock_mcp.gate.rules import Rules
from pocket_dock_mcp.gate.targets import Target

if TYPE_CHECKING:
    # What it imports takes its time, and few sandboxes have secrets.
    from pocket_dock_mcp.gate.authority import Authority

_HTTP = 80
_HTTPS = 443
_ALERT_S = 2.0
_NOT_BELIEVED = "is not believed by the program: it has to trust $SSL_CERT_FILE"

Agree = Callable[[], Awaitable[ByteStream]]
Refuse = Callable[[RefusedError | SpentError], None]


class Tunnels:
    """Those of one sandbox."""

    def __init__(self, rules: Rules, outbound: Outbound, refuse: Refuse, authority: Authority | None) -> None:
        """Open none yet. `authority` is that of the gate, if it has secrets to put into requests."""
        self._authority = authority
        self._rules = rules
        self._outbound = outbound
        self._refuse = refuse

    async def run(self, target: Target, agree: Agree) -> None:
        """Serve one to its end. The target's name is allowed.

        Args:
            target: what the program has asked to be connected to.
            agree: tells it that it is, and returns the stream behind that.

        Raises:
            RefusedError: it cannot be connected to; nothing has been told.
            SpentError: no more may go.
        """
        if target.port == _HTTP and not self._rules.names_port(target):
            # Requests in the open: they are read, so that they are for this host and no other.
            await self._read_requests(await agree(), Origin("http", target))
        elif self._authority is not None and self._outbound.secrets.has_any_for(target, "https"):
            await self._intercept(target, self._authority, agree)
        else:
            await self._relay(target, agree)

    async def _read_requests(self, stream: ByteStream, origin: Origin) -> None:
        if not await Conversation(stream, self._outbound, self._refuse, origin=origin).run():
            raise anyio.BrokenResourceError

    async def _intercept(self, target: Target, authority: Authority, agree: Agree) -> None:
        """Be the server, so that secrets can be put into the requests to the real one."""
        inside = await agree()
        greeted = _Greeted(inside, lambda data: self._check(data, target, is_any=False))
        try:
            with anyio.fail_after(self._outbound.limits.request_s):
                stream = await TLSStream.wrap(
                    greeted,
                    server_side=True,
                    ssl_context=authority.context(target.host),
                    standard_compatible=False,
                )
        except DeniedError as error:
            await self._turn_away(inside, error)
        except ssl.SSLError:
            self._refuse(self._outbound.denied(target, _NOT_BELIEVED))
        except (TimeoutError, OSError, anyio.EndOfStream):
            raise anyio.BrokenResourceError from None
        else:
            await self._read_requests(stream, Origin("https", target))
            await _say_goodbye(stream)

    async def _turn_away(self, inside: ByteStream, error: DeniedError) -> None:
        # It has been told that it is connected, so the answer can only be one of TLS.
        self._refuse(error)
        with anyio.move_on_after(_ALERT_S):
            await inside.send(ACCESS_DENIED)

    async def _relay(self, target: Target, agree: Agree) -> None:
        outside = await self._outbound.tunnel(target)
        try:
            inside = await agree()
            is_any = self._rules.names_port(target) and target.port != _HTTPS
            guarded = _Greeted(inside, lambda data: self._check(data, target, is_any=is_any))
            await relay(guarded, outside, self._outbound.limits.idle_s)
        except DeniedError as error:
            await self._turn_away(inside, error)
        finally:
            await anyio.aclose_forcefully(outside)

    def _check(self, data: bytes, target: Target, *, is_any: bool) -> bool:
        """Whether that is how a target may be spoken to. False: that cannot be told yet.

        Args:
            data: what has been said so far.
            target: of the tunnel.
            is_any: whether it may be something else than TLS.

        Raises:
            DeniedError: it may not.
        """
        try:
            hello = parse_hello(data)
        except NoHelloError:
            if is_any:
                return True
            raise self._outbound.denied(target, "is not spoken to in TLS") from None
        if hello is not None:
            self._require_same(hello, target)
        return hello is not None

    def _require_same(self, hello: Hello, target: Target) -> None:
        if hello.is_encrypted:
            raise self._outbound.denied(target, "is greeted with an encrypted name (ECH)")
        if target.address is not None and hello.server_name is None:
            return
        if hello.server_name is None:
            raise self._outbound.denied(target, "is not greeted by its name (no SNI)")
        if hello.server_name != target.host:
            asked = Target(hello.server_name, target.port)
            raise self._outbound.denied(asked, f"is asked for in a tunnel to {target.host}")


async def _say_goodbye(stream: TLSStream) -> None:
    """End TLS as it ought to be ended; what is under it is ended by others."""
    with anyio.move_on_after(_ALERT_S):
        try:
            await stream.unwrap()
        except (ssl.SSLError, OSError, anyio.EndOfStream, *GONE):
            # It has said so to a program that did not care.
            pass


class _Greeted(ByteStream):
    """A stream of which nothing gets on before its beginning has been looked at."""

    def __init__(self, stream: ByteStream, check: Callable[[bytes], bool]) -> None:
        self._stream = stream
        self._check = check
        self._is_checked = False

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        data = await self._stream.receive(max_bytes)
        while not self._is_checked:
            self._is_checked = self._check(data)
            if not self._is_checked:
                data += await self._stream.receive(max_bytes)
        return data

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
