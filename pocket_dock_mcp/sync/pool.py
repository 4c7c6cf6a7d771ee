# Written by scripts/mirror.py from async_/pool.py; change that, and run scripts/mirror.py again.
"""`ContainerPool`: containers that are ready before they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, cast

from pocket_dock_mcp.async_.container import DEFAULT_TIMEOUT_S
from pocket_dock_mcp.async_.pool import AsyncContainerPool
from pocket_dock_mcp.sync.container import Container
from pocket_dock_mcp.sync.facade import Facade, mirrored


class ContainerPool(Facade[Any], of=AsyncContainerPool):
    """Containers of one kind, launched ahead and handed out in a few milliseconds, each to one claimer.

    Use it as a context manager, once. A claimed container is never used again: shut it down, and
    another takes its place. Leaving the pool ends all of its containers, those that were claimed as well.

        with ContainerPool("minimal", size=4) as pool:
            with pool.claim(env={"TOKEN": "..."}) as c:
                print((c.run("echo hi")).stdout)
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
        self._wrap(
            AsyncContainerPool(
                image,
                profile=profile,
                size=size,
                timeout=timeout,
                mem_limit=mem_limit,
                cpu_percent=cpu_percent,
                network=network,
                pids_limit=pids_limit,
                disk_limit=disk_limit,
                shm_size=shm_size,
                enforce=enforce,
                warm_python=warm_python,
                memory_mb=memory_mb,
                engine=engine,
                socket_path=socket_path,
            )
        )

    def __enter__(self) -> ContainerPool:
        self._call(self._async.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._async.__aexit__, kind, error, trace)

    @property
    def ready(self) -> int:
        """How many containers are ready now."""
        return cast("int", self._async.ready)

    def wait_ready(self, count: int | None = None) -> None:
        """Wait until so many containers are ready; None for all."""
        self._call(self._async.wait_ready, count)

    def claim(self, *, env: Mapping[str, str] | None = None) -> Container:
        """Return a container of the caller's own, seen to be alive; a new one when none is ready.

        Args:
            env: variables that everything in it has.

        Raises:
            InvalidArgumentError: an environment that cannot be.
            ContainerError: the pool was left, or never entered.
            And what `create_new_container` raises, when none was ready.
        """
        return cast("Container", mirrored(self._call(self._async.claim, env=env)))

    def close(self) -> None:
        """End all containers of the pool. Idempotent."""
        self._call(self._async.aclose)
