"""Removes what dead processes of ours have left on the engine, and touches nothing else.

An object is removed only if a dead process's journal names it, with the very nonce that the object carries.
A label alone proves nothing: a user's container started from one of our snapshots may carry it, and
anybody may write it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ImageNotFoundError
from pocket_dock_mcp.manager.journal import Intent, dead_records

logger = logging.getLogger(__name__)

INSTANCE_LABEL = "pocket-dock.instance"
NONCE_LABEL = "pocket-dock.nonce"


IsKept = Callable[[Intent], bool]


def _nothing_is_kept(_intent: Intent) -> bool:
    return False


async def sweep(engine: Engine, directory: Path, is_kept: IsKept = _nothing_is_kept) -> list[str]:
    """Remove leftovers of dead processes from this engine; return the names of what was removed.

    A journal is deleted once nothing of it is left. Journals about other engines stay.

    Args:
        engine: where to remove.
        directory: of the journals.
        is_kept: tells what is on record as kept on purpose, though its maker died before it could note that.

    Raises:
        EngineError: the engine failed; what was not done is done by the next sweep.
    """
    removed: list[str] = []
    with dead_records(directory) as records:
        for path, record in records:
            if record.intents and record.engine != engine.info.identity:
                continue
            left = {name: intent for name, intent in record.intents.items() if not is_kept(intent)}
            removed += await _undo(engine, record.instance, left)
            path.unlink(missing_ok=True)
    if removed:
        logger.info("removed %d leftovers of earlier processes: %s", len(removed), ", ".join(removed))
    return removed


async def _undo(engine: Engine, instance: str, intents: Mapping[str, Intent]) -> list[str]:
    removed = []
    containers = {name: intent for name, intent in intents.items() if intent.kind == "container"}
    if containers:
        for found in await engine.containers(f"{INSTANCE_LABEL}={instance}"):
            intent = containers.get(found.name)
            if intent is not None and found.labels.get(NONCE_LABEL) == intent.nonce:
                await engine.remove(found.id)
                removed.append(found.name)
    for intent in intents.values():
        if intent.kind == "image" and await _is_ours(engine, intent):
            await engine.remove_image(intent.name)
            removed.append(intent.name)
    return removed


async def _is_ours(engine: Engine, intent: Intent) -> bool:
    try:
        image = await engine.image(intent.name)
    except ImageNotFoundError:
        return False
    return image.labels.get(NONCE_LABEL) == intent.nonce
