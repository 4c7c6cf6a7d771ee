"""Volumes and devices of a container: allowed before it starts, and found there before it is handed out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import anyio

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.transport import DeviceFound, MountFound, Transport
from pocket_dock_mcp.container.host_devices import Number, admitted_device
from pocket_dock_mcp.container.host_paths import HostAccess, Identity, admitted
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import EngineError, FileDeniedError, ProvisionError
from pocket_dock_mcp.models import ContainerSpec
from pocket_dock_mcp.outside import Device, Volume

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STORAGES: dict[str, Path] = {}
"""Where engines have their files, by identity: to ask takes some of them a second."""


class Wanted(Protocol):
    """What of a `Launch` matters here."""

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """What it is to see of the host's files."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """And of its devices."""

    @property
    def host(self) -> HostAccess:
        """What may be given."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What was allowed, as it was then."""

    volumes: Mapping[Volume, Identity] = field(default_factory=dict)
    devices: Mapping[Device, Number] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.volumes or self.devices)


async def admit(engine: Engine, wanted: Wanted) -> Admitted:
    """See what a container that is about to start may be given.

    Raises:
        HostPathError: something of it may not be, or is not there.
    """
    if not wanted.volumes and not wanted.devices:
        return Admitted()
    private = await _private(engine)
    access = replace(wanted.host, private=(*wanted.host.private, *private))
    return await anyio.to_thread.run_sync(_admit, wanted, access)


def _admit(wanted: Wanted, access: HostAccess) -> Admitted:
    return Admitted(
        {volume: admitted(volume.source, access) for volume in wanted.volumes},
        {device: admitted_device(device.source) for device in wanted.devices},
    )


async def with_provisions(engine: Engine, wanted: Wanted, spec: ContainerSpec) -> ContainerSpec:
    """Return a container with what it is to be given. Raises what `admit` raises."""
    await admit(engine, wanted)
    return replace(spec, volumes=wanted.volumes, devices=wanted.devices)


async def _private(engine: Engine) -> list[Path]:
    """Return where the engine is spoken to, and has its files."""
    socket = engine.info.url.removeprefix("unix://")
    found = [Path(socket)] if socket != engine.info.url else []
    if engine.info.identity not in _STORAGES:
        try:
            storage = (await engine.details()).storage_dir
        except EngineError:
            # It tells of its other troubles when the container is created.
            storage = ""
        _STORAGES[engine.info.identity] = Path(storage or "/var/lib/containers")
    return [*found, _STORAGES[engine.info.identity]]


async def verify(transport: Transport, given: Admitted) -> None:
    """See that all is there inside, and is what was allowed.

    Raises:
        ProvisionError: something is not.
    """
    if not given:
        return
    volumes = {volume.target: volume for volume in given.volumes}
    devices = {device.target: device for device in given.devices}
    found = await transport.provide(list(volumes), list(devices))
    is_local = found.boot is not None and found.boot == await anyio.to_thread.run_sync(_boot_id)
    for target, volume in volumes.items():
        _require_volume(volume, found.volumes.get(target), given.volumes[volume] if is_local else None)
    for target, device in devices.items():
        _require_device(device, found.devices.get(target), given.devices[device] if is_local else None)


@asynccontextmanager
async def explained(reaching: AbstractAsyncContextManager[None], wanted: Wanted) -> AsyncIterator[None]:
    """Say of a file that is denied in a volume whose permissions those are."""
    try:
        async with reaching:
            yield
    except FileDeniedError as error:
        for volume in wanted.volumes:
            inside = volume.target.removeprefix(f"{policy.HOME}/")
            if error.message.startswith((f"'{volume.target}", f"'{inside}")) and not volume.read_only:
                error.hint = (
                    f"It is in a volume: {volume.source} of the host. Have the sandbox run as its owner "
                    "(user=), or let everybody in there on the host."
                )
        raise


def _require_volume(volume: Volume, there: MountFound | None, meant: Identity | None) -> None:
    if there is None:
        message = (
            f"The engine was to mount {volume.source!r} at {volume.target!r}, and nothing is mounted there."
        )
        raise ProvisionError(message, hint="See that no part of the path inside is a symbolic link.")
    if meant is not None and (there.device, there.inode) != (meant.device, meant.inode):
        message = f"What is mounted at {volume.target!r} is not {volume.source!r}."
        raise ProvisionError(
            message, hint="The engine sees other files than we do; or it was replaced in just that moment."
        )
    if volume.read_only and not there.read_only:
        message = f"The engine was to mount {volume.target!r} read-only, and it can be written to."
        raise ProvisionError(message, hint="Give the sandbox a copy instead.")


def _require_device(device: Device, there: DeviceFound | None, meant: Number | None) -> None:
    if there is None:
        message = f"The engine was to give {device.source!r} as {device.target!r}, and there is no device."
        raise ProvisionError(message, hint="A rootless engine cannot give every device.")
    if meant is not None and there.number != meant:
        message = f"What is at {device.target!r} is not {device.source!r}."
        raise ProvisionError(message, hint="Use another place inside.")
    if ("r" in device.access and not there.readable) or ("w" in device.access and not there.writable):
        message = f"The sandbox's user may not use {device.target!r}: its permissions forbid it."
        hint = f"Let everybody use it on the host ({device.source}), or use an engine that runs as root."
        raise ProvisionError(message, hint=hint)


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # This is no Linux, so the engine is in a machine of its own.
        return None
