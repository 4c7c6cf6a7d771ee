"""Tools for the files of a sandbox."""

from __future__ import annotations

from typing import Annotated, Literal

from mcp.types import CallToolResult
from pydantic import Field

from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.server import files, render
from pocket_dock_mcp.server.call import Ctx, told
from pocket_dock_mcp.server.owners import owner_of
from pocket_dock_mcp.server.schemas import Path, ReadReply, SandboxId, WriteReply


class FileTools:
    """The tool functions, over one manager."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    @told
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
        sandbox = self._manager.get(owner_of(ctx), sandbox_id)
        with sandbox.use() as container:
            done = await container.write_file(path, data, mode=None if mode is None else int(mode, 8))
        return render.written(sandbox, done)

    @told
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
        sandbox = self._manager.get(owner_of(ctx), sandbox_id)
        with sandbox.use() as container:
            found = await container.read_file(path, max_bytes=files.READ_AHEAD_BYTES)
        return render.read(
            files.render_content(
                sandbox.id, path, found, encoding=encoding, start_line=start_line, lines=lines
            )
        )
