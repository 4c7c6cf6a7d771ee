"""The SDK for programs with an event loop: asyncio's."""

from __future__ import annotations

from pocket_dock_mcp.async_.container import AsyncContainer
from pocket_dock_mcp.async_.create import create_new_container
from pocket_dock_mcp.async_.doctor import doctor
from pocket_dock_mcp.async_.errors import (
    ConfigError,
    ContainerError,
    ContainerGone,
    ContainerNameTaken,
    ContainerNotFound,
    ContainerNotRunning,
    FileError,
    HostPathError,
    ImageNotFound,
    InvalidArgumentError,
    LimitsNotEnforcedError,
    PocketDockError,
    PodmanNotRunning,
    PortError,
    PortInUseError,
    ProjectNotInitialized,
    ProvisionError,
    RunFailedError,
    SessionClosed,
    SocketCommunicationError,
    SocketConnectionError,
    SocketError,
    StreamNotEnded,
    TransferError,
    TransferLimitError,
)
from pocket_dock_mcp.async_.info import ContainerInfo, ContainerListItem, DoctorReport
from pocket_dock_mcp.async_.kept import (
    destroy_container,
    list_containers,
    prune,
    resume_container,
    stop_container,
)
from pocket_dock_mcp.async_.pool import AsyncContainerPool
from pocket_dock_mcp.async_.process import AsyncProcess, BufferSnapshot
from pocket_dock_mcp.async_.processes import ProcessInfo
from pocket_dock_mcp.async_.session import AsyncSession
from pocket_dock_mcp.async_.stream import AsyncExecStream, StreamChunk
from pocket_dock_mcp.images import ProfileInfo, list_profiles, resolve_profile
from pocket_dock_mcp.models import FileEntry, Skipped, TransferProgress, Transferred
from pocket_dock_mcp.models import RunResult as ExecResult
from pocket_dock_mcp.outside import PortMapping
from pocket_dock_mcp.projects import find_project_root, init_project
from pocket_dock_mcp.version import __version__, get_version

__all__ = [
    "AsyncContainer",
    "AsyncContainerPool",
    "AsyncExecStream",
    "AsyncProcess",
    "AsyncSession",
    "BufferSnapshot",
    "ConfigError",
    "ContainerError",
    "ContainerGone",
    "ContainerInfo",
    "ContainerListItem",
    "ContainerNameTaken",
    "ContainerNotFound",
    "ContainerNotRunning",
    "DoctorReport",
    "ExecResult",
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
    "ProcessInfo",
    "ProfileInfo",
    "ProjectNotInitialized",
    "ProvisionError",
    "RunFailedError",
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
    "__version__",
    "create_new_container",
    "destroy_container",
    "doctor",
    "find_project_root",
    "get_version",
    "init_project",
    "list_containers",
    "list_profiles",
    "prune",
    "resolve_profile",
    "resume_container",
    "stop_container",
]
