"""All that leads out of one gate: who may go where, on which way, and how much in all."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from pocket_dock_mcp.gate.answers import DeniedError, UnreachableError
from pocket_dock_mcp.gate.limits import GateLimits, Meter, Pace
from pocket_dock_mcp.gate.reaching import Reach
from pocket_dock_mcp.gate.relay import Metered
from pocket_dock_mcp.gate.targets import Target


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

    def __init__(self, reach: Reach, limits: GateLimits, trust: Callable[[], ssl.SSLContext]) -> None:
        """Open nothing yet.

        Args:
            reach: where to.
            limits: how much.
            trust: returns what servers are believed by, when one has to be.
        """
        self._reach = reach
        self._trust = trust
        self._meter = Meter(limits)
        self.limits = limits
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
        self._meter.check()
        return Metered(await self._reach.connect(target), self._meter)

    async def way(self, scheme: str, target: Target) -> Way:
        """Return a connection for HTTP to an allowed target. Raises as `tunnel`."""
        stream = await self.tunnel(target)
        if scheme == "https":
            with anyio.move_on_after(self.limits.connect_s):
                return Way(await self._secured(stream, target))
            raise UnreachableError(target, "does not answer in time", 504)
        return Way(stream)

    async def _secured(self, stream: ByteStream, target: Target) -> ByteStream:
        try:
            return await TLSStream.wrap(
                stream, hostname=target.host, ssl_context=self._trust(), standard_compatible=False
            )
        except (ssl.SSLError, OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            await anyio.aclose_forcefully(stream)
            why = (
                "cannot be trusted"
                if isinstance(error, ssl.SSLCertVerificationError)
                else "does not speak TLS"
            )
            raise UnreachableError(target, why) from error
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
