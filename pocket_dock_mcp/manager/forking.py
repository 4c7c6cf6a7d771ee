"""Sandboxes that begin with the files of another one, several at once: to try several ways.

Their files are those of one image, made of the sandbox in the moment of the fork. It is nobody's snapshot: it
goes away with the last sandbox that lives on it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from pocket_dock_mcp import telemetry
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import COMPILED, Launch, dispose
from pocket_dock_mcp.container.stock import Ready
from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.manager.access import Access, EngineAccess
from pocket_dock_mcp.manager.journal import Journal
from pocket_dock_mcp.manager.keeping import SnapshotKeeper
from pocket_dock_mcp.manager.making import Maker
from pocket_dock_mcp.manager.mending import Mender
from pocket_dock_mcp.manager.sandbox import Sandbox, SandboxRequest
from pocket_dock_mcp.manager.snapshots import FORKS
from pocket_dock_mcp.manager.sweep import NONCE_LABEL

MOST_FORKS = 8
"""Of one call."""


def check_count(count: int) -> None:
    """Refuse a number of forks that makes no sense. Raises `InvalidArgumentError`."""
    if not 1 <= count <= MOST_FORKS:
        message = f"count is {count}; it must be from 1 to {MOST_FORKS}."
        raise InvalidArgumentError(message)


def as_fork(source: Sandbox, *, persist: bool = False) -> SandboxRequest:
    """Return the request for a fork. It has the source's volumes and devices, and ports of its own."""
    return replace(
        source.request,
        persist=persist,
        name=f"fork of {source.request.name or source.id}"[:100],
        container_name="",
        ports=tuple(replace(port, host_port=0) for port in source.request.ports),
    )


class Forker:
    """Makes forks: all that are wanted, or none."""

    def __init__(self, access: EngineAccess, maker: Maker, mender: Mender, keeper: SnapshotKeeper) -> None:
        self._access = access
        self._maker = maker
        self._mender = mender
        self._keeper = keeper

    @asynccontextmanager
    async def whole(self, journal: Journal | None) -> AsyncIterator[None]:
        """Remove the image of forks, of which `journal` knows, if they come to nothing after all."""
        try:
            yield
        except BaseException:
            if journal is not None:
                with anyio.CancelScope(shield=True):
                    await self._keeper.remove_deleted(journal)
            raise

    async def fork(
        self, source: LiveContainer, wanted: Launch, count: int, store: Callable[[], OutputStore]
    ) -> list[LiveContainer]:
        """Return containers that have the files of `source`, and nothing else in common with it.

        Raises:
            And leaves nothing behind: what `require_room`, `LiveContainer.commit` and `launch` raise.
        """
        access = await self._access.ready()
        await self._keeper.require_room(access.engine, source)
        tag, image = await self._commit(access, source)
        COMPILED.inherit(access.engine.info.identity, wanted.image, image)
        # From here on the image belongs to those who live on it.
        self._keeper.leave(tag, access.engine)
        async with self.whole(access.journal):
            wanted = replace(wanted, image=image, uid=source.uid)
            made = await self._launch(replace(wanted, at_ease=True), count)
        for one in made:
            one.running.transport.wake()
        telemetry.instruments().created.add(count, {"source": "fork"})
        return [
            LiveContainer(one.engine, replace(one.wanted, at_ease=False), one.running, store())
            for one in made
        ]

    async def _commit(self, access: Access, source: LiveContainer) -> tuple[str, str]:
        intent = access.journal.intend("image", f"{FORKS}:{secrets.token_hex(16)}")
        try:
            image = await source.commit(intent.name, labels={NONCE_LABEL: intent.nonce})
        except BaseException as error:
            self._access.note(error)
            # Perhaps there is no image, or it is still coming.
            self._mender.owe(intent.name)
            raise
        access.journal.made(intent.name)
        return intent.name, image

    async def _launch(self, wanted: Launch, count: int) -> list[Ready]:
        made: list[Ready] = []
        failures: list[Exception] = []

        async def launch_one() -> None:
            try:
                made.append(await self._maker.make(wanted))
            except Exception as error:  # noqa: BLE001  # raised again below, outside of the group
                failures.append(error)
                group.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                for _ in range(count):
                    group.start_soon(launch_one)
        except BaseException:
            await self._give_up(made)
            raise
        if failures:
            await self._give_up(made)
            raise failures[0]
        return made

    async def _give_up(self, made: list[Ready]) -> None:
        async def end(one: Ready) -> None:
            self._maker.over(one.wanted.name, await dispose(one.engine, one.running))

        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for one in made:
                    group.start_soon(end, one)
