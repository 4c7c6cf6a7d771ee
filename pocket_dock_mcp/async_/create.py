"""`create_new_container`: from what its user says to a container that runs."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import anyio

from pocket_dock_mcp.async_.checks import check_choice, check_kinds, is_number, is_whole
from pocket_dock_mcp.async_.commands import checked_timeout
from pocket_dock_mcp.async_.container import DEFAULT_TIMEOUT_S, AsyncContainer
from pocket_dock_mcp.async_.holds import Managed
from pocket_dock_mcp.async_.host import FOREVER_S, Host, host_for
from pocket_dock_mcp.async_.names import new_name
from pocket_dock_mcp.async_.sizes import size_of
from pocket_dock_mcp.container.arguments import checked_path
from pocket_dock_mcp.container.asked import devices_of, ports_of, volumes_of
from pocket_dock_mcp.errors import FileError, InvalidArgumentError
from pocket_dock_mcp.gate.rules import parse_network
from pocket_dock_mcp.images.profiles import default_network, resolve_profile
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Sandbox, SandboxRequest
from pocket_dock_mcp.models import MIB, Limits, Network, Workspace
from pocket_dock_mcp.outside import PortMapping
from pocket_dock_mcp.policy import MIN_DISK_BYTES, MIN_MEMORY_BYTES, MIN_PIDS
from pocket_dock_mcp.projects import apply_log_level, project_defaults
from pocket_dock_mcp.settings import Settings

logger = logging.getLogger(__name__)

MIN_CPU_PERCENT, MAX_CPU_PERCENT = 5.0, 102_400.0
MAX_PIDS = 4096
MIN_SHM_BYTES = 64 * 1024

_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("image", "name", "project", "profile", "workdir", "snapshot", "engine"), (str,)),
    **dict.fromkeys(("volumes", "env", "labels"), (Mapping,)),
    "ports": (Mapping, list, tuple),
    "devices": (list, tuple),
    "user": (int,),
    "persist": (bool,),
}


async def create_new_container(
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
) -> AsyncContainer:
    """Make a container and return it when it answers and its limits have been seen to hold.

    It ends with `AsyncContainer.shutdown`, with the event loop, and with this process at the latest, unless
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
            one. They are served by this process, to this machine only; see `AsyncContainer.open_port`. As
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
    # First of all, when nothing else has a name here.
    check_kinds(locals(), _KINDS)
    check_choice("workspace", workspace, get_args(Workspace))
    checked_timeout(timeout)
    host = host_for(engine, socket_path)
    said = project_defaults()
    apply_log_level(said)
    base = base_of(said.profile or host.settings.profile, image, profile, snapshot)
    is_projects = said.root is not None and project in (None, said.project)
    mounts = volumes_of(volumes or {})
    request = SandboxRequest(
        image=base,
        snapshot=snapshot,
        limits=limits_of(
            host.settings,
            said.memory_bytes if mem_limit is None else mem_limit,
            said.cpu_percent if cpu_percent is None else cpu_percent,
            pids_limit,
            disk_limit,
            shm_size,
        ),
        network=network_of(
            said.network if network is None else network, base, is_snapshot=snapshot is not None
        ),
        env={**said.env, **(env or {})},
        idle_ttl_s=_idle(said.idle_timeout if idle_timeout is None else idle_timeout),
        max_lifetime_s=FOREVER_S,
        name=name or "",
        workspace=workspace,
        persist=said.persist if persist is None else persist,
        container_name=name if name is not None else new_name(),
        user=user,
        labels=dict(labels or {}),
        project=(said.project or "") if project is None else project,
        project_root=str(said.root) if is_projects else "",
        workdir=_workdir(workdir),
        ports=ports_of(ports or {}),
        volumes=mounts,
        host_roots=(str(said.root or Path.cwd().resolve()),) if mounts else (),
        devices=devices_of(devices or ()),
    )
    if name == "":
        message = "The name is empty."
        raise InvalidArgumentError(message, hint="Leave it out to have one made up.")
    return await create_in(host, request, timeout=timeout, on_progress=on_progress)


async def create_in(
    host: Host,
    request: SandboxRequest,
    *,
    timeout: float = DEFAULT_TIMEOUT_S,
    on_progress: Callable[[str], None] | None = None,
) -> AsyncContainer:
    """Make a container of a host; see `create_new_container` for what it raises."""

    async def make(manager: Manager) -> Sandbox:
        sandbox = await manager.create(host.owner, request, on_progress or logger.info)
        try:
            await _make_workdir(sandbox, request.workdir)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await end(manager, sandbox)
            raise
        return sandbox

    async def end(manager: Manager, sandbox: Sandbox) -> None:
        await manager.kill(host.owner, sandbox.id)

    return AsyncContainer(Managed(host, await host.do(make, end)), timeout=timeout)


