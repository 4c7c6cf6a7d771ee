"""The tools: parse, call, render. What they do is the manager's and the container's business."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, ParamSpec

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field

from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Sandbox, SandboxRequest
from pocket_dock_mcp.models import MIB, Limits, Network
from pocket_dock_mcp.server import files, render
from pocket_dock_mcp.server.owners import owner_of
from pocket_dock_mcp.server.schemas import (
    Cwd,
    Env,
    KillReply,
    ListReply,
    MaxOutput,
    Path,
    ReadReply,
    RunReply,
    SandboxId,
    SandboxReply,
    SnapshotReply,
    Stdin,
    TimeoutS,
    WriteReply,
)
from pocket_dock_mcp.settings import Settings

P = ParamSpec("P")
Ctx = Context[Any, Any]

RUN_TIMEOUT_S = 50.0
"""Below the 60 s after which common clients give up on a call and lose its output."""
MAX_OUTPUT_BYTES = 64 * 1024
"""Of each stream in a reply, which carries both twice: clients drop a message over 1 MiB."""
HEARTBEAT_S = 5.0
"""Between progress notifications of a run, so that clients which count silence keep waiting."""


def _told(tool: Callable[P, Awaitable[CallToolResult]]) -> Callable[P, Awaitable[CallToolResult]]:
    """Turn our errors into tool errors that the model can read; all others stay hidden and are logged."""

    @functools.wraps(tool)
    async def told(*args: P.args, **kwargs: P.kwargs) -> CallToolResult:
        try:
            return await tool(*args, **kwargs)
        except PocketDockError as failure:
            return render.error(failure)

    return told


def register(server: MCPServer[Any], manager: Manager, settings: Settings) -> None:
    """Add all tools to the server, in the order in which a model should meet them."""
    tools = Tools(manager, settings)
    idle = round(settings.idle_ttl_s / 60)

    def add(tool: Callable[..., Awaitable[CallToolResult]], title: str, **hints: bool) -> None:
        annotations = ToolAnnotations(title=title, open_world_hint=False, **hints)
        description = (tool.__doc__ or "").replace("{idle}", str(idle))
        server.add_tool(tool, title=title, description=" ".join(description.split()), annotations=annotations)

    add(
        tools.create_sandbox,
        "Create a sandbox",
        read_only_hint=False,
        destructive_hint=False,
        idempotent_hint=False,
    )
    add(tools.run_code, "Run code", read_only_hint=False, destructive_hint=True, idempotent_hint=False)
    add(
        tools.run_command,
        "Run a shell command",
        read_only_hint=False,
        destructive_hint=True,
        idempotent_hint=False,
    )
    add(tools.write_file, "Write a file", read_only_hint=False, destructive_hint=True, idempotent_hint=True)
    add(tools.read_file, "Read a file", read_only_hint=True, idempotent_hint=True)
    add(
        tools.snapshot,
        "Snapshot a sandbox's files",
        read_only_hint=False,
        destructive_hint=False,
        idempotent_hint=False,
    )
    add(tools.list_sandboxes, "List sandboxes and snapshots", read_only_hint=True, idempotent_hint=True)
    add(tools.kill, "Kill a sandbox", read_only_hint=False, destructive_hint=True, idempotent_hint=True)


class Tools:
    """The tool functions, over one manager."""

    def __init__(self, manager: Manager, settings: Settings) -> None:
        self._manager = manager
        self._settings = settings

    @_told
    async def create_sandbox(
        self,
        ctx: Ctx,
        profile: Annotated[
            str | None,
            Field(
                description="'minimal' (Debian, Python 3, pip, bash; the default), or an OCI image reference."
            ),
        ] = None,
        snapshot: Annotated[
            str | None, Field(description="A snapshot_id: start from its files instead of a profile.")
        ] = None,
        memory_mb: Annotated[
            int | None, Field(description="Memory limit in MiB, from 32. Default 512.")
        ] = None,
        cpus: Annotated[float | None, Field(description="CPU limit in cores, from 0.05. Default 1.")] = None,
        pids: Annotated[
            int | None, Field(description="Limit on processes and threads, from 16. Default 128.")
        ] = None,
        network: Annotated[
            Literal["none", "open"],
            Field(description="'none': only loopback. 'open': the engine's own network."),
        ] = "none",
        env: Env = None,
        ttl_s: Annotated[
            float | None,
            Field(
                description="Seconds without a call after which it ends, up to a day. Default 1800, unless configured otherwise."
            ),
        ] = None,
        name: Annotated[str, Field(description="A name for people, shown in listings.", max_length=100)] = "",
    ) -> Annotated[CallToolResult, SandboxReply]:
        """Create an isolated Linux sandbox (a container) to run code and shell commands in and keep files.
        Returns its sandbox_id and the limits in force. It ends after {idle} minutes without a call, when the
        session ends, or by kill; its files end with it unless you take a snapshot. The first call on a machine
        may build the image, which takes a minute."""
        request = self._request(profile, snapshot, memory_mb, cpus, pids, network, env, ttl_s, name)
        notes: list[str] = []
        async with _progress(ctx, notes) as tell:
            sandbox = await self._manager.create(owner_of(ctx), request, tell)
        with sandbox.use() as container:
            info = await container.info()
        return render.created(render.sandbox_reply(sandbox, info), notes[-1:])

    @_told
    async def run_code(
        self,
        ctx: Ctx,
        code: Annotated[str, Field(description="Source code, up to 1 MiB. Print what you want to see.")],
        sandbox_id: SandboxId = None,
        language: Annotated[str, Field(description="'python' (the default) or 'shell'.")] = "python",
        timeout_s: TimeoutS = RUN_TIMEOUT_S,
        stdin: Stdin = None,
        cwd: Cwd = None,
        env: Env = None,
        max_output: MaxOutput = None,
    ) -> Annotated[CallToolResult, RunReply]:
        """Run Python code (or a shell script) in a sandbox as a fresh process and return its output, exit code
        and usage. Files persist between calls, variables do not. A program that fails is a normal result.
        Processes left behind are killed when it ends."""
        return await self._run(ctx, sandbox_id, code, language, timeout_s, stdin, cwd, env, max_output)

    @_told
    async def run_command(
        self,
        ctx: Ctx,
        command: Annotated[
            str, Field(description="For /bin/sh, up to 128 KiB: pipes, redirections and && work.")
        ],
        sandbox_id: SandboxId = None,
        cwd: Cwd = None,
        env: Env = None,
        stdin: Stdin = None,
        timeout_s: TimeoutS = RUN_TIMEOUT_S,
        max_output: MaxOutput = None,
    ) -> Annotated[CallToolResult, RunReply]:
        """Run a shell command in a sandbox and return its output, exit code and usage. Each call is a new shell:
        the working directory and variables do not carry over, files do. Processes left behind are killed when
        it ends."""
        return await self._run(ctx, sandbox_id, command, "shell", timeout_s, stdin, cwd, env, max_output)

    @_told
    async def write_file(
        self,
        ctx: Ctx,
        path: Path,
        content: Annotated[str, Field(description="The whole new content.")],
        sandbox_id: SandboxId = None,
        encoding: Annotated[
            Literal["utf-8", "base64"], Field(description="How content is given; base64 for binary.")
        ] = "utf-8",
        mode: Annotated[
            str | None,
            Field(
                description="Octal permission bits such as '755'. Default: as before, or 644.",
                pattern="^[0-7]{3,4}$",
            ),
        ] = None,
    ) -> Annotated[CallToolResult, WriteReply]:
        """Create or overwrite a file in a sandbox, atomically; missing parent directories are made. Says which of
        the two it was."""
        data = files.decode_content(content, encoding)
        sandbox = self._sandbox(ctx, sandbox_id)
        with sandbox.use() as container:
            done = await container.write_file(path, data, mode=None if mode is None else int(mode, 8))
        return render.written(sandbox, done)

    @_told
    async def read_file(
        self,
        ctx: Ctx,
        path: Path,
        sandbox_id: SandboxId = None,
        start_line: Annotated[int, Field(description="First line to return, from 1.")] = 1,
        lines: Annotated[int | None, Field(description="How many lines. Default: as many as fit.")] = None,
        encoding: Annotated[
            Literal["auto", "utf-8", "base64"],
            Field(description="'auto': text as it is, anything else as base64."),
        ] = "auto",
    ) -> Annotated[CallToolResult, ReadReply]:
        """Read a file from a sandbox: text by lines, binary as base64. Long files come in parts of about 32 KB;
        the reply says how to go on."""
        sandbox = self._sandbox(ctx, sandbox_id)
        with sandbox.use() as container:
            found = await container.read_file(path, max_bytes=files.READ_AHEAD_BYTES)
        return render.read(
            files.render_content(
                sandbox.id, path, found, encoding=encoding, start_line=start_line, lines=lines
            )
        )

    @_told
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

    @_told
    async def list_sandboxes(self, ctx: Ctx) -> Annotated[CallToolResult, ListReply]:
        """List your sandboxes with their limits and remaining lifetime, and your snapshots."""
        owner = owner_of(ctx)
        sandboxes = [await _described(sandbox) for sandbox in self._manager.list_sandboxes(owner)]
        kept = [render.snapshot_reply(snapshot) for snapshot in await self._manager.list_snapshots(owner)]
        return render.listing([found for found in sandboxes if found is not None], kept)

    @_told
    async def kill(
        self,
        ctx: Ctx,
        sandbox_id: SandboxId = None,
        snapshot_id: Annotated[str | None, Field(description="Delete this snapshot instead.")] = None,
    ) -> Annotated[CallToolResult, KillReply]:
        """End a sandbox with all its processes and files, at once and for good; or delete a snapshot."""
        owner = owner_of(ctx)
        if snapshot_id is None:
            return render.killed((await self._manager.kill(owner, sandbox_id)).id)
        if sandbox_id is not None:
            raise InvalidArgumentError("Give sandbox_id or snapshot_id, not both.")
        return render.killed((await self._manager.delete_snapshot(owner, snapshot_id)).id)

    # -- shared -----------------------------------------------------------------------------------

    def _sandbox(self, ctx: Ctx, sandbox_id: str | None) -> Sandbox:
        return self._manager.get(owner_of(ctx), sandbox_id)

    async def _run(
        self,
        ctx: Ctx,
        sandbox_id: str | None,
        code: str,
        language: str,
        timeout_s: float,
        stdin: str | None,
        cwd: str | None,
        env: dict[str, str] | None,
        max_output: int | None,
    ) -> CallToolResult:
        sandbox = self._sandbox(ctx, sandbox_id)
        with sandbox.use() as container:
            async with _heartbeat(ctx, timeout_s):
                result = await container.run(
                    code,
                    language=language,
                    timeout_s=timeout_s,
                    output_bytes=self._output_bytes(max_output),
                    cwd=cwd,
                    env=env,
                    stdin=stdin,
                )
        return render.run(sandbox, result)

    def _output_bytes(self, max_output: int | None) -> int:
        if max_output is None:
            return self._settings.output_bytes
        if not 1 <= max_output <= MAX_OUTPUT_BYTES:
            raise InvalidArgumentError(
                f"max_output is {max_output}; it must be from 1 to {MAX_OUTPUT_BYTES}.",
                hint="Write long output to a file and read it in parts with read_file.",
            )
        return max_output

    def _request(
        self,
        profile: str | None,
        snapshot: str | None,
        memory_mb: int | None,
        cpus: float | None,
        pids: int | None,
        network: Network,
        env: dict[str, str] | None,
        ttl_s: float | None,
        name: str,
    ) -> SandboxRequest:
        if profile is not None and snapshot is not None:
            raise InvalidArgumentError("Give profile or snapshot, not both.")
        settings = self._settings
        limits = Limits(
            memory_bytes=(settings.memory_mb if memory_mb is None else memory_mb) * MIB,
            cpus=settings.cpus if cpus is None else cpus,
            pids=settings.pids if pids is None else pids,
        )
        return SandboxRequest(
            image=settings.profile if profile is None else profile,
            snapshot=snapshot,
            limits=limits,
            network=network,
            env=env or {},
            idle_ttl_s=settings.idle_ttl_s if ttl_s is None else ttl_s,
            max_lifetime_s=settings.max_lifetime_s,
            name=name,
        )


async def _described(sandbox: Sandbox) -> SandboxReply | None:
    """Describe a sandbox; None if it has just died."""
    try:
        return render.sandbox_reply(sandbox, await sandbox.container.info())
    except PocketDockError:
        return None


@asynccontextmanager
async def _progress(ctx: Ctx, notes: list[str]) -> AsyncIterator[Callable[[str], None]]:
    """Pass lines on as progress notifications, without making whoever tells them wait."""
    send, receive = anyio.create_memory_object_stream[str](1000)

    def tell(line: str) -> None:
        notes.append(line)
        try:
            send.send_nowait(line)
        except anyio.WouldBlock:
            # The client does not keep up; it misses a line of progress and nothing else.
            pass

    async def pump() -> None:
        count = 0
        async for line in receive:
            count += 1
            await ctx.report_progress(count, None, line)

    with send, receive:
        async with beside(pump):
            yield tell


@asynccontextmanager
async def _heartbeat(ctx: Ctx, timeout_s: float) -> AsyncIterator[None]:
    async def beat() -> None:
        began = anyio.current_time()
        while True:
            await anyio.sleep(HEARTBEAT_S)
            elapsed = anyio.current_time() - began
            await ctx.report_progress(round(elapsed, 1), timeout_s, f"running for {elapsed:.0f} s")

    async with beside(beat):
        yield
