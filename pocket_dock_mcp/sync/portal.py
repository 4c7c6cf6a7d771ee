"""Calling what is asynchronous from a thread that is not."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal, BlockingPortalProvider

from pocket_dock_mcp.errors import SandboxClosedError

P = ParamSpec("P")
T = TypeVar("T")

PORTAL = BlockingPortalProvider("asyncio")
"""One thread for all facades of a process, started with the first and ended with the last."""


def call(portal: BlockingPortal, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it in the event loop's thread and wait for its result.

    Whatever ends the wait, as Ctrl-C does, cancels it over there and waits until that is done: the run of a
    program is killed then, and nothing goes on behind the caller's back.

    Raises:
        SandboxClosedError: the thread has ended, with the last pool.
        And what the function raises.
    """
    ended = threading.Event()

    async def calling() -> T:
        try:
            return await function(*args, **kwargs)
        finally:
            ended.set()

    try:
        future = portal.start_task_soon(calling)
    except RuntimeError as error:
        raise SandboxClosedError(
            "The pool of this container was left, and its containers have ended with it.",
            hint="Claim another from a pool that is open, and use it inside of that pool's `with`.",
        ) from error
    try:
        return future.result()
    except BaseException:
        if future.cancel():
            ended.wait()
        raise
