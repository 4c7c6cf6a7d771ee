"""The gate of one sandbox: its only way to the network, and the one who decides what goes through."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable

import anyio
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.answers import DeniedError, RefusedError
from pocket_dock_mcp.gate.client import Client
from pocket_dock_mcp.gate.conversation import Conversation
from pocket_dock_mcp.gate.denials import Denial, Denials
from pocket_dock_mcp.gate.limits import GateLimits, SpentError
from pocket_dock_mcp.gate.outbound import Outbound
from pocket_dock_mcp.gate.reaching import Dial, Reach, dial_directly
from pocket_dock_mcp.gate.relay import GONE
from pocket_dock_mcp.gate.resolving import HostResolver, Resolver
from pocket_dock_mcp.gate.rules import Rules
from pocket_dock_mcp.gate.streams import ClientStream
from pocket_dock_mcp.gate.tunnels import Tunnels

_CLOSE_S = 5.0
"""For whoever carries a connection to close it."""

logger = logging.getLogger(__name__)


class Gate:
    """One sandbox's proxy. It knows neither the sandbox nor how its connections get here."""

    def __init__(
        self,
        rules: Rules,
        *,
        limits: GateLimits | None = None,
        resolver: Resolver | None = None,
        dial: Dial = dial_directly,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        on_denied: Callable[[Denial], None] = lambda _: None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            rules: what may be reached.
            limits: how much, and how long it may take.
            resolver: how names are looked up; None for the way of the host's programs.
            dial: how addresses are connected to.
            trust: returns what servers are believed by, where the gate itself speaks TLS with them.
            on_denied: is called with what was denied, at a bounded rate. Must not raise, nor wait.
        """
        self._limits = limits or GateLimits()
        self._rules = rules
        self._denials = Denials(on_denied)
        self._outbound = Outbound(
            Reach(rules, self._limits, resolver or HostResolver(), dial), self._limits, trust
        )
        self._tunnels = Tunnels(rules, self._outbound, self._refuse)
        self._scopes: set[anyio.CancelScope] = set()
        self._is_closed = False

    async def serve(self, client: Client) -> None:
        """Serve one connection from inside to its end, and close it. Raises nothing but cancellation."""
        scope = anyio.CancelScope()
        try:
            if self._is_closed:
                return
            if len(self._scopes) >= self._limits.connections:
                self._denials.add("", 0, f"more than {self._limits.connections} connections at once")
                return
            self._scopes.add(scope)
            with scope:
                await self._converse(ClientStream(client))
        finally:
            self._scopes.discard(scope)
            with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_S):
                await client.aclose()

    @property
    def denied(self) -> int:
        """Return how often something was denied so far."""
        return self._denials.total

    def denials(self, since: int = 0) -> list[Denial]:
        """Return what was denied later than the first `since` times; the last of it, if it is much."""
        return self._denials.since(since)

    async def aclose(self) -> None:
        """End all connections, and serve no more. Idempotent."""
        self._is_closed = True
        for scope in self._scopes:
            scope.cancel()

    async def _converse(self, stream: ByteStream) -> None:
        try:
            await Conversation(stream, self._outbound, self._refuse, tunnel=self._tunnels.run).run()
        except GONE:
            pass
        except Exception:
            # Closed is what it fails to. The text may have what is nobody's business, so it stays here.
            logger.exception("a connection of a sandbox to the network broke off")

    def _refuse(self, error: RefusedError | SpentError) -> None:
        if isinstance(error, DeniedError):
            self._denials.add(error.target.host, error.target.port, error.reason)
        elif isinstance(error, SpentError):
            self._denials.add("", 0, error.reason)
