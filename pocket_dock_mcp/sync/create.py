# Written by scripts/mirror.py from async_/create.py; change that, and run scripts/mirror.py again.
"""`create_new_container`: from what its user says to a container that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from pocket_dock_mcp.async_.container import DEFAULT_TIMEOUT_S
from pocket_dock_mcp.async_.create import create_new_container as _create_new_container
from pocket_dock_mcp.models import Workspace
from pocket_dock_mcp.outside import PortMapping
from pocket_dock_mcp.sync.container import Container
from pocket_dock_mcp.sync.facade import aside, call, mirrored


def create_new_container(
    *,
    image: str | None = None,
    name: str | None = None,
    timeout: float = DEFAULT_TIMEOUT_S,
    mem_limit: str | int | None = None,
    cpu_percent: float | None = None,
    persist: bool | None = None,
    volumes: Mapping[str, str] | None = None,
    project: str | None = None,
    profile: str | None = None,
    devices: Sequence[str] | None = None,
    ports: Mapping[int, int] | Sequence[PortMapping] | None = None,
    env: Mapping[str, str] | None = None,
    workdir: str | None = None,
    network: bool | str | Sequence[str] | None = None,
    user: int | None = None,
    labels: Mapping[str, str] | None = None,
    pids_limit: int | None = None,
    disk_limit: str | int | None = None,
    shm_size: str | int | None = None,
    workspace: Workspace | None = None,
    idle_timeout: float | None = None,
    snapshot: str | None = None,
    engine: str | None = None,
    socket_path: str | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Container:
    """Make a container and return it when it answers and its limits have been seen to hold.

    It ends with `Container.shutdown`, with the event loop, and with this process at the latest, unless
    it is to persist. A loop that is closed before its tasks are cancelled (`asyncio.run` cancels them) leaves
    it until the process ends.

    Args:
        image: an image reference, or the name of a profile.
        name: the container's name on the engine, which nobody else has; ``pd-`` and eight digits if left out.
        timeout: seconds that a run in it may take unless it says otherwise; ``math.inf`` for any.
        mem_limit: memory, as ``"256m"`` or in bytes; swap is not available on top.
        cpu_percent: CPU time, of which 100 is one core.
        persist: it outlives this process: it is stopped where others end, and ended by `destroy_container`.
        volumes: directories or files of the host and where they are in the container: ``{"data":
            "/mnt:ro"}``. They have to be below the project or the current directory, unless
            ``POCKET_DOCK_HOST_ROOTS`` names others. To write there `user` has to be who may.
        project: a name to list it by.
        profile: the name of a profile, and of nothing else; `list_profiles` has them.
        devices: of the host: ``"/dev/ttyUSB0"``, or ``"/dev/x:/dev/y:rw"``.
        ports: ports of the host and which of the container they lead to, also without a network; 0 is a free
            one. They are served by this process, to this machine only; see `Container.open_port`. As
            `PortMapping` values there may be several free ones, and other addresses.
        env: variables that everything in it has.
        workdir: where its runs begin, made if it is not there; the home directory if left out.
        network: what it reaches: ``"none"`` (or False), ``"packages"`` (the package registries that this
            machine uses), domains such as ``["example.com", "*.example.org", "localhost:8000"]``, or
            ``"open"`` (or True), the engine's own network. The profile's default if left out, and none for
            any other image.
        user: the uid of everything that runs in it; a random one if left out, which is safer.
        labels: on the container, for other tools.
        pids_limit: processes and threads at once.
        disk_limit: what it may write, as ``"2g"`` or in bytes.
        shm_size: of ``/dev/shm``.
        workspace: ``"memory"`` for a home directory that is never on a disk.
        idle_timeout: seconds without a call after which it is ended, or stopped if it persists.
        snapshot: the id of a snapshot (``snap-...``) to begin with, in place of an image.
        engine: ``podman``, ``docker`` or an address; the environment's, or the first one found, if left out.
        socket_path: the same, as the path of a socket.
        on_progress: gets lines about what takes long, such as building an image; must return at once.

    Raises:
        InvalidArgumentError: an argument that can never work; says what may be.
        ContainerNameTaken: another container has the name.
        HostPathError: a volume or device is not there, or is not to be given to a container.
        PortError: a port of the host cannot be had.
        ImageNotFound, ImageError: the image cannot be had.
        PodmanNotRunning: no engine answers.
        EngineError: the engine failed.
        LimitsNotEnforcedError: the engine does not apply a limit.
    """
    return cast(
        "Container",
        mirrored(
            call(
                _create_new_container,
                image=image,
                name=name,
                timeout=timeout,
                mem_limit=mem_limit,
                cpu_percent=cpu_percent,
                persist=persist,
                volumes=volumes,
                project=project,
                profile=profile,
                devices=devices,
                ports=ports,
                env=env,
                workdir=workdir,
                network=network,
                user=user,
                labels=labels,
                pids_limit=pids_limit,
                disk_limit=disk_limit,
                shm_size=shm_size,
                workspace=workspace,
                idle_timeout=idle_timeout,
                snapshot=snapshot,
                engine=engine,
                socket_path=socket_path,
                on_progress=aside(on_progress),
            )
        ),
    )
