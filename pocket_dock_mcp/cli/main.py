"""The entry point of `pocket-dock`.

`--version`, `--help` and wrong usage are answered before anything heavy is imported: a command's module
imports what it works with when it runs, and not before.
"""

from __future__ import annotations

import argparse
import os
from typing import Any, Protocol

from pocket_dock_mcp.cli import (
    about,
    archives,
    audit,
    completion,
    copies,
    create,
    doctor,
    exits,
    files,
    forward,
    images,
    init,
    kept,
    logs,
    pool,
    quickstart,
    run,
    shell,
    snapshots,
    status,
    transfer,
)
from pocket_dock_mcp.cli.console import Console, error_document, told
from pocket_dock_mcp.cli.parsing import MainParser, Parser
from pocket_dock_mcp.cli.surroundings import heed_log_level
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.version import __version__

PROGRAM = "pocket-dock"


class Command(Protocol):
    """The module of one command."""

    def register(self, commands: argparse._SubParsersAction[Any]) -> None:
        """Add its parser, with ``run`` as a default: ``async def run(arguments, console) -> int``.

        What `run` returns is the exit status; of the errors that it raises, those of ours become one line.
        """


# A new command is a new module and a line here; `parsing.GROUPS` says where the help lists it.
COMMANDS: tuple[Command, ...] = (
    about,
    archives,
    audit,
    completion,
    copies,
    create,
    doctor,
    files,
    forward,
    images,
    init,
    kept,
    logs,
    pool,
    quickstart,
    run,
    shell,
    snapshots,
    status,
    transfer,
)  # fmt: skip
"""All commands. Their modules import nothing heavy before they run."""


def main(argv: list[str] | None = None) -> None:
    """Run one command and exit with its status."""
    console = Console(os.environ)
    status: object
    try:
        made = parser()
        completion.answer(made)
        arguments = made.parse_args(argv)
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
    import logging

    import anyio

    # Nobody has asked for log lines, and `run` has standard error for its program's alone.
    logging.getLogger("pocket_dock_mcp").addHandler(logging.NullHandler())
    heed_log_level()
    status: int = anyio.run(_guarded, arguments, console)
    return status


async def _guarded(arguments: argparse.Namespace, console: Console) -> int:
    """Run it until it is done, has failed, or a signal ends it."""
    import anyio

    from pocket_dock_mcp.cli.signals import Signals

    with anyio.CancelScope() as scope:
        console.signals = signals = Signals(scope)
        with signals.handled():
            try:
                status: int = await arguments.run(arguments, console)
                return status
            except PocketDockError as error:
                if console.as_json:
                    console.give(error_document(error))
                console.note(f"{PROGRAM}: {told(error)}")
                own: int | None = getattr(arguments, "status_of_errors", None)
                return exits.status_of(error) if own is None else own
    console.clear()
    return exits.SIGNALLED + (signals.ended_by or 0)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all command lines."""
    made = MainParser(
        prog=PROGRAM,
        description="Looks after the sandboxes of pocket-dock-mcp on your own Podman or Docker.",
        epilog=f"{exits.TABLE}. The POCKET_DOCK_* variables that the server heeds are heeded here too.",
    )
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = made.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.register(commands)
    for one in commands.choices.values():
        if one.get_default("json") is None:
            one.add_argument("--json", action="store_true", help="print the result as one JSON document")
    return made


if __name__ == "__main__":
    main()
