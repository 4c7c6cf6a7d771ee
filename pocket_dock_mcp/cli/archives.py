"""`pocket-dock export` and `import`: images in one file, for machines without a network."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Console, plain
from pocket_dock_mcp.cli.images import engine
from pocket_dock_mcp.cli.newfile import new_file
from pocket_dock_mcp.cli.steps import Transfer, size
from pocket_dock_mcp.errors import ImageArchiveError, ImageNotFoundError, InvalidArgumentError

if TYPE_CHECKING:
    from pocket_dock_mcp.engine.base import Engine, ImageState
    from pocket_dock_mcp.images.moving import Arrival

_PIECE = 1024 * 1024
_LEVEL = 6
_PIPE = "-"


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    exporting = commands.add_parser(
        "export",
        help="write images into one file",
        description="Writes images into one file, for pocket-dock import, docker load or podman load on "
        "another machine. What several images have in common is in it once.",
    )
    exporting.add_argument("images", nargs="*", metavar="REF", help="an image of the engine")
    exporting.add_argument("--image", action="append", default=[], metavar="REF", help="the same; repeatable")
    exporting.add_argument(
        "--profile", action="append", default=[], metavar="NAME", help="the image of a profile; repeatable"
    )
    exporting.add_argument("--all", action="store_true", help="the images of all profiles that are built")
    exporting.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="what to write; with a name in .gz it is compressed; - is standard output",
    )
    exporting.set_defaults(run=export)
    importing = commands.add_parser(
        "import",
        help="load images from a file",
        description="Loads the images of a file that pocket-dock export, docker save or podman save has "
        "written, compressed or not. It is looked through first: of a damaged one nothing is loaded.",
    )
    importing.add_argument("file", metavar="FILE", help="the file; - is standard input")
    importing.set_defaults(run=bring)


async def export(arguments: argparse.Namespace, console: Console) -> int:
    """Write the images that were asked for."""
    arguments.image = [*arguments.images, *arguments.image]
    if not (arguments.image or arguments.profile or arguments.all):
        raise InvalidArgumentError(
            "Nothing is said of what to export.", hint="Say REF of an image, --profile NAME or --all."
        )
    to_pipe = arguments.output == _PIPE
    if to_pipe and (console.as_json or sys.stdout is None or sys.stdout.isatty()):
        raise InvalidArgumentError(
            "An archive is nothing for a terminal, and cannot come with a JSON document.",
            hint="Say -o FILE, or -o - with a pipe behind it and without --json.",
        )
    from pocket_dock_mcp.images.moving import save

    async with engine() as connected:
        images = await _chosen(connected, arguments)
        total = sum(image.size_bytes for image in images.values())
        progress = Transfer(console, f"exporting {_count(images)}", total)
        async with aclosing(save(connected, list(images))) as pieces:
            if to_pipe:
                return await _to_pipe(pieces, progress, console)
            await _to_file(pieces, progress, arguments.output)
    console.clear()
    written = os.stat(arguments.output).st_size  # noqa: PTH116  # asked at once
    if console.as_json:
        told = [{"name": name, "id": image.id} for name, image in images.items()]
        console.give({"file": arguments.output, "size_bytes": written, "images": told})
        return exits.OK
    for name, image in images.items():
        console.say(f"{plain(name)}: {size(image.size_bytes)}")
    console.say(f"{_count(images)} in {plain(arguments.output)}, {size(written)}")
    return exits.OK


async def bring(arguments: argparse.Namespace, console: Console) -> int:
    """Load a file's images."""
    from pocket_dock_mcp.images.moving import load

    async with _source(arguments.file, console) as file:
        checking, loading = Transfer(console, "checking", None), Transfer(console, "loading", None)
        async with engine() as connected:
            found = await load(connected, lambda: _pieces(file), checking=checking.add, loading=loading.add)
            console.clear()
            outdated = await _outdated(connected, found)
    if console.as_json:
        console.give([_document(arrival) for arrival in found])
    for arrival in found if not console.as_json else ():
        console.say(f"{plain(arrival.name)}: {size(arrival.image.size_bytes)}, {_how(arrival)}")
    for name in outdated:
        console.note(
            f"pocket-dock: {name} is of another version of pocket-dock: it is built anew when it is used"
        )
    return exits.OK


async def _chosen(connected: Engine, arguments: argparse.Namespace) -> dict[str, ImageState]:
    """Return the images that are meant, by the names that they are saved under."""
    from pocket_dock_mcp.images import ImageStore, list_profiles, resolve_profile
    from pocket_dock_mcp.images.references import full

    chosen: dict[str, ImageState] = {}
    for reference in arguments.image:
        name = full(reference)
        chosen[name] = await connected.image(name)
    store = ImageStore(connected)
    wanted = [resolve_profile(name).name for name in arguments.profile]
    for name in dict.fromkeys([*wanted, *(one.name for one in list_profiles() if arguments.all)]):
        if (built := await store.look(name)) is not None:
            chosen[built.tag] = built.image
        elif name in wanted:
            raise ImageNotFoundError(
                f"The image of {name} is not built.", hint=f"Build it first: pocket-dock build {name}"
            )
    if not chosen:
        raise ImageNotFoundError("No profile is built.", hint="Build them first: pocket-dock build --all")
    return chosen


