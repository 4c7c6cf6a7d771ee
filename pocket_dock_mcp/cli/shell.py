"""`pocket-dock shell`: a shell in a sandbox, on the terminal that it is called from."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pocket_dock_mcp.cli import create, exits, options
from pocket_dock_mcp.cli.console import Console
from pocket_dock_mcp.cli.reaching import Reached, reaching
from pocket_dock_mcp.errors import SandboxNotFoundError


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "shell",
        usage="pocket-dock shell [options] [SANDBOX] [options] [--] [COMMAND [ARGUMENT ...]]",
        help="open a shell in a sandbox, on this terminal",
        description="Opens a shell in a sandbox, or runs COMMAND in its place, on this terminal. Every key "
        "goes to the program inside, Ctrl-C and Ctrl-Z too; it ends when that does (exit, or Ctrl-D). There "
        "is no key to detach. Without SANDBOX, a new one is made for this shell and removed after it.",
        epilog=exits.PROGRAM_TABLE,
    )
    parser.passes_on, parser.usage_status = 1, exits.NOT_RUN
    parser.add_argument("sandbox", metavar="SANDBOX", nargs="?", help="its name or id")
    parser.add_argument("--cwd", metavar="DIR", help="begin in this directory instead of the home directory")
    options.add_environment(parser)
    parser.add_argument(
        "--profile", help="of a new sandbox: made if there is none of that name, or if none is named"
    )
    parser.set_defaults(run=run, command=[], status_of_errors=exits.NOT_RUN, json=False)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Open it, and end as it ended."""
    from pocket_dock_mcp.async_.commands import directory
    from pocket_dock_mcp.async_.terminal import SHELL, require_terminal
    from pocket_dock_mcp.cli.running import Job

    words: list[str] = arguments.command
    options.require_name(words)
    require_terminal(0, 1)
    code = SHELL if not words else words[0] if len(words) == 1 else f"exec {shlex.join(words)}"
    async with _sandbox(arguments, console) as reached:
        job = Job(reached, console, None)
        cwd = directory(reached.sandbox.request.workdir, arguments.cwd)
        return await job.on_terminal(code, {"cwd": cwd, "env": dict(arguments.env)}, is_shell=True)


@asynccontextmanager
async def _sandbox(arguments: argparse.Namespace, console: Console) -> AsyncIterator[Reached]:
    """Reach the one that is named, or a new one."""
    if arguments.sandbox is not None and arguments.profile is None:
        async with reaching(arguments.sandbox) as reached:
            yield reached
        return
    if arguments.sandbox is not None and not await _is_there(arguments.sandbox):
        # Made first and then reached as any other: it stays.
        async with create.made(create.parsed(_profile(arguments)), console, name=arguments.sandbox):
            pass
    if arguments.sandbox is not None:
        async with reaching(arguments.sandbox) as reached:
            yield reached
        return
    async with create.made(create.parsed(_profile(arguments)), console, name=None, stays=False) as reached:
        yield reached


async def _is_there(wanted: str) -> bool:
    from pocket_dock_mcp.cli.reaching import find, managing

    async with managing() as (manager, owner):
        try:
            await find(manager, owner, wanted)
        except SandboxNotFoundError:
            return False
    return True


def _profile(arguments: argparse.Namespace) -> list[str]:
    return [] if arguments.profile is None else ["--profile", arguments.profile]
