"""Where a run is: in a sandbox that this process uses, or in a kept one that others have."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from pocket_dock_mcp.errors import PocketDockError, RunNotFoundError
from pocket_dock_mcp.manager.ending import Ender
from pocket_dock_mcp.manager.persistence import KeptSandbox
from pocket_dock_mcp.manager.runs import SandboxRun
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox
from pocket_dock_mcp.manager.table import Table

logger = logging.getLogger(__name__)

Reach = Callable[[Owner, str], Awaitable[Sandbox]]
ListKept = Callable[[Owner], Awaitable[list[KeptSandbox]]]


class RunSearch:
    """Looks runs up, and asks the containers that may know of them."""

    def __init__(self, table: Table, ender: Ender, reach: Reach, list_kept: ListKept) -> None:
        self._table = table
        self._ender = ender
        self._reach = reach
        self._list_kept = list_kept

    async def find(self, owner: Owner, run_id: str) -> tuple[Sandbox, SandboxRun]:
        """Return one of the owner's runs with its sandbox; see `Manager.open_run`."""
        try:
            sandbox, run = self._table.find_run(owner, run_id)
            await sandbox.has_run(run_id)
            return sandbox, run
        except RunNotFoundError as error:
            missing = error
        for sandbox in self._table.of(owner):
            if await sandbox.has_run(run_id):
                return self._table.find_run(owner, run_id)
        for found in await self._list_kept(owner):
            if found.status == "running" and await self._has_run(owner, found.kept.id, run_id):
                return self._table.find_run(owner, run_id)
        raise missing

    async def _has_run(self, owner: Owner, sandbox_id: str, run_id: str) -> bool:
        """Whether a kept sandbox has a run; if not, it is left as it was."""
        try:
            sandbox = await self._reach(owner, sandbox_id)
        except PocketDockError as error:
            logger.info("%s could not be asked for a run: %s", sandbox_id, error)
            return False
        if await sandbox.has_run(run_id):
            return True
        if not sandbox.is_in_use:
            await self._ender.end(sandbox, "it does not have the run that was asked for", "leave")
        return False
