"""Which tools there are, in which order, and what a client may assume of each.

The tools parse, call and render. What they do is the manager's and the container's business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.types import CallToolResult, ToolAnnotations

from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.server.diff_tools import DiffTools
from pocket_dock_mcp.server.file_tools import FileTools
from pocket_dock_mcp.server.fork_tools import ForkTools
from pocket_dock_mcp.server.output_tools import OutputTools
from pocket_dock_mcp.server.run_tools import RunTools
from pocket_dock_mcp.server.sandbox_tools import SandboxTools
from pocket_dock_mcp.settings import Settings


def register(server: MCPServer[Any], manager: Manager, settings: Settings) -> None:
    """Add all tools to the server, in the order in which a model should meet them."""
    sandboxes, runs, files = SandboxTools(manager, settings), RunTools(manager, settings), FileTools(manager)

    def add(tool: Callable[..., Awaitable[CallToolResult]], title: str, **hints: bool) -> None:
        annotations = ToolAnnotations(title=title, open_world_hint=False, **hints)
        description = " ".join((tool.__doc__ or "").split())
        server.add_tool(tool, title=title, description=description, annotations=annotations)

    add(
        sandboxes.create_sandbox,
        "Create a sandbox",
        read_only_hint=False,
        destructive_hint=False,
        idempotent_hint=False,
    )
    add(runs.run_code, "Run code", read_only_hint=False, destructive_hint=True, idempotent_hint=False)
    add(
        runs.run_command,
        "Run a shell command",
        read_only_hint=False,
        destructive_hint=True,
        idempotent_hint=False,
    )
    add(
        runs.wait_run,
        "Wait for a run",
        read_only_hint=False,
        destructive_hint=False,
        idempotent_hint=False,
    )
    add(
        OutputTools(manager).read_output,
        "Read a run's output",
        read_only_hint=True,
        idempotent_hint=True,
    )
    add(files.write_file, "Write a file", read_only_hint=False, destructive_hint=True, idempotent_hint=False)
    add(files.edit_file, "Edit a file", read_only_hint=False, destructive_hint=True, idempotent_hint=False)
    add(files.read_file, "Read a file", read_only_hint=True, idempotent_hint=True)
    add(files.find_files, "Find files and lines", read_only_hint=True, idempotent_hint=True)
    add(
        sandboxes.snapshot,
        "Snapshot a sandbox's files",
        read_only_hint=False,
        destructive_hint=False,
        idempotent_hint=False,
    )
    add(
        ForkTools(manager).fork_sandbox,
        "Fork a sandbox",
        read_only_hint=False,
        destructive_hint=False,
        idempotent_hint=False,
    )
    add(DiffTools(manager).diff, "Show what has changed", read_only_hint=True, idempotent_hint=True)
    add(sandboxes.list_sandboxes, "List sandboxes and snapshots", read_only_hint=True, idempotent_hint=True)
    add(sandboxes.kill, "Kill a sandbox", read_only_hint=False, destructive_hint=True, idempotent_hint=True)
