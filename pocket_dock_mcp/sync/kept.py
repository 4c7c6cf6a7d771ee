# Written by scripts/mirror.py from async_/kept.py; change that, and run scripts/mirror.py again.
"""Containers that are looked up: resumed, listed, stopped and ended by their names."""

from __future__ import annotations

from typing import cast

from pocket_dock_mcp.async_.container import DEFAULT_TIMEOUT_S
from pocket_dock_mcp.async_.info import ContainerListItem
from pocket_dock_mcp.async_.kept import destroy_container as _destroy_container
from pocket_dock_mcp.async_.kept import list_containers as _list_containers
from pocket_dock_mcp.async_.kept import prune as _prune
from pocket_dock_mcp.async_.kept import resume_container as _resume_container
from pocket_dock_mcp.async_.kept import stop_container as _stop_container
from pocket_dock_mcp.sync.container import Container
from pocket_dock_mcp.sync.facade import call, mirrored


def resume_container(
    name: str, *, socket_path: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
) -> Container:
    """Return a container that persists, started again if it has stopped; or one of this process.

    Args:
        name: its name or id.
        socket_path: of its engine; see `create_new_container`.
        timeout: seconds that a run in it may take unless it says otherwise.

    Raises:
        ContainerNotFound: there is none of that name.
        ContainerNotRunning: it belongs to another process and does not persist.
        ContainerGone: its container was removed from outside.
        InvalidArgumentError: several are called so.
        PodmanNotRunning, EngineError: the engine is not there, or failed.
    """
    return cast(
        "Container", mirrored(call(_resume_container, name, socket_path=socket_path, timeout=timeout))
    )


def list_containers(*, socket_path: str | None = None, project: str | None = None) -> list[ContainerListItem]:
    """Return the containers that there are: those that persist, and those that run for some process of ours.

    Args:
        socket_path: of their engine; see `create_new_container`.
        project: only those of this project.

    Raises:
        PodmanNotRunning, EngineError: the engine is not there, or failed.
    """
    return call(_list_containers, socket_path=socket_path, project=project)


def stop_container(name: str, *, socket_path: str | None = None) -> None:
    """Stop a container that persists: its processes end, its files stay. Nothing happens to a stopped one.

    Raises:
        InvalidArgumentError: it does not persist, so that stopping would lose it.
        And what `resume_container` raises.
    """
    call(_stop_container, name, socket_path=socket_path)


def destroy_container(name: str, *, socket_path: str | None = None) -> None:
    """End a container for good, with its files, whether it persists or not.

    Raises: what `resume_container` raises, but for one whose container is gone: that is what is wanted.
    """
    call(_destroy_container, name, socket_path=socket_path)


def prune(*, socket_path: str | None = None, project: str | None = None) -> int:
    """End all containers that persist and have stopped, with their files, and return how many.

    `pocket-dock prune` is more careful: it leaves what was made to persist, unless ``--all`` is said.

    Args:
        socket_path: of their engine; see `create_new_container`.
        project: only those of this project.

    Raises:
        PodmanNotRunning, EngineError: the engine is not there, or failed.
    """
    return call(_prune, socket_path=socket_path, project=project)
