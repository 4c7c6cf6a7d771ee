"""Containers that are looked up: resumed, listed, stopped and ended by their names."""

from __future__ import annotations

from pocket_dock_mcp.async_.commands import checked_timeout
from pocket_dock_mcp.async_.container import DEFAULT_TIMEOUT_S, AsyncContainer
from pocket_dock_mcp.async_.holds import Managed
from pocket_dock_mcp.async_.host import host_for
from pocket_dock_mcp.async_.info import ContainerListItem, Status, moment
from pocket_dock_mcp.async_.names import find
from pocket_dock_mcp.engine.base import ContainerState
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.persistence import KeptSandbox
from pocket_dock_mcp.manager.sandbox import Sandbox
from pocket_dock_mcp.manager.sweep import IMAGE_LABEL, PROJECT_LABEL

_SHORT = 12


async def resume_container(
    name: str, *, socket_path: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
) -> AsyncContainer:
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
    checked_timeout(timeout)
    host = host_for(socket_path=socket_path)

    async def open_it(manager: Manager) -> Sandbox:
        return await manager.open(host.owner, await find(host, manager, name))

    return AsyncContainer(Managed(host, await host.do(open_it)), timeout=timeout)


async def list_containers(
    *, socket_path: str | None = None, project: str | None = None
) -> list[ContainerListItem]:
    """Return the containers that there are: those that persist, and those that run for some process of ours.

    Args:
        socket_path: of their engine; see `create_new_container`.
        project: only those of this project.

    Raises:
        PodmanNotRunning, EngineError: the engine is not there, or failed.
    """
    host = host_for(socket_path=socket_path)
    async with host.working() as manager:
        items = [
            *map(_held, manager.list_sandboxes(host.owner)),
            *map(_kept, await manager.list_kept(host.owner)),
            *map(_of_others, await manager.list_others()),
        ]
    return [item for item in items if project is None or item.project == project]


async def stop_container(name: str, *, socket_path: str | None = None) -> None:
    """Stop a container that persists: its processes end, its files stay. Nothing happens to a stopped one.

    Raises:
        InvalidArgumentError: it does not persist, so that stopping would lose it.
        And what `resume_container` raises.
    """
    host = host_for(socket_path=socket_path)

    async def stop(manager: Manager) -> None:
        await manager.stop(host.owner, await find(host, manager, name))

    await host.do(stop)


async def destroy_container(name: str, *, socket_path: str | None = None) -> None:
    """End a container for good, with its files, whether it persists or not.

    Raises: what `resume_container` raises, but for one whose container is gone: that is what is wanted.
    """
    host = host_for(socket_path=socket_path)

    async def end(manager: Manager) -> None:
        await manager.kill(host.owner, await find(host, manager, name))

    await host.do(end)


async def prune(*, socket_path: str | None = None, project: str | None = None) -> int:
    """End all containers that persist and have stopped, with their files, and return how many.

    `pocket-dock prune` is more careful: it leaves what was made to persist, unless ``--all`` is said.

    Args:
        socket_path: of their engine; see `create_new_container`.
        project: only those of this project.

    Raises:
        PodmanNotRunning, EngineError: the engine is not there, or failed.
    """
    host = host_for(socket_path=socket_path)

    async def end_stopped(manager: Manager) -> int:
        count = 0
        for one in await manager.list_kept(host.owner):
            if one.status == "running" or one.busy:
                continue
            if project is None or one.kept.request.project == project:
                await manager.kill(host.owner, one.kept.id)
                count += 1
        return count

    return await host.do(end_stopped)


def _held(sandbox: Sandbox) -> ContainerListItem:
    live, request = sandbox.container, sandbox.request
    created = sandbox.created if sandbox.claim is None else sandbox.claim.kept.created
    return ContainerListItem(
        id=live.container_id[:_SHORT],
        name=live.name,
        status="running",
        image=request.snapshot or request.image,
        created_at=moment(created).isoformat(timespec="seconds"),
        persist=request.persist and not request.disposable,
        project=request.project,
        sandbox_id=sandbox.id,
        title=_title(request.name, live.name),
        network=request.network,
        memory_limit_bytes=request.limits.memory_bytes,
    )


def _kept(one: KeptSandbox) -> ContainerListItem:
    request = one.kept.request
    return ContainerListItem(
        id=one.container_id[:_SHORT],
        name=one.kept.container,
        status=one.status,
        image=request.snapshot or request.image,
        created_at=moment(one.kept.created).isoformat(timespec="seconds"),
        persist=not request.disposable,
        project=request.project,
        sandbox_id=one.kept.id,
        title=_title(request.name, one.kept.container),
        busy=one.busy,
        network=request.network,
        memory_limit_bytes=request.limits.memory_bytes,
    )


def _of_others(state: ContainerState) -> ContainerListItem:
    status: Status = "paused" if state.status == "paused" else "running"
    return ContainerListItem(
        id=state.id[:_SHORT],
        name=state.name,
        status=status,
        image=state.labels.get(IMAGE_LABEL, ""),
        created_at="",
        persist=False,
        project=state.labels.get(PROJECT_LABEL, ""),
        busy=True,
        held_elsewhere=True,
    )


def _title(said: str, name: str) -> str:
    return "" if said == name else said
