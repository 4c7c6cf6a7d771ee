"""Sandboxes that are ready before they are asked for: as many as were wanted lately, if memory allows."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from dataclasses import replace

import anyio
from anyio.abc import TaskGroup

from pocket_dock_mcp import telemetry
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.stock import Ready, Stock
from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.errors import SandboxClosedError
from pocket_dock_mcp.manager.making import Maker

WINDOW = 300.0
"""Seconds that a create counts as demand for the next one."""
MOST_READY = 4
"""Of one class. More than that are wanted at once by nobody who cannot wait a fifth of a second."""
MOST_CLASSES = 8


class Demand:
    """Which classes of containers were wanted lately, and how many of each."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: collections.OrderedDict[str, collections.deque[float]] = collections.OrderedDict()

    def note(self, kind: str) -> None:
        """One was wanted just now."""
        times = self._times.setdefault(kind, collections.deque(maxlen=MOST_READY))
        times.append(self._clock())
        self._times.move_to_end(kind)
        while len(self._times) > MOST_CLASSES:
            self._times.popitem(last=False)

    def wanted(self) -> dict[str, int]:
        """Return how many of each class are to be ready: as many as were wanted within the window."""
        self._forget()
        return {kind: len(times) for kind, times in self._times.items()}

    def until_less(self) -> float | None:
        """Return after how many seconds fewer will be wanted; None when none is."""
        self._forget()
        oldest = min((times[0] for times in self._times.values()), default=None)
        return None if oldest is None else oldest + WINDOW - self._clock()

    def _forget(self) -> None:
        begins = self._clock() - WINDOW
        for kind, times in tuple(self._times.items()):
            while times and times[0] <= begins:
                times.popleft()
            if not times:
                del self._times[kind]


class WarmPool:
    """Where the manager's containers come from: ready ones where there are, else new ones.

    Nothing is launched ahead before something was asked for.
    """

    def __init__(self, maker: Maker, budget_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._maker = maker
        self._budget_bytes = budget_bytes
        self._demand = Demand(clock)
        self._stocks: dict[str, Stock] = {}
        self._kinds: dict[str, Launch] = {}
        self._one_at_a_time = anyio.Lock()
        self._changed = anyio.Event()
        self._closed = False

    @property
    def ready(self) -> int:
        """How many containers are ready now."""
        return sum(stock.ready for stock in self._stocks.values())

    async def make(self, wanted: Launch, store: OutputStore) -> LiveContainer:
        """Return a container that nobody else has or had; see `launch` for what it raises."""
        if not self._budget_bytes or not _is_for_anybody(wanted):
            telemetry.instruments().created.add(1, {"source": "cold"})
            return await self._new(wanted, store)
        kind = replace(wanted, env={})
        name = repr(kind)
        stock = self._stocks.get(name)
        container = None if stock is None else await stock.take(wanted.env, store)
        telemetry.instruments().created.add(1, {"source": "cold" if container is None else "warm"})
        if container is None:
            container = await self._new(wanted, store)
        self._demand.note(name)
        self._kinds[name] = kind
        self._changed.set()
        return container

    async def run(self) -> None:
        """Keep as many ready as are wanted, until `aclose`."""
        async with anyio.create_task_group() as group:
            while not self._closed:
                self._plan(group)
                self._changed = anyio.Event()
                with anyio.move_on_after(self._demand.until_less()):
                    await self._changed.wait()

    async def aclose(self) -> None:
        """End all that nobody was given. Idempotent."""
        self._closed = True
        self._changed.set()
        async with anyio.create_task_group() as group:
            for stock in self._stocks.values():
                group.start_soon(stock.aclose)

    async def _new(self, wanted: Launch, store: OutputStore) -> LiveContainer:
        made = await self._maker.make(wanted)
        return LiveContainer(made.engine, made.wanted, made.running, store)

    def _plan(self, group: TaskGroup) -> None:
        wanted = self._demand.wanted()
        for name in wanted.keys() - self._stocks.keys():
            stock = self._stocks[name] = self._stock(self._kinds[name])
            group.start_soon(stock.run)
        for name, stock in tuple(self._stocks.items()):
            stock.target = wanted.get(name, 0)
            if not stock.target and stock.is_empty:
                del self._stocks[name], self._kinds[name]
                group.start_soon(stock.aclose)

    def _stock(self, kind: Launch) -> Stock:
        async def launch_one() -> Ready:
            async with self._one_at_a_time:
                if self._closed:
                    raise SandboxClosedError("The server is shutting down.")
                return await self._maker.make(kind)

        return Stock(launch_one, over=self._maker.over, room=self._room)

    def _room(self) -> float:
        return self._budget_bytes - sum(stock.memory_bytes for stock in self._stocks.values())


def _is_for_anybody(wanted: Launch) -> bool:
    """Whether another container would do as well.

    A uid that is given is a snapshot's; a kept container, names and labels are their owner's too, and what is
    the host's was given to this one.
    """
    owned = wanted.keep or wanted.name or wanted.labels or wanted.volumes or wanted.devices
    return wanted.uid is None and not owned
