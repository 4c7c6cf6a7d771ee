"""Tools that run programs and follow them."""

from __future__ import annotations

from typing import Annotated, Literal

import anyio
from mcp.types import CallToolResult
from pydantic import Field
from typing_extensions import Unpack

from pocket_dock_mcp.container.options import RunOptions
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.runs import SandboxRun
from pocket_dock_mcp.manager.sandbox import Sandbox
from pocket_dock_mcp.models import MIB, RunLimits
from pocket_dock_mcp.server import render_runs
from pocket_dock_mcp.server.artifacts import with_saved_images
from pocket_dock_mcp.server.call import Ctx, Tools, told
from pocket_dock_mcp.server.following import Found, follow, goal_of
from pocket_dock_mcp.server.owners import owner_of
from pocket_dock_mcp.server.schemas import (
    Background,
    Checkpoint,
    CpuS,
    Cwd,
    Env,
    IdempotencyKey,
    MaxOutput,
    MemoryMb,
    OutputLimitMb,
    Processes,
    RunId,
    RunReply,
    SandboxId,
    Stdin,
    TimeoutS,
    WaitS,
)
from pocket_dock_mcp.settings import Settings

WAIT_S = 25.0
"""Below the 30 s after which the most impatient clients give up on a call."""
TIMEOUT_S = 60.0
BACKGROUND_S = 0.05
"""For a background run to fail at once, as one with a wrong directory does."""
MAX_WAIT_S = 300.0
MAX_SIGNAL = 64
MAX_OUTPUT_BYTES = 64 * 1024
"""Of each stream in a reply, which carries both twice: clients drop a message over 1 MiB."""


