"""What a build starts from: an image of the engine, of a registry, or made from this machine's packages."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path

import anyio

from pocket_dock_mcp.engine.base import Engine, ImageState
from pocket_dock_mcp.errors import ImageNotFoundError
from pocket_dock_mcp.images.bootstrap import bootstrap, make_plan
from pocket_dock_mcp.images.cache import MAX_AGE, cache_directory, is_fresh, keep
from pocket_dock_mcp.images.recipe import Recipe
from pocket_dock_mcp.images.references import is_local
from pocket_dock_mcp.output import Milestone

DEFAULT_BASE = "debian:12-slim"

FIRST_LINE = 15.0
"""Seconds for the first sign of life of a registry. A firewall that drops packets gives none."""
NEXT_LINE = 60.0
"""Seconds between two lines after that: unpacking a layer has no progress on every engine."""

BASE_LABEL = "pocket-dock.base"
"""On a base image that we made: the hash of what it was made of."""
MADE_LABEL = "pocket-dock.made"
"""On the same: when, in seconds since the epoch."""

_CHUNK = 1024 * 1024
_MAX_REASON = 300

Progress = Callable[[str], None]


async def pull(engine: Engine, reference: str, progress: Progress, *, patience: float = FIRST_LINE) -> None:
    """Fetch an image, unless its registry lets us wait: `patience` seconds for the first line.

    Raises:
        ImageNotFoundError: it cannot be had.
    """
    with anyio.move_on_after(patience) as scope:
        async for line in engine.pull(reference):
            scope.deadline = anyio.current_time() + NEXT_LINE
            progress(f"{reference}: {line}")
    if scope.cancelled_caught:
        raise ImageNotFoundError(
            f"The image {reference!r} could not be pulled: its registry does not answer.",
            hint="Check that the engine can reach the registry, through a proxy of its own if need be.",
        )


async def from_registry(engine: Engine, reference: str, progress: Progress, *, anew: bool = False) -> str:
    """Return an image that the engine has or can fetch; `anew` looks for a newer one first.

    Raises:
        ImageNotFoundError: it can neither.
    """
    if is_local(reference):
        # No registry could be asked for it.
        await engine.image(reference)
        return reference
    is_there = await _has(engine, reference)
    if is_there and not anew:
        return reference
    progress(Milestone(f"fetching the image {reference}"))
    try:
        await pull(engine, reference, progress)
    except ImageNotFoundError as error:
        if not is_there:
            raise
        progress(
            Milestone(f"no newer one can be had ({error.message[:_MAX_REASON]}); using the one that is here")
        )
    return reference


async def _has(engine: Engine, reference: str) -> bool:
    try:
        await engine.image(reference)
    except ImageNotFoundError:
        return False
    return True


async def from_packages(
    engine: Engine,
    recipe: Recipe,
    environ: Mapping[str, str],
    *,
    reason: str,
    progress: Progress,
    anew: bool = False,
    replaced: list[str] | None = None,
) -> str:
    """Return a base image that has the recipe's packages, made on this machine without any registry.

    Args:
        engine: that is to have it.
        recipe: what it is a base for.
        environ: of the host: its search path, its cache folder and its proxies.
        reason: why not a registry, as a clause; the user is told.
        progress: gets lines for the user.
        anew: make it, although there is one that is not old.
        replaced: gets the id of the image that has lost its name to this one.

    Raises:
        ImageBuildError: this machine cannot make it; the message has the reason for that, and `reason`.
    """
    plan = await anyio.to_thread.run_sync(make_plan, recipe, environ)
    tag = f"localhost/pocket-dock/base:{plan.hash}"
    path = cache_directory(environ) / f"base-{plan.hash}.tar"
    why = reason[:_MAX_REASON]
    before = await _made_before(engine, tag)
    is_there = not anew and before is not None and _is_recent(before)
    if is_there or (not anew and is_fresh(path)):
        progress(Milestone(f"{why}; using the base image that was made on this machine before"))
    if is_there:
        return tag

    async def make(path: Path) -> None:
        progress(
            Milestone(f"{why}; making the base image from this machine's own package sources, a minute or so")
        )
        await bootstrap(plan, path, environ, progress)

    await keep(path, make, progress, anew=anew)
    await _hand_over(engine, path, tag, plan.hash, progress)
    if before is not None and replaced is not None:
        replaced.append(before.id)
    return tag


async def _hand_over(engine: Engine, tar: Path, tag: str, plan_hash: str, progress: Progress) -> None:
    progress("handing the base image to the engine")
    async with aclosing(_chunks(tar)) as chunks:
        await engine.import_rootfs(chunks, tag, labels=_labels(tar, plan_hash))


def _labels(tar: Path, plan_hash: str) -> dict[str, str]:
    return {BASE_LABEL: plan_hash, MADE_LABEL: str(int(tar.stat().st_mtime))}


async def _made_before(engine: Engine, tag: str) -> ImageState | None:
    try:
        return await engine.image(tag)
    except ImageNotFoundError:
        return None


def _is_recent(image: ImageState) -> bool:
    made = image.labels.get(MADE_LABEL, "")
    return made.isdecimal() and time.time() - int(made) < MAX_AGE


async def _chunks(path: Path) -> AsyncGenerator[bytes, None]:
    async with await anyio.open_file(path, "rb") as file:
        while chunk := await file.read(_CHUNK):
            yield chunk
