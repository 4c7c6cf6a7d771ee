"""Sandboxes on your own Podman or Docker, for LLM agents and everybody else.

The SDK: `create_new_container` and what else `pocket_dock_mcp.sync` has, for programs without an event loop;
`pocket_dock_mcp.async_` for those with one. Names are imported when they are first looked at: whoever wants
the command line only does not wait for them.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from pocket_dock_mcp.version import __version__ as __version__
from pocket_dock_mcp.version import get_version as get_version

if TYPE_CHECKING:
    from pocket_dock_mcp.async_ import AsyncContainer as AsyncContainer
    from pocket_dock_mcp.async_ import AsyncContainerPool as AsyncContainerPool
    from pocket_dock_mcp.sync import *  # noqa: F403


class _Package(ModuleType):
    """This package. Its `doctor` is the SDK's function, whoever has imported the subpackage of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "doctor" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

_OF_BOTH_COLOURS = [
    "BufferSnapshot",
    "Container",
    "ContainerError",
    "ContainerGone",
    "ContainerInfo",
    "ContainerListItem",
    "ContainerNameTaken",
    "ContainerNotFound",
    "ContainerNotRunning",
    "ContainerPool",
    "DoctorReport",
    "ExecResult",
    "ExecStream",
    "FileEntry",
    "ImageNotFound",
    "PocketDockError",
    "PodmanNotRunning",
    "PortMapping",
    "Process",
    "ProcessInfo",
    "ProfileInfo",
    "Session",
    "SessionClosed",
    "SocketCommunicationError",
    "SocketConnectionError",
    "SocketError",
    "StreamChunk",
    "StreamNotEnded",
    "Transferred",
    "create_new_container",
    "destroy_container",
    "doctor",
    "list_containers",
    "list_profiles",
    "prune",
    "resolve_profile",
    "resume_container",
    "stop_container",
]
_OF_THE_OTHER = ["AsyncContainer", "AsyncContainerPool"]

__all__ = sorted([*_OF_BOTH_COLOURS, *_OF_THE_OTHER, "__version__", "get_version"])


def __getattr__(name: str) -> object:
    # Not by trial: what is no name of the SDK may be a module that the SDK itself is just importing.
    if name in _OF_BOTH_COLOURS:
        home = "pocket_dock_mcp.sync"
    elif name in _OF_THE_OTHER:
        home = "pocket_dock_mcp.async_"
    else:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    return getattr(import_module(home), name)
