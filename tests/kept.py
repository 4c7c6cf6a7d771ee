"""Kept containers for tests: made, found again by what a caller would have written down, and removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from tests.engines import LABELS, Deadline, eventually, is_gone, unique


class Kept:
    """One kept container, and those who hold it one after the other."""

    def __init__(self, engine: Engine, wanted: Launch, deadline: Deadline) -> None:
        self.engine = engine
        self.wanted = wanted
        self.deadline = deadline
        self._holders: list[LiveContainer] = []

    async def create(self) -> LiveContainer:
        """Make it, and write down its uid."""
        container = self._held(await LiveContainer.create(self.engine, self.wanted))
        self.wanted = replace(self.wanted, uid=container.uid)
        return container

    async def reattach(self) -> LiveContainer:
        """Take it up."""
        return self._held(await LiveContainer.reattach(self.engine, self.wanted))

    async def resume(self) -> LiveContainer:
        """Start it again."""
        return self._held(await LiveContainer.resume(self.engine, self.wanted))

    async def visit(self) -> LiveContainer:
        """Use it beside whoever holds it."""
        return self._held(await LiveContainer.visit(self.engine, self.wanted))

    def _held(self, container: LiveContainer) -> LiveContainer:
        self._holders.append(container)
        return container

    async def aclose(self) -> None:
        """Remove it, whoever holds it."""
        for container in self._holders:
            await container.destroy()
        await eventually(lambda: is_gone(self.engine, self.wanted.name), self.deadline(15))

    async def again(self, container: LiveContainer) -> LiveContainer:
        """Let go of it and take it up."""
        await container.detach()
        return await self.reattach()

    async def status(self) -> str:
        """Return what the engine says of it."""
        return (await self.engine.inspect(self.wanted.name)).status

    async def has_exited(self, within: float = 15) -> bool:
        """Wait until it has exited."""

        async def exited() -> bool:
            return await self.status() == "exited"

        return await eventually(exited, self.deadline(within))


@asynccontextmanager
async def keeping(engine: Engine, image: str, deadline: Deadline, **options: Any) -> AsyncIterator[Kept]:
    """Have one that is removed in the end, whoever holds it then."""
    wanted = Launch(unique("kept"), image, LABELS, keep=True, **{"detached_ttl_s": 600.0, **options})
    kept = Kept(engine, wanted, deadline)
    try:
        yield kept
    finally:
        await kept.aclose()
