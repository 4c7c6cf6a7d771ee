"""The disk of one container: what it has written, what all have left, and what ends runs that write too much.

The agent notices that the disk loses room while programs run, which costs next to nothing; only the engine
can say whose writing it was, and is asked only then.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import anyio

from pocket_dock_mcp.agent.agent_transport import AgentTransport
from pocket_dock_mcp.agent.transport import Transport
from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    AgentError,
    ContainerGoneError,
    EngineDiskError,
    EngineError,
    RequestRefusedError,
)
from pocket_dock_mcp.models import MIB, Limits

logger = logging.getLogger(__name__)

GRACE_BYTES = 16 * MIB
"""That may be written before the next look, though all room is used: who deletes files writes as well."""
PAUSE_S = 0.5
"""Between two questions to the engine: on a busy disk somebody else's writing asks them."""
SETTLED_S = 1.5
"""After which runs that were stopped have ended: an interrupted session is told again and again."""
BEGUN_AGAIN_S = 0.5
"""After which a container that stopped answering is looked for again: it may have been rebooted."""
INSISTING_S = 30.0
INSISTING = 3
"""So many times within so many seconds is too often: then whoever is not a run is killed, too."""


class Running(Protocol):
    """What of a `launch.Running` matters here."""

    @property
    def id(self) -> str:
        """The container's on the engine."""

    @property
    def transport(self) -> Transport:
        """How it is reached."""


class Wanted(Protocol):
    """What of a `Launch` matters here."""

    @property
    def limits(self) -> Limits:
        """What the sandbox may use."""

    @property
    def min_free_bytes(self) -> int:
        """What is to stay free."""


class Disk:
    """What `LiveContainer.disk` is."""

    def __init__(self, engine: Engine, running: Running, wanted: Wanted) -> None:
        self._engine = engine
        self._id = running.id
        # Where there are only execs nobody looks at it from inside.
        self._agent = running.transport if isinstance(running.transport, AgentTransport) else None
        self._limit = wanted.limits.disk_bytes
        self._floor = wanted.min_free_bytes

    async def used(self) -> int | None:
        """Return how many bytes it has written: those of files on the disk that its image has not.

        Raises:
            EngineError: the engine does not say.
        """
        return (await self._engine.inspect(self._id, size=True)).size_bytes

    async def is_bound(self, most: int, *, floor: int) -> bool:
        """Say whether it can have written no more than `most`, and the disk has room for that above `floor`.

        That costs no question to the engine, which takes a while to measure, and a long one for many files.
        Where nobody guards the limit it is no bound.
        """
        if self._agent is None or self._limit > most:
            return False
        free = await self._agent.disk_free()
        return free is not None and free >= floor + self._limit

    async def require_free(self, least: int) -> None:
        """See that the engine's disk has so many bytes free; where nobody knows it, it has.

        Raises:
            EngineDiskError: it has not.
            AgentError: the container cannot be reached.
        """
        if self._agent is not None:
            require_free(await self._agent.disk_free(), least)

    async def guard(self) -> None:
        """Kill what runs whenever it has written more than its limit, for as long as the container answers.

        The files stay, and so does the container: they can be deleted. When the engine's disk is nearly full
        and loses more while programs run, they are killed as well: a file that is open and deleted is
        nobody's to be seen. Who goes on when all runs have been stopped is killed with everything there is.
        """
        if self._agent is None:
            await anyio.sleep_forever()
            return
        try:
            used, unseen, stops = 0, 0, deque[float](maxlen=INSISTING)
            while True:
                # Below zero what runs is stopped at the first look.
                room = max(max(self._limit - used, GRACE_BYTES) - unseen, -1)
                free = await self._agent.watch_disk(room, floor=self._floor, grace=GRACE_BYTES)
                used = await self._measured(used)
                if used > self._limit or free < self._floor:
                    stops.append(anyio.current_time())
                    await self._agent.stop_for_disk(used)
                    if _is_insisting(stops) or await self._goes_on():
                        await self._agent.kill_all()
                await anyio.sleep(PAUSE_S)
                # What was written since, while nobody watched, is no second grace.
                unseen = max(await self._measured(used) - used, 0)
        except (AgentError, RequestRefusedError) as error:
            logger.debug("a container is gone, and its disk no longer guarded: %s", error)

    async def _goes_on(self) -> bool:
        """Whether something writes that is no run, such as a session's thread. Not said of a new run."""
        if self._agent is None:
            return False
        with anyio.move_on_after(SETTLED_S):
            await self._agent.watch_disk(GRACE_BYTES, floor=self._floor, grace=GRACE_BYTES)
            # That is a new run, which is not to have these seconds to itself.
            return False
        before = await self._measured(0)
        await anyio.sleep(PAUSE_S)
        after = await self._measured(0)
        if after <= before + MIB:
            return False
        return not (await self._agent.stats()).runs

    async def _measured(self, known: int) -> int:
        try:
            return await self.used() or 0
        except ContainerGoneError:
            # It was ended meanwhile: its agent does not answer the next question either.
            return known
        except EngineError as error:
            logger.warning("could not measure what a container has written: %s", error)
            return known


class Reached(Protocol):
    """What of a `LiveContainer` matters here."""

    @property
    def disk(self) -> Disk:
        """Its disk, another one after a reboot."""

    async def wait_lost(self) -> None:
        """Return when it cannot be reached any more."""


async def guard_until_lost(container: Reached) -> None:
    """See that it does not write too much, also after it was begun again; return when it is lost."""

    async def guard() -> None:
        while True:
            await container.disk.guard()
            await anyio.sleep(BEGUN_AGAIN_S)

    async with beside(guard):
        await container.wait_lost()


def _is_insisting(stops: Sequence[float]) -> bool:
    return len(stops) == INSISTING and stops[-1] - stops[0] < INSISTING_S


def require_free(free: int | None, least: int) -> None:
    """Refuse to use more of a disk that has less than `least` bytes free.

    Raises:
        EngineDiskError: it has.
    """
    if free is not None and free < least:
        raise EngineDiskError(
            f"The engine's disk has room for {free // MIB} MiB, and {least // MIB} MiB are to stay free.",
            hint="Delete snapshots, make room on the machine (see df -h, and df -i for the number of files), "
            "or lower POCKET_DOCK_MIN_FREE_MB.",
        )
