"""Who holds a container: it is made, taken up, let go of and ended here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Literal

import anyio
from typing_extensions import Self

from pocket_dock_mcp.agent.agent_process import AgentProcess, KeptRun
from pocket_dock_mcp.agent.agent_transport import AgentTransport
from pocket_dock_mcp.agent.transport import Transport
from pocket_dock_mcp.container.endings import Fate
from pocket_dock_mcp.container.forwarding import Forwarder
from pocket_dock_mcp.container.launch import ADOPT_DEADLINE, Launch, Running, launch
from pocket_dock_mcp.container.left import LeftRuns
from pocket_dock_mcp.container.life import Life
from pocket_dock_mcp.container.memory import Memory, recalled, stays
from pocket_dock_mcp.container.outgoing import Outgoing
from pocket_dock_mcp.container.provisioning import explained
from pocket_dock_mcp.container.run import AsyncRun
from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.container.taking_up import as_made, rejoin, resume, visit
from pocket_dock_mcp.engine.base import ContainerSetup, Engine, EngineDetails, EngineInfo
from pocket_dock_mcp.errors import AgentError


class HeldContainer:
    """A container and the hold on it; what can be done with it is `LiveContainer`."""

    def __init__(
        self,
        engine: Engine,
        wanted: Launch,
        running: Running,
        store: OutputStore | None = None,
        *,
        visits: bool = False,
    ) -> None:
        self._engine = engine
        self._wanted = wanted
        self._life = Life(engine, wanted, running, visits=visits)
        self._store = store or OutputStore()
        self._found: list[AsyncRun] = []
        self.left_runs = LeftRuns(self._store)
        """Runs that were begun from here and whose user may ask for them again."""
        self._forwarder = Forwarder(self._life)
        self._outgoing = Outgoing(self._life)

    @classmethod
    async def create(cls, engine: Engine, wanted: Launch, store: OutputStore | None = None) -> Self:
        """Launch a container, whose output goes to `store`; see `launch` for what it raises."""
        container = cls(engine, wanted, await launch(engine, wanted), store)
        if wanted.keep:
            async with container._handing_back():
                await container.outlive()
        return container

    @classmethod
    async def resume(cls, engine: Engine, wanted: Launch, store: OutputStore | None = None) -> Self:
        """Start a kept container that has stopped, by its name; see `taking_up.resume` for what it raises."""
        wanted = await as_made(engine, wanted)
        return cls(engine, wanted, await resume(engine, wanted), store)

    @classmethod
    async def reattach(cls, engine: Engine, wanted: Launch, store: OutputStore | None = None) -> Self:
        """Take up a kept container that runs, by its name; see `rejoin` for what it raises.

        Whoever held it before does not any more. `found_runs` has handles to the runs that it knows of: their
        output comes again from the beginning, and they end as they have ended, or will.
        """
        wanted = await as_made(engine, wanted)
        running, found = await rejoin(engine, wanted)
        container = cls(engine, wanted, running, store)
        async with container._handing_back():
            for known in found:
                await container._take_up(running, known)
        return container

    @classmethod
    async def visit(cls, engine: Engine, wanted: Launch, store: OutputStore | None = None) -> Self:
        """Join a kept container that runs beside whoever holds it; see `taking_up.visit` for what it raises.

        Nobody else notices, unless it is stopped, rebooted or destroyed from here. `aclose` only leaves it,
        and ends the runs that were begun from here and are not to stay. Of `found_runs` nothing is told
        before it is asked for.
        """
        wanted = await as_made(engine, wanted)
        running, found = await visit(engine, wanted)
        container = cls(engine, wanted, running, store, visits=True)
        async with container._handing_back():
            container._look_at(found)
        return container

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<LiveContainer {self._wanted.name} {self._wanted.image} {self._life.state}>"

    @property
    def _running(self) -> Running:
        return self._life.running

    @property
    def _transport(self) -> Transport:
        return self._life.running.transport

    def _fate(self, running: Running, meta: Mapping[str, Any] | None) -> Fate:
        return partial(self._life.fate, running, goes_on=stays(meta))

    def _reaching(self) -> AbstractAsyncContextManager[None]:
        reaching = self._life.reaching()
        return explained(reaching, self._wanted) if self._wanted.volumes else reaching

    @property
    def name(self) -> str:
        """The container's name on the engine."""
        return self._wanted.name

    @property
    def container_id(self) -> str:
        """The engine's id of the container; another one after a fresh reboot."""
        return self._running.id

    @property
    def engine_info(self) -> EngineInfo:
        """The engine that it is on."""
        return self._engine.info

    async def setup(self) -> tuple[ContainerSetup, EngineDetails]:
        """Return how the engine says that the container is set up, and that it is itself.

        Raises:
            ContainerGoneError, EngineError: the engine does not tell.
        """
        return await self._engine.setup(self._running.id), await self._engine.details()

    @property
    def home(self) -> str:
        """The user's home directory: where relative paths start, and programs."""
        return self._transport.facts.home

    @property
    def uid(self) -> int:
        """The user id of everything that runs inside."""
        return self._transport.facts.uid

    @property
    def python(self) -> str | None:
        """Version of its image's python3."""
        return self._transport.facts.python

    def require_open(self) -> None:
        """See that it was neither closed nor lost; raises why it was."""
        self._life.require_open()

    @property
    def launched(self) -> Launch:
        """What it was launched as."""
        return self._wanted

    @property
    def runs_on(self) -> bool:
        """Whether it can be detached from: it is kept, and has an agent."""
        return self.outlasts == "processes"

    @property
    def outlasts(self) -> Literal["nothing", "files", "processes"]:
        """What of it outlives who uses it."""
        if not self._wanted.keep:
            return "nothing"
        return "processes" if self._transport.kind == "agent" else "files"

    async def outlive(self) -> None:
        """Have a new kept container outlive us; until then it stops with us.

        Raises:
            SandboxLostError, SandboxClosedError: as for `run`.
        """
        async with self._reaching():
            await self._transport.adopt({}, ADOPT_DEADLINE)

    @property
    def visits(self) -> bool:
        """Whether another may hold it."""
        return self._life.visits

    @property
    def halted(self) -> str | None:
        """What another client has done with it, if its agent says so: see `SandboxHaltedError.WORDS`."""
        return self._life.halted

    async def is_gone(self, within: float) -> bool:
        """Whether the engine knows it no more, after so many seconds at the latest."""
        return await self._life.is_gone(within)

    async def is_shared(self) -> bool:
        """Whether another client uses it, or anything runs in it.

        Raises:
            SandboxLostError, SandboxClosedError: as for `run`.
        """
        async with self._reaching():
            return await self._transport.is_shared()

    # -- what it is taken up with -----------------------------------------------------------------

    @property
    def found_runs(self) -> list[AsyncRun]:
        """Handles to the runs that were there when it was taken up, or looked for; oldest first."""
        return list(self._found)

    async def look_for_runs(self) -> list[AsyncRun]:
        """Have handles in `found_runs` to what others have begun since, and return the new ones.

        Raises:
            SandboxLostError, SandboxClosedError: as for `run`.
        """
        transport = self._transport
        if not self.runs_on or not isinstance(transport, AgentTransport):
            return []
        async with self._reaching():
            return self._look_at(await transport.others_runs())

    def _look_at(self, found: Sequence[KeptRun]) -> list[AsyncRun]:
        transport, new = self._transport, list[AsyncRun]()
        there = {run.process.id for run in self._found if isinstance(run.process, AgentProcess)}
        for known in found:
            memory = recalled(known.meta)
            if memory is None or known.id in there or not isinstance(transport, AgentTransport):
                continue
            run = self._handle(self._running, known, memory)
            # Who has begun it tells of it; unless that one has gone.
            run.is_ours_to_tell = known.ended and not known.attended
            run.started(transport.look_at(known, memory.program, run.take))
            new.append(run)
        self._found = sorted([*self._found, *new], key=lambda run: run.began)
        return new

    async def _take_up(self, running: Running, known: KeptRun) -> None:
        memory = recalled(known.meta)
        transport = running.transport
        if memory is None or not isinstance(transport, AgentTransport):
            return
        run = self._handle(running, known, memory)
        run.started(await transport.take_up(known, memory.program, run.take))
        self._found.append(run)

    def _handle(self, running: Running, known: KeptRun, memory: Memory) -> AsyncRun:
        fate = partial(self._life.fate, running)
        run = AsyncRun(memory.program, self._store.open(), self._wanted.limits, fate, memory)
        run.missing = known.missing[:2]
        run.had_ended, run.was_heard_of = known.ended, known.heard_of
        return run

    @asynccontextmanager
    async def _handing_back(self) -> AsyncIterator[None]:
        """Leave it as it was if it cannot be taken up."""
        try:
            yield
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self._transport.aclose()
            for run in self._found:
                run.close()
            if isinstance(error, AgentError):
                raise self._life.mark_lost(error.message) from error
            raise

    # -- endings ----------------------------------------------------------------------------------

    async def wait_lost(self) -> None:
        """Return when the container cannot be reached any more, for whatever reason."""
        await self._life.wait_lost()

    @property
    def removed(self) -> bool:
        """Whether it was closed and the engine has confirmed that it is gone."""
        return self._life.removed

    def tell_of_renewals(self, hear: Callable[[bool], None]) -> None:
        """Have it heard when a fresh container begins to take the place of this one, and when it has."""
        self._life.on_renewal = hear

    async def reboot(self, *, fresh: bool = False) -> None:
        """End all processes and sessions, and begin again with the files that are there.

        With `fresh` a new container of the same name, image and options takes its place, and the files are
        gone. Runs that were under way end as ``killed``.

        Raises:
            SandboxLostError: it could not be begun again.
            And what `create` and `resume` raise.
        """
        await self._life.reboot(fresh=fresh)

    async def leave(self) -> None:
        """Be its client no more, and do nothing to it. Idempotent, and quiet."""
        await self._life.leave()

    async def detach(self) -> None:
        """Let go of a kept container and leave it running, for `reattach`.

        Raises:
            SandboxStateError: it is not one that can run on.
            SandboxLostError, SandboxClosedError: as for `run`.
        """
        await self._life.detach()
        await self._close_ports()

    async def stop(self) -> None:
        """End everything in a kept container, at once, and leave its files, for `resume`.

        Raises:
            SandboxStateError: it is not one that is kept.
            EngineError: it does not stop by itself, and the engine did not stop it.
            SandboxLostError, SandboxClosedError: as for `run`.
        """
        try:
            await self._life.stop()
        finally:
            await self._close_ports()

    async def aclose(self) -> None:
        """End and remove it, with everything in it, unless it was detached from or stopped before.

        Idempotent; quiet when it is gone already.
        """
        await self._life.aclose()
        await self._close_ports()

    async def destroy(self) -> None:
        """End and remove it, also when it was detached from or stopped. Idempotent and quiet."""
        await self._life.destroy()
        await self._close_ports()

    async def _close_ports(self) -> None:
        """Close the ports that lead into it, unless it goes on."""
        if self._life.state != "running":
            self.left_runs.clear()
            await self._forwarder.aclose()
            await self._outgoing.aclose()
