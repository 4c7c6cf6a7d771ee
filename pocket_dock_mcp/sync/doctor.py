# Written by scripts/mirror.py from async_/doctor.py; change that, and run scripts/mirror.py again.
"""`doctor`: what is out of order with containers and instance directories. It changes nothing."""

from __future__ import annotations

from pathlib import Path

from pocket_dock_mcp.async_.doctor import doctor as _doctor
from pocket_dock_mcp.async_.info import DoctorReport
from pocket_dock_mcp.sync.facade import call


def doctor(*, project_root: Path | None = None, socket_path: str | None = None) -> DoctorReport:
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
    return call(_doctor, project_root=project_root, socket_path=socket_path)
