"""`pocket-dock completion`: the script that has a shell complete command lines, and what it is told then."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Console, plain

ASKED = "_ARGCOMPLETE"
"""A variable that shells set while they ask what may come next."""
SHELLS = ("bash", "zsh", "fish")
_INSTALL = {
    "bash": 'eval "$(pocket-dock completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(pocket-dock completion zsh)"   # in ~/.zshrc, after compinit',
    "fish": "pocket-dock completion fish | source   # in ~/.config/fish/config.fish",
}
_MOST_NAMES = 1000


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "completion",
        help="print the script that completes command lines in your shell",
        description="Prints a script for your shell, which then completes commands, options, and the names "
        "of sandboxes, snapshots and profiles. To have it always: " + "; ".join(_INSTALL.values()) + ".",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(run=run, json=False)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print it."""
    from argcomplete.shell_integration import shellcode

    console.say(shellcode(["pocket-dock"], shell=arguments.shell))
    return exits.OK


def answer(parser: argparse.ArgumentParser) -> None:
    """Tell a shell that asks what may come next, and end the process; return where none asks."""
    if ASKED not in os.environ:
        return
    import argcomplete

    for action in _actions(parser):
        if (completer := _COMPLETERS.get(action.dest)) is not None:
            action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001  # argparse has no public way to them
        yield action
        for one in action.choices.values() if isinstance(action.choices, dict) else ():
            yield from _actions(one)


def _records(kind: str, pattern: str) -> list[Path]:
    from pocket_dock_mcp.errors import PocketDockError
    from pocket_dock_mcp.settings import Settings

    try:
        return sorted((Settings.from_environ(os.environ).state_dir / kind).glob(pattern))[:_MOST_NAMES]
    except (PocketDockError, OSError):
        return []


def _sandboxes(**_about: object) -> list[str]:
    """Return the names of sandboxes, from their records alone: no engine is asked."""
    names = []
    for path in _records("sandboxes", "sb-*.json"):
        try:
            kept = json.loads(path.read_bytes())
            name = kept["request"]["name"] or kept["container"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(name, str) and name == plain(name) and not name.startswith("-"):
            names.append(name)
    return names


def _snapshots(**_about: object) -> list[str]:
    """Return the ids of snapshots, likewise."""
    return [path.stem for path in _records("snapshots", "snap-*.json")]


def _profiles(**_about: object) -> list[str]:
    from pocket_dock_mcp.images.profiles import PROFILES

    return [profile.name for profile in PROFILES]


def _nothing(**_about: object) -> list[str]:
    return []


_COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "sandbox": _sandboxes,
    "sandboxes": _sandboxes,
    "snapshot": _snapshots,
    "since": _snapshots,
    "delete": _snapshots,
    "profile": _profiles,
    "profiles": _profiles,
    # Inside of a sandbox, or nobody's to guess; files of this machine would be wrong.
    "runs": _nothing,
    "image": _nothing,
}
