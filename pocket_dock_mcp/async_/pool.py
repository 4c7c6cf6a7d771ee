"""`AsyncContainerPool`: containers that are ready before they are asked for."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal

import anyio
from anyio.abc import TaskGroup

from pocket_dock_mcp.async_.background import in_background
from pocket_dock_mcp.async_.checks import check_choice, check_whole
from pocket_dock_mcp.async_.commands import checked_timeout
from pocket_dock_mcp.async_.container import DEFAULT_TIMEOUT_S, AsyncContainer
from pocket_dock_mcp.async_.create import base_of, limits_of, network_of
from pocket_dock_mcp.async_.errors import told_in_sdk_words
from pocket_dock_mcp.async_.host import engine_environ, settings_for
from pocket_dock_mcp.async_.pieces import Piece
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.pool import LivePool
from pocket_dock_mcp.engine.connect import connect
from pocket_dock_mcp.errors import SandboxClosedError
from pocket_dock_mcp.gate.opening import gates
from pocket_dock_mcp.images.references import kept_as
from pocket_dock_mcp.models import MIB

logger = logging.getLogger(__name__)

_LEFT = "The pool was left while this was under way."


class AsyncContainerPool:
    """Containers of one kind, launched ahead and handed out in a few milliseconds, each to one claimer.

    Use it as an async context manager, once. A claimed container is never used again: shut it down, and
    another takes its place. Leaving the pool ends all of its containers, those that were claimed as well.

        async with AsyncContainerPool("minimal", size=4) as pool:
            async with await pool.claim(env={"TOKEN": "..."}) as c:
                print((await c.run("echo hi")).stdout)
    """

    def __init__(
        self,
        image: str | None = None,
        *,
        profile: str | None = None,
        size: int = 2,
        timeout: float = DEFAULT_TIMEOUT_S,
        mem_limit: str | int | None = None,
        cpu_percent: float | None = None,
        network: bool | str | Sequence[str] | None = None,
        pids_limit: int | None = None,
        disk_limit: str | int | None = None,
        shm_size: str | int | None = None,
        enforce: Literal["strict", "best-effort"] | None = None,
        warm_python: bool | None = None,
        memory_mb: int | None = None,
        engine: str | None = None,
        socket_path: str | None = None,
    ) -> None:
        """Prepare a pool; nothing is launched before it is entered.

        Args:
            image: an image reference, or the name of a profile; pulled or built where it is missing.
            profile: the name of a profile, and of nothing else; the environment's if neither is given.
            size: how many containers are to be ready, at most 64.
            timeout: seconds that a run in them may take unless it says otherwise; ``math.inf`` for any.
            mem_limit: memory of each, as ``"256m"`` or in bytes.
            cpu_percent: CPU time of each, of which 100 is one core.
            network: what they reach, as for `create_new_container`; the profile's default if left out.
            pids_limit: processes and threads at once in each.
            disk_limit: what each may write, as ``"2g"`` or in bytes.
            shm_size: of ``/dev/shm``.
            enforce: ``"best-effort"`` accepts an engine that does not apply a limit; the environment's if
                left out.
            warm_python: whether their Python interpreters are started, too; the environment's if left out.
            memory_mb: how much the ready ones may use together, as measured; fewer are ready then.
            engine: see `create_new_container`; closed with the pool.
            socket_path: the same, as the path of a socket.

        Raises:
            InvalidArgumentError: an argument that can never work.
        """
        checked_timeout(timeout)
        check_whole("size", size)
        if memory_mb is not None:
            check_whole("memory_mb", memory_mb)
        check_choice("enforce", enforce, ("strict", "best-effort"))
        settings = settings_for(engine, socket_path)
        self._base = base = base_of(settings.profile, image, profile)
        environ = engine_environ(settings, os.environ)
        self._timeout = timeout
        self._enough = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._claiming: TaskGroup | None = None
        """Where claims are served, for as long as the pool is open; see `pieces` for why."""
        self._pool = LivePool(
            base,
            size=size,
            reach=lambda: connect(environ),
            limits=limits_of(settings, mem_limit, cpu_percent, pids_limit, disk_limit, shm_size),
            network=network_of(network, base, is_snapshot=False),
            gates=gates(settings),
            enforce=settings.limits if enforce is None else enforce,
            confinement=settings.confinement,
            warm_python=settings.warm_python if warm_python is None else warm_python,
            memory_mb=memory_mb,
            min_free_bytes=settings.min_free_mb * MIB,
        )

    async def __aenter__(self) -> AsyncContainerPool:
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = in_background(partial(self._serve, entered))
        try:
            await asyncio.shield(entered)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        self._task = task
        return self

    async def _serve(self, entered: asyncio.Future[None]) -> None:
        """Have it open, in a task of its own: who leaves the pool may be another than who entered it."""
        try:
            with told_in_sdk_words():
                async with self._pool, anyio.create_task_group() as self._claiming:
                    entered.set_result(None)
                    await self._enough.wait()
                    self._claiming.cancel_scope.cancel()
        except Exception as error:
            if entered.done():
                logger.exception("a pool has failed, and its containers have ended")
            else:
                entered.set_exception(error)
        finally:
            self._claiming = None
            entered.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return repr(self._pool).replace("LivePool", "AsyncContainerPool", 1)

    @property
    def ready(self) -> int:
        """How many containers are ready now."""
        return self._pool.ready

    async def wait_ready(self, count: int | None = None) -> None:
        """Wait until so many containers are ready; None for all."""
        await self._pool.wait_ready(count)

    async def claim(self, *, env: Mapping[str, str] | None = None) -> AsyncContainer:
        """Return a container of the caller's own, seen to be alive; a new one when none is ready.

        Args:
            env: variables that everything in it has.

        Raises:
            InvalidArgumentError: an environment that cannot be.
            ContainerError: the pool was left, or never entered.
            And what `create_new_container` raises, when none was ready.
        """
        with told_in_sdk_words():
            if self._claiming is None or self._enough.is_set():
                live = await self._pool.claim(env=env)
            else:
                piece = Piece(partial(self._pool.claim, env=env), LiveContainer.aclose, ended=_LEFT)
                self._claiming.start_soon(piece.run)
                live = await piece.wait()
        return AsyncContainer(Claimed(live, self._base), timeout=self._timeout)

    async def aclose(self) -> None:
        """End all containers of the pool. Idempotent."""
        self._enough.set()
        if self._task is None:
            await self._pool.aclose()
        else:
            await asyncio.wait([self._task])


class Claimed:
    """A container of a pool, held by who has claimed it."""

    id = ""
    persists = False
    project = ""
    data_path: Path | None = None
    workdir = ""

    def __init__(self, live: LiveContainer, image: str) -> None:
        self.live = live
        self.image = image
        self.created = time.time()
        self._pid = os.getpid()

    @contextmanager
    def use(self) -> Iterator[LiveContainer]:
        """Hold it for a call."""
        if os.getpid() != self._pid:
            message = "This container belongs to the process that this one was forked from."
            raise SandboxClosedError(message, hint="Claim containers in the process that uses them.")
        with told_in_sdk_words():
            yield self.live

    async def end(self) -> None:
        """End it."""
        if os.getpid() == self._pid:
            await self.live.aclose()

    async def save_as(self, tag: str) -> str:
        """Make an image of its files."""
        with self.use() as live:
            return await live.commit(kept_as(tag, live.engine_info.kind), labels={})
