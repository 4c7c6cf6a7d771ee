"""Kept sandboxes that are used again: taken up by one call at a time, while the others' go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.errors import SandboxNotFoundError
from pocket_dock_mcp.manager.ending import Ender
from pocket_dock_mcp.manager.observing import Beginning
from pocket_dock_mcp.manager.opening import opened
from pocket_dock_mcp.manager.persistence import SandboxKeeper
from pocket_dock_mcp.manager.places import Reservations
from pocket_dock_mcp.manager.records import Kept
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox
from pocket_dock_mcp.manager.table import Table


class Hold(Protocol):
    """Has a sandbox in the table from now on."""

    def __call__(self, sandbox: Sandbox, event: Beginning) -> Sandbox:
        """Hold it."""


@dataclass
class _Turn:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    users: int = 0


class Reacher:
    """Takes up kept sandboxes. What is not the caller's is told apart before anything is waited for."""

    def __init__(
        self,
        table: Table,
        ender: Ender,
        persistence: SandboxKeeper,
        reserved: Reservations,
        hold: Hold,
        store: Callable[[Owner], OutputStore],
    ) -> None:
        self._table = table
        self._ender = ender
        self._persistence = persistence
        self._reserved = reserved
        self._hold = hold
        self._store = store
        self._turns: dict[str, _Turn] = {}

    async def settled(self, owner: Owner, sandbox_id: str) -> Kept:
        """Return the record of a kept sandbox that is not just being ended or stopped by us.

        Raises:
            SandboxNotFoundError: there is none of that id, or it is somebody else's: after the same time.
        """
        _, kept = await self._persistence.find(owner.principal, sandbox_id)
        await self._ender.wait_for(sandbox_id)
        return kept

    async def reach(self, owner: Owner, sandbox_id: str) -> Sandbox:
        """Take up a kept sandbox that this process does not hold; see `Manager.open` for the errors."""
        kept = await self.settled(owner, sandbox_id)
        async with self._turn(sandbox_id):
            try:
                # Somebody else may have been faster.
                return self._table.get(owner, sandbox_id)
            except SandboxNotFoundError:
                await self._ender.wait_for(sandbox_id)
            with self._reserved(owner, 1, kept.request.limits.memory_bytes) as reservation:
                reached = await self._persistence.reach(owner.principal, sandbox_id, self._store(owner))
                sandbox = Sandbox(sandbox_id, owner, reached.kept.request, reached.container)
                sandbox.claim, sandbox.created = reached.claim, reached.kept.created
                sandbox.runs.adopt(reached.container.found_runs)
                self._hold(sandbox, "open")
                reservation.taken()
            return await opened(sandbox)

    @asynccontextmanager
    async def _turn(self, sandbox_id: str) -> AsyncIterator[None]:
        """Be the only one who takes up this sandbox."""
        turn = self._turns.setdefault(sandbox_id, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[sandbox_id]
