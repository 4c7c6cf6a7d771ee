"""The tool that tries several ways at once."""

from __future__ import annotations

from typing import Annotated

from mcp.types import CallToolResult
from pydantic import BaseModel, Field

from pocket_dock_mcp.manager.forking import MOST_FORKS
from pocket_dock_mcp.server import render
from pocket_dock_mcp.server.call import Ctx, Tools, told
from pocket_dock_mcp.server.owners import owner_of
from pocket_dock_mcp.server.schemas import SandboxId


class ForkReply(BaseModel):
    """New sandboxes with the files of another."""

    sandbox_id: str = Field(description="Of the sandbox that was forked; it goes on as it is.")
    forks: list[str] = Field(description="The sandbox_ids of the new ones.")


class ForkTools(Tools):
    """The tool function, over one manager."""

    @told
    async def fork_sandbox(
        self,
        ctx: Ctx,
        sandbox_id: SandboxId = None,
        count: Annotated[
            int, Field(description=f"How many new sandboxes: all are made, or none. At most {MOST_FORKS}.")
        ] = 2,
    ) -> Annotated[CallToolResult, ForkReply]:
        """Make new sandboxes that begin with this one's files, limits and environment, to try several ways
        side by side. Each is independent from then on and ends with this session. Files only: running
        processes and variables are not part of it."""
        source, made = await self._manager.fork(owner_of(ctx), sandbox_id, count)
        structured = ForkReply(sandbox_id=source.id, forks=[fork.id for fork in made])
        lines = [f"sandbox_id: {fork.id}" for fork in made]
        lines.append("Each has the files, and no process or variable. Kill those that you are done with.")
        lines.append(
            f"They end after {made[0].request.idle_ttl_s:g} s without a call, with this session, or by kill"
            f"{', and do not persist' if source.request.persist else ''}."
        )
        return render.reply("\n".join(lines), structured)
