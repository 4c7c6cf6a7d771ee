"""What all tools have in common: errors as the model reads them, and progress while something takes long."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import anyio
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult

from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.server import render
from pocket_dock_mcp.server.arguments import refuse_odd_numbers
from pocket_dock_mcp.server.owners import owner_of

P = ParamSpec("P")
Ctx = Context[Any, Any]


class Tools:
    """Tool functions over one manager."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def failed(self, ctx: Ctx, tool: str, failure: PocketDockError, arguments: Mapping[str, object]) -> None:
        """Hear that a call has failed."""
        self._manager.failed(owner_of(ctx), tool, failure, arguments)


T = TypeVar("T", bound=Tools)
Tool = Callable[Concatenate[T, Ctx, P], Awaitable[CallToolResult]]


def told(tool: Tool[T, P]) -> Tool[T, P]:
    """Turn our errors into tool errors that the model can read; all others stay hidden and are logged."""

    @functools.wraps(tool)
    async def told(tools: T, ctx: Ctx, *args: P.args, **kwargs: P.kwargs) -> CallToolResult:
        try:
            refuse_odd_numbers(kwargs)
            return await tool(tools, ctx, *args, **kwargs)
        except PocketDockError as failure:
            tools.failed(ctx, tool.__name__, failure, kwargs)
            return render.error(failure)

    # The SDK gives the context by its name, which the type of a callable cannot say.
    return cast("Tool[T, P]", told)


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
