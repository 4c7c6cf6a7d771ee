"""`LivePool`: containers that are ready before they are asked for, the core of `AsyncContainerPool`."""

from __future__ import annotations

import logging
import math
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Literal

import anyio
from anyio.abc import TaskGroup

from pocket_dock_mcp.container.abandoned import POOL_LABEL, mark, remove_abandoned, this_process
from pocket_dock_mcp.container.arguments import checked_environment
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.disk import guard_until_lost
from pocket_dock_mcp.container.launch import Launch, launch
from pocket_dock_mcp.container.outfit import Gates
from pocket_dock_mcp.container.stock import Ready, Stock
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.connect import connect
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError, SandboxClosedError
from pocket_dock_mcp.images import ImageStore
from pocket_dock_mcp.models import MIB, Confinement, Limits, Network

logger = logging.getLogger(__name__)

MAX_SIZE = 64
CLOSE_DEADLINE = 10.0
"""Seconds for ending all containers when the pool is left; what an engine in trouble does not end by then
ends with its lease."""


class LivePool:
    """Containers of one kind, launched ahead and handed out in a few milliseconds, each to one claimer.

    Use it as an async context manager, once. A claimed container is never used again: close it, and another
    takes its place. Leaving the pool ends all of its containers, those that were claimed as well.

        async with LivePool("minimal", size=4) as pool:
            async with await pool.claim(env={"TOKEN": "..."}) as box:
                print((await box.run("echo hi")).stdout)
    """

    def __init__(
        self,
        image: str = "minimal",
        *,
        size: int = 2,
        engine: Engine | None = None,
        reach: Callable[[], Awaitable[Engine]] | None = None,
        limits: Limits | None = None,
        network: Network = "none",
        gates: Gates | None = None,
        enforce: Literal["strict", "best-effort"] = "strict",
        confinement: Confinement | None = None,
        warm_python: bool = True,
        memory_mb: int | None = None,
        min_free_bytes: int = 0,
    ) -> None:
        """Prepare a pool; nothing is launched before it is entered.

        Args:
            image: a profile's name, or an image reference; pulled or built where it is missing.
            size: how many containers are to be ready.
            engine: where; None for the one that `reach` connects to, which is closed with the pool.
            reach: connects to an engine; None for the one that the environment names, or is found.
            limits: of each container.
            network: of each container.
            gates: see `Launch.gates`.
            enforce: see `Launch.enforce`.
            confinement: see `Launch.confinement`.
            warm_python: see `Launch.warm_python`.
            memory_mb: how much the ready ones may use together, as measured; fewer are ready then.
            min_free_bytes: see `Launch.min_free_bytes`.

        Raises:
            InvalidArgumentError: a size that makes no sense.
        """
        if not 0 <= size <= MAX_SIZE:
            message = f"size is {size}; it must be from 0 to {MAX_SIZE}."
            raise InvalidArgumentError(message)
        self._image = image
        self._size = size
        self._engine = engine
        self._reach = reach or (lambda: connect(os.environ))
        self._kind = Launch(
            "",
            "",
            {},
            limits or Limits(),
            network,
            enforce=enforce,
            warm_python=warm_python,
            confinement=confinement or Confinement(),
            gates=gates,
            min_free_bytes=min_free_bytes,
        )
        self._memory_bytes = math.inf if memory_mb is None else memory_mb * MIB
        self._stock = Stock(self._make, room=lambda: self._memory_bytes - self._stock.memory_bytes)
        self._claimed: set[LiveContainer] = set()
        self._claims = 0
        """Under way: what they launch needs the engine, also to be removed again."""
        self._settled = anyio.Event()
        self._entered = False
        self._closed = False
        self._group: TaskGroup | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> LivePool:
        if self._closed:
            raise SandboxClosedError(
                "A pool can be used once, and this one was left.", hint="Make a new one."
            )
        if self._entered:
            message = "A pool can be used once, and this one is in use."
            raise InvalidArgumentError(
                message, hint="Use what the first `with` gave you, or make a new pool."
            )
        self._entered = True
        try:
            group = await self._open()
        except BaseException:
            # Nothing came of it: there may be an engine the next time.
            self._entered = False
            raise
        self._stock.target = self._size
        self._group = group
        group.start_soon(self._stock.run)
        group.start_soon(self._sweep)
        return self

    async def _open(self) -> TaskGroup:
        async with AsyncExitStack() as stack:
            engine = self._engine
            if engine is None:
                engine = await self._reach()
                stack.push_async_callback(_let_go, engine)
            image = await ImageStore(engine).ensure(self._image, logger.info)
            self._kind = replace(self._kind, image=image.id)
            group = await stack.enter_async_context(anyio.create_task_group())
            self._engine = engine
            self._stack = stack.pop_all()
        return group

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.ready} of {self._size} ready"
        return f"<LivePool {self._image} {state}>"

    @property
    def ready(self) -> int:
        """How many containers are ready now."""
        return self._stock.ready

    async def wait_ready(self, count: int | None = None) -> None:
        """Wait until so many containers are ready; None for all."""
        await self._stock.wait_ready(self._size if count is None else count)

    async def claim(self, *, env: Mapping[str, str] | None = None) -> LiveContainer:
        """Return a container of the caller's own, seen to be alive; a new one when none is ready.

        Args:
            env: what programs in it have in their environment.

        Raises:
            InvalidArgumentError: an environment that cannot be.
            SandboxClosedError: the pool was left, or never entered.
            And what `launch` raises, when none was ready.
        """
        checked = checked_environment(env or {})
        self._claimed = {one for one in self._claimed if not one.removed}
        self._claims += 1
        try:
            container = await self._stock.take(checked)
            if container is None:
                ready = await self._make(checked)
                container = LiveContainer(ready.engine, ready.wanted, ready.running)
            if self._closed or self._group is None:
                await container.aclose()
                raise _not_open()
        finally:
            self._claims -= 1
            self._settled.set()
        self._claimed.add(container)
        self._group.start_soon(guard_until_lost, container)
        return container

    async def _wait_for_claims(self) -> None:
        while self._claims:
            self._settled = anyio.Event()
            await self._settled.wait()

    async def aclose(self) -> None:
        """End all containers of the pool. Idempotent."""
        self._closed = True
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_DEADLINE):
            async with anyio.create_task_group() as group:
                group.start_soon(self._stock.aclose)
                group.start_soon(self._wait_for_claims)
                for container in self._claimed:
                    group.start_soon(container.aclose)
        if self._group is not None:
            self._group.cancel_scope.cancel()
        await self._stack.aclose()

    async def _sweep(self) -> None:
        """Remove what pools of dead processes have left. That it fails is no reason not to serve."""
        try:
            await remove_abandoned(self._ours())
        except PocketDockError as error:
            logger.info("could not sweep up after other pools: %s", error)

    async def _make(self, env: Mapping[str, str] | None = None) -> Ready:
        engine = self._ours()
        name = f"pocket-dock-{secrets.token_hex(8)}"
        wanted = replace(
            self._kind, name=name, labels={POOL_LABEL: mark(name, this_process())}, env=env or {}
        )
        return Ready(engine, wanted, await launch(engine, wanted))

    def _ours(self) -> Engine:
        if self._closed or self._engine is None or not self._kind.image:
            raise _not_open()
        return self._engine


async def _let_go(engine: Engine) -> None:
    with anyio.CancelScope(shield=True):
        await engine.aclose()


def _not_open() -> SandboxClosedError:
    return SandboxClosedError("The pool is not open.", hint="Use it inside of `async with`.")
