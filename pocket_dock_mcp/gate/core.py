"""The gate of one sandbox: its only way to the network, and the one who decides what goes through."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import anyio
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.answers import DeniedError, RefusedError
from pocket_dock_mcp.gate.client import Client
from pocket_dock_mcp.gate.conversation import Conversation
from pocket_dock_mcp.gate.denials import Denial, Denials
from pocket_dock_mcp.gate.domains import Domain
from pocket_dock_mcp.gate.host_proxy import HostProxies
from pocket_dock_mcp.gate.limits import GateLimits, SpentError
from pocket_dock_mcp.gate.outbound import Outbound, Trust
from pocket_dock_mcp.gate.reaching import Dial, Reach, dial_directly
from pocket_dock_mcp.gate.relay import GONE
from pocket_dock_mcp.gate.resolving import HostResolver, Resolver
from pocket_dock_mcp.gate.rules import Rules
from pocket_dock_mcp.gate.secrets import Secrets
from pocket_dock_mcp.gate.streams import ClientStream
from pocket_dock_mcp.gate.tunnels import Tunnels
from pocket_dock_mcp.outside import CA_PATH

CA_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "npm_config_cafile",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
)
"""By which programs are told whom to believe."""

_CLOSE_S = 5.0
"""For whoever carries a connection to close it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a gate needs of the machine that it is on."""

    resolver: Resolver | None = None
    """How names are looked up; None for as this host's own programs do, each gate with a share of its own."""
    dial: Dial = dial_directly
    """How addresses are connected to."""
    trust: Trust = ssl.create_default_context
    """What servers are believed by, where the gate itself speaks TLS with them."""
    proxies: HostProxies = field(default_factory=lambda: HostProxies({}))
    """Those that the machine itself has to use."""
    ca_bundle: bytes | None = None
    """The certificates of those whom it believes; None to leave that to the images."""


class Gate:
    """One sandbox's proxy. It knows neither the sandbox nor how its connections get here."""

    def __init__(
        self,
        rules: Rules,
        *,
        limits: GateLimits | None = None,
        surroundings: Surroundings | None = None,
        secrets: Secrets | None = None,
        environment: Mapping[str, str] | None = None,
        on_denied: Callable[[Denial], None] = lambda _: None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            rules: what may be reached.
            limits: how much, and how long it may take.
            surroundings: the machine's; None for a direct way.
            secrets: that are said to hosts, as far as the rules allow these.
            environment: of programs inside.
            on_denied: is called with what was denied, at a bounded rate. Must not raise, nor wait.
        """
        self._limits = limits or GateLimits()
        self._domains = rules.domains
        around = surroundings or Surroundings()
        self._denials = Denials(on_denied)
        usable = Secrets(secret for secret in secrets or () if rules.concern(secret.domain))
        self._outbound = Outbound(
            Reach(rules, self._limits, around.resolver or HostResolver(), around.dial),
            self._limits,
            trust=around.trust,
            proxies=around.proxies,
            secrets=usable,
        )
        authority = None
        self._ca_bundle = around.ca_bundle
        if usable:
            # What it imports takes its time, and few sandboxes have secrets.
            from pocket_dock_mcp.gate.authority import Authority

            authority = Authority(usable.domains)
            self._ca_bundle = (around.ca_bundle or b"") + authority.pem
        self._tunnels = Tunnels(rules, self._outbound, self._refuse, authority)
        certificates = {} if self._ca_bundle is None else dict.fromkeys(CA_VARIABLES, CA_PATH)
        self._environment = {**(environment or {}), **certificates}
        self._scopes: set[anyio.CancelScope] = set()
        self._is_closed = False

    @property
    def environment(self) -> Mapping[str, str]:
        """Return what programs inside have to know, besides where the proxy is."""
        return self._environment

    @property
    def ca_bundle(self) -> bytes | None:
        """Return the certificates for `CA_PATH` inside, as PEM; None for those that the image has."""
        return self._ca_bundle

    @property
    def domains(self) -> tuple[Domain, ...]:
        """Return what may be reached."""
        return self._domains

    @property
    def loopback(self) -> frozenset[str]:
        """Return by which names the machine's own loopback is reached, where that is allowed."""
        return frozenset(domain.name for domain in self._domains if domain.is_loopback)

    @property
    def denied(self) -> int:
        """Return how often something was denied so far."""
        return self._denials.total

    def denials(self, since: int = 0) -> list[Denial]:
        """Return what was denied later than the first `since` times; the last of it, if it is much."""
        return self._denials.since(since)

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

    async def aclose(self) -> None:
        """End all connections, and serve no more. Idempotent."""
        self._is_closed = True
        for scope in self._scopes:
            scope.cancel()

    async def _converse(self, stream: ByteStream) -> None:
        try:
            conversation = Conversation(stream, self._outbound, self._refuse, tunnel=self._tunnels.run)
            if await conversation.run():
                await stream.send_eof()
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
