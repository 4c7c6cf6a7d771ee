"""Sandboxes on your own Podman or Docker, for LLM agents and everybody else.

The SDK: `create_new_container` and what else `pocket_dock_mcp.sync` has, for programs without an event loop;
`pocket_dock_mcp.async_` for those with one. Names are imported when they are first looked at: whoever wants
the command line only does not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pocket_dock_mcp.version import __version__ as __version__
from pocket_dock_mcp.version import get_version as get_version

if TYPE_CHECKING:
    from pocket_dock_mcp.async_ import AsyncContainer as AsyncContainer
    from pocket_dock_mcp.async_ import AsyncContainerPool as AsyncContainerPool
    from pocket_dock_mcp.sync import *  # noqa: F403

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
    "FileError",
    "HostPathError",
    "ImageNotFound",
    "InvalidArgumentError",
    "LimitsNotEnforcedError",
    "PocketDockError",
    "PodmanNotRunning",
    "PortError",
    "PortInUseError",
    "PortMapping",
    "Process",
    "ProcessInfo",
    "ProfileInfo",
    "ProjectNotInitialized",
    "ProvisionError",
    "RunFailedError",
    "Session",
    "SessionClosed",
    "Skipped",
    "SocketCommunicationError",
    "SocketConnectionError",
    "SocketError",
    "StreamChunk",
    "StreamNotEnded",
    "TransferError",
    "TransferLimitError",
    "TransferProgress",
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
