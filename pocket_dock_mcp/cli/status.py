"""`pocket-dock status`: the project, what is configured and where, its containers, and what logs use."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Colour, Console, plain, told
from pocket_dock_mcp.errors import EngineError, ProjectNotInitializedError

if TYPE_CHECKING:
    from pocket_dock_mcp.async_.info import ContainerListItem
    from pocket_dock_mcp.projects import ProjectDefaults
    from pocket_dock_mcp.projects.runlog import LogPolicy

_COLOURS: dict[str, Colour] = {"running": "green", "stopped": "dim", "gone": "red"}
_DEFAULTS = {"default_profile": "minimal", "mem_limit": "512 MB", "cpu_percent": "100"}
"""What holds where nobody says anything; it is decided elsewhere."""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "status",
        help="show this project: configuration, containers, logs",
        description="Shows the project that the working directory is in: which configuration is in force and "
        "where each value is from, its containers, and how much disk their logs use.",
    )
    parser.set_defaults(run=run)


async def run(_arguments: argparse.Namespace, console: Console) -> int:
    """Show the project."""
    from pocket_dock_mcp.projects import project_defaults
    from pocket_dock_mcp.projects.runlog import policy_of

    said = project_defaults()
    if said.root is None or said.project is None:
        raise ProjectNotInitializedError
    found, trouble = await _containers(said.project)
    document = {
        "project": said.project,
        "root": str(said.root),
        "configuration": configuration(said),
        "instances": [_instance(path, policy_of(said.config), found) for path in _directories(said.root)],
        "containers": len(found),
        "running": sum(one.status == "running" for one in found.values()),
        "stopped": sum(one.status == "stopped" for one in found.values()),
        "engine_error": trouble,
    }
    if console.as_json:
        console.give(document)
    else:
        _show(document, console)
    return exits.OK


def configuration(said: ProjectDefaults) -> dict[str, dict[str, Any]]:
    """Return what is in force, by key: the value, the layer that it is from, and the place there."""
    from pocket_dock_mcp.projects import Origin, ProjectConfig, label

    in_force = said.config.model_dump() | {
        "project_name": said.project,
        "default_profile": said.profile,
        "socket": said.engine,
        "idle_timeout": said.idle_timeout,
        "mem_limit": said.memory_bytes,
        "cpu_percent": said.cpu_percent,
        # Their values are nobody's business.
        "env": sorted(said.env),
    }
    found = {}
    for name in ProjectConfig.model_fields:
        origin = said.origins.get(name, Origin("default"))
        found[label(name)] = {"value": in_force[name], "from": origin.layer, "place": origin.place}
    return found


async def _containers(project: str) -> tuple[Mapping[str, ContainerListItem], str | None]:
    """Return the containers of the project by name, or why they are not known."""
    from pocket_dock_mcp.async_ import list_containers

    try:
        return {one.name: one for one in await list_containers(project=project)}, None
    except EngineError as error:
        return {}, told(error)


def _directories(root: Path) -> list[Path]:
    from pocket_dock_mcp.projects.instances import list_instance_dirs

    return list_instance_dirs(root)


def _instance(directory: Path, policy: LogPolicy, found: Mapping[str, ContainerListItem]) -> dict[str, Any]:
    from pocket_dock_mcp.projects.instances import read_instance_metadata
    from pocket_dock_mcp.projects.runlog import RunLog

    metadata = read_instance_metadata(directory)
    one = found.get(directory.name)
    entries = RunLog(directory, policy).entries()
    return {
        "name": directory.name,
        "status": "gone" if one is None else one.status,
        "image": "" if metadata is None else metadata.image,
        "persist": metadata is not None and metadata.persist,
        "runs": len(entries),
        "log_bytes": _size(directory / "logs"),
        "data_path": str(directory / "data"),
    }


def _size(directory: Path) -> int:
    try:
        with os.scandir(directory) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0


def _show(document: Mapping[str, Any], console: Console) -> None:
    from pocket_dock_mcp.async_.sizes import size_text

    console.say(f"{console.paint('project', 'bold')}  {plain(document['project'])}")
    console.say(f"{console.paint('root', 'bold')}     {plain(document['root'])}")
    console.say()
    rows: list[tuple[str, ...]] = [("KEY", "VALUE", "FROM")]
    for key, said in document["configuration"].items():
        where = said["place"] or said["from"]
        rows.append((key, plain(_value(key, said["value"])), plain(where)))
    _table(rows, console)
    console.say()
    unknown = document["engine_error"] is not None
    rows = [("INSTANCE", "STATUS", "IMAGE", "RUNS", "LOGS")]
    for one in document["instances"]:
        status = "unknown" if unknown else one["status"]
        image = plain(one["image"])[:40] or "-"
        rows.append((one["name"], status, image, str(one["runs"]), size_text(one["log_bytes"])))
    _table(rows, console, coloured=1)
    count = document["containers"]
    total = size_text(sum(one["log_bytes"] for one in document["instances"]))
    if unknown:
        console.note(f"pocket-dock: which containers run is not known: {document['engine_error']}")
        console.say(f"logs use {total}")
        return
    console.say(
        f"{count} container{'' if count == 1 else 's'}, {document['running']} running, "
        f"{document['stopped']} stopped; logs use {total}"
    )


def _value(key: str, value: object) -> str:
    from pocket_dock_mcp.async_.sizes import size_text

    name = key.rpartition(".")[2]
    if value is None or value == []:
        return _DEFAULTS.get(name, "-")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(value)
    if isinstance(value, int) and name in ("mem_limit", "max_log_size"):
        return size_text(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(rows: list[tuple[str, ...]], console: Console, coloured: int | None = None) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if coloured is not None and row[coloured] in _COLOURS:
            cells[coloured] = console.paint(cells[coloured], _COLOURS[row[coloured]])
        console.say("  ".join(cells).rstrip())
