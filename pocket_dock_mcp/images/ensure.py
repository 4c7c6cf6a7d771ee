"""From a profile's name or an image reference to an image that the engine has."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import anyio

from pocket_dock_mcp.engine.base import Engine, ImageState
from pocket_dock_mcp.errors import (
    EngineConflictError,
    ImageBuildError,
    ImageError,
    ImageNotFoundError,
    InvalidArgumentError,
)
from pocket_dock_mcp.images.base import DEFAULT_BASE, Progress, pull
from pocket_dock_mcp.images.build import PROFILE_LABEL, RECIPE_LABEL, RECIPE_OF_LABEL, Builder
from pocket_dock_mcp.images.profiles import BY_HAND, PROFILES, ProfileInfo, find
from pocket_dock_mcp.images.recipe import Recipe, read_recipe
from pocket_dock_mcp.images.references import is_local, is_reference

BuiltState = Literal["current", "outdated", "by hand"]


@dataclass(frozen=True, slots=True)
class Built:
    """What an engine has of a profile."""

    image: ImageState
    tag: str
    state: BuiltState
    """``by hand``: by a command of the user's, who also decides when it is outdated."""


@dataclass
class _Work:
    """One image that is being had, and all who wait for it."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    watchers: list[Progress] = field(default_factory=list)
    last_line: str = ""
    failure: ImageError | None = None

    def tell(self, line: str) -> None:
        """Pass a line of progress to everybody."""
        self.last_line = line
        for watcher in tuple(self.watchers):
            watcher(line)


class ImageStore:
    """The images of one engine, pulled or built when they are missing."""

    def __init__(
        self,
        engine: Engine,
        *,
        profiles: Sequence[ProfileInfo] = PROFILES,
        base_image: str = DEFAULT_BASE,
        insists: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare to look after an engine's images; nothing is asked or made yet.

        Args:
            engine: whose images.
            profiles: that have a name here.
            base_image: what profiles are built on where a registry can be reached.
            insists: whether nothing else will do, where it cannot be had.
            environ: of the host, for its proxies and its cache folder; ours by default.
        """
        self._engine = engine
        self._profiles = {profile.name: profile for profile in profiles}
        self._builder = Builder(
            engine,
            base_image,
            dict(os.environ if environ is None else environ),
            insists=insists,
        )
        self._recipes: dict[str, Recipe] = {}
        self._work: dict[str, _Work] = {}

    async def ensure(self, reference: str, progress: Progress) -> ImageState:
        """Return the image of a profile or of a reference, having it pulled or built if need be.

        It costs one look at the engine when the image is there. Callers that want the same image at the same
        time share the work: one does it, all see its progress, and if that one is cancelled another goes on.

        Args:
            reference: the name of a profile, or an image reference or id.
            progress: gets lines for the user; called in the event loop, so it must return at once.

        Raises:
            InvalidArgumentError: it is neither the name of a profile nor a well-formed reference.
            ImageNotFoundError: the image cannot be had.
            ImageBuildError: the profile's image cannot be built.
        """
        if (profile := self._profiles.get(reference)) is not None:
            recipe = await self._recipe(profile)
            return await self._have(
                profile.image_tag,
                progress,
                lambda: self._usable(profile, recipe),
                lambda tell: self._builder.build(profile, recipe, tell),
            )
        if not is_reference(reference):
            names = ", ".join(self._profiles)
            raise InvalidArgumentError(
                f"{reference!r} is neither a profile nor an image reference.",
                hint=f"The profiles are: {names}. A reference looks like 'python:3.12-slim'.",
            )
        return await self._have(
            reference,
            progress,
            lambda: self._local(reference),
            lambda tell: pull(self._engine, reference, tell),
        )

    async def _have(
        self,
        name: str,
        progress: Progress,
        look: Callable[[], Awaitable[ImageState | None]],
        make: Callable[[Progress], Awaitable[None]],
    ) -> ImageState:
        """Look for an image; if it is not there, make it or wait for the one who makes it."""
        if (image := await look()) is not None:
            return image
        with self._watching(name, progress) as work:
            async with work.lock:
                if (image := await look()) is not None:
                    return image
                if work.failure is not None:
                    raise type(work.failure)(work.failure.message, hint=work.failure.hint)
                try:
                    await make(work.tell)
                except ImageError as error:
                    work.failure = error
                    raise
                if (image := await look()) is not None:
                    return image
        raise ImageBuildError(f"The image {name!r} was made and is not there.", hint="Try again.")

    @contextmanager
    def _watching(self, name: str, progress: Progress) -> Iterator[_Work]:
        """Be one of those who wait for an image; the last one forgets the work."""
        work = self._work.setdefault(name, _Work())
        if work.last_line:
            progress(f"joining the work of another call: {work.last_line}")
        work.watchers.append(progress)
        try:
            yield work
        finally:
            work.watchers.remove(progress)
            if not work.watchers:
                del self._work[name]

    async def _local(self, reference: str) -> ImageState | None:
        try:
            return await self._engine.image(reference)
        except ImageNotFoundError:
            if is_local(reference):
                raise
            return None

    async def look(self, name: str) -> Built | None:
        """Return what the engine has of a profile, current or not; None if it has nothing.

        Raises:
            InvalidArgumentError: there is no such profile.
        """
        profile = find(name, tuple(self._profiles.values()))
        recipe = await self._recipe(profile)
        for tag in (profile.image_tag, f"{BY_HAND}/{profile.name}:latest"):
            try:
                image = await self._engine.image(tag)
            except ImageNotFoundError:
                continue
            if image.labels.get(PROFILE_LABEL) == profile.name and not _is_of_recipe(image, profile):
                # Built by a user's own command, as an engine does it: that one's recipe is the user's affair.
                # An image that somebody else has given the name lacks the label of our Containerfile.
                return Built(image, tag, "by hand")
            if tag == profile.image_tag:
                is_current = image.labels.get(RECIPE_LABEL) == recipe.hash
                return Built(image, tag, "current" if is_current else "outdated")
        return None

    async def rebuild(self, name: str, progress: Progress) -> ImageState:
        """Build the image of a profile anew, from the newest packages, whatever there is of it.

        What it replaces is removed, unless something is made of it.

        Raises:
            InvalidArgumentError: there is no such profile.
            ImageError: it cannot be built; what there is of it stays.
        """
        profile = find(name, tuple(self._profiles.values()))
        recipe = await self._recipe(profile)
        before = await self.look(name)
        builder = replace(self._builder, anew=True, replaced=[])
        with self._watching(profile.image_tag, progress) as work:
            async with work.lock:
                await builder.build(profile, recipe, work.tell)
        if before is not None:
            builder.replaced.append(before.image.id)
        image = await self._engine.image(profile.image_tag)
        for image_id in reversed(builder.replaced):
            if image_id != image.id:
                await self._discard(image_id)
        return image

    async def _discard(self, image_id: str) -> None:
        """Remove an image that has no name any more and that nothing needs."""
        try:
            image = await self._engine.image(image_id)
            if all("<none>" in tag for tag in image.tags):
                await self._engine.remove_image(image_id)
        except (ImageNotFoundError, EngineConflictError):
            # It is gone, or a sandbox or a snapshot is made of it.
            pass

    async def _usable(self, profile: ProfileInfo, recipe: Recipe) -> ImageState | None:
        """Return the profile's image if it is what we would build now, or its user's own."""
        try:
            image = await self._engine.image(profile.image_tag)
        except ImageNotFoundError:
            pass
        else:
            if image.labels.get(RECIPE_LABEL) == recipe.hash:
                return image
        found = await self.look(profile.name)
        return found.image if found is not None and found.state == "by hand" else None

    async def _recipe(self, profile: ProfileInfo) -> Recipe:
        if profile.name not in self._recipes:
            self._recipes[profile.name] = await anyio.to_thread.run_sync(read_recipe, profile.dockerfile_dir)
        return self._recipes[profile.name]


def _is_of_recipe(image: ImageState, profile: ProfileInfo) -> bool:
    """Whether we have built the image itself, and not just one that it is built on."""
    of = image.labels.get(RECIPE_OF_LABEL, profile.name)
    return RECIPE_LABEL in image.labels and of == profile.name


async def ensure_image(engine: Engine, reference: str, progress: Progress) -> ImageState:
    """Return the image of a profile or of a reference; see `ImageStore.ensure`, which shares the work."""
    return await ImageStore(engine).ensure(reference, progress)
