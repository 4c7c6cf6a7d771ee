"""What programs in a container are told of the way out that its host keeps open for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.transport import Transport
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.gate.client import Client
from pocket_dock_mcp.gate.denials import Denial
from pocket_dock_mcp.models import Network
from pocket_dock_mcp.outside import APT_PATH, CA_PATH, PROXY

MAX_CA_BYTES = 768 * 1024
"""Of the certificates that programs inside are given: a system's are 220 KB."""
_HERE = ("localhost", "127.0.0.1", "::1")
"""What does not go through the proxy, as programs in the container speak with each other directly; unless it
was named, and so means the host's."""
_APT = f"""\
// Where APT of a user who is not root keeps its files, and how it gets to its sources.
// It makes a directory that is called apt, if there is what that is in.
Acquire::http::Proxy "{PROXY}";
Acquire::https::Proxy "{PROXY}";
Dir::State "/tmp/apt/";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "/tmp/apt/";
Dir::Log "/tmp/apt/";
"""


class Opened(Protocol):
    """What answers a container's programs when they connect to the outside."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What they are to have in their environment, besides the proxy's address."""

    @property
    def ca_bundle(self) -> bytes | None:
        """Certificates of those who are to be believed, as PEM; None for those that the image has."""

    @property
    def loopback(self) -> frozenset[str]:
        """Names of the host's own loopback that programs may reach."""

    @property
    def denied(self) -> int:
        """How often something was denied."""

    def denials(self, since: int = 0) -> list[Denial]:
        """What was denied later than the first `since` times."""

    async def serve(self, client: Client) -> None:
        """Answer one, to its end."""

    async def aclose(self) -> None:
        """Answer nobody any more."""


Gates = Callable[[Network], Opened]


def is_gated(network: Network) -> bool:
    """Whether what goes out is answered here, and not by the engine's network or nobody."""
    return network != policy.engine_network(network)


def new_gate(network: Network, gates: Gates | None) -> Opened | None:
    """Return a gate for a container that is starting, or is taken up; None where it has none.

    Raises:
        InvalidArgumentError: nobody has said how such a network is made.
    """
    if not is_gated(network):
        return None
    if gates is None:
        message = "Nobody has said what answers the sandbox's programs."
        raise InvalidArgumentError(message, hint="Use network='none' or 'open'.")
    return gates(network)


async def equip(transport: Transport, gate: Opened) -> None:
    """Tell programs how to get out. From now on they wait for the host to answer them."""
    bundle = gate.ca_bundle
    if bundle is not None and len(bundle) > MAX_CA_BYTES:
        message = f"There are {len(bundle)} bytes of certificates; at most {MAX_CA_BYTES} are allowed."
        raise InvalidArgumentError(message, hint="Use a smaller CA bundle on the host.")
    certificates = {} if bundle is None else {CA_PATH: bundle}
    await transport.outfit(environment_of(gate), {APT_PATH: _APT.encode(), **certificates})


def environment_of(gate: Opened) -> dict[str, str]:
    """Return what programs have in their environment; some look at small letters only, some at capitals."""
    here = ",".join(name for name in _HERE if name not in gate.loopback)
    proxies = {"http_proxy": PROXY, "https_proxy": PROXY, "all_proxy": PROXY, "no_proxy": here}
    capitals = {name.upper(): value for name, value in proxies.items()}
    return {**proxies, **capitals, "APT_CONFIG": APT_PATH, **gate.environment}


def denials_from_now(gate: Opened | None) -> Callable[[], tuple[Denial, ...]]:
    """Return what says which denials there were between now and its call, as far as they are kept."""
    if gate is None:
        return tuple
    since = gate.denied
    return lambda: tuple(gate.denials(since))
