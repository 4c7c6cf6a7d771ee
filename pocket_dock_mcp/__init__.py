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
    """This package. Its `doctor` is the function of the SDK, also when the subpackage was imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "doctor" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

_OF_THE_OTHER_COLOUR = ("AsyncContainer", "AsyncContainerPool")
_NAMES = (
    "BufferSnapshot",
    "ConfigError",
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
    "InvalidArgumentError",
    "LimitsNotEnforcedError",
    "PocketDockError",
    "PodmanNotRunning",
    "PortMapping",
    "Process",
    "ProcessInfo",
    "ProfileInfo",
    "ProjectNotInitialized",
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
    "find_project_root",
    "init_project",
    "list_containers",
    "list_profiles",
    "prune",
    "resolve_profile",
    "resume_container",
    "stop_container",
)
"""What `pocket_dock_mcp.sync` has: known without importing it, as submodules are looked for here, too."""


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "__all__":
        return sorted([*_NAMES, *_OF_THE_OTHER_COLOUR, "__version__", "get_version"])
    if name in _OF_THE_OTHER_COLOUR:
        return getattr(import_module("pocket_dock_mcp.async_"), name)
    if name in _NAMES:
        return getattr(import_module("pocket_dock_mcp.sync"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
