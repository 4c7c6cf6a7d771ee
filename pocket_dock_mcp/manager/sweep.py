"""Removes what dead processes of ours have left on the engine, and touches nothing else.

An object is removed only if a dead process's journal names it, with the very nonce that the object carries.
A label alone proves nothing: a user's container started from one of our snapshots may carry it, and
anybody may write it.

What a process had asked for when it died may come into being after it: an engine goes on with a request
whose maker is gone. So an intent that the engine never confirmed, and of which nothing is there, is looked
at again until `GRACE_S` have passed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    ImageError,
    ImageNotFoundError,
)
from pocket_dock_mcp.manager.journal import Intent, Kind, dead_records, settle

logger = logging.getLogger(__name__)

INSTANCE_LABEL = "pocket-dock.instance"
NONCE_LABEL = "pocket-dock.nonce"
PROJECT_LABEL = "pocket-dock.project"
IMAGE_LABEL = "pocket-dock.image"
"""What a container with a name of its maker's was made of, in its maker's words, for others to be listed."""

GRACE_S: Mapping[Kind, float] = {"container": 60.0, "image": 600.0}
"""Seconds in which an engine may still make what it was asked for: twice its deadline for a create; a commit
of a sandbox with much in it takes minutes."""
NO_GRACE: Mapping[Kind, float] = {"container": 0.0, "image": 0.0}
AT_ONCE = 4
"""Objects that are removed at the same time: one that resists must not keep the others waiting."""

IsKept = Callable[[Intent], bool]


@dataclass
class Swept:
    """What came of a sweep."""

    removed: list[str] = field(default_factory=list)
    """Names of what was there."""
    left: list[Intent] = field(default_factory=list)
    """What is still there, or may still come."""


def _nothing_is_kept(_intent: Intent) -> bool:
    return False


async def sweep(
    engine: Engine,
    directory: Path,
    is_kept: IsKept = _nothing_is_kept,
    *,
    grace_s: Mapping[Kind, float] = GRACE_S,
) -> Swept:
    """Remove leftovers of dead processes from this engine.

    A journal is deleted once nothing of it is left. Journals about other engines stay.

    Args:
        engine: where to remove.
        directory: of the journals.
        is_kept: tells what is on record as kept on purpose, though its maker died before it could note that.
        grace_s: how long the engine may still make something that it never confirmed.

    Raises:
        EngineUnavailableError, EngineTimeoutError: what was not done is done by the next sweep.
    """
    all_of_it = Swept()
    with dead_records(directory) as records:
        for path, record in records:
            if record.intents and record.engine != engine.info.identity:
                continue
            intents = [intent for intent in record.intents.values() if not is_kept(intent)]
            done = await clear(engine, record.instance, intents, _over(record.age_s, grace_s))
            all_of_it.removed += done.removed
            all_of_it.left += done.left
            if not done.left:
                path.unlink(missing_ok=True)
            elif settled := record.intents.keys() - {intent.name for intent in done.left}:
                settle(path, settled)
    if all_of_it.removed:
        names = ", ".join(all_of_it.removed)
        logger.info("removed %d leftovers of earlier processes: %s", len(all_of_it.removed), names)
    return all_of_it


def _over(age_s: float, grace_s: Mapping[Kind, float]) -> Callable[[Intent], bool]:
    return lambda intent: age_s >= grace_s[intent.kind]


async def clear(
    engine: Engine, instance: str, intents: Collection[Intent], is_over: Callable[[Intent], bool]
) -> Swept:
    """Remove what a process has made of its intents.

    Args:
        engine: where.
        instance: the process.
        intents: of that process.
        is_over: whether what is neither there nor confirmed will not come any more.

    Raises:
        EngineUnavailableError, EngineTimeoutError: it may be done in part.
    """
    containers = {intent.name: intent for intent in intents if intent.kind == "container"}
    images = {intent.name: intent for intent in intents if intent.kind == "image"}
    there = await _containers(engine, instance, containers)
    await _remove_all(engine.remove, there.values())
    # Asked again: engines remove in the background, and not always with success.
    still = set(await _containers(engine, instance, containers)) if there else set()
    tags = [name for name, intent in images.items() if await _is_there(engine, intent)]
    await _remove_all(engine.remove_image, tags)
    still |= {tag for tag in tags if await _is_there(engine, images[tag])}
    found = {*there, *tags}
    return Swept(
        removed=sorted(found - still),
        left=[
            intent
            for intent in intents
            if intent.name in still or not (intent.name in found or intent.is_made or is_over(intent))
        ],
    )


async def there(engine: Engine, instance: str, intents: Collection[Intent]) -> list[str]:
    """Return the names of those of a process's intents that are there.

    Raises:
        EngineError: the engine failed.
    """
    containers = {intent.name: intent for intent in intents if intent.kind == "container"}
    images = [intent for intent in intents if intent.kind == "image"]
    found = await _containers(engine, instance, containers)
    return [*found, *[intent.name for intent in images if await _is_there(engine, intent)]]


async def _containers(engine: Engine, instance: str, intents: Mapping[str, Intent]) -> dict[str, str]:
    """Return the ids of those containers that are there, by name."""
    if not intents:
        return {}
    return {
        found.name: found.id
        for found in await engine.containers(f"{INSTANCE_LABEL}={instance}")
        if found.name in intents and found.labels.get(NONCE_LABEL) == intents[found.name].nonce
    }


async def _is_there(engine: Engine, intent: Intent) -> bool:
    try:
        image = await engine.image(intent.name)
    except ImageNotFoundError:
        return False
    return image.labels.get(NONCE_LABEL) == intent.nonce


async def _remove_all(remove: Callable[[str], Awaitable[None]], names: Iterable[str]) -> None:
    """Remove, some at a time. One that the engine refuses does not stop the others."""
    limiter = anyio.CapacityLimiter(AT_ONCE)
    silent: list[EngineError] = []

    async def attempt(name: str) -> None:
        async with limiter:
            try:
                await remove(name)
            except (EngineUnavailableError, EngineTimeoutError) as error:
                silent.append(error)
            except (EngineError, ImageError) as error:
                # In use, or the engine is at it already; somebody looks again.
                logger.info("could not remove a leftover yet: %s", error)

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(attempt, name)
    if silent:
        raise silent[0]
