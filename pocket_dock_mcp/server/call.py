"""What all tools have in common: errors as the model reads them, and progress while something takes long."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec

import anyio
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult

from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.server import render

P = ParamSpec("P")
Ctx = Context[Any, Any]


def told(tool: Callable[P, Awaitable[CallToolResult]]) -> Callable[P, Awaitable[CallToolResult]]:
    """Turn our errors into tool errors that the model can read; all others stay hidden and are logged."""

    @functools.wraps(tool)
    async def told(*args: P.args, **kwargs: P.kwargs) -> CallToolResult:
        try:
            return await tool(*args, **kwargs)
        except PocketDockError as failure:
            return render.error(failure)

    return told


@asynccontextmanager
async def progress(ctx: Ctx, notes: list[str]) -> AsyncIterator[Callable[[str], None]]:
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
