"""Goes on with what could not be cleared away at once, until nothing of it is left.

Of our own: a container whose removal failed because the engine was gone, one that the engine may have made
although we never heard so, an unfinished snapshot. Of dead processes: what a sweep had to leave. A server
may live for weeks, so waiting for the next start would be no answer.
"""

from __future__ import annotations

import logging
import time

import anyio

from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.manager.access import Access, EngineAccess
from pocket_dock_mcp.manager.journal import Intent
from pocket_dock_mcp.manager.sweep import GRACE_S, clear

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
"""Seconds until it is tried again. It doubles with each attempt, up to:"""
LONGEST_PAUSE = 10.0
SHORT_PAUSE = 0.05
"""Seconds, where somebody waits for it."""
START_PAUSE = 2.0
"""Seconds from the start in which no engine is touched for it: hosts wait for an answer to `initialize`."""


class Mender:
    """Clears away in the background. Its engine is that of the manager, connected when there is something."""

    def __init__(self, access: EngineAccess) -> None:
        self._access = access
        self._owed: dict[str, float] = {}
        """Names of intents that are not settled, and since when nothing more is asked for them."""
        self._news = anyio.Event()
        self._working = anyio.Lock()

    def owe(self, name: str) -> None:
        """Take over an intent of this process that was to be undone, and may not be."""
        self._owed.setdefault(name, time.monotonic())
        self._news.set()

    async def run(self) -> None:
        """Work for ever, when there is something to do."""
        await anyio.sleep(START_PAUSE)
        has_work = self._access.has_dead()
        pause = FIRST_PAUSE
        while True:
            if not (has_work or self._owed):
                await self._news.wait()
                pause = FIRST_PAUSE
            self._news = anyio.Event()
            with anyio.move_on_after(pause) as waiting:
                await self._news.wait()
            if not waiting.cancelled_caught:
                # What is owed since this moment is likely to be had soon.
                pause = FIRST_PAUSE
                await anyio.sleep(pause)
            has_work = not await self.settle()
            pause = min(2 * pause, LONGEST_PAUSE)

    async def settle(self) -> bool:
        """Try once, and return whether nothing is left."""
        async with self._working:
            try:
                access = await self._access.ready()
                await self._pay(access)
                if not self._access.is_clean:
                    await self._access.sweep(access.engine)
            except (PocketDockError, OSError) as error:
                self._access.note(error)
                logger.info("could not clear away yet: %s", error)
                return False
        return self._access.is_clean and not self._owed

    async def settle_all(self) -> None:
        """Try until nothing of this process is left: an engine may take a moment to remove what it is to.

        Then once what dead processes have left: what was in its way may have gone with us.
        """
        while self._owed and not await self.settle():  # noqa: ASYNC110  # engines have no event for it
            await anyio.sleep(SHORT_PAUSE)
        if self._access.is_in_use and not self._access.is_clean:
            await self.settle()

    def is_owed(self, name: str) -> bool:
        """Whether something of that name is left to be cleared away."""
        return name in self._owed

    async def _pay(self, access: Access) -> None:
        intents = []
        for name in tuple(self._owed):
            intent = access.journal.find(name)
            if intent is None:
                # Settled on another way, or a matter of the journal about another engine.
                del self._owed[name]
            else:
                intents.append(intent)
        if not intents:
            return
        done = await clear(access.engine, access.journal.instance, intents, self._is_over)
        for intent in intents:
            if intent not in done.left:
                access.journal.settled(intent.name)
                self._owed.pop(intent.name, None)

    def _is_over(self, intent: Intent) -> bool:
        return time.monotonic() - self._owed[intent.name] >= GRACE_S[intent.kind]
