"""What is out of order in a project: its configuration, directories without a container, and the reverse.

A directory is stale when its container is nowhere: not on this engine, not on record for another, and of no
process that lives. `--fix` removes those that hold nothing but logs; files in ``data`` are their user's.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pocket_dock_mcp.container.launch import KEPT_LABEL
from pocket_dock_mcp.diagnosis.findings import Finding, counted, some
from pocket_dock_mcp.diagnosis.remedies import FIX, program_of
from pocket_dock_mcp.engine.base import ContainerState, Engine
from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.manager.records import Kept, KeptStore
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NONCE_LABEL, PROJECT_LABEL
from pocket_dock_mcp.projects import get_project_name, load_config
from pocket_dock_mcp.projects.instances import (
    DATA,
    instance_path,
    list_instance_dirs,
    read_instance_metadata,
    remove_instance_dir,
)
from pocket_dock_mcp.projects.runlog import is_alive

SHOWN = 8
"""Names in one command."""


@dataclass(frozen=True, slots=True)
class ProjectState:
    """The containers of a project, and what is out of order with them."""

    orphaned: tuple[str, ...] = ()
    """Names of containers on the engine that say that they are the project's, and that are on no record."""
    stale: tuple[str, ...] = ()
    """Names of instance directories whose containers are nowhere."""
    healthy: int = 0
    """Containers that run or are kept, and have their directory."""


async def survey(engine: Engine, root: Path, state_dir: Path) -> ProjectState:
    """Look at a project's containers, and change nothing.

    Raises:
        EngineError: the engine failed.
    """
    store = KeptStore(state_dir / "sandboxes", is_quiet=True)
    recorded = {kept.container: kept for kept in store.records()}
    states = {state.name: state for state in await engine.containers(INSTANCE_LABEL)}
    names = [path.name for path in list_instance_dirs(root)]
    stale = [name for name in names if name not in states and not _is_elsewhere(root, name, recorded)]
    project = get_project_name(root)
    orphaned = [
        state.name
        for state in states.values()
        if state.labels.get(PROJECT_LABEL) == project and _is_orphaned(state, recorded)
    ]
    return ProjectState(tuple(sorted(orphaned)), tuple(stale), len(names) - len(stale))


def _is_elsewhere(root: Path, name: str, recorded: Mapping[str, Kept]) -> bool:
    """Whether a container may be on another engine: kept there, or held by a process that lives."""
    metadata = read_instance_metadata(instance_path(root, name))
    return name in recorded or (metadata is not None and not metadata.persist and is_alive(metadata.pid))


def _is_orphaned(state: ContainerState, recorded: Mapping[str, Kept]) -> bool:
    """Whether one that is kept has nobody who could find it. What is not kept ends with its process."""
    if KEPT_LABEL not in state.labels:
        return False
    kept = recorded.get(state.name)
    return kept is None or kept.nonce != state.labels.get(NONCE_LABEL)


def configured(root: Path, environ: Mapping[str, str]) -> Finding:
    """Say whether a project's configuration makes sense."""
    try:
        loaded = load_config(root, environ)
    except ConfigError as error:
        remedy = error.hint or "Correct the file."
        title = "The configuration of this project is not valid"
        return Finding("project.configuration", "problem", title, error.message, remedy)
    detail = ", ".join(loaded.origins) or "nothing is set"
    return Finding("project.configuration", "ok", f"The configuration of {root} is valid", detail)


def told(state: ProjectState, root: Path, engine: Engine) -> Iterator[Finding]:
    """Say what is out of order, and what mends it."""
    if state.stale:
        full = [name for name in state.stale if _has_data(root, name)]
        title = f"{counted(state.stale, 'instance directory', 'instance directories')} without a container"
        remedy = FIX
        if full:
            paths = " ".join(shlex.quote(str(instance_path(root, name))) for name in full[:SHOWN])
            remedy = f"Look into {DATA} of them; then: rm -r {paths}"
            if len(full) < len(state.stale):
                remedy = f"{FIX}   # for those without data. {remedy}"
        yield Finding("project.instances", "warning", title, some(state.stale), remedy)
    if state.orphaned:
        title = f"{counted(state.orphaned, 'kept container', 'kept containers')} of this project on no record"
        detail = f"Nothing of ours can use them: {some(state.orphaned)}."
        remedy = (
            f"{program_of(engine.info)} rm --force {' '.join(state.orphaned[:SHOWN])}   # with their files"
        )
        yield Finding("project.containers", "warning", title, detail, remedy)
    if not state.stale and not state.orphaned:
        title = "Containers and instance directories of this project agree"
        yield Finding("project.instances", "ok", title, f"{state.healthy} of them")


def mend(state: ProjectState, root: Path) -> list[str]:
    """Remove the stale directories that hold no data; say what was done."""
    gone = [name for name in state.stale if not _has_data(root, name) and remove_instance_dir(root, name)]
    return [f"removed {instance_path(root, name)}" for name in gone]


def _has_data(root: Path, name: str) -> bool:
    try:
        with os.scandir(instance_path(root, name) / DATA) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False
    except OSError:
        # What cannot be looked into is not thrown away.
        return True
