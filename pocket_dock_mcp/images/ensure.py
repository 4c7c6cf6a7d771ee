"""From a profile's name or an image reference to an image that the engine has."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from pocket_dock_mcp.engine.base import Engine, ImageState
from pocket_dock_mcp.errors import (
    ImageBuildError,
    ImageError,
    ImageNotFoundError,
    InvalidArgumentError,
    PocketDockError,
)
from pocket_dock_mcp.images.base import DEFAULT_BASE, Progress, from_packages, from_registry, pull
from pocket_dock_mcp.images.network import proxies, read_bundle
from pocket_dock_mcp.images.profiles import PROFILES, Profile
from pocket_dock_mcp.images.recipe import Recipe, read_recipe
from pocket_dock_mcp.images.references import is_local, is_reference

PROFILE_LABEL = "pocket-dock.profile"
RECIPE_LABEL = "pocket-dock.recipe"
"""On an image of a profile: the hash of the recipe that it was built from."""

_SWEEP_DEADLINE = 10.0
_SWEEP_POLL = 0.1

_log = logging.getLogger(__name__)


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
        profiles: Sequence[Profile] = PROFILES,
        base_image: str = DEFAULT_BASE,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare to look after an engine's images; nothing is asked or made yet.

        Args:
            engine: whose images.
            profiles: that have a name here.
            base_image: what profiles are built on where a registry can be reached.
            environ: of the host, for its proxies and its cache folder; ours by default.
        """
        self._engine = engine
        self._profiles = {profile.name: profile for profile in profiles}
        self._base_image = base_image
        self._environ = dict(os.environ if environ is None else environ)
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
                profile.tag,
                progress,
                lambda: self._current(profile, recipe),
                lambda tell: self._make(profile, recipe, tell),
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

    async def _current(self, profile: Profile, recipe: Recipe) -> ImageState | None:
        try:
            image = await self._engine.image(profile.tag)
        except ImageNotFoundError:
            return None
        return image if image.labels.get(RECIPE_LABEL) == recipe.hash else None

    async def _recipe(self, profile: Profile) -> Recipe:
        if profile.name not in self._recipes:
            self._recipes[profile.name] = await anyio.to_thread.run_sync(read_recipe, *profile.folders)
        return self._recipes[profile.name]

    # -- building ---------------------------------------------------------------------------------

    async def _make(self, profile: Profile, recipe: Recipe, tell: Progress) -> None:
        """Build on a registry's base, or else on one made here."""
        tell(f"building the image of the profile {profile.name}, once")
        try:
            base = await from_registry(self._engine, self._base_image, tell)
            bundle = await anyio.to_thread.run_sync(read_bundle, self._environ)
            extra = {"ca-bundle.pem": bundle} if bundle else {}
            await self._build(profile, recipe, base, proxies(self._environ), extra, tell)
            return
        except ImageError as error:
            if not recipe.packages:
                raise
            no_base = isinstance(error, ImageNotFoundError)
            what = "no container registry can be reached" if no_base else f"{self._base_image} does not do"
            reason = f"{what} ({error.message})"
        try:
            base = await from_packages(self._engine, recipe, self._environ, reason=reason, progress=tell)
        except ImageBuildError as error:
            raise ImageBuildError(f"{error.message} Before that, {reason}.", hint=error.hint) from error
        await self._build(profile, recipe, base, {}, {}, tell)

    async def _build(
        self,
        profile: Profile,
        recipe: Recipe,
        base: str,
        build_args: Mapping[str, str],
        extra: Mapping[str, bytes],
        tell: Progress,
    ) -> None:
        """Build a profile's image on a base, and leave no half of it."""
        before = await self._unfinished(profile)
        labels = {PROFILE_LABEL: profile.name, RECIPE_LABEL: recipe.hash}
        lines = self._engine.build(
            recipe.pack(extra), profile.tag, build_args={**build_args, "BASE_IMAGE": base}, labels=labels
        )
        try:
            async for line in lines:
                tell(line)
        except BaseException:
            await self._give_up(profile, before)
            raise

    async def _give_up(self, profile: Profile, before: set[str]) -> None:
        """Leave no half image, as far as the engine lets us, and whatever brought the end."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(_SWEEP_DEADLINE) as scope:
            try:
                await self._sweep(profile, before)
            except PocketDockError as error:
                _log.warning("Layers of a failed build may be left: %s", error)
        if scope.cancelled_caught:
            _log.warning("Layers of a failed build are left: the engine does not let them go.")

    async def _unfinished(self, profile: Profile) -> set[str]:
        """Return the ids of images of a profile that have no name: layers of a build, or replaced ones."""
        found = await self._engine.images(f"{PROFILE_LABEL}={profile.name}")
        return {image.id for image in found if not any("<none>" not in tag for tag in image.tags)}

    async def _sweep(self, profile: Profile, before: set[str]) -> None:
        """Remove the layers that a build which did not end well has left.

        The engine holds a layer until it has given up the step that runs on it, which takes a moment.
        """
        while left := await self._unfinished(profile) - before:
            for image_id in left:
                try:
                    await self._engine.remove_image(image_id)
                except PocketDockError as error:
                    _log.debug("A layer of a failed build is in use: %s", error)
            await anyio.sleep(_SWEEP_POLL)


async def ensure_image(engine: Engine, reference: str, progress: Progress) -> ImageState:
    """Return the image of a profile or of a reference; see `ImageStore.ensure`, which shares the work."""
    return await ImageStore(engine).ensure(reference, progress)
