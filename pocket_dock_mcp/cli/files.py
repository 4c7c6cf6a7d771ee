"""`pocket-dock read`, `write` and `ls`: files in a sandbox. Whole trees go by `push` and `pull`."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits, options
from pocket_dock_mcp.cli.console import Console, plain
from pocket_dock_mcp.cli.reaching import reaching
from pocket_dock_mcp.errors import FileChangedError, FileTooLargeError, InvalidArgumentError

if TYPE_CHECKING:
    from pocket_dock_mcp.models import FileEntry, FileType

_PIECE = 8 * 1024 * 1024
_MOST_WRITTEN = 1024 * 1024 * 1024
_KINDS: dict[FileType, int] = {
    "file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK, "device": stat.S_IFCHR,
}  # fmt: skip


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    reading = commands.add_parser(
        "read",
        help="print a file of a sandbox, byte by byte",
        description="Writes the content of a file in a sandbox to standard output, as it is.",
    )
    options.add_sandbox(reading)
    _add_path(reading)
    reading.set_defaults(run=read, json=False)
    writing = commands.add_parser(
        "write",
        help="write standard input to a file of a sandbox",
        description="Writes standard input, or what is given, to a file in a sandbox: at once, so that "
        "nobody sees a half. Missing directories are made.",
    )
    options.add_sandbox(writing)
    _add_path(writing)
    writing.add_argument(
        "--content", metavar="TEXT", help="write this text, as it is, instead of standard input"
    )
    writing.add_argument(
        "--mode", type=options.mode, metavar="BITS", help="permissions, such as 755; the old file's, or 644"
    )
    writing.add_argument("--append", action="store_true", help="add to the end of the file")
    writing.set_defaults(run=write)
    listing = commands.add_parser(
        "ls",
        help="list a directory of a sandbox",
        description="Lists a directory in a sandbox by name, hidden files too.",
    )
    options.add_sandbox(listing)
    listing.add_argument(
        "path", metavar="PATH", nargs="?", default=".", help="the home directory if left out"
    )
    listing.add_argument("-l", "--long", action="store_true", help="also type, permissions, size and time")
    listing.set_defaults(run=ls)


def _add_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="absolute, or relative to the home directory")


async def read(arguments: argparse.Namespace, console: Console) -> int:
    """Print it, as long as somebody reads."""
    from pocket_dock_mcp.async_.descriptors import Writer

    async with reaching(arguments.sandbox) as reached:
        writer = Writer(1 if sys.stdout is not None else -1)
        try:
            position, version = 0, None
            while True:
                found = await reached.live.read_file(arguments.path, offset=position, max_bytes=_PIECE)
                if version not in (None, found.version):
                    message = f"{arguments.path} was changed while it was read."
                    raise FileChangedError(message, hint="What was printed is of no use. Read it again.")
                version, position = found.version, position + len(found.data)
                writer.write(found.data)
                await writer.drained(_PIECE)
                if not found.data or position >= found.size:
                    await writer.drained()
                    return exits.OK
        except OSError as error:
            if writer.error is None:
                raise
            return console.not_written(error)
        finally:
            writer.close()


async def write(arguments: argparse.Namespace, console: Console) -> int:
    """Write it."""
    content = await _content(arguments)
    async with reaching(arguments.sandbox) as reached:
        written = await reached.live.write_file(
            arguments.path, content, mode=arguments.mode, append=arguments.append
        )
    if console.as_json:
        console.give({"path": written.path, "size": written.size, "overwrote": written.overwrote})
    return exits.OK


async def _content(arguments: argparse.Namespace) -> bytes:
    from pocket_dock_mcp.async_.descriptors import Reader

    if arguments.content is not None:
        return os.fsencode(arguments.content)
    if sys.stdin is None or os.isatty(0):
        message = "There is nothing to write: standard input is a terminal."
        raise InvalidArgumentError(message, hint="Pipe something in, or say --content TEXT.")
    reader, content = Reader(0), bytearray()
    try:
        while piece := await reader.read():
            content += piece
            if len(content) > _MOST_WRITTEN:
                message = f"There are more than {_MOST_WRITTEN} bytes on standard input."
                raise FileTooLargeError(message, hint="Put it into a file, and push that.")
    finally:
        reader.close()
    return bytes(content)


async def ls(arguments: argparse.Namespace, console: Console) -> int:
    """List it."""
    async with reaching(arguments.sandbox) as reached:
        entries, more = await reached.live.list_files(arguments.path)
    if console.as_json:
        console.give([_document(entry) for entry in entries])
    for entry in () if console.as_json else entries:
        console.say(_line(entry) if arguments.long else console.shown(entry.name))
    if more:
        console.note(f"pocket-dock: these are the first {len(entries)}; there are more.")
    return exits.FAILED if more else exits.OK


def _line(entry: FileEntry) -> str:
    import datetime

    mode = stat.filemode(_KINDS[entry.type] | entry.mode)
    moment = datetime.datetime.fromtimestamp(_possible(entry.mtime), datetime.timezone.utc)
    return f"{mode} {entry.size:>12} {moment:%Y-%m-%d %H:%M} {plain(entry.name)}"


def _possible(seconds: float) -> float:
    """Return a moment that has a date; programs can give their files any."""
    return min(max(seconds, 0.0), 253_402_300_799.0)


def _document(entry: FileEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "type": entry.type,
        "size": entry.size,
        "mode": f"{entry.mode:04o}",
        "mtime": entry.mtime,
    }
