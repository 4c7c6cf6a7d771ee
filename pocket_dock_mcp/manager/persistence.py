"""Sandboxes that outlive this process: put on record, found again, stopped, started again and pruned."""

from __future__ import annotations

import collections
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.container.taking_up import NobodyListensError, find_kept, runs_on
from pocket_dock_mcp.engine.base import ContainerState, Engine
from pocket_dock_mcp.errors import (
    ContainerGoneError,
    QuotaError,
    SandboxLostError,
    SandboxNotFoundError,
    SandboxPausedError,
    SandboxStateError,
)
from pocket_dock_mcp.manager.access import EngineAccess
from pocket_dock_mcp.manager.making import launch_of
from pocket_dock_mcp.manager.records import Claim, Kept
from pocket_dock_mcp.manager.sandbox import Sandbox
from pocket_dock_mcp.manager.sweep import NONCE_LABEL
from pocket_dock_mcp.settings import Settings

logger = logging.getLogger(__name__)


Status = Literal["running", "stopped", "paused", "gone"]


@dataclass(frozen=True, slots=True)
class KeptSandbox:
    """A sandbox on record and how it fares."""

    kept: Kept
    status: Status
    busy: bool
    """Whether some process is using it."""
    container_id: str = ""
    """The engine's; empty where its container is gone."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A kept sandbox that this process holds now."""

    claim: Claim
    container: LiveContainer


