"""The tool that says what has changed in a sandbox."""

from __future__ import annotations

from typing import Annotated

from mcp.types import CallToolResult
from pydantic import Field

from pocket_dock_mcp.server import render_diff
from pocket_dock_mcp.server.call import Ctx, Tools, told
from pocket_dock_mcp.server.owners import owner_of
from pocket_dock_mcp.server.schemas import SandboxId

MAX_PATHS = 200
MAX_DIFF = 20 * 1024
"""Characters of diffs in one reply, which carries them twice: about 5,000 tokens of text."""


class DiffTools(Tools):
    """The tool function, over one manager."""

    @told
    async def diff(
        self,
        ctx: Ctx,
        sandbox_id: SandboxId = None,
        since: Annotated[str, Field(description="'start', or a snapshot_id.")] = "start",
        path: Annotated[
            str | None, Field(description="Only this file or directory. Default: all files.")
        ] = None,
    ) -> Annotated[CallToolResult, render_diff.DiffReply]:
        """Show which files of a sandbox were created, modified or deleted since its start or a snapshot, with
        unified diffs of text files. Files that were only touched do not count."""
        sandbox, found = await self._manager.diff(
            owner_of(ctx), sandbox_id, since=since, path=path, max_paths=MAX_PATHS, max_diff=MAX_DIFF
        )
        return render_diff.compared(sandbox.id, since, found)
