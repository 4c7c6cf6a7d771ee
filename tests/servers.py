"""A server under test, as a client sees it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.types import CallToolResult, TextContent

from tests.engines import Target

Era = Literal["auto", "legacy"]
ERAS: list[Era] = ["auto", "legacy"]


def environment(target: Target, home: Path, image: str) -> dict[str, str]:
    """Return what a server under test gets as its environment."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "POCKET_DOCK_ENGINE": target.url,
        "POCKET_DOCK_STATE_DIR": str(home / "state"),
        "POCKET_DOCK_PROFILE": image,
        "POCKET_DOCK_MAX_SANDBOXES": "3",
    }


@asynccontextmanager
async def client(environ: dict[str, str], era: Era = "auto") -> AsyncIterator[Client]:
    """Start a server and connect to it."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "pocket_dock_mcp"], env=environ)
    async with Client(server, mode=era) as connected:
        yield connected


def server_process() -> int:
    """Return the process id of the server that this process has started."""
    children = Path("/proc/self/task", str(os.getpid()), "children").read_text().split()
    (pid,) = [
        int(pid) for pid in children if b"pocket_dock_mcp" in Path("/proc", pid, "cmdline").read_bytes()
    ]
    return pid


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that is to succeed and return its structured result."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    assert result.structured_content is not None
    return dict(result.structured_content)


async def failure(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool that is to fail, quickly, and return what the model is told."""
    with anyio.fail_after(2):
        result = await client.call_tool(tool, arguments)
    assert result.is_error, text(result)
    return text(result)


def text(result: CallToolResult) -> str:
    """Return what the model reads of a result."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))
