"""What goes out of a container without a network: its programs' connections, each answered by a gate."""

from __future__ import annotations

import asyncio
import logging

import anyio
from anyio.abc import TaskGroup

from pocket_dock_mcp.agent.link import RemoteError
from pocket_dock_mcp.agent.transport import Transport
from pocket_dock_mcp.container.caller import Caller
from pocket_dock_mcp.container.life import Life
from pocket_dock_mcp.container.outfit import Opened
from pocket_dock_mcp.errors import AgentError
from pocket_dock_mcp.gate.limits import Pace

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
"""Of one container at once. More of them wait inside."""
BURST = 64.0
"""Connections that are taken one right after the other, ..."""
PER_SECOND = 50.0
"""... before it is no more than these: a program that only connects is not to keep others waiting."""
CLOSE_DEADLINE = 2.0


class Outgoing:
    """Serves the connections of one container, for as long as it is held from here.

    A reboot is not the end of it; each start of the container has a gate of its own.
    """

    def __init__(self, life: Life) -> None:
        self._life = life
        self._task: asyncio.Task[None] | None = None
        if life.running.gate is not None:
            # It outlives the call that made it, as the agent's link does; `aclose` ends it.
            self._task = asyncio.get_running_loop().create_task(self._run(), name="outgoing")

    async def aclose(self) -> None:
        """Break everything off. Idempotent."""
        if self._task is None:
            return
        self._task.cancel()
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_DEADLINE):
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        running = self._life.running
        while True:
            if running.gate is not None:
                await _Serving(running.transport, running.gate).run()
            await running.transport.wait_broken()
            successor = await self._life.successor(running)
            if successor is None:
                return
            running = successor


class _Serving:
    """What answers one start of a container."""

    def __init__(self, transport: Transport, gate: Opened) -> None:
        self._transport = transport
        self._gate = gate
        self._room = anyio.Semaphore(MOST_CONNECTIONS)
        self._pace = Pace(PER_SECOND, BURST)

    async def run(self) -> None:
        """Serve until the container is not reached any more."""
        try:
            async with anyio.create_task_group() as group:
                try:
                    await self._take_all(group)
                except (AgentError, RemoteError) as error:
                    logger.debug("nothing goes out of a sandbox any more: %s", error)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._gate.aclose()

    async def _take_all(self, group: TaskGroup) -> None:
        while True:
            await self._room.acquire()
            await self._pace.take()
            group.start_soon(self._answer, await Caller.next(self._transport))

    async def _answer(self, caller: Caller) -> None:
        try:
            with anyio.CancelScope() as serving:
                caller.when_over(serving.cancel)
                await self._gate.serve(caller)
        except Exception:
            # A fault of ours in answering one must not leave all others without an answer.
            logger.exception("a connection of a sandbox was broken off")
        finally:
            await caller.part()
            self._room.release()
