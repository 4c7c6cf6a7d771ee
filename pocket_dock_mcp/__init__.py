"""Sandboxes on your own Podman or Docker, for LLM agents and everybody else.

The SDK: `AsyncContainerPool`, and `ContainerPool` for programs without an event loop. Both are imported when
they are first looked at: whoever wants the command line only does not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pocket_dock_mcp.version import __version__ as __version__

if TYPE_CHECKING:
    from pocket_dock_mcp.container.pool import AsyncContainerPool as AsyncContainerPool
    from pocket_dock_mcp.sync import Container as Container
    from pocket_dock_mcp.sync import ContainerPool as ContainerPool

_HOMES = {
    "AsyncContainerPool": "pocket_dock_mcp.container.pool",
    "Container": "pocket_dock_mcp.sync",
    "ContainerPool": "pocket_dock_mcp.sync",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