async def _to_pipe(pieces: AsyncIterator[bytes], progress: Transfer, console: Console) -> int:
    from pocket_dock_mcp.async_.descriptors import Writer

    writer = Writer(sys.stdout.fileno())
    try:
        async for piece in pieces:
            writer.write(piece)
            await writer.drained(_PIECE)
            progress.add(len(piece))
        await writer.drained()
    except OSError as error:
        if writer.error is None:
            raise
        return console.not_written(error)
    finally:
        writer.close()
    console.clear()
    return exits.OK


async def _to_file(pieces: AsyncIterator[bytes], progress: Transfer, where: str) -> None:
    import gzip

    import anyio

    with new_file(Path(where)) as file, ExitStack() as stack:
        write: Callable[[bytes], object] = file.write
        if where.endswith(".gz"):
            # Without a name and a time, the same images make the same file.
            write = stack.enter_context(gzip.GzipFile("", "wb", _LEVEL, file, mtime=0)).write
        gathered = bytearray()
        async for piece in _with_end(pieces):
            gathered += piece
            if len(gathered) >= _PIECE or not piece:
                # It may have to be compressed, or wait for a disk.
                await anyio.to_thread.run_sync(write, bytes(gathered))
                progress.add(len(gathered))
                gathered.clear()


async def _with_end(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece
    yield b""


def _opened(where: str) -> BinaryIO:
    return os.fdopen(os.dup(0), "rb") if where == _PIPE else Path(where).open("rb")


@asynccontextmanager
async def _source(where: str, console: Console) -> AsyncIterator[BinaryIO]:
    """Open what is to be loaded: it is read twice, so what comes through a pipe is put aside first."""
    if where == _PIPE and (sys.stdin is None or sys.stdin.isatty()):
        raise InvalidArgumentError("No archive comes from a terminal.", hint="Say FILE, or pipe one in.")
    import anyio

    try:
        # A named pipe waits for its writer.
        opened = await anyio.to_thread.run_sync(_opened, where, abandon_on_cancel=True)
    except OSError as error:
        raise InvalidArgumentError(
            f"{where!r} cannot be read: {error.strerror}.", hint="Check the name, and that you may read it."
        ) from error
    with opened, ExitStack() as stack:
        if stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            yield opened
            return
        import tempfile

        # It never has a name, so nothing can stay of it.
        aside = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile(prefix="pocket-dock-")))
        try:
            await _put_aside(opened.fileno(), aside, Transfer(console, "reading", None))
        except OSError as error:
            raise InvalidArgumentError(
                f"The archive cannot be put aside in {tempfile.gettempdir()!r}: {error.strerror}.",
                hint="Set TMPDIR to a folder with room for it.",
            ) from error
        yield aside


async def _put_aside(descriptor: int, file: BinaryIO, progress: Transfer) -> None:
    from pocket_dock_mcp.async_.descriptors import Reader

    reader = Reader(descriptor)
    try:
        while data := await reader.read():
            file.write(data)
            progress.add(len(data))
        file.flush()
    finally:
        reader.close()


async def _pieces(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    """Yield a file from its beginning, unpacked if it is compressed."""
    import zlib

    import anyio

    read = _reader(file)
    while True:
        try:
            piece = await anyio.to_thread.run_sync(read, _PIECE)
        # What modules of the standard library say to damaged files, in all their ways.
        except (EOFError, OSError, ValueError, zlib.error) as error:
            raise ImageArchiveError(
                f"The archive is damaged: {error}.", hint="Nothing was loaded. Fetch it again."
            ) from error
        if not piece:
            return
        yield piece


def _reader(file: BinaryIO) -> Callable[[int], bytes]:
    import bz2
    import gzip
    import lzma

    file.seek(0)
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file, mode="rb").read
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file).read
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(file).read
    return file.read


async def _outdated(connected: Engine, found: list[Arrival]) -> list[str]:
    """Return the profiles among what has come that are not those of this version."""
    from pocket_dock_mcp.images import ImageStore, list_profiles

    store, names = ImageStore(connected), {arrival.name for arrival in found}
    states = {one.name: await store.look(one.name) for one in list_profiles() if one.image_tag in names}
    return [name for name, built in states.items() if built is not None and built.state == "outdated"]


def _how(arrival: Arrival) -> str:
    if arrival.before is None:
        return "new"
    return f"replaces {arrival.before[:19]}" if arrival.is_new else "was there already"


def _document(arrival: Arrival) -> dict[str, object]:
    image = arrival.image
    return {
        "name": arrival.name,
        "id": image.id,
        "size_bytes": image.size_bytes,
        "new": arrival.is_new,
        "replaced": arrival.before if arrival.is_new else None,
    }


def _count(images: dict[str, ImageState]) -> str:
    return f"{len(images)} image{'' if len(images) == 1 else 's'}"
