"""From what somebody asks for to the gate that gives it. Light: most sandboxes need none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pocket_dock_mcp.gate.denials import Denial
from pocket_dock_mcp.models import Network
from pocket_dock_mcp.settings import Settings

if TYPE_CHECKING:
    from pocket_dock_mcp.gate.core import Gate, Surroundings


class GateMaker(Protocol):
    """Makes gates."""

    def __call__(self, network: Network, on_denied: Callable[[Denial], None] = ...) -> Gate:
        """Make one, of `Gate`'s `on_denied`.

        Raises:
            ConfigError: the settings name what is no host, or secrets that cannot be used.
            InvalidArgumentError: the network needs no gate.
        """


def gates(
    settings: Settings,
    environ: Mapping[str, str] | None = None,
    *,
    root: Path = Path("/"),
    surroundings: Surroundings | None = None,
) -> GateMaker:
    """Return what makes a new gate for a network. Nothing is read before.

    Args:
        settings: the limits, further hosts, and where secrets are.
        environ: proxies, certificates, and the settings of pip and npm; None for that of this process.
        root: of this machine's file system, where their files and those of apt are.
        surroundings: how the network is reached; None for the way of `environ`.
    """
    environ = os.environ if environ is None else environ

    def make(network: Network, on_denied: Callable[[Denial], None] = lambda _: None) -> Gate:
        # What it imports takes its time, which a server that is starting does not have.
        from pocket_dock_mcp.gate.equipping import equipped_gate

        return equipped_gate(settings, environ, network, on_denied, root, surroundings)

    return make
