"""Something that runs beside a block of code and ends with it; and work that is not cut off at once."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


@asynccontextmanager
async def beside(function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> AsyncIterator[None]:
    """Run `function(*args)` as a task while the block runs, and cancel it at the block's end.

    What the block raises is raised as it is; a task group would wrap it into an exception group, which
    callers of ours have no reason to expect.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(function, *args)
        try:
            yield
        except Exception as error:  # noqa: BLE001  # raised again below, outside of the group
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def patiently(work: Callable[[], Awaitable[T]], patience: float) -> T:
    """Do what should not be cut off half way: when the caller is cancelled it has `patience` seconds more.

    What came of it by then is returned or raised all the same, for the caller to undo; the next thing that is
    awaited is cancelled. A task that is cancelled as asyncio does it, and not by its scope, is cut off.
    """
    shield = anyio.CancelScope(shield=True)
    outcome: list[T | Exception] = []

    async def hurry() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            shield.deadline = anyio.current_time() + patience

    try:
        async with beside(hurry):
            with shield:
                try:
                    outcome.append(await work())
                except Exception as error:  # noqa: BLE001  # raised again below
                    outcome.append(error)
    except anyio.get_cancelled_exc_class():
        if not outcome or anyio.current_effective_deadline() != -math.inf:
            raise
    if not outcome:
        # Its patience is at an end, so this does not return.
        await anyio.sleep_forever()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
