"""Tools for sandboxes as a whole: make, list, snapshot, end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mcp.types import CallToolResult
from pydantic import Field

from pocket_dock_mcp.container.asked import ports_of
from pocket_dock_mcp.container.checkpoints import is_checkpoint
from pocket_dock_mcp.errors import (
    CheckpointNotFoundError,
    InvalidArgumentError,
    PocketDockError,
    SandboxError,
)
from pocket_dock_mcp.gate.ceiling import Ceiling
from pocket_dock_mcp.gate.rules import parse_network
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.models import MIB, Limits, Network, Workspace
from pocket_dock_mcp.outside import PortMapping
from pocket_dock_mcp.server import render
from pocket_dock_mcp.server.call import Ctx, Tools, progress, told
from pocket_dock_mcp.server.owners import owner_of
from pocket_dock_mcp.server.schemas import (
    Env,
    KillReply,
    ListReply,
    SandboxId,
    SandboxReply,
    SnapshotReply,
)
from pocket_dock_mcp.settings import Settings, variable

NetworkWord = Literal["none", "packages", "open"]


class SandboxTools(Tools):
    """The tool functions, over one manager."""

    def __init__(self, manager: Manager, settings: Settings) -> None:
        super().__init__(manager)
        self._settings = settings
        self._ceiling = Ceiling(settings.network_max, variable("network_max"))

    @told
    async def create_sandbox(
        self,
        ctx: Ctx,
        profile: Annotated[
            str | None,
            Field(
                description="'minimal' (Debian, Python 3, pip, bash), 'agent' (adds numpy, pandas, matplotlib, Pillow, node, git), 'dev' (gcc, make, git), 'node' (and npm), 'embedded' (ARM cross gcc), or an OCI image reference. Default '{profile}'."
            ),
        ] = None,
        snapshot: Annotated[
            str | None, Field(description="A snapshot_id: start from its files instead of a profile.")
        ] = None,
        memory_mb: Annotated[
            int | None, Field(description="Memory limit in MiB, from 32. Default {memory_mb}.")
        ] = None,
        cpus: Annotated[
            float | None, Field(description="CPU limit in cores, from 0.05. Default {cpus}.")
        ] = None,
        pids: Annotated[
            int | None, Field(description="Limit on processes and threads, from 16. Default {pids}.")
        ] = None,
        network: Annotated[
            NetworkWord | list[str],
            Field(
                description="'none': only loopback. 'packages': the registries of pip, npm and apt. Or domains: ['example.com', '*.example.org']; HTTP(S) through a proxy, for pip, npm, git, curl. 'open': the engine's own network."
            ),
        ] = "none",
        env: Env = None,
        ttl_s: Annotated[
            float | None,
            Field(
                description="Seconds without a call after which it ends, up to {max_lifetime_s}. Default {idle_ttl_s}."
            ),
        ] = None,
        disk_mb: Annotated[
            int | None,
            Field(description="MiB of files, from 16. Default {disk_mb}. Over it runs are killed."),
        ] = None,
        workspace: Annotated[
            Workspace | None,
            Field(
                description="'memory': the home directory is in memory, at most half of memory_mb. Default: 'disk', or as the snapshot."
            ),
        ] = None,
        name: Annotated[str, Field(description="A name for people, shown in listings.", max_length=100)] = "",
        persist: Annotated[
            bool,
            Field(
                description="Keep it when the session ends: background runs go on; unused, it stops, and the next call starts it with its files."
            ),
        ] = False,
        ports: Annotated[
            list[int] | None,
            Field(
                description="TCP ports of servers in it; the reply says at which address of the user's machine each is reached. Needs no network."
            ),
        ] = None,
    ) -> Annotated[CallToolResult, SandboxReply]:
        """Create an isolated Linux sandbox (a container) to run code and shell commands in and keep files.
        Returns its sandbox_id and the limits in force. It ends after {idle} without a call, when the
        session ends, or by kill; its files end with it unless it persists or you take a snapshot. The first call
        on a machine may build the image, which takes a minute."""
        request = self._request(
            profile,
            snapshot,
            self._limits(memory_mb, cpus, pids, disk_mb),
            network=self._network(network),
            env=env or {},
            idle_ttl_s=self._settings.idle_ttl_s if ttl_s is None else ttl_s,
            name=name,
            workspace=workspace,
            persist=persist,
            ports=ports_of(PortMapping(port) for port in dict.fromkeys(ports or ())),
        )
        notes: list[str] = []
        async with progress(ctx, notes) as tell:
            sandbox = await self._manager.create(owner_of(ctx), request, tell)
        with sandbox.use() as container:
            info = await container.info()
        return render.created(render.sandbox_reply(sandbox, info), notes[-1:])

    @told
    async def snapshot(
        self,
        ctx: Ctx,
        sandbox_id: SandboxId = None,
        name: Annotated[str, Field(description="A name for people, shown in listings.", max_length=100)] = "",
    ) -> Annotated[CallToolResult, SnapshotReply]:
        """Keep the files of a sandbox as a snapshot, from which create_sandbox(snapshot=...) starts new sandboxes.
        It outlives the sandbox and the session. Files only: running processes and variables are not part of
        it."""
        sandbox, made = await self._manager.snapshot(owner_of(ctx), sandbox_id, name)
        return render.snapshot_made(render.snapshot_reply(made, sandbox))

    @told
    async def list_sandboxes(self, ctx: Ctx) -> Annotated[CallToolResult, ListReply]:
        """List your sandboxes with their limits and remaining lifetime, also those that persist from earlier
        sessions, and your snapshots."""
        owner = owner_of(ctx)
        sandboxes = [await _described(sandbox) for sandbox in self._manager.list_sandboxes(owner)]
        sandboxes += [render.kept_reply(found) for found in await self._manager.list_kept(owner)]
        kept = [render.snapshot_reply(snapshot) for snapshot in await self._manager.list_snapshots(owner)]
        return render.listing([found for found in sandboxes if found is not None], kept)

    @told
    async def kill(
        self,
        ctx: Ctx,
        sandbox_id: SandboxId = None,
        run_id: Annotated[str | None, Field(description="End only this run.")] = None,
        session: Annotated[
            str | None, Field(description="End only this session of the sandbox, with what it holds.")
        ] = None,
        snapshot_id: Annotated[
            str | None, Field(description="Delete this snapshot (or checkpoint_id) instead.")
        ] = None,
    ) -> Annotated[CallToolResult, KillReply]:
        """End a sandbox with all its processes and files, at once and for good; or only a run or a session in
        it, or delete a snapshot."""
        owner = owner_of(ctx)
        if sum(given is not None for given in (run_id, session, snapshot_id)) > 1 or (
            sandbox_id is not None and (run_id is not None or snapshot_id is not None)
        ):
            raise InvalidArgumentError("Give one of sandbox_id, run_id, session and snapshot_id.")
        if snapshot_id is not None and is_checkpoint(snapshot_id):
            await self._drop_checkpoint(owner, snapshot_id)
            return render.killed(snapshot_id)
        if snapshot_id is not None:
            return render.killed((await self._manager.delete_snapshot(owner, snapshot_id)).id)
        if run_id is not None:
            sandbox, run = await self._manager.open_run(owner, run_id)
            with sandbox.use():
                await run.run.kill()
            return render.killed(run.id)
        if session is not None:
            return await self._end_session(await self._manager.open(owner, sandbox_id), session)
        return render.killed(await self._manager.kill(owner, sandbox_id))

    async def _drop_checkpoint(self, owner: Owner, checkpoint_id: str) -> None:
        for sandbox in self._manager.list_sandboxes(owner):
            try:
                with sandbox.use() as container:
                    if await container.drop_checkpoint(checkpoint_id):
                        return
            except SandboxError:
                # It has just died, and what it had with it.
                pass
        raise CheckpointNotFoundError("There is no such checkpoint.")

    async def _end_session(self, sandbox: Sandbox, session: str) -> CallToolResult:
        with sandbox.use() as container:
            if not await container.end_session(session):
                raise InvalidArgumentError(f"There is no session {session!r} in this sandbox.")
        return render.killed(f"session {session}")

    # -- shared -----------------------------------------------------------------------------------

    def _limits(
        self, memory_mb: int | None, cpus: float | None, pids: int | None, disk_mb: int | None
    ) -> Limits:
        settings = self._settings
        return Limits(
            memory_bytes=(settings.memory_mb if memory_mb is None else memory_mb) * MIB,
            cpus=settings.cpus if cpus is None else cpus,
            pids=settings.pids if pids is None else pids,
            disk_bytes=(settings.disk_mb if disk_mb is None else disk_mb) * MIB,
        )

    def _network(self, wanted: str | list[str]) -> Network:
        network = parse_network(wanted)
        self._ceiling.require(network)
        return network

    def _request(
        self, profile: str | None, snapshot: str | None, limits: Limits, **more: Any
    ) -> SandboxRequest:
        if profile is not None and snapshot is not None:
            raise InvalidArgumentError("Give profile or snapshot, not both.")
        return SandboxRequest(
            image=self._settings.profile if profile is None else profile,
            snapshot=snapshot,
            limits=limits,
            max_lifetime_s=self._settings.max_lifetime_s,
            **more,
        )


async def _described(sandbox: Sandbox) -> SandboxReply | None:
    """Describe a sandbox; None if it has just died."""
    try:
        return render.sandbox_reply(sandbox, await sandbox.container.info())
    except PocketDockError:
        return None
