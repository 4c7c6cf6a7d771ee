"""Removes what dead processes of ours have left on the engine, and touches nothing else.

An object is removed only if a dead process's journal names it, with the very nonce that the object carries.
A label alone proves nothing: a user's container started from one of our snapshots may carry it, and
anybody may write it.
"""

from __future__ import annotations

import logging
from pathlib import Path

import anyio

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import EngineError, ImageNotFoundError
from pocket_dock_mcp.manager.journal import Intent, Journal, Record, dead_records

logger = logging.getLogger(__name__)

INSTANCE_LABEL = "pocket-dock.instance"
NONCE_LABEL = "pocket-dock.nonce"
SETTLE_DEADLINE = 1.5
"""Seconds in which an engine has to say whether something is left."""


async def sweep(engine: Engine, directory: Path) -> list[str]:
    """Remove leftovers of dead processes from this engine; return the names of what was removed.

    A record is deleted once nothing of it is left. Records about other engines stay.

    Raises:
        EngineError: the engine failed; what was not done is done by the next sweep.
    """
    removed: list[str] = []
    with dead_records(directory) as records:
        for path, record in records:
            if record.intents and record.engine != engine.info.identity:
                continue
            removed += await _undo(engine, record)
            path.unlink(missing_ok=True)
    if removed:
        logger.info("removed %d leftovers of earlier processes: %s", len(removed), ", ".join(removed))
    return removed


async def _undo(engine: Engine, record: Record) -> list[str]:
    removed = []
    containers = {name: intent for name, intent in record.intents.items() if intent.kind == "container"}
    if containers:
        for found in await engine.containers(f"{INSTANCE_LABEL}={record.instance}"):
            intent = containers.get(found.name)
            if intent is not None and found.labels.get(NONCE_LABEL) == intent.nonce:
                await engine.remove(found.id)
                removed.append(found.name)
    for intent in record.intents.values():
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


async def settle_if_gone(engine: Engine, journal: Journal, intent: Intent) -> None:
    """Launching cleans up after itself, unless the engine fails at that too; then a sweep has to."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(SETTLE_DEADLINE):
        try:
            left = await engine.containers(f"{NONCE_LABEL}={intent.nonce}")
        except EngineError:
            return
        if not left:
            journal.settled(intent.name)
