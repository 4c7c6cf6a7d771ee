"""The verbs of a fake engine that are about images."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence

from pocket_dock_mcp.engine.base import ImageState
from pocket_dock_mcp.errors import EngineConflictError
from pocket_dock_mcp.testing.images import Images
from pocket_dock_mcp.testing.programs import Programs

_PIECE = 64 * 1024


class ImageVerbs:
    """The part of a fake engine that has images."""

    programs: Programs
    _images: Images

    async def image(self, reference: str) -> ImageState:
        """Look up an image; see the port."""
        await self._called("image")
        return self._images.find(reference).state()

    async def images(self, label: str) -> list[ImageState]:
        """List images by label; see the port."""
        await self._called("images")
        return [image.state() for image in self._images.labelled(label)]

    async def pull(self, reference: str) -> AsyncIterator[str]:
        """Fetch an image; see the port."""
        await self._called("pull")
        yield f"Pulling {reference}"
        self._images.pull(reference)

    async def build(
        self,
        context: bytes,
        tag: str,
        *,
        build_args: Mapping[str, str],  # noqa: ARG002  # no step here can use one
        labels: Mapping[str, str],
        no_cache: bool = False,  # noqa: ARG002  # nothing is cached here
    ) -> AsyncIterator[str]:
        """Build an image; see the port, and `Images.build` for how much of it is done."""
        await self._called("build")
        async for line in self._images.build(context, tag, labels, self.programs):
            yield line

    async def import_rootfs(
        self, tar: AsyncIterable[bytes], tag: str, *, labels: Mapping[str, str] | None = None
    ) -> str:
        """Make an image of a root filesystem's tar; see the port."""
        await self._called("import_rootfs")
        return self._images.unpack(b"".join([piece async for piece in tar]), tag, labels or {}).id

    async def save_images(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        """Yield an archive; see the port."""
        await self._called("save_images")
        archive = self._images.save(references)
        for at in range(0, len(archive), _PIECE):
            yield archive[at : at + _PIECE]

    async def load_images(self, archive: AsyncIterable[bytes]) -> list[str]:
        """Take in the images of an archive; see the port."""
        data = b"".join([piece async for piece in archive])
        await self._called("load_images")
        return self._images.load(data)

    async def remove_image(self, reference: str) -> None:
        """Remove an image; see the port."""
        await self._called("remove_image")
        used = {self._images.find(image).id for image in self._in_use()}
        if self._images.has(reference) and self._images.find(reference).id in used:
            raise EngineConflictError(f"The image {reference!r} is in use by a container.")
        self._images.remove(reference)

    def _in_use(self) -> list[str]:
        raise NotImplementedError

    async def _called(self, verb: str) -> None:
        raise NotImplementedError(verb)
