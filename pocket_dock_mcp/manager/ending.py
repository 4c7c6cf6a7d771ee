"""How sandboxes end: on request, with their session, for their time, or because their container has died."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import anyio
from anyio.abc import TaskGroup

from pocket_dock_mcp.container.disk import guard_until_lost
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.manager.access import EngineAccess
from pocket_dock_mcp.manager.journal import Journal
from pocket_dock_mcp.manager.keeping import SnapshotKeeper
from pocket_dock_mcp.manager.making import Maker
from pocket_dock_mcp.manager.observing import Ending, Observer
from pocket_dock_mcp.manager.records import Claim
from pocket_dock_mcp.manager.sandbox import Sandbox
from pocket_dock_mcp.manager.table import Table

logger = logging.getLogger(__name__)

GONE_DEADLINE = 5.0
"""Seconds in which a container is gone whose agent says that it is being destroyed."""
PAUSES = (0.1, 0.3, 1.0, 3.0)
"""Seconds between attempts to remove the image of a deleted snapshot whose last sandbox has ended."""
LAST_PAUSES = (0.05,) * 5
"""The same, when nobody has time any more."""


class Ender:
    """Ends sandboxes, and sees to it that nothing of them is left but what is kept."""

    def __init__(
        self,
        table: Table,
        access: EngineAccess,
        maker: Maker,
        keeper: SnapshotKeeper,
        observer: Observer,
    ) -> None:
        self._table = table
        self._access = access
        self._maker = maker
        self._keeper = keeper
        self._observer = observer
        self._ending: dict[str, anyio.Event] = {}
        self._ended_one = anyio.Event()
        self._changed = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._is_clearing = False
        self.on_end: Callable[[], None] | None = None
        """Called when a sandbox has ended, by whatever hand."""

    async def end(self, sandbox: Sandbox, why: str, how: Ending = "remove") -> None:
        """End a sandbox, once; whoever comes second does not wait."""
        if not self._table.take(sandbox):
            return
        if not sandbox.is_kept:
            how = "remove"
        if how == "remove":
            self._table.remember(sandbox, why)
        over = self._ending[sandbox.id] = anyio.Event()
        self._observer.ending(sandbox, why, how)
        try:
            if how == "remove":
                await self._remove(sandbox)
            else:
                await self._let_go(sandbox, how)
        finally:
            self._observer.ended(sandbox, why, how)
            sandbox.ended()
            self._table.gone(sandbox)
            del self._ending[sandbox.id]
            over.set()
            self.wake()

    async def end_all(self, sandboxes: Iterable[Sandbox]) -> None:
        """End sandboxes with their session; those that are kept are left running."""
        async with anyio.create_task_group() as group:
            for sandbox in sandboxes:
                group.start_soon(self.end, sandbox, "its session ended", "leave")

    def watch(self, sandbox: Sandbox) -> None:
        """See to the end of a new sandbox: of its time, and of its container."""
        self._changed.set()
        if self._tasks is None:
            raise RuntimeError("Manager is used outside its context.")
        self._tasks.start_soon(self._notice_death, sandbox)

    async def wait_for(self, sandbox_id: str) -> None:
        """Wait until a sandbox that is just ending or stopping has done so."""
        if (over := self._ending.get(sandbox_id)) is not None:
            await over.wait()

    async def wait_until(self, is_idle: Callable[[], bool]) -> None:
        """Wait until nothing is ending and `is_idle` says so; it is asked after each `wake`."""
        while self._ending or not is_idle():
            self._ended_one = anyio.Event()
            await self._ended_one.wait()

    def wake(self) -> None:
        """Something that `wait_until` waits for may have happened."""
        self._ended_one.set()
        if self.on_end is not None:
            self.on_end()

    async def run(self, tasks: TaskGroup) -> None:
        """End what has expired, for ever, and sleep until the next will."""
        self._tasks = self._observer.tasks = tasks
        while True:
            waits = []
            for sandbox in self._table.all():
                remaining = sandbox.remaining_s()
                if remaining > 0:
                    waits.append(remaining)
                else:
                    tasks.start_soon(self._expire, sandbox)
            self._changed = anyio.Event()
            # A sandbox in use is looked at again when it would have expired, had it not been.
            with anyio.move_on_after(min(waits, default=None)):
                await self._changed.wait()

    async def _expire(self, sandbox: Sandbox) -> None:
        """End what is not used any more; but what others still use is only left to them."""
        why, is_shared = sandbox.expiry_reason(), False
        if sandbox.is_kept and not sandbox.is_too_old:
            try:
                is_shared = sandbox.container.visits or await sandbox.container.is_shared()
            except PocketDockError:
                # It is stopped, if it is there at all.
                pass
            if sandbox.remaining_s() > 0:
                self._changed.set()
                return
        await self.end(sandbox, why, "leave" if is_shared else "stop")

    async def _notice_death(self, sandbox: Sandbox) -> None:
        await guard_until_lost(sandbox.container)
        await self.end(sandbox, *await _cause_of_death(sandbox))

    async def _remove(self, sandbox: Sandbox) -> None:
        container = sandbox.container
        await container.destroy()
        if sandbox.claim is not None:
            self._forget(sandbox.claim, container.removed)
        elif not container.visits:
            self._maker.over(container.name, container.removed)
        if container.removed and (journal := self._access.journal) is not None:
            await self._keeper.remove_deleted(journal)
            if self._keeper.has_deleted and self._tasks is not None and not self._is_clearing:
                self._is_clearing = True
                self._tasks.start_soon(self._clear_images, journal)

    async def _clear_images(self, journal: Journal) -> None:
        """Go on where an engine has not let go of an image yet. Those of other sandboxes stay as they are."""
        try:
            await self._keeper.remove_deleted(journal, PAUSES)
        finally:
            self._is_clearing = False

    def _forget(self, claim: Claim, is_removed: bool) -> None:
        """Take a kept sandbox off the record once it is gone; else it is still there to be killed again."""
        if is_removed:
            claim.remove()
        else:
            claim.release()

    async def _let_go(self, sandbox: Sandbox, how: Ending) -> None:
        container, claim = sandbox.container, sandbox.claim
        try:
            if claim is not None and not claim.is_on_record():
                # It was destroyed, and we have begun it again: nobody would ever find it.
                await container.destroy()
            elif container.halted is not None or (container.visits and how == "leave"):
                await container.leave()
            elif how == "leave" and container.runs_on:
                await container.detach()
            else:
                await container.stop()
        except PocketDockError as error:
            # Whoever opens it next will see how it is.
            logger.warning("%s could not be let go of: %s", container.name, error)
        finally:
            if claim is not None:
                claim.release()


async def _cause_of_death(sandbox: Sandbox) -> tuple[str, Ending]:
    """Say why a sandbox cannot be reached any more, and what is to become of what is left of it."""
    container = sandbox.container
    word = container.halted
    if word == "destroyed" and await container.is_gone(GONE_DEADLINE):
        return "it was destroyed by another process", "remove"
    if word in ("stopped", "rebooted"):
        return f"it was {word} by another process", "stop"
    # A kept one may only have lost its connection: whoever opens it next will see.
    return "its container died or was removed from outside", "leave"