class RunTools(Tools):
    """The tool functions, over one manager."""

    def __init__(self, manager: Manager, settings: Settings) -> None:
        super().__init__(manager)
        self._settings = settings

    @told
    async def run_code(
        self,
        ctx: Ctx,
        code: Annotated[str, Field(description="Source code, up to 1 MiB.")],
        sandbox_id: SandboxId = None,
        language: Annotated[
            str,
            Field(description="'python' (the default), 'shell', or 'javascript' where the image has node."),
        ] = "python",
        session: Annotated[
            str | None,
            Field(
                description="Name of a persistent interpreter: variables stay for later calls with the same name. Without it each call is a fresh process."
            ),
        ] = None,
        checkpoint: Checkpoint = None,
        wait_s: WaitS = WAIT_S,
        timeout_s: TimeoutS = None,
        stdin: Stdin = None,
        cwd: Cwd = None,
        env: Env = None,
        max_output: MaxOutput = None,
        memory_mb: MemoryMb = None,
        cpu_s: CpuS = None,
        output_limit_mb: OutputLimitMb = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Annotated[CallToolResult, RunReply]:
        """Run Python, JavaScript or shell code in a sandbox. Returns its output, the last expression's value,
        figures and images as images, the files it changed, exit code and usage. Files persist between calls;
        variables only in a session. A program that fails is a normal result. Processes that it leaves behind are
        killed with it, except in a session."""
        limits = _limits(memory_mb, cpu_s, None, output_limit_mb)
        return await self._run(
            ctx,
            sandbox_id,
            code,
            key=idempotency_key,
            checkpoint=checkpoint,
            wait_s=wait_s,
            max_output=max_output,
            language=language,
            session=session,
            timeout_s=TIMEOUT_S if timeout_s is None else timeout_s,
            stdin=stdin,
            cwd=cwd,
            env=env,
            limits=limits,
        )

    @told
    async def run_command(
        self,
        ctx: Ctx,
        command: Annotated[
            str, Field(description="For the shell, up to 128 KiB: pipes, redirections and && work.")
        ],
        sandbox_id: SandboxId = None,
        session: Annotated[
            str | None,
            Field(
                description="Name of a persistent shell: directory, variables and functions stay for later calls with the same name."
            ),
        ] = None,
        background: Background = False,
        wait_s: WaitS = WAIT_S,
        timeout_s: TimeoutS = None,
        cwd: Cwd = None,
        env: Env = None,
        stdin: Stdin = None,
        max_output: MaxOutput = None,
        memory_mb: MemoryMb = None,
        cpu_s: CpuS = None,
        processes: Processes = None,
        output_limit_mb: OutputLimitMb = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Annotated[CallToolResult, RunReply]:
        """Run a shell command in a sandbox. Returns its output, exit code, the files it changed and usage. Each
        call is a new shell unless a session is named. Processes that it leaves behind are killed with it: use
        background for a server or a long job, then wait_run and read_output."""
        if background and session is not None:
            raise InvalidArgumentError(
                "A background run cannot be in a session.", hint="Leave one of them out."
            )
        limits = _limits(memory_mb, cpu_s, processes, output_limit_mb)
        return await self._run(
            ctx,
            sandbox_id,
            command,
            key=idempotency_key,
            wait_s=BACKGROUND_S if background else wait_s,
            max_output=max_output,
            background=background,
            language="shell",
            session=session,
            timeout_s=TIMEOUT_S if timeout_s is None and not background else timeout_s,
            stdin=stdin,
            keep_stdin=background,
            cwd=cwd,
            env=env,
            limits=limits,
        )

    @told
    async def wait_run(
        self,
        ctx: Ctx,
        run_id: RunId,
        until: Annotated[
            Literal["exit", "output", "port"],
            Field(description="What to wait for; the end of the run always ends the wait."),
        ] = "exit",
        wait_s: WaitS = WAIT_S,
        pattern: Annotated[
            str | None,
            Field(description="Regular expression that a line of output has to match, for until='output'."),
        ] = None,
        port: Annotated[
            int | None, Field(description="TCP port, for until='port'. Default: any new one.")
        ] = None,
        stdin: Annotated[
            str | None, Field(description="Text to write to a background run's standard input first.")
        ] = None,
        close_stdin: Annotated[bool, Field(description="End its standard input after that.")] = False,
        signal: Annotated[
            int | None, Field(description="Signal to send first, such as 2 (SIGINT) or 15 (SIGTERM).")
        ] = None,
        max_output: MaxOutput = None,
    ) -> Annotated[CallToolResult, RunReply]:
        """Go on with a run that is still running: wait for its end, for output or for a listening port; write to
        it or signal it. Returns what it printed since the last reply."""
        sandbox, run = await self._manager.open_run(owner_of(ctx), run_id)
        goal = goal_of(sandbox, run, until, pattern=pattern, port=port)
        with sandbox.use():
            await _act(run, stdin, close_stdin, signal)
            found = await follow(ctx, run, _checked_wait(wait_s), goal)
            if found is None and until != "exit":
                found = Found("No output matched." if until == "output" else "No such port is listened on.")
            return await self._reply(sandbox, run, max_output, since=True, found=found)

    # -- shared -----------------------------------------------------------------------------------

    async def _run(
        self,
        ctx: Ctx,
        sandbox_id: str | None,
        code: str,
        *,
        key: str | None,
        wait_s: float,
        max_output: int | None,
        background: bool = False,
        checkpoint: str | None = None,
        **options: Unpack[RunOptions],
    ) -> CallToolResult:
        sandbox = await self._manager.open(owner_of(ctx), sandbox_id)
        self._output_bytes(max_output)
        wait_s = _checked_wait(wait_s)
        with sandbox.use():
            run = await sandbox.runs.start(
                code, key=key, background=background, checkpoint=checkpoint, **options
            )
            try:
                await follow(ctx, run, wait_s)
            except anyio.get_cancelled_exc_class():
                if not background:
                    with anyio.CancelScope(shield=True):
                        await _kill_quietly(run)
                raise
            return await self._reply(sandbox, run, max_output)

    async def _reply(
        self,
        sandbox: Sandbox,
        run: SandboxRun,
        max_output: int | None,
        *,
        since: bool = False,
        found: Found | None = None,
    ) -> CallToolResult:
        result = run.told(self._output_bytes(max_output), since=since)
        result = await with_saved_images(sandbox.container, result)
        return render_runs.run(
            sandbox.id,
            run.id,
            result,
            since=since,
            background=run.background,
            found=found,
            checkpoint=run.checkpoint,
        )

    def _output_bytes(self, max_output: int | None) -> int:
        if max_output is None:
            return self._settings.output_bytes
        if not 1 <= max_output <= MAX_OUTPUT_BYTES:
            raise InvalidArgumentError(
                f"max_output is {max_output}; it must be from 1 to {MAX_OUTPUT_BYTES}.",
                hint="Read long output in parts with read_output.",
            )
        return max_output


async def _act(run: SandboxRun, stdin: str | None, close_stdin: bool, signal: int | None) -> None:
    if signal is not None and not 1 <= signal <= MAX_SIGNAL:
        raise InvalidArgumentError(f"signal is {signal}; it must be from 1 to {MAX_SIGNAL}.")
    if stdin is not None or close_stdin:
        await run.write_stdin(stdin or "", end=close_stdin)
    if signal is not None:
        await run.run.send_signal(signal)


async def _kill_quietly(run: SandboxRun) -> None:
    try:
        await run.run.kill()
    except PocketDockError:
        # The sandbox is gone, and the run with it.
        pass


def _checked_wait(wait_s: float) -> float:
    if not 0 <= wait_s <= MAX_WAIT_S:
        raise InvalidArgumentError(
            f"wait_s is {wait_s:.15g}; it must be from 0 to {MAX_WAIT_S:g}.",
            hint="Call wait_run again to wait longer.",
        )
    return wait_s


def _limits(
    memory_mb: float | None, cpu_s: float | None, processes: int | None, output_limit_mb: float | None
) -> RunLimits:
    for name, value in (("memory_mb", memory_mb), ("cpu_s", cpu_s), ("output_limit_mb", output_limit_mb)):
        if value is not None and value <= 0:
            raise InvalidArgumentError(f"{name} is {value:.15g}; it must be more than 0.")
    return RunLimits(
        cpu_s=cpu_s,
        memory_bytes=None if memory_mb is None else int(memory_mb * MIB),
        processes=processes,
        output_bytes=None if output_limit_mb is None else int(output_limit_mb * MIB),
    )
