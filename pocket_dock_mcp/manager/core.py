"""`Manager`: who owns which sandbox, until when, within which quota.

Its mutable state is three dictionaries. Decisions on them are taken without awaiting; what then has to be
done on the engine is done afterwards, shielded where it is cleaning up.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import Any

import anyio
from anyio.abc import TaskGroup
from typing_extensions import Unpack

from pocket_dock_mcp import policy
from pocket_dock_mcp.container.arguments import checked_environment
from pocket_dock_mcp.container.core import AsyncContainer
from pocket_dock_mcp.container.diffing import TreeDiff
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.store import OutputStore
from pocket_dock_mcp.errors import (
    InvalidArgumentError,
    QuotaError,
    RunNotFoundError,
    SandboxClosedError,
    SandboxLostError,
    SandboxNotFoundError,
)
from pocket_dock_mcp.manager.access import Connect, EngineAccess
from pocket_dock_mcp.manager.comparing import Comparer, DiffOptions
from pocket_dock_mcp.manager.forking import Forker, check_count
from pocket_dock_mcp.manager.keeping import SnapshotKeeper
from pocket_dock_mcp.manager.making import Maker
from pocket_dock_mcp.manager.mending import Mender
from pocket_dock_mcp.manager.pool import WarmPool
from pocket_dock_mcp.manager.runs import SandboxRun
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest, new_id
from pocket_dock_mcp.manager.snapshots import Snapshot
from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.spool import SpoolBudget

logger = logging.getLogger(__name__)

CLOSE_DEADLINE = 1.5
"""Seconds for ending everything: MCP hosts send SIGTERM 2 s after closing our input, SIGKILL soon after."""
REMEMBERED = 256
"""Ended sandboxes whose owners can still be told why."""

REMEMBERED_RUNS = 4096
"""Their runs, likewise."""

Progress = Callable[[str], None]


class Manager:
    """All sandboxes of this process. Use it as an async context manager: leaving it ends them all.

    No engine is touched before the first call that needs one.
    """

    def __init__(self, settings: Settings, connect: Connect) -> None:
        self._settings = settings
        self._sandboxes: dict[str, Sandbox] = {}
        self._reserved: collections.Counter[str] = collections.Counter()
        self._ended: collections.OrderedDict[str, tuple[Owner, str]] = collections.OrderedDict()
        self._ended_runs: collections.OrderedDict[str, str] = collections.OrderedDict()
        self._gone_sessions: set[str] = set()
        self._closing = False
        self._ending = 0
        self._ended_one = anyio.Event()
        self._access = EngineAccess(settings, connect)
        self._mender = Mender(self._access)
        self._maker = Maker(self._access, self._mender)
        self._keeper = SnapshotKeeper(settings, self._access, self._mender)
        self._comparer = Comparer(self._maker, self._access, self._keeper)
        self._forker = Forker(self._access, self._maker, self._mender, self._keeper)
        self._spool = SpoolBudget(settings.spool_mb * MIB)
        self._pool = WarmPool(self._maker, settings.pool_mb * MIB)
        self._changed = anyio.Event()
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Manager:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._tasks.start_soon(self._reap)
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
        live, coming = len(self._sandboxes), sum(self._reserved.values())
        return f"<Manager [Sandboxes: {live} live, {coming} coming]>"

    # -- sandboxes --------------------------------------------------------------------------------

    async def create(self, owner: Owner, request: SandboxRequest, progress: Progress) -> Sandbox:
        """Create a sandbox for `owner`; `progress` hears of what takes long, such as building an image.

        Raises:
            InvalidArgumentError: limits or lifetimes that make no sense.
            QuotaError: the owner has as many as allowed.
            SnapshotNotFoundError, ImageError, EngineError, LimitsNotEnforcedError, SandboxLostError.
        """
        self._check(request)
        with self._reserved_for(owner, 1):
            sandbox = await self._make(owner, request, progress)
        await self._require_owner(owner, [sandbox])
        return sandbox

    async def fork(self, owner: Owner, sandbox_id: str | None, count: int) -> tuple[Sandbox, list[Sandbox]]:
        """Make sandboxes with the files of one of the owner's, each for itself from then on: all, or none.

        Processes and variables are not part of it. Limits, network and environment are the same.

        Raises:
            InvalidArgumentError: a count that makes no sense.
            QuotaError: there would be more than allowed.
            And what `get`, `AsyncContainer.commit` and `create` raise.
        """
        check_count(count)
        source = self.get(owner, sandbox_id)
        with self._reserved_for(owner, count), source.use() as container:
            wanted = self._wanted(source.request, (await container.info()).image, container.uid)
            forks = await self._forker.fork(container, wanted, count, self._store)
            made = [self._take_in(owner, source.request, fork) for fork in forks]
        await self._require_owner(owner, made)
        return source, made

    def get(self, owner: Owner, sandbox_id: str | None) -> Sandbox:
        """Return the owner's sandbox; without an id, the only one that there is.

        Raises:
            SandboxNotFoundError: unknown, or somebody else's: one answer.
            SandboxLostError: it was the owner's and has ended; the message says why.
            InvalidArgumentError: no id, and not exactly one sandbox.
        """
        if sandbox_id is None:
            return self._only(owner)
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is not None and sandbox.owner == owner:
            return sandbox
        ended = self._ended.get(sandbox_id)
        if ended is not None and ended[0] == owner:
            raise SandboxLostError(f"This sandbox has ended: {ended[1]}.")
        raise SandboxNotFoundError

    def find_run(self, owner: Owner, run_id: str) -> tuple[Sandbox, SandboxRun]:
        """Return one of the owner's runs with its sandbox.

        Raises:
            RunNotFoundError: unknown, forgotten, or somebody else's: one answer.
            SandboxLostError: it was the owner's, and its sandbox has ended; the message says why.
        """
        for sandbox in self._sandboxes.values():
            if sandbox.owner == owner and (run := sandbox.runs.get(run_id)) is not None:
                return sandbox, run
        ended = self._ended.get(self._ended_runs.get(run_id, ""))
        if ended is not None and ended[0] == owner:
            raise SandboxLostError(f"The sandbox of this run has ended: {ended[1]}.")
        raise RunNotFoundError

    def list_sandboxes(self, owner: Owner) -> list[Sandbox]:
        """Return the owner's live sandboxes, oldest first."""
        mine = [sandbox for sandbox in self._sandboxes.values() if sandbox.owner == owner]
        return sorted(mine, key=lambda sandbox: sandbox.created)

    async def kill(self, owner: Owner, sandbox_id: str | None) -> Sandbox:
        """End one of the owner's sandboxes, with everything in it; see `get` for what it raises."""
        sandbox = self.get(owner, sandbox_id)
        await self._end(sandbox, "it was killed")
        return sandbox

    async def end_session(self, owner: Owner) -> None:
        """End all of a session's sandboxes, those that are still being made too."""
        self._gone_sessions.add(owner.session)
        await self._end_all([s for s in self._sandboxes.values() if s.owner.session == owner.session])

    async def aclose(self) -> None:
        """End everything within `CLOSE_DEADLINE` and let go of the engine. Idempotent."""
        self._closing = True
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_DEADLINE):
            async with anyio.create_task_group() as group:
                group.start_soon(self._pool.aclose)
                await self._end_all(list(self._sandboxes.values()))
            # Others may be ending on their own just now, or be made and then ended: they need the engine.
            while self._ending or self._reserved.total():
                self._ended_one = anyio.Event()
                await self._ended_one.wait()
            if self._access.journal is not None:
                await self._keeper.remove_deleted(self._access.journal)
            if self._mender.owes:
                await self._mender.settle()
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_DEADLINE):
            await self._access.aclose()
        self._access.close_journal()

    # -- snapshots --------------------------------------------------------------------------------

    async def snapshot(self, owner: Owner, sandbox_id: str | None, name: str) -> tuple[Sandbox, Snapshot]:
        """Keep a sandbox's files as an image of the owner's principal.

        Raises:
            QuotaError: the principal has as many as allowed.
            And what `get` and `AsyncContainer.commit` raise.
        """
        sandbox = self.get(owner, sandbox_id)
        return sandbox, await self._keeper.keep(sandbox, owner.principal, name)

    async def list_snapshots(self, owner: Owner) -> list[Snapshot]:
        """Return the principal's snapshots on this engine, oldest first."""
        return await self._keeper.list(owner.principal)

    async def delete_snapshot(self, owner: Owner, snapshot_id: str) -> Snapshot:
        """Delete one of the principal's snapshots. Sandboxes made from it live on.

        Raises:
            SnapshotNotFoundError: unknown, or somebody else's.
        """
        return await self._keeper.delete(owner.principal, snapshot_id)

    async def diff(
        self, owner: Owner, sandbox_id: str | None, **options: Unpack[DiffOptions]
    ) -> tuple[Sandbox, TreeDiff]:
        """Compare a sandbox's files with those that it began with, or with a snapshot's; see `DiffOptions`.

        Raises:
            SnapshotNotFoundError: ``since`` is neither ``start`` nor one of the principal's snapshots.
            And what `get` and `diffing.compare` raise.
        """
        sandbox = self.get(owner, sandbox_id)
        return sandbox, await self._comparer.diff(sandbox, owner.principal, **options)

    # -- making and ending ------------------------------------------------------------------------

    def _check(self, request: SandboxRequest) -> None:
        settings = self._settings
        checked_environment(request.env)
        policy.check_limits(
            request.limits,
            max_memory_bytes=settings.max_memory_mb * MIB,
            max_cpus=settings.max_cpus,
            max_pids=settings.max_pids,
        )
        for name, value in (("ttl_s", request.idle_ttl_s), ("max_lifetime_s", request.max_lifetime_s)):
            if not 1 <= value <= settings.max_lifetime_s:
                raise InvalidArgumentError(
                    f"{name} is {value:g}; it must be from 1 to {settings.max_lifetime_s:g} seconds."
                )

    @contextmanager
    def _reserved_for(self, owner: Owner, count: int) -> Iterator[None]:
        """Hold places in the owner's quota. Nothing is awaited between the look and the taking."""
        if self._closing:
            raise SandboxClosedError("The server is shutting down.")
        there = len(self.list_sandboxes(owner)) + self._reserved[owner.session]
        if there + count > self._settings.max_sandboxes:
            more = (
                "as many as"
                if count == 1
                else f"and {count} more would be over the {self._settings.max_sandboxes}"
            )
            raise QuotaError(
                f"You have {there} sandboxes, {more} allowed.",
                hint="Use one of them (list_sandboxes), or kill one first.",
            )
        self._reserved[owner.session] += count
        try:
            yield
        finally:
            self._reserved[owner.session] -= count
            self._ended_one.set()

    async def _require_owner(self, owner: Owner, made: list[Sandbox]) -> None:
        """End what was made for an owner who left meanwhile."""
        if self._closing or owner.session in self._gone_sessions:
            for sandbox in made:
                await self._end(sandbox, "its session ended")
            raise SandboxClosedError("The session ended while the sandbox was being made.")

    async def _make(self, owner: Owner, request: SandboxRequest, progress: Progress) -> Sandbox:
        access = await self._access.ready()
        uid = None
        if request.snapshot is not None:
            found = self._keeper.find(owner.principal, access.engine, request.snapshot)
            image, uid = found.image_id, found.uid
        else:
            image = (await access.images.ensure(request.image, progress)).id
        container = await self._pool.make(self._wanted(request, image, uid), self._store())
        return self._take_in(owner, request, container)

    def _wanted(self, request: SandboxRequest, image: str, uid: int | None) -> Launch:
        return Launch(
            name="",
            image=image,
            labels={},
            limits=request.limits,
            network=request.network,
            env=request.env,
            uid=uid,
            enforce=self._settings.limits,
            warm_python=self._settings.warm_python,
        )

    def _store(self) -> OutputStore:
        share = SpoolBudget(self._spool.total_bytes // 4, self._spool)
        return OutputStore(self._settings.state_dir / "spool", share)

    def _take_in(self, owner: Owner, request: SandboxRequest, container: AsyncContainer) -> Sandbox:
        sandbox = Sandbox(new_id(), owner, request, container)
        self._sandboxes[sandbox.id] = sandbox
        self._wake_reaper()
        self._start(self._watch, sandbox)
        return sandbox

    async def _end(self, sandbox: Sandbox, why: str) -> None:
        if self._sandboxes.pop(sandbox.id, None) is None:
            return
        self._ended[sandbox.id] = (sandbox.owner, why)
        self._ended_runs.update(dict.fromkeys(sandbox.runs.ids(), sandbox.id))
        while len(self._ended_runs) > REMEMBERED_RUNS:
            self._ended_runs.popitem(last=False)
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        self._ending += 1
        try:
            await sandbox.container.aclose()
        finally:
            sandbox.ended()
            self._ending -= 1
            self._ended_one.set()
        self._maker.over(sandbox.container.name, sandbox.container.removed)
        if sandbox.container.removed and self._access.journal is not None:
            await self._keeper.remove_deleted(self._access.journal)

    async def _end_all(self, sandboxes: list[Sandbox]) -> None:
        async with anyio.create_task_group() as group:
            for sandbox in sandboxes:
                group.start_soon(self._end, sandbox, "its session ended")

    async def _watch(self, sandbox: Sandbox) -> None:
        """Notice the death of a sandbox that nobody asked to end."""
        await sandbox.container.wait_lost()
        await self._end(sandbox, "its container died or was removed from outside")

    async def _reap(self) -> None:
        """End what has expired, and sleep until the next will."""
        while True:
            waits = []
            for sandbox in self._sandboxes.values():
                remaining = sandbox.remaining_s()
                if remaining > 0:
                    waits.append(remaining)
                else:
                    self._start(self._end, sandbox, sandbox.expiry_reason())
            self._changed = anyio.Event()
            # A sandbox in use is looked at again when it would have expired, had it not been.
            with anyio.move_on_after(min(waits, default=None)):
                await self._changed.wait()

    def _wake_reaper(self) -> None:
        self._changed.set()

    def _start(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        if self._tasks is None:
            raise RuntimeError("Manager is used outside its context.")
        self._tasks.start_soon(function, *args)

    def _only(self, owner: Owner) -> Sandbox:
        mine = self.list_sandboxes(owner)
        if len(mine) == 1:
            return mine[0]
        raise InvalidArgumentError(
            f"sandbox_id was left out and you have {len(mine)} sandboxes.",
            hint="Call create_sandbox first." if not mine else "Say which; list_sandboxes shows them.",
        )
