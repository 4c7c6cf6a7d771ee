"""The one thread with an event loop in which everything of the blocking SDK happens, and how it is called."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, ParamSpec, TypeVar

from pocket_dock_mcp.errors import SandboxClosedError

P = ParamSpec("P")
T = TypeVar("T")

LOOK_EVERY_S = 1.0
END_DEADLINE = 15.0
"""Seconds for ending all containers when the interpreter ends; the rest ends with the process."""


class _Call(Generic[T]):
    """One call on its way through the event loop's thread. It may be given up before it begins, too."""

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[T]]) -> None:
        self._loop = loop
        self._function = function
        self._task: asyncio.Task[T] | None = None
        self._is_given_up = False
        self.ended = threading.Event()

    def begin(self) -> None:
        """Begin it; in the event loop's thread, as what follows."""
        if not self._is_given_up:
            self._task = self._loop.create_task(self._calling())
            self._task.add_done_callback(self._end)

    async def _calling(self) -> T:
        return await self._function()

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            # Seen, whether or not somebody still wants it.
            task.exception()
        self.ended.set()

    def give_up(self) -> None:
        """Cancel it, or see that it never begins."""
        self._is_given_up = True
        if self._task is None:
            self.ended.set()
        else:
            self._task.cancel()

    def result(self) -> T:
        """Return or raise what came of it."""
        task, self._task = self._task, None
        if task is None or not task.done() or task.cancelled():
            message = "The event loop of the blocking SDK has ended, and its containers with it."
            raise SandboxClosedError(message)
        try:
            return task.result()
        finally:
            # An error has this frame in its traceback: without this the two would hold each other.
            del task


class Portal:
    """A thread with an event loop. A program that ends does not wait for it, but ends it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop
        self._enough: asyncio.Event
        self._begun = threading.Event()
        # At its end all tasks are cancelled, and waited for.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._until_ended()), name="pocket-dock", daemon=True
        )
        self._thread.start()
        self._begun.wait()

    async def _until_ended(self) -> None:
        self._loop, self._enough = asyncio.get_running_loop(), asyncio.Event()
        self._begun.set()
        await self._enough.wait()

    @property
    def is_ours(self) -> bool:
        """Whether it is of this process, and not of the one that this was forked from."""
        return self.pid == os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether it is of this process, and at work."""
        return self.is_ours and self._thread.is_alive()

    def require(self) -> None:
        """See that it can be called.

        Raises:
            SandboxClosedError: it is another process's, or this one is ending, or it is called from within.
        """
        if not self.is_ours:
            message = "This belongs to the process that this one was forked from."
            raise SandboxClosedError(
                message, hint="Create or resume containers in the process that uses them."
            )
        if not self._thread.is_alive() or self._loop.is_closed():
            message = "The interpreter is ending, and its containers with it."
            raise SandboxClosedError(message)
        if threading.current_thread() is self._thread:
            message = "The event loop of the blocking SDK cannot wait for itself."
            raise SandboxClosedError(
                message, hint="Use pocket_dock_mcp.async_ in code that has an event loop."
            )

    def run(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it in the event loop's thread and wait for its result.

        Whatever ends the wait, as Ctrl-C does, cancels it over there and waits until that is done: the run of
        a program is killed then, and nothing goes on behind the caller's back.

        Raises:
            SandboxClosedError: see `require`.
            And what the function raises.
        """
        self.require()
        called = _Call(self._loop, partial(function, *args, **kwargs))
        try:
            self.soon(called.begin)
            # The loop may have stopped between the one and the other.
            while not called.ended.wait(LOOK_EVERY_S) and self._thread.is_alive():
                pass
        except BaseException:
            # Of Ctrl-C nobody knows where it strikes: perhaps the call was not even handed over.
            self.soon(called.give_up)
            called.ended.wait(END_DEADLINE)
            raise
        return called.result()

    def soon(self, function: Callable[[], object]) -> None:
        """Have it called in the event loop's thread, and do not wait; nothing happens when that has ended."""
        if self.is_here:
            try:
                self._loop.call_soon_threadsafe(function)
            except RuntimeError:
                # It has ended meanwhile.
                pass

    def end(self) -> None:
        """End the thread, and all that is done in it."""
        if self.is_here:
            self.soon(lambda: self._enough.set())
            self._thread.join(END_DEADLINE)


_lock = threading.Lock()
_portal: Portal | None = None


def portal() -> Portal:
    """Return the portal of this process, which begins with the first call."""
    global _portal  # one for the process
    with _lock:
        if _portal is None or not _portal.is_ours:
            if _portal is None:
                atexit.register(_end)
                os.register_at_fork(after_in_child=_renew_lock)
            _portal = Portal()
        return _portal


def _end() -> None:
    if _portal is not None:
        _portal.end()


def _renew_lock() -> None:
    # Another thread may have held it, and that thread is not in the child.
    global _lock
    _lock = threading.Lock()
