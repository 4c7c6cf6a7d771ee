"""A profile's image is built: on a registry's base, or else on one made here, and no half of it stays."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ImageBuildError, ImageError, ImageNotFoundError, PocketDockError
from pocket_dock_mcp.host.network import proxies, read_bundle
from pocket_dock_mcp.images.base import Progress, from_packages, from_registry
from pocket_dock_mcp.images.profiles import ProfileInfo
from pocket_dock_mcp.images.recipe import Recipe
from pocket_dock_mcp.output import Milestone

PROFILE_LABEL = "pocket-dock.profile"
RECIPE_LABEL = "pocket-dock.recipe"
"""On an image of a profile: the hash of the recipe that it was built from."""
RECIPE_OF_LABEL = "pocket-dock.recipe-of"
"""On the same: the profile that the recipe is of. What is built on an image inherits its labels."""

_SWEEP_DEADLINE = 10.0
_SWEEP_POLL = 0.1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Builder:
    """How images of profiles are built on one engine."""

    engine: Engine
    base_image: str
    """What is built on where a registry can be reached."""
    environ: Mapping[str, str]
    """Of the host, for its proxies, its certificates and its cache folder."""
    insists: bool = False
    """Whether nothing but `base_image` will do."""
    anew: bool = False
    """Whether nothing that was made before is used: no layers, no base of this machine."""
    replaced: list[str] = field(default_factory=list)
    """Ids of the images that have lost their names to new ones."""

    async def build(self, profile: ProfileInfo, recipe: Recipe, tell: Progress) -> None:
        """Build on a registry's base, or else on one made here.

        Raises:
            ImageBuildError: it cannot be built, or something that it needs cannot be had.
            ImageNotFoundError: there is no base.
        """
        tell(Milestone(f"building the image of the profile {profile.name}, once"))
        await self._have_needed(profile, recipe, tell)
        try:
            base = await from_registry(self.engine, self.base_image, tell, anew=self.anew)
            bundle = await anyio.to_thread.run_sync(read_bundle, self.environ)
            extra = {"ca-bundle.pem": bundle} if bundle else {}
            await self._build(profile, recipe, base, proxies(self.environ), extra, tell)
            return
        except ImageError as error:
            if self.insists or not recipe.packages:
                raise
            no_base = isinstance(error, ImageNotFoundError)
            what = "no container registry can be reached" if no_base else f"{self.base_image} does not do"
            reason = f"{what} ({error.message})"
        try:
            base = await from_packages(
                self.engine,
                recipe,
                self.environ,
                reason=reason,
                progress=tell,
                anew=self.anew,
                replaced=self.replaced,
            )
        except ImageBuildError as error:
            raise ImageBuildError(f"{error.message} Before that, {reason}.", hint=error.hint) from error
        await self._build(profile, recipe, base, {}, {}, tell)

    async def _have_needed(self, profile: ProfileInfo, recipe: Recipe, tell: Progress) -> None:
        """See first to what only a registry has: a base may take minutes."""
        for reference in recipe.needed_images:
            try:
                await from_registry(self.engine, reference, tell)
            except ImageNotFoundError as error:
                raise ImageBuildError(
                    f"The profile {profile.name} is made with the image {reference!r}, which cannot be had "
                    f"here. {error.message}",
                    hint="Let the engine reach a registry; or bring the image from a machine that can: "
                    f"'docker save {reference}' there, 'pocket-dock import FILE' here.",
                ) from error

    async def _build(
        self,
        profile: ProfileInfo,
        recipe: Recipe,
        base: str,
        build_args: Mapping[str, str],
        extra: Mapping[str, bytes],
        tell: Progress,
    ) -> None:
        """Build a profile's image on a base, and leave no half of it."""
        before = await self._unfinished(profile)
        labels = {PROFILE_LABEL: profile.name, RECIPE_LABEL: recipe.hash, RECIPE_OF_LABEL: profile.name}
        lines = self.engine.build(
            recipe.pack(extra),
            profile.image_tag,
            build_args={**build_args, "BASE_IMAGE": base},
            labels=labels,
            no_cache=self.anew,
        )
        try:
            async for line in lines:
                tell(line)
        except BaseException:
            await self._give_up(profile, before)
            raise

    async def _give_up(self, profile: ProfileInfo, before: set[str]) -> None:
        """Leave no half image, as far as the engine lets us, and whatever brought the end."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(_SWEEP_DEADLINE) as scope:
            try:
                await self._sweep(profile, before)
            except PocketDockError as error:
                _log.warning("Layers of a failed build may be left: %s", error)
        if scope.cancelled_caught:
            _log.warning("Layers of a failed build are left: the engine does not let them go.")

    async def _unfinished(self, profile: ProfileInfo) -> set[str]:
        """Return the ids of images of a profile that have no name: layers of a build, or replaced ones."""
        found = await self.engine.images(f"{PROFILE_LABEL}={profile.name}")
        return {image.id for image in found if not any("<none>" not in tag for tag in image.tags)}

    async def _sweep(self, profile: ProfileInfo, before: set[str]) -> None:
        """Remove the layers that a build which did not end well has left.

        The engine holds a layer until it has given up the step that runs on it, which takes a moment.
        """
        while left := await self._unfinished(profile) - before:
            for image_id in left:
                try:
                    await self.engine.remove_image(image_id)
                except PocketDockError as error:
                    _log.debug("A layer of a failed build is in use: %s", error)
            await anyio.sleep(_SWEEP_POLL)
