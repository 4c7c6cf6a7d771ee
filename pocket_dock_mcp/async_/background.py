"""Work that nobody waits for: tasks that end by themselves, and runs that nobody holds any more."""

from __future__ import annotations

import asyncio
import contextvars
import os
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio

from pocket_dock_mcp.container.core import CANCEL_DEADLINE
from pocket_dock_mcp.container.run import AsyncRun
from pocket_dock_mcp.errors import PocketDockError

_tasks: set[asyncio.Task[None]] = set()
"""The event loop itself holds no task."""

Work = Callable[[], Coroutine[Any, Any, None]]


def in_background(work: Work, loop: asyncio.AbstractEventLoop | None = None) -> asyncio.Task[None]:
    """Have it done by a task of its own, which ends with the loop at the latest.

    It belongs to no call, so no task group of a caller can own it, and it has none of a caller's context.
    """
    loop = asyncio.get_running_loop() if loop is None else loop
    task = contextvars.Context().run(loop.create_task, work())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def abandon(run: AsyncRun) -> None:
    """Kill a run that nobody waits for any more, and see it end."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_DEADLINE):
        try:
            await run.kill()
            await run.outcome()
        except PocketDockError:
            # Then it never ran, or the container is gone.
            pass


def kill_when_dropped(
    holder: object, run: AsyncRun, loop: asyncio.AbstractEventLoop
) -> weakref.finalize[[], object]:
    """Have a run of a loop killed when nobody holds `holder` any more, in whatever thread that is found."""
    pid = os.getpid()

    def dropped() -> None:
        # In a process that was forked, it is the parent's.
        if os.getpid() == pid and run.is_running and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(in_background, partial(abandon, run), loop)
            except RuntimeError:
                # The loop was closed meanwhile, and everything has ended with it.
                pass

    finalizer = weakref.finalize(holder, dropped)
    # What lives until then ends with its container.
    finalizer.atexit = False
    return finalizer
