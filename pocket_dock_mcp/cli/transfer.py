"""`pocket-dock push` and `pull`: files and directories, into a sandbox and out of it."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits, options
from pocket_dock_mcp.cli.console import Console, plain
from pocket_dock_mcp.cli.reaching import reaching
from pocket_dock_mcp.cli.steps import amount, bar, counted

if TYPE_CHECKING:
    from pocket_dock_mcp.models import TransferProgress, Transferred

_RULES = (
    "A directory that is there takes what comes under its name, or its content, if the path of what comes "
    "ends in a slash; where nothing is, the destination becomes what comes. Files that are there are "
    "replaced, each at once. Links are kept if they cannot lead out of the directory; other ones, devices, "
    "sockets and FIFOs are left out, and that is said."
)
_SHOWN = 20
"""Of what was left out."""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    pushing = _add(commands, "push", "copy a file or directory into a sandbox", push)
    pushing.add_argument("source", metavar="SOURCE", help="on this machine")
    pushing.add_argument("destination", metavar="DESTINATION", help="inside; relative to the home directory")
    pulling = _add(commands, "pull", "copy a file or directory out of a sandbox", pull)
    pulling.add_argument("source", metavar="SOURCE", help="inside; relative to the home directory")
    pulling.add_argument("destination", metavar="DESTINATION", help="on this machine")
    pulling.add_argument(
        "--max-bytes", type=int, metavar="N", help="of all files together; default: 17179869184 (16 GiB)"
    )
    pulling.add_argument(
        "--max-files", type=int, metavar="N", help="files, directories and links; default: 1000000"
    )


def _add(
    commands: argparse._SubParsersAction[Any], name: str, what: str, run: object
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=f"{what.capitalize()}. {_RULES}"
    )
    options.add_sandbox(parser)
    parser.set_defaults(run=run)
    return parser


async def push(arguments: argparse.Namespace, console: Console) -> int:
    """Copy into it."""
    async with reaching(arguments.sandbox) as reached:
        progress = Progress(console, "push")
        moved = await reached.live.push(arguments.source, arguments.destination, on_progress=progress.tell)
    return report(console, "pushed", moved)


async def pull(arguments: argparse.Namespace, console: Console) -> int:
    """Copy out of it."""
    async with reaching(arguments.sandbox) as reached:
        moved = await reached.live.pull(
            arguments.source,
            arguments.destination,
            max_bytes=arguments.max_bytes,
            max_files=arguments.max_files,
            on_progress=Progress(console, "pull").tell,
        )
    return report(console, "pulled", moved)


class Progress:
    """The line that says how far it is, on a terminal."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._began = time.monotonic()

    def tell(self, progress: TransferProgress) -> None:
        """Show how much, of how much, and how fast."""
        seconds = max(time.monotonic() - self._began, 0.001)
        done, total = progress.bytes, progress.total_bytes
        share = f"{bar(done, total)} {min(100, 100 * done // total)}% " if total else ""
        of = f" of {amount(total)}" if total else ""
        rate = amount(int(done / seconds))
        files = counted(progress.files, "file")
        self._console.progress(f"{share}{self._what}: {files}, {amount(done)}{of}, {rate}/s")


def report(console: Console, done: str, moved: Transferred) -> int:
    """Say what was moved, and what was not."""
    console.clear()
    for one in moved.skipped[:_SHOWN]:
        console.note(f"pocket-dock: {plain(one.path)}: {one.reason}")
    if moved.skipped_count > _SHOWN:
        console.note(f"pocket-dock: and {moved.skipped_count - _SHOWN} more")
    if console.as_json:
        console.give(asdict(moved))
    else:
        links = f", {counted(moved.symlinks, 'link')}" if moved.symlinks else ""
        what = f"{counted(moved.files, 'file')}{links}, {amount(moved.bytes)}"
        console.say(f"{done} {what} to {plain(moved.path)}")
    return exits.OK
