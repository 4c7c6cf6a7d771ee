"""Containers that other processes hold and do not keep: seen by their labels, and used by nobody else."""

from __future__ import annotations

from pocket_dock_mcp.container.launch import KEPT_LABEL
from pocket_dock_mcp.engine.base import ContainerState, Engine
from pocket_dock_mcp.manager.sweep import IMAGE_LABEL, INSTANCE_LABEL


async def others(engine: Engine, instance: str) -> list[ContainerState]:
    """Return those that run and that their makers have given a name, but for this process's own.

    Without such a name it may be one that nobody has asked for yet.

    Raises:
        EngineError: the engine failed.
    """
    return [
        found
        for found in await engine.containers(IMAGE_LABEL)
        if found.status in ("running", "paused")
        and found.labels.get(INSTANCE_LABEL) not in (None, "", instance)
        and KEPT_LABEL not in found.labels
    ]
