# Written by scripts/mirror.py from async_/__init__.py; change that, and run scripts/mirror.py again.
"""The SDK for programs without an event loop: the same names, with functions that block."""

from __future__ import annotations

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
from pocket_dock_mcp.async_.process import BufferSnapshot
from pocket_dock_mcp.async_.processes import ProcessInfo
from pocket_dock_mcp.async_.stream import StreamChunk
from pocket_dock_mcp.images import ProfileInfo, list_profiles, resolve_profile
from pocket_dock_mcp.models import FileEntry, Skipped, TransferProgress, Transferred
from pocket_dock_mcp.models import RunResult as ExecResult
from pocket_dock_mcp.outside import PortMapping
from pocket_dock_mcp.projects import find_project_root, init_project
from pocket_dock_mcp.sync.container import Container
from pocket_dock_mcp.sync.create import create_new_container
from pocket_dock_mcp.sync.doctor import doctor
from pocket_dock_mcp.sync.kept import (
    destroy_container,
    list_containers,
    prune,
    resume_container,
    stop_container,
)
from pocket_dock_mcp.sync.pool import ContainerPool
from pocket_dock_mcp.sync.process import Process
from pocket_dock_mcp.sync.session import Session
from pocket_dock_mcp.sync.stream import ExecStream
from pocket_dock_mcp.version import __version__, get_version

__all__ = [
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
