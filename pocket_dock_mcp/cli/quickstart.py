"""`pocket-dock quickstart`: from nothing to a first program in a sandbox, and what to do next."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from pocket_dock_mcp.cli import create, exits
from pocket_dock_mcp.cli.console import Console, error_document, plain, told
from pocket_dock_mcp.errors import EngineTimeoutError, EngineUnavailableError

_PROGRAM = """
import os, platform, socket
print(f"Hello from Python {platform.python_version()}, as user {os.getuid()} with no rights at all.")
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except OSError:
    print("There is no network here, and nothing of your files.")
"""
_NEXT = (
    ("pocket-dock create --name box", "make a sandbox that stays"),
    ('pocket-dock run box "echo hello"', "run something in it"),
    ("pocket-dock shell box", "look around in it"),
    ("pocket-dock shutdown box", "remove it"),
    ("pocket-dock --help", "see everything else"),
)
CLIENT = {"mcpServers": {"pocket-dock": {"command": "uvx", "args": ["pocket-dock-mcp"], "env": {}}}}


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "quickstart",
        help="try it: find the engine, build the image, run a first program",
        description="Finds your container engine, or says how to get one; builds the image if that has not "
        "been done yet; runs a first program in a sandbox that is removed after it; says what to do next.",
    )
    parser.add_argument("--profile", help="of the sandbox: minimal if left out; see profiles")
    parser.set_defaults(run=run)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Go through the steps."""
    from pocket_dock_mcp.cli.surroundings import environ
    from pocket_dock_mcp.engine.connect import connect

    steps: dict[str, object] = {}
    try:
        engine = await connect(environ())
    except (EngineUnavailableError, EngineTimeoutError) as error:
        await _help_to_an_engine(error, console)
        return exits.ENGINE_DOWN
    described = f"{engine.info.kind.capitalize()} {engine.info.version} at {engine.info.url}"
    await engine.aclose()
    steps["engine"] = described
    _step(console, 1, "Container engine", described)
    began = time.monotonic()
    _step(
        console, 2, "Image and sandbox", "the image is built if it is not there yet; that takes minutes, once"
    )
    parsed = create.parsed([] if arguments.profile is None else ["--profile", arguments.profile])
    async with create.made(parsed, console, name=None, stays=False) as reached:
        ready = time.monotonic() - began
        if not console.as_json:
            console.say(f"   {plain(reached.sandbox.request.image)} is ready after {ready:.1f} s")
        result = await reached.live.run(_PROGRAM, language="python", timeout_s=30.0)
    steps.update(ready_s=round(ready, 1), status=result.status, stdout=result.stdout, stderr=result.stderr)
    _step(console, 3, "First program", f"in a sandbox of its own, in {result.duration_ms:.0f} ms")
    if console.as_json:
        console.give({**steps, "mcp_client": CLIENT})
        return exits.OK if result.ok else exits.FAILED
    for line in (result.stdout + result.stderr).splitlines():
        console.say(f"   {console.paint(plain(line), 'green')}")
    _show_next(console)
    return exits.OK if result.ok else exits.FAILED


def _step(console: Console, number: int, title: str, text: str) -> None:
    if not console.as_json:
        console.say(f"{number}. {console.paint(title, 'bold')}: {plain(text)}")
        console.flush()


def _show_next(console: Console) -> None:
    console.say()
    console.say(console.paint("Next", "bold"))
    width = max(len(command) for command, _ in _NEXT)
    for command, what in _NEXT:
        console.say(f"   {command.ljust(width)}  {console.paint(f'# {what}', 'dim')}")
    console.say()
    console.say(
        console.paint("For an MCP client (Claude Desktop, Cursor and others), in its configuration", "bold")
    )
    for line in json.dumps(CLIENT, indent=2).splitlines():
        console.say(f"   {line}")


async def _help_to_an_engine(error: EngineUnavailableError | EngineTimeoutError, console: Console) -> None:
    """Say what the doctor says of an engine that is not there."""
    from pocket_dock_mcp.diagnosis.examine import Orders, examine

    report = await examine(os.environ, console.progress, Orders(quick=True))
    problems = [one for one in report.findings if one.severity == "problem"]
    if console.as_json:
        remedies = [one.remedy for one in problems if one.remedy]
        console.give({**error_document(error), "remedies": remedies})
        return
    console.note(f"pocket-dock: {told(error)}")
    for one in problems:
        if one.remedy:
            console.note(f"  {plain(one.title)}: {plain(one.remedy)}")
    console.note("Then: pocket-dock quickstart")
