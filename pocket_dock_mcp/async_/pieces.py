"""`Piece`: work that is done in a task of its own for one who may be cancelled as asyncio does it.

asyncio throws its cancellation into a task once, wherever that is, also into what is just cleaning up. Scopes
of anyio, by which everything below goes, can be told to wait. So the work has a task and a scope of its own,
and the cancellation of whoever waits for it becomes one of that scope.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

from pocket_dock_mcp.errors import PocketDockError, SandboxClosedError

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Piece(Generic[T]):
    """A piece of work, and the one who waits for it."""

    def __init__(
        self,
        work: Callable[[], Awaitable[T]],
        undo: Callable[[T], Awaitable[object]] | None = None,
        *,
        ended: str = "The event loop is ending, and what it had begun was undone.",
    ) -> None:
        """Do nothing yet.

        Args:
            work: what to do.
            undo: called with what came of it when nobody waits for that any more.
            ended: said to who waits for it when whoever runs it has ended it.
        """
        self._work = work
        self._undo = undo
        self._ended = ended
        self._scope = anyio.CancelScope()
        self._made: list[T] = []
        self._error: Exception | None = None
        self._ready = asyncio.Event()
        self._taken = asyncio.Event()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Do it, and see that somebody takes what came of it."""
        try:
            with self._scope:
                self._made.append(await self._work())
                self._ready.set()
                await self._taken.wait()
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            self._error = error
        finally:
            if self._made and not self._taken.is_set():
                await self._undone(self._made[0])
            self._ready.set()
            self._over.set()

    async def _undone(self, made: T) -> None:
        if self._undo is None:
            return
        with anyio.CancelScope(shield=True):
            try:
                await self._undo(made)
            except PocketDockError as error:
                logger.warning("could not undo what nobody waits for any more: %s", error)

    async def wait(self) -> T:
        """Return what came of it; to be called once.

        Raises:
            SandboxClosedError: whoever runs it has ended it: the event loop, say.
            And what the work raises.
        """
        try:
            await self._ready.wait()
        except asyncio.CancelledError:
            self._scope.cancel()
            await self._over.wait()
            raise
        if self._error is not None:
            raise self._error
        if not self._made:
            raise SandboxClosedError(self._ended)
        self._taken.set()
        return self._made[0]
