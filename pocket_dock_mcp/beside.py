"""Something that runs beside a block of code and ends with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio


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
