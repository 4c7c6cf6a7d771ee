"""Containers of the manager: noted in the journal before they are made, so that none can be left behind."""

from __future__ import annotations

import secrets
from dataclasses import replace

from pocket_dock_mcp.container.host_paths import HostAccess
from pocket_dock_mcp.container.launch import Launch, launch
from pocket_dock_mcp.container.stock import Ready
from pocket_dock_mcp.errors import (
    EngineConflictError,
    HostPathError,
    ImageNotFoundError,
    LimitsNotEnforcedError,
    ProgramNotFoundError,
    ProvisionError,
    SandboxLostError,
)
from pocket_dock_mcp.manager.access import EngineAccess
from pocket_dock_mcp.manager.mending import Mender
from pocket_dock_mcp.manager.sandbox import SandboxRequest
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NONCE_LABEL
from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.settings import Settings

_ANSWERED = (
    HostPathError,
    ProvisionError,
    ImageNotFoundError,
    EngineConflictError,
    LimitsNotEnforcedError,
    ProgramNotFoundError,
    SandboxLostError,
)
"""Failures of a launch after which the engine is not at it any more."""


class Maker:
    """Launches containers for a manager, and hears when they are gone."""

    def __init__(self, access: EngineAccess, mender: Mender) -> None:
        self._access = access
        self._mender = mender

    async def make(self, wanted: Launch) -> Ready:
        """Launch a container under a name and labels that the journal has; see `launch` for its errors."""
        access = await self._access.ready()
        engine, journal = access.engine, access.journal
        intent = journal.intend("container", f"pocket-dock-{secrets.token_hex(8)}")
        labels = {INSTANCE_LABEL: journal.instance, NONCE_LABEL: intent.nonce}
        wanted = replace(wanted, name=intent.name, labels=labels)
        try:
            running = await launch(engine, wanted)
        except BaseException as error:
            self._access.note(error)
            if isinstance(error, _ANSWERED):
                journal.made(intent.name)
            # Launching cleans up after itself; whether nothing is left, or still coming, has to be seen.
            self._mender.owe(intent.name)
            raise
        journal.made(intent.name)
        return Ready(engine, wanted, running)

    def over(self, name: str, is_removed: bool) -> None:
        """A container was ended; it is off the journal if the engine has confirmed that it is gone."""
        if not is_removed:
            self._mender.owe(name)
        elif self._access.journal is not None:
            self._access.journal.settled(name)


def launch_of(request: SandboxRequest, settings: Settings, image: str, uid: int | None) -> Launch:
    """Return what a request means for its container; name and labels are its maker's."""
    return Launch(
        name="",
        image=image,
        labels={},
        limits=request.limits,
        network=request.network,
        env=request.env,
        uid=uid,
        enforce=settings.limits,
        warm_python=settings.warm_python,
        min_free_bytes=settings.min_free_mb * MIB,
        workspace=request.workspace or "disk",
        keep=request.persist,
        detached_ttl_s=request.idle_ttl_s if request.persist else None,
        volumes=request.volumes,
        devices=request.devices,
        host=HostAccess(settings.host_roots or (), (settings.state_dir,)),
    )
