"""Images on their way from one engine to another, in one archive: nothing damaged, and no half of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import anyio

from pocket_dock_mcp.engine.base import Engine, ImageState
from pocket_dock_mcp.errors import EngineError, ImageArchiveError, ImageNotFoundError
from pocket_dock_mcp.images.archives import OCI, ArchivedImage, ArchiveReader

_CLEAN_UP = 30.0
"""Seconds for removing what has come of an archive that then failed."""

Pieces = Callable[[], AsyncGenerator[bytes, None]]
"""What opens an archive at its beginning, uncompressed; it is read twice."""
Count = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Arrival:
    """An image that has come."""

    name: str
    """Its name, or its id if it has none."""
    image: ImageState
    before: str | None
    """The id of the image that had the name before, if one had."""

    @property
    def is_new(self) -> bool:
        """Whether the engine did not have it under this name."""
        return self.before != self.image.id


async def save(engine: Engine, references: Sequence[str]) -> AsyncGenerator[bytes, None]:
    """Yield an archive that has all these images, once each, and that every engine can load.

    Args:
        engine: that has them.
        references: names or ids.

    Raises:
        ImageNotFoundError: it lacks one of them; nothing was yielded.
        ImageArchiveError: what it gave is not whole.
        EngineError: it failed.
    """
    reader = ArchiveReader(drop=OCI, verify=False)
    async with aclosing(_of(engine.save_images(list(dict.fromkeys(references))))) as pieces:
        async for piece in pieces:
            if passed := reader.feed(piece):
                yield passed
    reader.finish()


async def load(engine: Engine, pieces: Pieces, *, checking: Count, loading: Count) -> list[Arrival]:
    """Have an engine take in an archive, after it was looked through; all of its images come, or none.

    Args:
        engine: that is to have them.
        pieces: the archive.
        checking: gets numbers of bytes that were looked at.
        loading: gets numbers of bytes that went to the engine.

    Raises:
        ImageArchiveError: it is no archive of images, or a damaged one, or the engine cannot read it.
        EngineError: the engine failed.
    """
    reader = ArchiveReader()
    async with aclosing(pieces()) as stream:
        async for piece in stream:
            reader.feed(piece)
            checking(len(piece))
    found = reader.finish()
    before = {name: await _id_of(engine, name) for name in _wanted(found)}
    drop = OCI if reader.has_manifest else frozenset()
    try:
        async with aclosing(_passed(pieces, drop, loading)) as stream:
            told = await engine.load_images(stream)
        names = list(dict.fromkeys([*before, *(told if not before else ())]))
        arrivals = [Arrival(name, await engine.image(name), before.get(name)) for name in names]
    except ImageNotFoundError as error:
        await _take_back(engine, before)
        raise ImageArchiveError(
            f"The engine has loaded the archive, and lacks an image of it. {error.message}",
            hint="Make the archive anew, with 'pocket-dock export', 'docker save' or 'podman save'.",
        ) from error
    except BaseException:
        await _take_back(engine, before)
        raise
    return arrivals


def _wanted(found: Sequence[ArchivedImage]) -> list[str]:
    """Return by what the images are to be found afterwards."""
    return [name for image in found for name in (image.names or ([image.id] if image.id else []))]


async def _passed(pieces: Pieces, drop: frozenset[str], loading: Count) -> AsyncGenerator[bytes, None]:
    reader = ArchiveReader(drop=drop, verify=False)
    async with aclosing(pieces()) as stream:
        async for piece in stream:
            if passed := reader.feed(piece):
                yield passed
            loading(len(piece))


async def _take_back(engine: Engine, before: dict[str, str | None]) -> None:
    """Remove what was not there before. What has lost its name to an image of the archive stays nameless."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(_CLEAN_UP):
        for name, known in before.items():
            try:
                if known is None and await _id_of(engine, name) is not None:
                    await engine.remove_image(name)
            except EngineError:
                # Somebody uses it already, or the engine is gone.
                continue


async def _id_of(engine: Engine, reference: str) -> str | None:
    try:
        return (await engine.image(reference)).id
    except ImageNotFoundError:
        return None


async def _of(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Return pieces as something that can be closed: the adapter's hold a connection."""
    try:
        async for piece in pieces:
            yield piece
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