async def _make_workdir(sandbox: Sandbox, workdir: str) -> None:
    if not workdir:
        return
    with sandbox.use() as live:
        made = await live.run(f"mkdir -p -- {shlex.quote(workdir)} && cd -- {shlex.quote(workdir)}")
    if not made.ok:
        said = made.stderr.strip()[-200:]
        message = f"The working directory {workdir!r} cannot be made or entered: {said}"
        raise FileError(message, hint="Use one below the home directory, or one that the image has.")


def base_of(default: str, image: str | None, profile: str | None, snapshot: str | None = None) -> str:
    """Return the profile or image that is meant; `default` may be either. Raises `InvalidArgumentError`."""
    given = [what for what in (image, profile, snapshot) if what is not None]
    if len(given) > 1:
        message = "Only one of image, profile and snapshot can be given."
        raise InvalidArgumentError(message, hint="Each says what the container begins with.")
    if snapshot is not None:
        return default
    if given == [""]:
        message = "The name of the image or profile is empty."
        raise InvalidArgumentError(message, hint="Leave it out for the default.")
    if profile is not None:
        return resolve_profile(profile).name
    return default if image is None else image


def limits_of(
    settings: Settings,
    mem_limit: str | int | None,
    cpu_percent: float | None,
    pids_limit: int | None,
    disk_limit: str | int | None,
    shm_size: str | int | None,
) -> Limits:
    """Return limits, the environment's where none is given. Raises `InvalidArgumentError`."""
    limits = Limits()
    memory = settings.memory_mb * MIB if mem_limit is None else size_of("mem_limit", mem_limit)
    _require_least("mem_limit", memory, MIN_MEMORY_BYTES, "32m")
    disk = settings.disk_mb * MIB if disk_limit is None else size_of("disk_limit", disk_limit)
    _require_least("disk_limit", disk, MIN_DISK_BYTES, "16m")
    shm = limits.shm_bytes if shm_size is None else size_of("shm_size", shm_size)
    _require_least("shm_size", shm, MIN_SHM_BYTES, "64k")
    if shm > memory:
        message = f"shm_size is {shm} bytes, and the whole container has {memory}."
        raise InvalidArgumentError(message, hint="It counts as memory: raise mem_limit, or lower shm_size.")
    return Limits(
        memory_bytes=memory,
        cpus=settings.cpus if cpu_percent is None else _cpus(cpu_percent),
        pids=settings.pids if pids_limit is None else _pids(pids_limit),
        shm_bytes=shm,
        disk_bytes=disk,
        file_bytes=max(disk, MIB),
    )


def _require_least(what: str, value: int, least: int, text: str) -> None:
    if value < least:
        message = f"{what} is {value} bytes; it must be at least {text}."
        raise InvalidArgumentError(message)


def _cpus(percent: float) -> float:
    if not is_number(percent) or not MIN_CPU_PERCENT <= percent <= MAX_CPU_PERCENT:
        message = f"cpu_percent is {percent!r}; it must be from {MIN_CPU_PERCENT:g} to {MAX_CPU_PERCENT:g}."
        raise InvalidArgumentError(message, hint="100 is one core, 50 half of one.")
    return percent / 100


def _pids(count: int) -> int:
    if not is_whole(count) or not MIN_PIDS <= count <= MAX_PIDS:
        message = f"pids_limit is {count!r}; it must be from {MIN_PIDS} to {MAX_PIDS}."
        raise InvalidArgumentError(message)
    return count


def network_of(wanted: bool | str | Sequence[str] | None, base: str, *, is_snapshot: bool) -> Network:
    """Return what is to be reached. Raises `InvalidArgumentError`."""
    if wanted is None:
        return "none" if is_snapshot else default_network(base)
    return parse_network(wanted)


def _idle(seconds: float | None) -> float:
    if seconds is None or seconds == float("inf"):
        return FOREVER_S
    if not is_number(seconds) or not 1 <= seconds <= FOREVER_S:
        message = f"idle_timeout is {seconds!r}; it must be from 1 to {FOREVER_S:g} seconds."
        raise InvalidArgumentError(message, hint="Leave it out for no limit.")
    return float(seconds)


def _workdir(workdir: str | None) -> str:
    return "" if workdir is None else checked_path(workdir)
