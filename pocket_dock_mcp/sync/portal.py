"""The one thread with an event loop in which everything of the blocking SDK happens, and how it is called."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import ParamSpec, TypeVar

from pocket_dock_mcp.errors import SandboxClosedError

P = ParamSpec("P")
T = TypeVar("T")

END_DEADLINE = 15.0
"""Seconds for ending all containers when the interpreter ends; the rest ends with the process."""


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
    def is_here(self) -> bool:
        """Whether it is of this process, and at work."""
        return self.pid == os.getpid() and self._thread.is_alive()

    def require(self) -> None:
        """See that it can be called.

        Raises:
            SandboxClosedError: it is another process's, or this one is ending, or it is called from within.
        """
        if self.pid != os.getpid():
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
        ended = threading.Event()

        async def calling() -> T:
            try:
                return await function(*args, **kwargs)
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(calling(), self._loop)
        try:
            return _result(future)
        except BaseException:
            if not future.done() and future.cancel():
                ended.wait(END_DEADLINE)
            raise

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


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except CancelledError:
        message = "The event loop of the blocking SDK has ended, and its containers with it."
        raise SandboxClosedError(message) from None


_lock = threading.Lock()
_portal: Portal | None = None


def portal() -> Portal:
    """Return the portal of this process, which begins with the first call."""
    global _portal  # one for the process
    with _lock:
        if _portal is None or _portal.pid != os.getpid():
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
