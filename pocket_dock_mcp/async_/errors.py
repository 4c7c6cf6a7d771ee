"""The errors of the SDK under the names that its users know them by. They are those of the whole package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pocket_dock_mcp.errors import (
    ConfigError,
    EngineError,
    EngineResponseError,
    EngineUnavailableError,
    FileError,
    HostPathError,
    ImageNotFoundError,
    InvalidArgumentError,
    LimitsNotEnforcedError,
    PocketDockError,
    PortError,
    PortInUseError,
    ProjectNotInitializedError,
    ProvisionError,
    RunFailedError,
    SandboxError,
    SandboxLostError,
    SandboxNameTakenError,
    SandboxNotFoundError,
    SandboxStateError,
    SessionClosedError,
    StreamNotEndedError,
    TransferError,
    TransferLimitError,
)
from pocket_dock_mcp.models import RunResult

SocketError = EngineError
SocketConnectionError = EngineUnavailableError
PodmanNotRunning = EngineUnavailableError
SocketCommunicationError = EngineResponseError
ContainerError = SandboxError
ContainerNotFound = SandboxNotFoundError
ContainerNotRunning = SandboxStateError
ContainerGone = SandboxLostError
ContainerNameTaken = SandboxNameTakenError
ImageNotFound = ImageNotFoundError
ProjectNotInitialized = ProjectNotInitializedError
SessionClosed = SessionClosedError
StreamNotEnded = StreamNotEndedError

__all__ = [
    "ConfigError",
    "ContainerError",
    "ContainerGone",
    "ContainerNameTaken",
    "ContainerNotFound",
    "ContainerNotRunning",
    "FileError",
    "HostPathError",
    "ImageNotFound",
    "InvalidArgumentError",
    "LimitsNotEnforcedError",
    "PocketDockError",
    "PodmanNotRunning",
    "PortError",
    "PortInUseError",
    "ProjectNotInitialized",
    "ProvisionError",
    "RunFailedError",
    "SessionClosed",
    "SocketCommunicationError",
    "SocketConnectionError",
    "SocketError",
    "StreamNotEnded",
    "TransferError",
    "TransferLimitError",
]

_IN_SDK_WORDS = (
    ("create_sandbox", "create_new_container"),
    ("list_sandboxes", "list_containers"),
    ("timeout_s", "timeout"),
    ("run_command", "run"),
    ("background=true", "detach=True"),
    ("memory_mb", "mem_limit"),
    ("disk_mb", "disk_limit"),
    ("sandbox_id", "name"),
)
"""What is called otherwise for a model: tools and their arguments."""


def in_sdk_words(text: str) -> str:
    """Return a hint with the names that things have for users of the SDK."""
    for name, ours in _IN_SDK_WORDS:
        text = text.replace(name, ours)
    return text


def in_result(result: RunResult) -> RunResult:
    """Return a result whose hint is for users of the SDK."""
    return result if result.hint is None else replace(result, hint=in_sdk_words(result.hint))


@contextmanager
def told_in_sdk_words() -> Iterator[None]:
    """Have what is raised give advice that a user of the SDK can follow."""
    try:
        yield
    except PocketDockError as error:
        error.hint = in_sdk_words(error.hint)
        raise
