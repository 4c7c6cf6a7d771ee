"""All that leads out of one gate: who may go where, on which way, as whom, and how much in all."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from pocket_dock_mcp.gate.answers import DeniedError, UnreachableError
from pocket_dock_mcp.gate.host_proxy import HostProxies, HostProxy
from pocket_dock_mcp.gate.limits import GateLimits, Meter, Pace
from pocket_dock_mcp.gate.reaching import Reach
from pocket_dock_mcp.gate.relay import Metered
from pocket_dock_mcp.gate.secrets import Secrets
from pocket_dock_mcp.gate.targets import Target

Trust = Callable[[], ssl.SSLContext]
"""Returns what servers are believed by."""


@dataclass(frozen=True, slots=True)
class Way:
    """An open connection that leads to a target."""

    stream: ByteStream
    is_proxys: bool = False
    """Whether the host's own proxy is at its other end, and takes requests in absolute form."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """For that proxy."""


class Outbound:
    """The ways out."""

    def __init__(
        self,
        reach: Reach,
        limits: GateLimits,
        *,
        trust: Trust,
        proxies: HostProxies,
        secrets: Secrets,
    ) -> None:
        """Open nothing yet.

        Args:
            reach: where to.
            limits: how much.
            trust: what servers are believed by, when one has to be.
            proxies: that this host has to use.
            secrets: that are said to servers.
        """
        self._reach = reach
        self._trust = trust
        self._proxies = proxies
        self._meter = Meter(limits)
        self.limits = limits
        self.secrets = secrets
        self.pace = Pace(limits.per_second, limits.burst)

    def require_allowed(self, target: Target) -> None:
        """Decide by name. Raises `DeniedError`."""
        self._reach.require_allowed(target)

    def denied(self, target: Target, reason: str) -> DeniedError:
        """Return the answer to what is not allowed."""
        return self._reach.denied(target, reason)

    async def tunnel(self, target: Target) -> ByteStream:
        """Return a connection to an allowed target for whatever it speaks.

        Raises:
            DeniedError: its address is not allowed.
            UnreachableError: it does not answer.
            SpentError: no more may go.
        """
        proxy = self._proxies.of("https", target)
        return await self._opened(target, lambda: self._tunnelled(target, proxy))

    async def way(self, scheme: str, target: Target) -> Way:
        """Return a connection for HTTP to an allowed target. Raises as `tunnel`."""
        if scheme == "https":
            stream = await self.tunnel(target)
            return Way(await self._in_time(target, lambda: self._secured(stream, target)))
        proxy = self._proxies.of("http", target)
        if proxy is None:
            return Way(await self._opened(target, lambda: self._reach.connect(target)))
        stream = await self._opened(target, lambda: proxy.connect(target, self._trust))
        return Way(stream, is_proxys=True, headers=tuple(proxy.headers))

    async def _tunnelled(self, target: Target, proxy: HostProxy | None) -> ByteStream:
        if proxy is None:
            return await self._reach.connect(target)
        return await proxy.tunnel(target, self._trust)

    async def _opened(self, target: Target, connect: Callable[[], Awaitable[ByteStream]]) -> ByteStream:
        self._meter.check()
        return Metered(await self._in_time(target, connect), self._meter)

    async def _in_time(self, target: Target, get: Callable[[], Awaitable[ByteStream]]) -> ByteStream:
        with anyio.move_on_after(self.limits.connect_s):
            return await get()
        raise UnreachableError(target, "does not answer in time", 504)

    async def _secured(self, stream: ByteStream, target: Target) -> ByteStream:
        try:
            return await TLSStream.wrap(
                stream, hostname=target.host, ssl_context=self._trust(), standard_compatible=False
            )
        except (ssl.SSLError, OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            await anyio.aclose_forcefully(stream)
            is_mistrusted = isinstance(error, ssl.SSLCertVerificationError)
            why = "has a certificate that this host does not trust" if is_mistrusted else "does not speak TLS"
            raise UnreachableError(target, why) from error
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
