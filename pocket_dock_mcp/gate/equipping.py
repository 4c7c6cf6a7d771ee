"""A gate with all that it needs: rules, secrets, and what the machine has."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.gate.core import Gate, Surroundings
from pocket_dock_mcp.gate.denials import Denial
from pocket_dock_mcp.gate.domains import configured_domains
from pocket_dock_mcp.gate.host_proxy import HostProxies
from pocket_dock_mcp.gate.limits import GateLimits
from pocket_dock_mcp.gate.registries import Registries, read_registries
from pocket_dock_mcp.gate.rules import Rules
from pocket_dock_mcp.gate.secrets import Secrets, read_secrets
from pocket_dock_mcp.host.network import read_bundle, system_bundle
from pocket_dock_mcp.models import MIB, Network
from pocket_dock_mcp.settings import Settings, variable


def equipped_gate(
    settings: Settings,
    environ: Mapping[str, str],
    network: Network,
    on_denied: Callable[[Denial], None],
    root: Path,
    surroundings: Surroundings | None,
) -> Gate:
    """Make a gate; see `pocket_dock_mcp.gate.opening.gates`.

    Raises:
        ConfigError: the settings name what is no host, or secrets that cannot be used.
        InvalidArgumentError: the network needs no gate.
    """
    secrets = [] if settings.secrets_file is None else read_secrets(settings.secrets_file)
    found = _registries(settings, environ, root) if network == "packages" else _listed(network)
    return Gate(
        found.rules,
        limits=GateLimits(
            connections=settings.network_connections,
            sent_bytes=settings.network_sent_mb * MIB,
            received_bytes=settings.network_received_mb * MIB,
        ),
        surroundings=surroundings or _surroundings(environ),
        # What the operator says of a host goes before what other programs are set to.
        secrets=Secrets([*secrets, *found.secrets]),
        environment=found.environment,
        on_denied=on_denied,
    )


def _listed(network: Network) -> Registries:
    if isinstance(network, str):
        raise InvalidArgumentError(f"network {network!r} has no gate.")
    return Registries(Rules.of_domains(network), {}, ())


def _registries(settings: Settings, environ: Mapping[str, str], root: Path) -> Registries:
    more = configured_domains(settings.package_hosts, variable("package_hosts"))
    return read_registries(environ, more, root)


def _surroundings(environ: Mapping[str, str]) -> Surroundings:
    bundle = read_bundle(environ)

    @functools.cache
    def trust() -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        if bundle is not None:
            context.load_verify_locations(cadata=bundle.decode("ascii", "ignore"))
        return context

    return Surroundings(
        trust=trust,
        proxies=HostProxies(environ),
        ca_bundle=system_bundle() if bundle is None else bundle,
    )
