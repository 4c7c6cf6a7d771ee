"""`doctor`: what is out of order with containers and instance directories. It changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

from pocket_dock_mcp.async_.host import engine_environ, settings_for
from pocket_dock_mcp.async_.info import DoctorReport
from pocket_dock_mcp.diagnosis.leftovers import kept_store, look
from pocket_dock_mcp.diagnosis.project import ProjectState, survey
from pocket_dock_mcp.engine.connect import connect
from pocket_dock_mcp.errors import ProjectNotInitializedError
from pocket_dock_mcp.manager.others import others
from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL
from pocket_dock_mcp.projects import find_project_root


async def doctor(*, project_root: Path | None = None, socket_path: str | None = None) -> DoctorReport:
    """Look for containers of dead processes, and for instance directories without a container.

    ``pocket-dock doctor`` looks at a lot more, and ``pocket-dock doctor --fix`` mends.

    Args:
        project_root: of the project whose directories are looked at; the one around the current directory if
            left out, if there is any.
        socket_path: of the engine; see `create_new_container`.

    Raises:
        ProjectNotInitialized: there is no project at `project_root`.
        PodmanNotRunning, EngineError: the engine is not there, or failed.
    """
    root = find_project_root(project_root)
    if root is None and project_root is not None:
        message = f"There is no project at {project_root}."
        raise ProjectNotInitializedError(message)
    settings = settings_for(socket_path=socket_path)
    engine = await connect(engine_environ(settings, os.environ))
    try:
        left = await look(engine, settings.state_dir)
        running = {state.name for state in await others(engine, instance="")}
        kept = kept_store(settings.state_dir).of(LOCAL_PRINCIPAL, engine.info.identity)
        state = ProjectState() if root is None else await survey(engine, root, settings.state_dir)
    finally:
        await engine.aclose()
    gone = {sandbox.id for sandbox in left.sandboxes}
    healthy = [sandbox for sandbox in kept if sandbox.id not in gone]
    return DoctorReport(
        # Those of images have a tag.
        orphaned_containers=(*(name for name in left.objects if ":" not in name), *state.orphaned),
        stale_instance_dirs=state.stale,
        healthy=len(healthy) + len(running),
    )