class SandboxKeeper:
    """All kept sandboxes of this account, on the engine that is in use."""

    def __init__(self, settings: Settings, access: EngineAccess) -> None:
        self._settings = settings
        self._access = access
        self._records = access.kept
        self._coming: collections.Counter[str] = collections.Counter()

    # -- records ----------------------------------------------------------------------------------

    @contextmanager
    def reserved_for(self, principal: str, engine: Engine) -> Iterator[None]:
        """Hold a place among what a principal may keep. Nothing is awaited between the look and the taking.

        Raises:
            QuotaError: there are as many as allowed.
        """
        count = len(self._records.of(principal, engine.info.identity)) + self._coming[principal]
        if count >= self._settings.max_persistent:
            raise self._full(count)
        self._coming[principal] += 1
        try:
            yield
        finally:
            self._coming[principal] -= 1

    async def keep(self, sandbox: Sandbox) -> Claim:
        """Put a sandbox on record, and then have its container outlive us.

        In this order: were we killed in between, it stops with us, and is found on record.
        """
        engine = (await self._access.ready()).engine
        launched = sandbox.container.launched
        claim = self._records.add(
            Kept(
                id=sandbox.id,
                principal=sandbox.owner.principal,
                engine=engine.info.identity,
                container=launched.name,
                nonce=launched.labels[NONCE_LABEL],
                image_id=launched.image,
                uid=sandbox.container.uid,
                request=sandbox.request,
                created=sandbox.created,
            )
        )
        try:
            self._require_place(claim.kept)
            await sandbox.container.outlive()
        except BaseException:
            claim.remove()
            raise
        return claim

    def _require_place(self, kept: Kept) -> None:
        """Look once more, now that it is on record: other processes count as well. Who came first stays."""
        all_kept = self._records.of(kept.principal, kept.engine)
        older = [one for one in all_kept if (one.created, one.id) < (kept.created, kept.id)]
        if len(older) >= self._settings.max_persistent:
            raise self._full(len(older))

    def _full(self, count: int) -> QuotaError:
        return QuotaError(
            f"You keep {count} sandbox{'' if count == 1 else 'es'}, as many as allowed.",
            hint="Kill one that you do not need any more, or raise POCKET_DOCK_MAX_PERSISTENT.",
        )

    async def records(self, principal: str) -> list[Kept]:
        """Return a principal's records on this engine, oldest first; no engine is asked if there are none."""
        if self._records.empty():
            return []
        engine = (await self._access.ready()).engine
        return self._records.of(principal, engine.info.identity)

    async def list(self, principal: str) -> list[KeptSandbox]:
        """Return a principal's kept sandboxes and how they fare."""
        found = await self.records(principal)
        if not found:
            return []
        engine = (await self._access.ready()).engine
        return [await self._described(engine, kept) for kept in found]

    async def _described(self, engine: Engine, kept: Kept) -> KeptSandbox:
        try:
            state = await find_kept(engine, self._launch(kept))
        except (ContainerGoneError, SandboxStateError):
            return KeptSandbox(kept, "gone", busy=False)
        status: Status = "stopped"
        if state.status in ("running", "paused"):
            status = "paused" if state.status == "paused" else "running"
        return KeptSandbox(kept, status, busy=self._records.is_held(kept.id), container_id=state.id)

    # -- reaching ---------------------------------------------------------------------------------

    async def reach(self, principal: str, sandbox_id: str, store: OutputStore) -> Reached:
        """Hold a kept sandbox: join it where it runs, start it again where it does not.

        Raises:
            SandboxNotFoundError: there is none of that id, or it is somebody else's.
            SandboxBusyError: another process holds it.
            SandboxLostError: its container is not there any more, and it is off the record now.
            EngineError: the engine failed; the record stays.
        """
        engine, claim = await self._claim(principal, sandbox_id)
        try:
            return await self._join(engine, claim, store)
        except BaseException as error:
            self._access.note(error)
            claim.release()
            raise

    async def stop(self, principal: str, sandbox_id: str) -> None:
        """Stop a kept sandbox that this process does not hold; nothing happens to one that does not run.

        Raises: what `reach` raises.
        """
        engine, claim = await self._claim(principal, sandbox_id)
        try:
            state = await find_kept(engine, self._launch(claim.kept))
            _require_not_paused(engine, state)
            if state.status == "running":
                await engine.stop(state.id)
        except ContainerGoneError:
            raise self._gone(claim) from None
        except BaseException as error:
            self._access.note(error)
            raise
        finally:
            claim.release()

    async def _claim(self, principal: str, sandbox_id: str) -> tuple[Engine, Claim]:
        if self._records.empty():
            raise SandboxNotFoundError
        engine = (await self._access.ready()).engine
        found = self._records.find(principal, engine.info.identity, sandbox_id)
        claim = None if found is None else self._records.claim(sandbox_id)
        if claim is None:
            raise SandboxNotFoundError
        return engine, claim

    def _gone(self, claim: Claim) -> SandboxLostError:
        claim.remove()
        return SandboxLostError("This sandbox has ended: its container was removed from outside.")

    async def _join(self, engine: Engine, claim: Claim, store: OutputStore) -> Reached:
        try:
            try:
                return await self._join_now(engine, claim, store)
            except SandboxStateError:
                # It has stopped between the look and the joining.
                return await self._join_now(engine, claim, store)
        except ContainerGoneError:
            raise self._gone(claim) from None

    async def _join_now(self, engine: Engine, claim: Claim, store: OutputStore) -> Reached:
        launch = self._launch(claim.kept)
        state = await find_kept(engine, launch)
        _require_not_paused(engine, state)
        if state.status == "running" and runs_on(state):
            try:
                return Reached(claim, await LiveContainer.reattach(engine, launch, store))
            except NobodyListensError as error:
                logger.warning("%s was restarted from outside, and is started again: %s", launch.name, error)
        if state.status == "running":
            # Nobody can join it: it has no agent, or one that does not know whom it serves.
            await engine.stop(state.id)
        return Reached(claim, await LiveContainer.resume(engine, launch, store))

    def _launch(self, kept: Kept) -> Launch:
        launch = launch_of(kept.request, self._settings, kept.image_id, kept.uid)
        return replace(launch, name=kept.container, labels={**launch.labels, NONCE_LABEL: kept.nonce})

    # -- removing ---------------------------------------------------------------------------------

    async def destroy(self, principal: str, sandbox_id: str) -> Kept:
        """End a kept sandbox that this process does not hold, with its files.

        Raises: what `reach` raises, but for a container that is gone: that is what is wanted.
        """
        engine, claim = await self._claim(principal, sandbox_id)
        try:
            try:
                await engine.remove((await find_kept(engine, self._launch(claim.kept))).id)
            except ContainerGoneError:
                pass
            # Last: what dies in between is found on record, and its container gone.
            claim.remove()
        finally:
            claim.release()
        return claim.kept


def _require_not_paused(engine: Engine, state: ContainerState) -> None:
    if state.status == "paused":
        message = "Somebody has paused the container of this sandbox."
        raise SandboxPausedError(message, hint=f"Have it go on: {engine.info.kind} unpause {state.name}")
