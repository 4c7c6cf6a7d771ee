"""`ContainerPool`: containers that are ready before they are asked for, without an event loop."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from anyio.from_thread import BlockingPortal

from pocket_dock_mcp.container.pool import AsyncContainerPool
from pocket_dock_mcp.errors import SandboxClosedError
from pocket_dock_mcp.sync.container import Container
from pocket_dock_mcp.sync.portal import PORTAL, call


class ContainerPool:
    """Containers of one kind, launched ahead and handed out in a few milliseconds, each to one claimer.

    As `AsyncContainerPool`, with methods that block; any thread may call them. Use it as a context manager.
    Leaving it ends all of its containers, those that were claimed as well.

        with ContainerPool("minimal", size=4) as pool, pool.claim() as box:
            print(box.run("echo hi").stdout)
    """

    def __init__(self, image: str = "minimal", **options: Any) -> None:
        """Prepare a pool; nothing is launched before it is entered.

        Args:
            image: a profile's name, or an image reference; pulled or built where it is missing.
            options: see `AsyncContainerPool`. There is no ``engine``: an engine belongs to an event loop.

        Raises:
            InvalidArgumentError: a size that makes no sense.
        """
        self._pool = AsyncContainerPool(image, **options)
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()

    def __enter__(self) -> ContainerPool:
        with ExitStack() as stack:
            portal = stack.enter_context(PORTAL)
            stack.enter_context(portal.wrap_async_context_manager(self._pool))
            self._stack = stack.pop_all()
        self._portal = portal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._pool).replace("AsyncContainerPool", "ContainerPool", 1)

    @property
    def ready(self) -> int:
        """How many containers are ready now."""
        return self._pool.ready

    def wait_ready(self, count: int | None = None) -> None:
        """Wait until so many containers are ready; None for all."""
        call(self._open(), self._pool.wait_ready, count)

    def claim(self, *, env: Mapping[str, str] | None = None) -> Container:
        """Return a container of the caller's own; see `AsyncContainerPool.claim`."""
        portal = self._open()
        return Container(portal, call(portal, self._pool.claim, env=env))

    def close(self) -> None:
        """End all containers of the pool. Idempotent."""
        self._portal = None
        self._stack.close()

    def _open(self) -> BlockingPortal:
        if self._portal is None:
            message = "The pool is not open."
            raise SandboxClosedError(message, hint="Use it inside of `with`.")
        return self._portal
