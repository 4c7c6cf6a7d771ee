"""`pocket-dock export` and `import`: images in one file, for machines without a network."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
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
_OUR_PIPE = "-"


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    exporting = commands.add_parser(
        "export",
        help="write images into one file",
        description="Writes images into one file, for pocket-dock import, docker load or podman load on "
        "another machine. What several images have in common is in it once.",
    )
    exporting.add_argument(
        "--image", action="append", default=[], metavar="REF", help="an image of the engine; repeatable"
    )
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
    if not (arguments.image or arguments.profile or arguments.all):
        raise InvalidArgumentError(
            "Nothing is said of what to export.", hint="Say --profile NAME, --image REF or --all."
        )
    to_pipe = arguments.output == _OUR_PIPE
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
        with _output(arguments.output, to_pipe=to_pipe) as write:
            async with aclosing(save(connected, list(images))) as pieces:
                await _write(pieces, write, progress)
    console.clear()
    written = None if to_pipe else os.stat(arguments.output).st_size  # noqa: PTH116  # asked at once
    if console.as_json:
        told = [{"name": name, "id": image.id} for name, image in images.items()]
        console.give({"file": arguments.output, "size_bytes": written, "images": told})
    elif not to_pipe:
        for name, image in images.items():
            console.say(f"{plain(name)}: {size(image.size_bytes)}")
        console.say(f"{_count(images)} in {plain(arguments.output)}, {size(written or 0)}")
    return exits.OK


async def bring(arguments: argparse.Namespace, console: Console) -> int:
    """Load a file's images."""
    from pocket_dock_mcp.images.moving import load

    with _source(arguments.file) as file:
        total = file.seek(0, os.SEEK_END)
        checking, loading = Transfer(console, "checking", None), Transfer(console, "loading", None)
        async with engine() as connected:
            console.progress(f"reading {size(total)}")
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


@contextmanager
def _output(where: str, *, to_pipe: bool) -> Iterator[Callable[[bytes], object]]:
    """Return what writes the archive."""
    if to_pipe:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    with new_file(Path(where)) as file:
        if not where.endswith(".gz"):
            yield file.write
            return
        import gzip

        # Without a name and a time, the same images make the same file.
        with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
            yield packed.write


async def _write(pieces: AsyncIterator[bytes], write: Callable[[bytes], object], progress: Transfer) -> None:
    import anyio

    gathered = bytearray()

    async def hand_on() -> None:
        data = bytes(gathered)
        gathered.clear()
        # It may have to be compressed, or wait for a disk or a pipe.
        await anyio.to_thread.run_sync(write, data)
        progress.add(len(data))

    async for piece in pieces:
        gathered += piece
        if len(gathered) >= _PIECE:
            await hand_on()
    await hand_on()


@contextmanager
def _source(where: str) -> Iterator[BinaryIO]:
    """Open what is to be loaded: it is read twice, so what comes through a pipe is put aside first."""
    if where == _OUR_PIPE:
        if sys.stdin is None or sys.stdin.isatty():
            raise InvalidArgumentError("No archive comes from a terminal.", hint="Say FILE, or pipe one in.")
        with _put_aside(sys.stdin.buffer) as file:
            yield file
        return
    try:
        opened = Path(where).open("rb")  # noqa: SIM115  # it is closed below
    except OSError as error:
        raise InvalidArgumentError(
            f"{where!r} cannot be read: {error.strerror}.", hint="Check the name, and that you may read it."
        ) from error
    with opened:
        if stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            yield opened
        else:
            with _put_aside(opened) as file:
                yield file


@contextmanager
def _put_aside(stream: BinaryIO) -> Iterator[BinaryIO]:
    import tempfile

    # It never has a name, so nothing can stay of it.
    with tempfile.TemporaryFile(prefix="pocket-dock-") as file:
        try:
            while data := stream.read(_PIECE):
                file.write(data)
            file.flush()
        except OSError as error:
            raise InvalidArgumentError(
                f"The archive cannot be put aside in {tempfile.gettempdir()!r}: {error.strerror}.",
                hint="Set TMPDIR to a folder with room for it.",
            ) from error
        yield cast("BinaryIO", file)


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
