"""The SDK for programs with an event loop: asyncio's."""

from __future__ import annotations

from pocket_dock_mcp.async_.container import AsyncContainer
from pocket_dock_mcp.async_.create import create_new_container
from pocket_dock_mcp.async_.errors import (
    ContainerError,
    ContainerGone,
    ContainerNameTaken,
    ContainerNotFound,
    ContainerNotRunning,
    ImageNotFound,
    PocketDockError,
    PodmanNotRunning,
    ProjectNotInitialized,
    SocketCommunicationError,
    SocketConnectionError,
    SocketError,
)
from pocket_dock_mcp.async_.info import ContainerInfo, ContainerListItem, DoctorReport
from pocket_dock_mcp.async_.kept import (
    destroy_container,
    list_containers,
    prune,
    resume_container,
    stop_container,
)
from pocket_dock_mcp.container.pool import AsyncContainerPool
from pocket_dock_mcp.errors import HostPathError, PortError, PortInUseError, ProvisionError
from pocket_dock_mcp.models import FileEntry
from pocket_dock_mcp.models import RunResult as ExecResult
from pocket_dock_mcp.outside import Device, PortMapping, Volume
from pocket_dock_mcp.projects import find_project_root, init_project
from pocket_dock_mcp.version import __version__, get_version

__all__ = [
    "AsyncContainer",
    "AsyncContainerPool",
    "ContainerError",
    "ContainerGone",
    "ContainerInfo",
    "ContainerListItem",
    "ContainerNameTaken",
    "ContainerNotFound",
    "ContainerNotRunning",
    "Device",
    "DoctorReport",
    "ExecResult",
    "FileEntry",
    "HostPathError",
    "ImageNotFound",
    "PocketDockError",
    "PodmanNotRunning",
    "PortError",
    "PortInUseError",
    "PortMapping",
    "ProjectNotInitialized",
    "ProvisionError",
    "SocketCommunicationError",
    "SocketConnectionError",
    "SocketError",
    "Volume",
    "__version__",
    "create_new_container",
    "destroy_container",
    "find_project_root",
    "get_version",
    "init_project",
    "list_containers",
    "prune",
    "resume_container",
    "stop_container",
]
