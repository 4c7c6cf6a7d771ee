"""Kept sandboxes that another process holds: visited, stopped and destroyed all the same.

The lock on the record says who holds a sandbox and who starts it; it does not say who may use it. Whoever
ends one that another holds ends its container first, and then waits for the record: its holder hears of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.container.taking_up import NobodyListensError, find_kept, runs_on
from pocket_dock_mcp.engine.base import ContainerState, Engine
from pocket_dock_mcp.errors import (
    ContainerGoneError,
    PocketDockError,
    SandboxBusyError,
    SandboxDetachedError,
    SandboxPausedError,
    SandboxStateError,
)
from pocket_dock_mcp.manager.records import Claim, Kept, KeptStore

logger = logging.getLogger(__name__)

START_PATIENCE = 20.0
"""Seconds in which whoever holds a sandbox that does not run has started it, or let go of it."""
LISTEN_PATIENCE = 3.0
"""Seconds in which the agent of one that runs listens to visitors. One of an earlier release never does."""
END_PATIENCE = 10.0
"""Seconds in which a holder that lives has noticed that his sandbox was ended."""
PAUSE = 0.05

LaunchOf = Callable[[Kept], Launch]


class Patience:
    """How long something may stay as it is: asked again and again, it begins anew with each change."""

    def __init__(self) -> None:
        self._what: str | None = None
        self._since = 0.0

    def is_over(self, what: str, within: float) -> bool:
        """Whether it has been so for longer than this."""
        now = anyio.current_time()
        if what != self._what:
            self._what, self._since = what, now
        return now - self._since > within


class Sharing:
    """Reaches sandboxes whose records other processes hold."""

    def __init__(self, records: KeptStore, launch_of: LaunchOf) -> None:
        self._records = records
        self._launch_of = launch_of

    async def visit(
        self, engine: Engine, kept: Kept, store: OutputStore, patience: Patience
    ) -> LiveContainer | None:
        """Join one that runs; None if it does not yet, and may soon.

        Raises:
            SandboxBusyError: it cannot be shared, or has been about to run for too long.
            SandboxPausedError: somebody has paused it.
            EngineError: the engine failed.
        """
        launch = self._launch_of(kept)
        try:
            state = await find_kept(engine, launch)
            require_not_paused(engine, state)
            if state.status == "running" and not runs_on(state):
                raise SandboxBusyError
            if state.status == "running":
                return await LiveContainer.visit(engine, launch, store)
        except NobodyListensError as error:
            if patience.is_over("it does not listen", LISTEN_PATIENCE):
                raise SandboxBusyError from error
        except (SandboxStateError, SandboxDetachedError, ContainerGoneError) as error:
            # It stops, begins again or goes just now.
            logger.debug("%s cannot be visited yet: %s", launch.name, error)
            if patience.is_over("it is gone", START_PATIENCE):
                raise SandboxBusyError from error
        else:
            if patience.is_over("it does not run", START_PATIENCE):
                raise SandboxBusyError
        return None

    async def stop(self, engine: Engine, kept: Kept) -> bool:
        """Stop one that runs, with a word to those who use it; False if it does not run.

        Raises:
            SandboxPausedError, ContainerGoneError, EngineError: it cannot be stopped.
        """
        launch = self._launch_of(kept)
        state = await find_kept(engine, launch)
        require_not_paused(engine, state)
        if state.status != "running":
            return False
        guest = await self._guest(engine, launch, state)
        if guest is None:
            await engine.stop(state.id)
        else:
            await guest.stop()
        return True

    async def destroy(self, engine: Engine, kept: Kept) -> None:
        """End one, with its files and its record, whoever holds it.

        Raises:
            EngineError: the engine failed; the record stays.
        """
        deadline = anyio.current_time() + END_PATIENCE
        while True:
            await self._remove(engine, kept)
            try:
                claim = self._records.claim(kept.id)
            except SandboxBusyError:
                if anyio.current_time() > deadline:
                    # Its holder is asleep. When he wakes he finds that it is off the record.
                    logger.warning("%s was destroyed; the process that holds it has not noticed", kept.id)
                    self._records.strike(kept.id)
                    return
                await anyio.sleep(PAUSE)
                continue
            if claim is not None:
                await self._strike(engine, claim)
            return

    async def _strike(self, engine: Engine, claim: Claim) -> None:
        try:
            # Its holder may have begun it again, just before he let go.
            await self._remove(engine, claim.kept)
            claim.remove()
        finally:
            claim.release()

    async def _remove(self, engine: Engine, kept: Kept) -> None:
        launch = self._launch_of(kept)
        try:
            state = await find_kept(engine, launch)
            guest = await self._guest(engine, launch, state) if state.status == "running" else None
            if guest is not None:
                await guest.destroy()
            if guest is None or not guest.removed:
                await engine.remove(state.id)
        except (ContainerGoneError, SandboxStateError):
            pass

    async def _guest(self, engine: Engine, launch: Launch, state: ContainerState) -> LiveContainer | None:
        """Visit one that is to be ended, so that the others hear why; None if that cannot be."""
        if not runs_on(state):
            return None
        try:
            return await LiveContainer.visit(engine, launch)
        except PocketDockError as error:
            logger.info("%s is ended without a word to those who use it: %s", launch.name, error)
            return None


def require_not_paused(engine: Engine, state: ContainerState) -> None:
    """Refuse one that is paused.

    Raises:
        SandboxPausedError: it is.
    """
    if state.status == "paused":
        message = "Somebody has paused the container of this sandbox."
        raise SandboxPausedError(message, hint=f"Have it go on: {engine.info.kind} unpause {state.name}")
