"""Containers that are launched ahead: of one class, so many at once, each handed out to one claimer only."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import anyio
from anyio.abc import TaskGroup

from pocket_dock_mcp.agent.link import RemoteError
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch, Running, dispose
from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import AgentError, PocketDockError
from pocket_dock_mcp.models import MIB

logger = logging.getLogger(__name__)

ADOPT_DEADLINE = 2.0
"""Seconds for a claimed container to answer. Usual: a third of a millisecond; a paused one never does."""
NEXT_DEADLINE = 0.25
"""Seconds for the next one, after one that did not: what paused it has often paused all of them."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before another launch after one that failed or came to nothing; doubled each time."""
SURVIVAL = 1.0
"""Seconds after which a container counts as one that does not die at once."""
MEASURE_EVERY = 10.0
"""Seconds: warm interpreters go on importing for a while after a launch, and grow."""
FIRST_GUESS = 16 * MIB
"""Memory of a container that has not been measured yet."""


@dataclass(eq=False, slots=True)
class Ready:
    """A container that answers and belongs to nobody yet."""

    engine: Engine
    wanted: Launch
    running: Running
    memory_bytes: int = FIRST_GUESS
    since: float = field(default_factory=time.monotonic)
    watching: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Stock:
    """Containers of one class. `run` is what fills it; the rest may be called at any time."""

    def __init__(
        self,
        make: Callable[[], Awaitable[Ready]],
        *,
        over: Callable[[str, bool], None] = lambda _name, _removed: None,
        room: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """Prepare an empty stock.

        Args:
            make: launches one container, or raises and leaves nothing.
            over: hears the name of a container that nobody got and that was ended, and whether the engine
                has confirmed that it is gone.
            room: how many bytes of memory may still be used; less than nothing when some must go.
        """
        self._make = make
        self._over = over
        self._room = room
        self._target = 0
        self._ready: deque[Ready] = deque()
        self._busy = 0
        """Launches, takings and removals under way."""
        self._coming = 0
        self._failures = 0
        """Launches in a row that failed, or made a container that died at once."""
        self._closing = anyio.Event()
        self._changed = anyio.Event()
        self._scope: anyio.CancelScope | None = None
        self._group: TaskGroup | None = None

    @property
    def ready(self) -> int:
        """How many can be taken now."""
        return len(self._ready)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing: neither ready, nor being launched or removed."""
        return not self._ready and not self._busy

    @property
    def memory_bytes(self) -> int:
        """What those use that are ready or just being launched."""
        return sum(one.memory_bytes for one in self._ready) + self._coming * self.each_bytes

    @property
    def each_bytes(self) -> int:
        """What one more would use."""
        return max((one.memory_bytes for one in self._ready), default=FIRST_GUESS)

    @property
    def target(self) -> int:
        """How many there are to be."""
        return self._target

    @target.setter
    def target(self, count: int) -> None:
        self._target = count
        self._notify()

    async def take(self, env: Mapping[str, str], store: OutputStore | None = None) -> LiveContainer | None:
        """Return a container that is alive, with this in its programs' environment; None if there is none.

        It is the caller's from now on and never comes back.
        """
        deadline = ADOPT_DEADLINE
        for _ in range(len(self._ready)):
            if not self._ready:
                break
            # Nothing is awaited between the look and the taking, so no two callers have the same.
            ready = self._ready.popleft()
            ready.watching.cancel()
            self._busy += 1
            self._notify()
            try:
                await ready.running.transport.adopt(env, deadline)
            except (AgentError, RemoteError) as error:
                self._failed(error)
                await self._drop(ready)
                deadline = NEXT_DEADLINE
            except BaseException:
                await self._drop(ready)
                raise
            else:
                return LiveContainer(ready.engine, replace(ready.wanted, env=env), ready.running, store)
            finally:
                self._busy -= 1
                self._notify()
        return None

    async def _drop(self, ready: Ready) -> None:
        """Give up what was to be taken: nothing else knows of it any more."""
        if self._group is not None:
            self._discard(ready)
        else:
            self._over(ready.wanted.name, await dispose(ready.engine, ready.running))

    async def wait_ready(self, count: int) -> None:
        """Wait until so many can be taken."""
        while len(self._ready) < count and not self._closing.is_set():
            await self._changed.wait()

    async def run(self) -> None:
        """Keep as many as are wanted, until `aclose`: one launch at a time, so as not to be in the way.

        It is not cancelled from outside: a create request that is cancelled may be served all the same.
        """
        with anyio.CancelScope(shield=True) as self._scope:
            try:
                async with anyio.create_task_group() as self._group:
                    await self._keep()
            finally:
                self._group = None

    async def aclose(self) -> None:
        """End all that nobody has taken, also those that are just being launched. Idempotent.

        What is not done when the caller is cancelled is given up, and left to the containers' leases.
        """
        self._closing.set()
        while self._ready:
            self._discard(self._ready.popleft())
        self._notify()
        try:
            while self._busy:
                await self._changed.wait()
        finally:
            if self._scope is not None:
                self._scope.cancel()

    # -- inside -----------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while not self._closing.is_set():
            await self._measure()
            if self._ready and (len(self._ready) > self._target or self._room() < 0):
                self._discard(self._ready.popleft())
            elif len(self._ready) < self._target and self.each_bytes <= self._room():
                await self._rest()
                await self._add()
            else:
                with anyio.move_on_after(MEASURE_EVERY if self._ready else math.inf):
                    await self._changed.wait()

    async def _rest(self) -> None:
        """After failures wait a while, not to be a burden to an engine in trouble."""
        if self._failures:
            with anyio.move_on_after(min(FIRST_PAUSE * 2 ** (self._failures - 1), LONGEST_PAUSE)):
                await self._closing.wait()

    async def _add(self) -> None:
        if self._closing.is_set():
            return
        self._busy += 1
        self._coming = 1
        try:
            ready = await self._make()
            try:
                # An agent that can be spoken to may still be loading most of itself; it answers after that.
                await self._look_at(ready)
            except BaseException:
                self._discard(ready)
                raise
        except PocketDockError as error:
            self._failed(error)
        else:
            self._failures = min(self._failures, 2)
            self._take_in(ready)
        finally:
            self._busy -= 1
            self._coming = 0
            self._notify()

    def _failed(self, reason: PocketDockError | RemoteError) -> None:
        # Once, and not each time: an engine may be away for days.
        is_news = not self._failures and not self._closing.is_set()
        level = logging.WARNING if is_news else logging.DEBUG
        logger.log(level, "no container can be launched ahead for now: %s", reason)
        self._failures += 1

    def _take_in(self, ready: Ready) -> None:
        if self._closing.is_set() or self._group is None:
            self._discard(ready)
            return
        self._ready.append(ready)
        self._group.start_soon(self._watch, ready)

    async def _watch(self, ready: Ready) -> None:
        """Throw a container away that dies before anybody wants it."""
        with ready.watching:
            reason = await ready.running.transport.wait_broken()
            if ready in self._ready:
                self._ready.remove(ready)
                self._failed(reason)
                self._discard(ready)

    async def _measure(self) -> None:
        for ready in tuple(self._ready):
            await self._look_at(ready)
            if self._failures and time.monotonic() - ready.since > SURVIVAL:
                self._failures = 0
                logger.info("containers are launched ahead again")

    async def _look_at(self, ready: Ready) -> None:
        try:
            memory = (await ready.running.transport.stats()).memory_bytes
        except (AgentError, RemoteError):
            # Whoever watches it throws it away.
            return
        ready.memory_bytes = memory or FIRST_GUESS

    def _discard(self, ready: Ready) -> None:
        """Remove a container without making anybody wait."""
        ready.watching.cancel()
        if self._group is not None:
            self._busy += 1
            self._group.start_soon(self._dispose, ready)

    async def _dispose(self, ready: Ready) -> None:
        try:
            self._over(ready.wanted.name, await dispose(ready.engine, ready.running))
        finally:
            self._busy -= 1
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
