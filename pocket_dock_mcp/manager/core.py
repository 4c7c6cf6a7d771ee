"""`Manager`: who owns which sandbox, until when, within which quota.

Decisions on its state, which sandboxes there are and who has reserved places, are taken without awaiting;
what then has to be done on the engine is done afterwards, shielded where it is cleaning up.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from types import TracebackType

import anyio
from anyio.abc import TaskGroup
from typing_extensions import Unpack

from pocket_dock_mcp import telemetry
from pocket_dock_mcp.container.diffing import TreeDiff
from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.engine.base import ContainerState
from pocket_dock_mcp.errors import (
    InvalidArgumentError,
    PocketDockError,
    SandboxClosedError,
    SandboxNotFoundError,
)
from pocket_dock_mcp.manager.access import Access, Connect, EngineAccess
from pocket_dock_mcp.manager.comparing import Comparer, DiffOptions
from pocket_dock_mcp.manager.ending import LAST_PAUSES, Ender
from pocket_dock_mcp.manager.forking import Forker, as_fork, check_count
from pocket_dock_mcp.manager.keeping import SnapshotKeeper
from pocket_dock_mcp.manager.making import Maker, launch_of
from pocket_dock_mcp.manager.mending import Mender
from pocket_dock_mcp.manager.observing import Beginning, Observer
from pocket_dock_mcp.manager.opening import open_all, opened
from pocket_dock_mcp.manager.others import others
from pocket_dock_mcp.manager.outliving import keep_all, sandboxes_of
from pocket_dock_mcp.manager.persistence import KeptSandbox, SandboxKeeper
from pocket_dock_mcp.manager.places import Places, Reservation
from pocket_dock_mcp.manager.pool import WarmPool
from pocket_dock_mcp.manager.reaching import Reacher
from pocket_dock_mcp.manager.runs import SandboxRun
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest, check_request, new_id
from pocket_dock_mcp.manager.searching import RunSearch
from pocket_dock_mcp.manager.snapshots import Snapshot
from pocket_dock_mcp.manager.table import Table
from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.spool import FairBudget, SpoolBudget

logger = logging.getLogger(__name__)

CLOSE_DEADLINE = 1.5
"""Seconds for ending everything: MCP hosts send SIGTERM 2 s after closing our input, SIGKILL soon after."""
GONE_SESSIONS = 10_000
"""The latest that have ended, for those who still make something for one of them."""
Progress = Callable[[str], None]


class Manager:
    """All sandboxes of this process. Use it as an async context manager: leaving it ends them all.

    No engine is touched before the first call that needs one.
    """

    def __init__(self, settings: Settings, connect: Connect) -> None:
        self._settings = settings
        self._table = Table()
        self._places = Places(settings, self._table.counted)
        self._gone_sessions: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._closing = False
        self._access = EngineAccess(settings, connect)
        self._mender = Mender(self._access)
        self._maker = Maker(self._access, self._mender, settings.max_creates)
        self._keeper = SnapshotKeeper(settings, self._access, self._mender)
        self._observer = Observer(settings)
        self._ender = Ender(self._table, self._access, self._maker, self._keeper, self._observer)
        self._persistence = SandboxKeeper(settings, self._access)
        self._reacher = Reacher(
            self._table, self._ender, self._persistence, self._reserved_for, self._hold, self._store
        )
        self._search = RunSearch(self._table, self._ender, self._reacher.reach, self.list_kept)
        self._comparer = Comparer(self._maker, self._access, self._keeper)
        self._forker = Forker(self._access, self._maker, self._mender, self._keeper)
        self._spool = FairBudget(settings.spool_mb * MIB)
        self._pool = WarmPool(self._maker, settings.pool_mb * MIB)
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup | None = None

    def when_one_ends(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when a sandbox has ended, by whatever hand, or was not made."""
        self._ender.on_end = callback

    async def __aenter__(self) -> Manager:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._tasks.start_soon(self._ender.run, self._tasks)
        self._tasks.start_soon(self._mender.run)
        self._tasks.start_soon(self._pool.run)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.aclose()
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
        await self._stack.aclose()

    def __repr__(self) -> str:
        live, coming = len(self._table), self._places.taken
        return f"<Manager [Sandboxes: {live} live, {coming} coming]>"

    # -- sandboxes --------------------------------------------------------------------------------

    async def create(self, owner: Owner, request: SandboxRequest, progress: Progress) -> Sandbox:
        """Create a sandbox for `owner`; `progress` hears of what takes long, such as building an image.

        Raises:
            InvalidArgumentError: limits or lifetimes that make no sense.
            QuotaError: the owner's principal has as many as allowed.
            CapacityError: all principals together have.
            SnapshotNotFoundError, ImageError, EngineError, LimitsNotEnforcedError, SandboxLostError.
        """
        check_request(request, self._settings)
        memory = request.limits.memory_bytes
        with telemetry.span("sandbox.create"), self._reserved_for(owner, 1, memory) as reservation:
            sandbox = await self._make(owner, request, progress, reservation)
        await self._require_owner(owner, [sandbox])
        return sandbox

    async def fork(
        self, owner: Owner, sandbox_id: str | None, count: int, *, names: Sequence[str] = ()
    ) -> tuple[Sandbox, list[Sandbox]]:
        """Make sandboxes with the files of one of the owner's, each for itself from then on: all, or none.

        Processes and variables are not part of it. Limits, network and environment are the same. Those with
        `names`, one for each, are kept beyond this process.

        Raises:
            InvalidArgumentError: a count that makes no sense.
            QuotaError, CapacityError: there would be more than allowed.
            And what `open`, `LiveContainer.commit` and `create` raise.
        """
        check_count(count)
        source = await self.open(owner, sandbox_id)
        request = as_fork(source, persist=bool(names))
        memory = request.limits.memory_bytes
        with self._reserved_for(owner, count, memory) as reservation, source.use() as container:
            wanted = launch_of(request, self._settings, container.launched.image, container.uid)
            forks = await self._forker.fork(container, wanted, count, partial(self._store, owner))
            made = sandboxes_of(owner, request, forks, names)
            if names:
                async with self._forker.whole(self._access.journal):
                    await keep_all(self._persistence, self._maker, made)
            for one in made:
                self._hold(one, "fork")
                reservation.taken()
            await open_all(made, self._ender)
        self._observer.forked(source, made)
        await self._require_owner(owner, made)
        return source, made

    def get(self, owner: Owner, sandbox_id: str | None) -> Sandbox:
        """Return the owner's sandbox; without an id, the only one that there is.

        Raises:
            SandboxNotFoundError: unknown, or somebody else's: one answer.
            SandboxLostError: it was the owner's and has ended; the message says why.
            InvalidArgumentError: no id, and not exactly one sandbox.
        """
        return self._table.get(owner, sandbox_id)

    def find_run(self, owner: Owner, run_id: str) -> tuple[Sandbox, SandboxRun]:
        """Return one of the owner's runs with its sandbox.

        Raises:
            RunNotFoundError: unknown, forgotten, or somebody else's: one answer.
            SandboxLostError: it was the owner's, and its sandbox has ended; the message says why.
        """
        return self._table.find_run(owner, run_id)

    async def open(self, owner: Owner, sandbox_id: str | None) -> Sandbox:
        """Return the owner's sandbox like `get`; a kept one is joined or visited, or started again.

        Raises: what `get` raises; and
            SandboxBusyError: another process holds it, and it cannot be shared.
            EngineError: the engine failed; a kept sandbox stays on record.
        """
        sandbox_id = await self._id(owner, sandbox_id)
        try:
            return self.get(owner, sandbox_id)
        except SandboxNotFoundError:
            self._require_open()
            return await self._reacher.reach(owner, sandbox_id)

    async def open_run(self, owner: Owner, run_id: str) -> tuple[Sandbox, SandboxRun]:
        """Return one of the owner's runs like `find_run`, also of a kept sandbox, whoever has begun it."""
        return await self._search.find(owner, run_id)

    def list_sandboxes(self, owner: Owner) -> list[Sandbox]:
        """Return the owner's live sandboxes, oldest first."""
        return self._table.of(owner)

    async def list_kept(self, owner: Owner) -> list[KeptSandbox]:
        """Return the principal's kept sandboxes that this process does not hold, oldest first."""
        for record in await self._persistence.records(owner.principal):
            await self._ender.wait_for(record.id)
        found = await self._persistence.list(owner.principal)
        return [one for one in found if one.kept.id not in self._table]

    async def list_others(self) -> list[ContainerState]:
        """Return the containers of other processes that are not kept; see `others`."""
        access = await self._access.ready()
        return await others(access.engine, access.journal.instance)

    async def kill(self, owner: Owner, sandbox_id: str | None) -> str:
        """End one of the owner's sandboxes with all that is in it and return its id; errors as for `open`."""
        sandbox_id = await self._id(owner, sandbox_id)
        try:
            sandbox = self.get(owner, sandbox_id)
        except SandboxNotFoundError:
            await self._reacher.settled(owner, sandbox_id)
            self._observer.destroyed(owner, await self._persistence.destroy(owner.principal, sandbox_id))
        else:
            await self._ender.end(sandbox, "it was killed")
            if sandbox.container.visits:
                await self._persistence.strike(owner.principal, sandbox_id)
        return sandbox_id

    async def stop(self, owner: Owner, sandbox_id: str) -> None:
        """Stop a kept sandbox: its processes end, its files stay, and `open` starts it again.

        Raises: what `open` raises; and
            InvalidArgumentError: it is not kept, so that stopping would lose it.
        """
        try:
            sandbox = self.get(owner, sandbox_id)
        except SandboxNotFoundError:
            await self._reacher.settled(owner, sandbox_id)
            await self._persistence.stop(owner.principal, sandbox_id)
            return
        if not sandbox.is_kept:
            raise InvalidArgumentError(
                "Only a sandbox made with persist can be stopped.", hint="Kill it, or take a snapshot."
            )
        await self._ender.end(sandbox, "it was stopped", "stop")

    async def end_session(self, owner: Owner) -> None:
        """End all of a session's sandboxes that are not kept, those that are still being made too."""
        self._gone_sessions[owner.session] = None
        while len(self._gone_sessions) > GONE_SESSIONS:
            self._gone_sessions.popitem(last=False)
        await self._ender.end_all(self._table.of_session(owner))

    def session_is_over(self, owner: Owner) -> None:
        """Have a session's sandboxes ended like `end_session`, by the manager and without waiting."""
        if self._tasks is not None and not self._closing:
            self._tasks.start_soon(self.end_session, owner)

    def failed(
        self, owner: Owner, tool: str, error: PocketDockError, arguments: Mapping[str, object]
    ) -> None:
        """Hear from a front end that a call has failed: what was refused is on the audit log."""
        self._observer.denied(owner, tool, error, arguments)

    async def aclose(self) -> None:
        """End everything that is not kept, within `CLOSE_DEADLINE`, and let go of the engine. Idempotent."""
        self._closing = True
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_DEADLINE):
            async with anyio.create_task_group() as group:
                group.start_soon(self._pool.aclose)
                await self._ender.end_all(self._table.all())
            # Others may be ending on their own just now, or be made and then ended: they need the engine.
            await self._ender.wait_until(lambda: self._places.is_idle)
            if self._access.journal is not None:
                await self._keeper.remove_deleted(self._access.journal, LAST_PAUSES)
            await self._mender.settle_all()
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_DEADLINE):
            await self._access.aclose()
        self._access.close_journal()

    # -- snapshots --------------------------------------------------------------------------------

    async def snapshot(self, owner: Owner, sandbox_id: str | None, name: str) -> tuple[Sandbox, Snapshot]:
        """Keep a sandbox's files as an image of the owner's principal.

        Raises:
            InvalidArgumentError: a name that cannot be printed.
            QuotaError: the principal has as many as allowed.
            And what `open` and `LiveContainer.commit` raise.
        """
        sandbox = await self.open(owner, sandbox_id)
        made = await self._keeper.keep(sandbox, owner.principal, name)
        self._observer.snapshot_made(sandbox, made)
        return sandbox, made

    async def save_as(self, sandbox: Sandbox, tag: str) -> str:
        """Make an image of one's files under a name that is its user's; see `SnapshotKeeper.save_as`."""
        return await self._keeper.save_as(sandbox, tag)

    async def list_snapshots(self, owner: Owner) -> list[Snapshot]:
        """Return the principal's snapshots on this engine, oldest first."""
        return await self._keeper.list(owner.principal)

    async def delete_snapshot(self, owner: Owner, snapshot_id: str) -> Snapshot:
        """Delete one of the principal's snapshots. Sandboxes made from it live on.

        Raises:
            SnapshotNotFoundError: unknown, or somebody else's.
        """
        deleted = await self._keeper.delete(owner.principal, snapshot_id)
        self._observer.snapshot_deleted(owner, deleted)
        return deleted

    async def diff(
        self, owner: Owner, sandbox_id: str | None, **options: Unpack[DiffOptions]
    ) -> tuple[Sandbox, TreeDiff]:
        """Compare a sandbox's files with those that it began with, or with a snapshot's; see `DiffOptions`.

        Raises:
            SnapshotNotFoundError: ``since`` is neither ``start`` nor one of the principal's snapshots.
            And what `open` and `diffing.compare` raise.
        """
        sandbox = await self.open(owner, sandbox_id)
        return sandbox, await self._comparer.diff(sandbox, owner.principal, **options)

    # -- making and ending ------------------------------------------------------------------------

    @contextmanager
    def _reserved_for(self, owner: Owner, count: int, memory_bytes: int) -> Iterator[Reservation]:
        """Hold places for sandboxes that are made or taken up; see `Places.reserved`."""
        self._require_open()
        try:
            with self._places.reserved(owner, count, memory_bytes) as reservation:
                yield reservation
        finally:
            self._ender.wake()

    def _require_open(self) -> None:
        if self._closing:
            raise SandboxClosedError("The server is shutting down.")

    async def _require_owner(self, owner: Owner, made: list[Sandbox]) -> None:
        """End what was made for an owner who left meanwhile."""
        if self._closing or owner.session in self._gone_sessions:
            for sandbox in made:
                await self._ender.end(sandbox, "its session ended")
            raise SandboxClosedError("The session ended while the sandbox was being made.")

    async def _make(
        self, owner: Owner, request: SandboxRequest, progress: Progress, reservation: Reservation
    ) -> Sandbox:
        access = await self._access.ready()
        with ExitStack() as places:
            if request.persist:
                places.enter_context(self._persistence.reserved_for(owner.principal, access.engine))
            sandbox = await self._make_with(access, owner, request, progress)
        self._hold(sandbox)
        reservation.taken()
        return await opened(sandbox, self._ender)

    async def _make_with(
        self, access: Access, owner: Owner, request: SandboxRequest, progress: Progress
    ) -> Sandbox:
        request, image, uid = await self._keeper.begun_with(access, owner.principal, request, progress)
        check_request(request, self._settings)
        container = await self._pool.make(launch_of(request, self._settings, image, uid), self._store(owner))
        sandbox = Sandbox(new_id(), owner, request, container)
        if request.persist:
            await keep_all(self._persistence, self._maker, [sandbox])
        return sandbox

    async def _id(self, owner: Owner, sandbox_id: str | None) -> str:
        """Return an id; without one, that of the owner's only sandbox, held or kept."""
        if sandbox_id is not None:
            return sandbox_id
        kept = [
            one.id for one in await self._persistence.records(owner.principal) if one.id not in self._table
        ]
        return self._table.only(owner, kept)

    def _store(self, owner: Owner) -> OutputStore:
        share = SpoolBudget(self._settings.spool_mb * MIB // 4, self._spool.share(owner.principal))
        return OutputStore(self._settings.state_dir / "spool", share)

    def _hold(self, sandbox: Sandbox, event: Beginning = "create") -> Sandbox:
        sandbox.runs.admit = partial(self._places.require_run, sandbox.owner.principal)
        self._table.add(sandbox)
        self._observer.begun(sandbox, event)
        self._ender.watch(sandbox)
        return sandbox
