"""`pocket-dock init`: makes a directory a project."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Console, plain


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "init",
        help="make a directory a project",
        description="Makes a directory a project, with a configuration that holds in it and below it. What "
        "is there already stays as it is.",
    )
    parser.add_argument(
        "path", nargs="?", metavar="PATH", help="the directory; without it, the working directory"
    )
    parser.add_argument("--name", help="the project's name; without it, the directory's")
    parser.set_defaults(run=run)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Make it, and say where."""
    from pocket_dock_mcp.projects import find_project_root, get_project_name, init_project

    path = Path(arguments.path) if arguments.path is not None else Path()
    outer = find_project_root(path)
    root = init_project(path, project_name=arguments.name)
    name, config = get_project_name(root), root / ".pocket-dock" / "pocket-dock.yaml"
    is_new = outer != root
    if console.as_json:
        document = {"project": name, "root": str(root), "configuration": str(config), "new": is_new}
        console.give(document)
        return exits.OK
    what = "Made" if is_new else "There is already"
    console.say(f"{what} the project {plain(name)}; its configuration is {plain(str(config))}")
    if is_new and outer is not None:
        console.note(f"pocket-dock: below {plain(str(outer))}, which is a project too; the inner one counts.")
    return exits.OK
