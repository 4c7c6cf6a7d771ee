"""The entry point of `pocket-dock`.

`--version`, `--help` and wrong usage are answered before anything heavy is imported: a command's module
imports what it works with when it runs, and not before.
"""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn, Protocol

from pocket_dock_mcp.cli import archives, doctor, exits, images, kept
from pocket_dock_mcp.cli.console import Console, advice, told
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.version import __version__

PROGRAM = "pocket-dock"


class Command(Protocol):
    """The module of one command."""

    def register(self, commands: argparse._SubParsersAction[Any]) -> None:
        """Add its parser, with ``run`` as a default: ``async def run(arguments, console) -> int``.

        What `run` returns is the exit status; of the errors that it raises, those of ours become one line.
        """


COMMANDS: tuple[Command, ...] = (kept, images, archives, doctor)
"""In the order in which the help lists them. A new command is a new module and a place here."""


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line, with the next step."""

    def error(self, message: str) -> NoReturn:
        """End with `exits.USAGE`."""
        self.exit(exits.USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit with its status."""
    console = Console(os.environ)
    status: object
    try:
        arguments = _parser().parse_args(argv)
        console.as_json = arguments.json
        status = _run(arguments, console)
    except SystemExit as end:
        # The parser has said what there was to say.
        status = end.code
    except KeyboardInterrupt:
        status = exits.INTERRUPTED
        console.clear()
    if not console.finish() and status in (None, exits.OK):
        status = exits.FAILED
    raise SystemExit(status)


def _run(arguments: argparse.Namespace, console: Console) -> int:
    # Only now: it costs a tenth of a second.
    import anyio

    try:
        status: int = anyio.run(arguments.run, arguments, console)
    except PocketDockError as error:
        if console.as_json:
            console.give({"error": {"code": error.code, "message": error.message, "hint": advice(error)}})
        console.note(f"{PROGRAM}: {told(error)}")
        return exits.status_of(error)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Looks after the sandboxes of pocket-dock-mcp on your own Podman or Docker.",
        epilog=f"{exits.TABLE}. The POCKET_DOCK_* variables that the server heeds are heeded here too.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.register(commands)
    for one in commands.choices.values():
        one.add_argument("--json", action="store_true", help="print the result as one JSON document")
    return parser


if __name__ == "__main__":
    main()
