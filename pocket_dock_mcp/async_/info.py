"""What the SDK tells of containers: values, with sizes as people read them and as numbers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pocket_dock_mcp.async_.sizes import size_text
from pocket_dock_mcp.models import ContainerInfo as LiveInfo
from pocket_dock_mcp.models import Limits, Network
from pocket_dock_mcp.outside import Device, PortMapping, Volume
from pocket_dock_mcp.readings import Readings

Status = Literal["running", "stopped", "paused", "gone"]


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container and what it uses now."""

    id: str
    """The engine's id of it."""
    name: str
    status: Status
    image: str
    """What it began with, as it was asked for: a profile, an image reference, or a snapshot's id."""
    created_at: dt.datetime
    """In UTC, as all times here."""
    started_at: dt.datetime | None = None
    """When what runs in it began, the last time that it was started or rebooted."""
    uptime: dt.timedelta | None = None
    memory_usage: str = ""
    """Such as ``"42.1 MB"``; a MB is 1024 KB. Empty where it cannot be read."""
    memory_limit: str = ""
    memory_percent: float = 0.0
    cpu_percent: float = 0.0
    """Of one core, since it was last asked for, or since the container began: 100 is one core."""
    pids: int = 0
    """Processes and threads, our own in it among them."""
    network: bool = False
    """Whether it reaches anything but itself."""
    ip_address: str = ""
    """Empty without a network, and where the engine gives it none of its own."""
    ports: Mapping[int, int] = field(default_factory=dict)
    """Ports of the host that lead into it, and where to."""
    processes: tuple[Mapping[str, str], ...] = ()
    """What its programs are: ``pid``, ``user``, ``command`` and more, as text."""
    memory_usage_bytes: int | None = None
    memory_limit_bytes: int = 0
    memory_peak_bytes: int | None = None
    disk_limit_bytes: int = 0
    sandbox_id: str = ""
    """Ours, the same for its whole life; empty for a pool's."""
    persist: bool = False
    project: str = ""
    engine: str = ""
    """``podman`` or ``docker``, and its version."""
    uid: int = 0
    """The user id of everything that runs in it."""
    home: str = ""
    python: str | None = None
    """Version of its python3."""
    limits: Limits = field(default_factory=Limits)
    unenforced: tuple[str, ...] = ()
    """Limits that the engine does not apply; empty unless best-effort is allowed."""
    reach: Network = "none"
    """What it reaches, as it was asked for: a word, or domains."""
    port_mappings: tuple[PortMapping, ...] = ()
    """As `ports`, with the addresses of the host that are listened on."""
    volumes: tuple[Volume, ...] = ()
    devices: tuple[Device, ...] = ()
    live: Readings = field(default_factory=Readings)
    """All counters that were read."""


@dataclass(frozen=True, slots=True)
class ContainerListItem:
    """A container, in a list of them."""

    id: str
    """The engine's id of it, its first 12 digits; empty where the container is gone."""
    name: str
    status: Status
    image: str
    created_at: str
    """ISO 8601, in UTC; empty where it is not known."""
    persist: bool
    project: str = ""
    sandbox_id: str = ""
    """Ours; empty for one of another process."""
    title: str = ""
    """What its maker calls it, where that is not its name: an MCP client's."""
    busy: bool = False
    """Whether another process is using it."""
    held_elsewhere: bool = False
    """Whether it belongs to another process alone, and ends with that one."""
    network: Network = "none"
    memory_limit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What is out of order with containers and instance directories."""

    orphaned_containers: tuple[str, ...]
    """Names of containers that dead processes have left."""
    stale_instance_dirs: tuple[str, ...]
    """Instance directories of the project that no container has any more."""
    healthy: int
    """How many kept containers are in order."""


def described(
    live: LiveInfo,
    *,
    image: str,
    container_id: str,
    created: float,
    sandbox_id: str = "",
    persist: bool = False,
    project: str = "",
    engine: str = "",
    processes: tuple[Mapping[str, str], ...] = (),
) -> ContainerInfo:
    """Return what is known of a container that runs."""
    now, numbers = dt.datetime.now(dt.timezone.utc), live.live
    uptime = None if numbers.uptime_s is None else dt.timedelta(seconds=numbers.uptime_s)
    used, most = live.memory_bytes, live.limits.memory_bytes
    addresses = [one.address for one in numbers.interfaces if one.address]
    return ContainerInfo(
        id=container_id,
        name=live.name,
        status="running",
        image=image,
        created_at=moment(created),
        started_at=None if uptime is None else now - uptime,
        uptime=uptime,
        memory_usage="" if used is None else size_text(used),
        memory_limit=size_text(most),
        memory_percent=0.0 if used is None else round(100 * used / most, 2),
        cpu_percent=round(100 * (numbers.cpu_share or 0.0), 2),
        pids=numbers.pids or live.processes or 0,
        network=live.network != "none",
        reach=live.network,
        ip_address=addresses[0] if addresses else "",
        ports={mapping.host_port: mapping.port for mapping in live.ports},
        processes=processes,
        memory_usage_bytes=used,
        memory_limit_bytes=most,
        memory_peak_bytes=numbers.memory_peak_bytes,
        disk_limit_bytes=live.limits.disk_bytes,
        sandbox_id=sandbox_id,
        persist=persist,
        project=project,
        engine=engine,
        uid=live.uid,
        home=live.home,
        python=live.python,
        limits=live.limits,
        unenforced=live.unenforced,
        port_mappings=live.ports,
        volumes=live.volumes,
        devices=live.devices,
        live=numbers,
    )


def moment(seconds: float) -> dt.datetime:
    """Return a moment as a date and time in UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc)
