"""Containers of the manager: noted in the journal before they are made, so that none can be left behind."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from pocket_dock_mcp.container.host_paths import HostAccess
from pocket_dock_mcp.container.launch import Attempt, Launch, launch
from pocket_dock_mcp.container.outfit import Gates, Opened
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
from pocket_dock_mcp.manager.access import Access, EngineAccess
from pocket_dock_mcp.manager.journal import Intent
from pocket_dock_mcp.manager.mending import Mender
from pocket_dock_mcp.manager.naming import require_free, require_unused, taken
from pocket_dock_mcp.manager.places import Turns
from pocket_dock_mcp.manager.sandbox import SandboxRequest
from pocket_dock_mcp.manager.sweep import IMAGE_LABEL, INSTANCE_LABEL, NONCE_LABEL, PROJECT_LABEL
from pocket_dock_mcp.models import MIB, Network
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

    def __init__(self, access: EngineAccess, mender: Mender, most_at_once: int) -> None:
        self._access = access
        self._mender = mender
        self._turns = Turns(most_at_once)

    async def make(self, wanted: Launch) -> Ready:
        """Launch a container under a name and labels that the journal has.

        Raises:
            CapacityError: as many are being made as may be at once.
            And what `launch` raises.
        """
        async with self._turns.one():
            return await self._make(wanted)

    async def _make(self, wanted: Launch) -> Ready:
        access = await self._access.ready()
        engine, journal = access.engine, access.journal
        intent = await self._intend(access, wanted.name)
        labels = {**wanted.labels, INSTANCE_LABEL: journal.instance, NONCE_LABEL: intent.nonce}
        wanted = replace(wanted, name=intent.name, labels=labels)
        attempt = Attempt()
        try:
            running = await launch(engine, wanted, attempt)
        except BaseException as error:
            self._access.note(error)
            if isinstance(error, _ANSWERED) or not attempt.is_pending:
                journal.made(intent.name)
            # Launching cleans up after itself; whether nothing is left, or still coming, has to be seen.
            self._mender.owe(intent.name)
            if isinstance(error, EngineConflictError):
                raise taken(intent.name) from error
            raise
        journal.made(intent.name)
        return Ready(engine, wanted, running)

    async def _intend(self, access: Access, name: str) -> Intent:
        """Note a container before it is made: one of a name that its owner has chosen, or of one of ours."""
        journal = access.journal
        if not name:
            return journal.intend("container", f"pocket-dock-{secrets.token_hex(8)}")
        if self._mender.is_owed(name):
            # Of one that failed a moment ago.
            await self._mender.settle()
        require_unused(journal, name)
        intent = journal.intend("container", name)
        try:
            await require_free(access.engine, name)
        except BaseException as error:
            # Nothing was asked for yet.
            journal.settled(name)
            self._access.note(error)
            raise
        return intent

    def over(self, name: str, is_removed: bool) -> None:
        """A container was ended; it is off the journal if the engine has confirmed that it is gone."""
        if not is_removed:
            self._mender.owe(name)
        elif self._access.journal is not None:
            self._access.journal.settled(name)


def launch_of(request: SandboxRequest, settings: Settings, image: str, uid: int | None) -> Launch:
    """Return what a request means for its container; its maker adds labels, and a name if there is none."""
    said = {PROJECT_LABEL: request.project} if request.project else {}
    if request.container_name:
        said[IMAGE_LABEL] = request.snapshot or request.image
    return Launch(
        name=request.container_name,
        image=image,
        labels={**request.labels, **said},
        limits=request.limits,
        network=request.network,
        env=request.env,
        uid=uid if request.user is None else request.user,
        enforce=settings.limits,
        confinement=settings.confinement,
        warm_python=settings.warm_python,
        min_free_bytes=settings.min_free_mb * MIB,
        workspace=request.workspace or "disk",
        keep=request.persist,
        detached_ttl_s=request.idle_ttl_s if request.persist else None,
        volumes=request.volumes,
        devices=request.devices,
        gates=gates_of(settings),
        host=_access(request, settings),
    )


def gates_of(settings: Settings) -> Gates:
    """Return what makes gates."""

    def make(network: Network) -> Opened:
        # What it imports takes its time, and few sandboxes have such a network.
        from pocket_dock_mcp.gate.opening import gates

        return gates(settings)(network)

    return make


def _access(request: SandboxRequest, settings: Settings) -> HostAccess:
    said = settings.host_roots
    return HostAccess(tuple(map(Path, request.host_roots)) if said is None else said, (settings.state_dir,))
