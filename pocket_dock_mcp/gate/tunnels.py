"""What CONNECT opens: to a name only what greets that very name in TLS, or asks it in HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.answers import DeniedError, RefusedError
from pocket_dock_mcp.gate.conversation import Conversation, Origin
from pocket_dock_mcp.gate.hello import ACCESS_DENIED, Hello, NoHelloError, parse_hello
from pocket_dock_mcp.gate.limits import SpentError
from pocket_dock_mcp.gate.outbound import Outbound
from pocket_dock_mcp.gate.relay import CHUNK, relay
from pocket_dock_mcp.gate.rules import Rules
from pocket_dock_mcp.gate.targets import Target

_HTTP = 80
_HTTPS = 443
_ALERT_S = 2.0

Refuse = Callable[[RefusedError | SpentError], None]


class Tunnels:
    """Those of one sandbox."""

    def __init__(self, rules: Rules, outbound: Outbound, refuse: Refuse) -> None:
        """Open none yet."""
        self._rules = rules
        self._outbound = outbound
        self._refuse = refuse

    async def run(self, target: Target, agree: Callable[[], Awaitable[ByteStream]]) -> None:
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
            stream = await agree()
            await Conversation(stream, self._outbound, self._refuse, origin=Origin("http", target)).run()
            return
        outside = await self._outbound.tunnel(target)
        try:
            inside = await agree()
            is_any = self._rules.names_port(target) and target.port != _HTTPS
            guarded = _Greeted(inside, lambda data: self._check(data, target, is_any=is_any))
            await relay(guarded, outside, self._outbound.limits.idle_s)
        except DeniedError as error:
            # It has been told that it is connected, so the answer can only be one of TLS.
            self._refuse(error)
            with anyio.move_on_after(_ALERT_S):
                await inside.send(ACCESS_DENIED)
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
