"""Sandboxes that outlive this process: put on record, found again, stopped, started again and pruned."""

from __future__ import annotations

import collections
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import anyio

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.container.taking_up import NobodyListensError, find_kept, runs_on
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    ContainerGoneError,
    QuotaError,
    SandboxBusyError,
    SandboxLostError,
    SandboxNotFoundError,
    SandboxStateError,
)
from pocket_dock_mcp.manager.access import EngineAccess
from pocket_dock_mcp.manager.making import launch_of
from pocket_dock_mcp.manager.records import Claim, Kept
from pocket_dock_mcp.manager.sandbox import Sandbox
from pocket_dock_mcp.manager.sharing import PAUSE, START_PATIENCE, Patience, Sharing, require_not_paused
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
    """A kept sandbox that this process can use now."""

    claim: Claim | None
    """The hold on its record; None where another process has it, and this one visits."""
    kept: Kept
    container: LiveContainer


class SandboxKeeper:
    """All kept sandboxes of this account, on the engine that is in use."""

    def __init__(self, settings: Settings, access: EngineAccess) -> None:
        self._settings = settings
        self._access = access
        self._records = access.kept
        self._sharing = Sharing(access.kept, self._launch)
        self._coming: collections.Counter[str] = collections.Counter()

    # -- records ----------------------------------------------------------------------------------

    @contextmanager
    def reserved_for(self, principal: str, engine: Engine) -> Iterator[None]:
        """Hold a place among what a principal may keep. Nothing is awaited between the look and the taking.

        Raises:
            QuotaError: there are as many as allowed.
        """
        count = len(self._records.of(principal, engine.info.identity)) + self._coming[principal]
        if count >= self._most(principal):
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
        sandbox.container.tell_of_renewals(claim.renewal)
        return claim

    def _require_place(self, kept: Kept) -> None:
        """Look once more, now that it is on record: other processes count as well. Who came first stays."""
        all_kept = self._records.of(kept.principal, kept.engine)
        older = [one for one in all_kept if (one.created, one.id) < (kept.created, kept.id)]
        if len(older) >= self._most(kept.principal):
            raise self._full(len(older))

    def _most(self, principal: str) -> int:
        return self._settings.quota_of(principal).persistent or 0

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
            # Whoever wants one that was being renewed gets a fresh one.
            return KeptSandbox(kept, "stopped" if kept.renewing else "gone", busy=False)
        status: Status = "stopped"
        if state.status in ("running", "paused"):
            status = "paused" if state.status == "paused" else "running"
        return KeptSandbox(kept, status, busy=self._records.is_held(kept.id), container_id=state.id)

    # -- reaching ---------------------------------------------------------------------------------

    async def reach(self, principal: str, sandbox_id: str, store: OutputStore) -> Reached:
        """Hold a kept sandbox: join it where it runs, start it again where it does not.

        If another process holds it, it is visited; while that one is just starting it, we wait.

        Raises:
            SandboxNotFoundError: there is none of that id, or it is somebody else's.
            SandboxBusyError: another process holds it, and it cannot be shared.
            SandboxLostError: its container is not there any more, and it is off the record now.
            EngineError: the engine failed; the record stays.
        """
        patience = Patience()
        while True:
            engine, kept, claim = await self._claim(principal, sandbox_id)
            try:
                if claim is not None:
                    reached = await self._join(engine, claim, store)
                    claim.renewal(begins=False)
                    reached.container.tell_of_renewals(claim.renewal)
                    return reached
                visited = await self._sharing.visit(engine, kept, store, patience)
            except BaseException as error:
                self._access.note(error)
                if claim is not None:
                    claim.release()
                raise
            if visited is not None:
                return Reached(None, kept, visited)
            await anyio.sleep(PAUSE)

    async def stop(self, principal: str, sandbox_id: str) -> None:
        """Stop a kept sandbox, whoever holds it; nothing happens to one that does not run.

        Raises: what `reach` raises.
        """
        patience = Patience()
        while True:
            if await self._has_stopped(principal, sandbox_id, patience):
                return
            await anyio.sleep(PAUSE)

    async def _has_stopped(self, principal: str, sandbox_id: str, patience: Patience) -> bool:
        engine, kept, claim = await self._claim(principal, sandbox_id)
        try:
            was_running = await self._sharing.stop(engine, kept)
        except ContainerGoneError:
            if claim is not None and claim.kept.renewing:
                return True
            if claim is not None:
                raise self._gone(claim) from None
            return patience.is_over("it is gone", START_PATIENCE)
        except BaseException as error:
            self._access.note(error)
            raise
        finally:
            if claim is not None:
                claim.release()
        # Who holds one that does not run may just be starting it.
        return was_running or claim is not None or patience.is_over("it does not run", START_PATIENCE)

    async def find(self, principal: str, sandbox_id: str) -> tuple[Engine, Kept]:
        """Return a principal's record, and the engine that has its container.

        Raises:
            SandboxNotFoundError: there is none of that id, or it is somebody else's: after the same time.
        """
        if self._records.empty():
            raise SandboxNotFoundError
        engine = (await self._access.ready()).engine
        found = self._records.find(principal, engine.info.identity, sandbox_id)
        if found is None:
            raise SandboxNotFoundError
        return engine, found

    async def _claim(self, principal: str, sandbox_id: str) -> tuple[Engine, Kept, Claim | None]:
        """Return a record, and the hold on it if no other process has it."""
        engine, found = await self.find(principal, sandbox_id)
        try:
            claim = self._records.claim(sandbox_id)
        except SandboxBusyError:
            return engine, found, None
        if claim is None:
            raise SandboxNotFoundError
        return engine, claim.kept, claim

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
            if not claim.kept.renewing:
                raise self._gone(claim) from None
            # Whoever was at it was killed in between; its files were to go.
            launch = self._launch(claim.kept)
            return Reached(claim, claim.kept, await LiveContainer.create(engine, launch, store))

    async def _join_now(self, engine: Engine, claim: Claim, store: OutputStore) -> Reached:
        launch = self._launch(claim.kept)
        state = await find_kept(engine, launch)
        require_not_paused(engine, state)
        if state.status == "running" and runs_on(state):
            try:
                return Reached(claim, claim.kept, await LiveContainer.reattach(engine, launch, store))
            except NobodyListensError as error:
                logger.warning("%s was restarted from outside, and is started again: %s", launch.name, error)
        if state.status == "running":
            # Nobody can join it: it has no agent, or one that does not know whom it serves.
            await engine.stop(state.id)
        return Reached(claim, claim.kept, await LiveContainer.resume(engine, launch, store))

    def _launch(self, kept: Kept) -> Launch:
        launch = launch_of(kept.request, self._settings, kept.image_id, kept.uid)
        return replace(launch, name=kept.container, labels={**launch.labels, NONCE_LABEL: kept.nonce})

    # -- removing ---------------------------------------------------------------------------------

    async def strike(self, principal: str, sandbox_id: str) -> None:
        """Take one off the record that we have visited and destroyed, unless its holder has done so."""
        try:
            await self.destroy(principal, sandbox_id)
        except SandboxNotFoundError:
            pass

    async def destroy(self, principal: str, sandbox_id: str) -> Kept:
        """End a kept sandbox with its files, whoever holds it, and return what was on record.

        Raises: what `reach` raises, but for a container that is gone: that is what is wanted.
        """
        engine, kept, claim = await self._claim(principal, sandbox_id)
        try:
            if claim is None:
                await self._sharing.destroy(engine, kept)
                return kept
            try:
                await engine.remove((await find_kept(engine, self._launch(kept))).id)
            except ContainerGoneError:
                pass
            # Last: what dies in between is found on record, and its container gone.
            claim.remove()
            return kept
        finally:
            if claim is not None:
                claim.release()
