"""Tools that run programs."""

from __future__ import annotations

from typing import Annotated

from mcp.types import CallToolResult
from pydantic import Field

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.server import render
from pocket_dock_mcp.server.call import Ctx, heartbeat, told
from pocket_dock_mcp.server.owners import owner_of
from pocket_dock_mcp.server.schemas import Cwd, Env, MaxOutput, RunReply, SandboxId, Stdin, TimeoutS
from pocket_dock_mcp.settings import Settings

RUN_TIMEOUT_S = 50.0
"""Below the 60 s after which common clients give up on a call and lose its output."""
MAX_OUTPUT_BYTES = 64 * 1024
"""Of each stream in a reply, which carries both twice: clients drop a message over 1 MiB."""


class RunTools:
    """The tool functions, over one manager."""

    def __init__(self, manager: Manager, settings: Settings) -> None:
        self._manager = manager
        self._settings = settings

    @told
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

    @told
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
        sandbox = self._manager.get(owner_of(ctx), sandbox_id)
        with sandbox.use() as container:
            async with heartbeat(ctx, timeout_s):
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
