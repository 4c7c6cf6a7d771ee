"""`pocket-dock build` and `profiles`: the images of profiles, made ahead of the first sandbox, and listed."""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Colour, Console, plain, told
from pocket_dock_mcp.cli.steps import Steps, size
from pocket_dock_mcp.cli.surroundings import engine_named_by, environ
from pocket_dock_mcp.errors import EngineUnavailableError, InvalidArgumentError, PocketDockError

if TYPE_CHECKING:
    from pocket_dock_mcp.engine.base import Engine
    from pocket_dock_mcp.images import ImageStore, ProfileInfo
    from pocket_dock_mcp.images.ensure import Built

_COLOURS: dict[str, Colour] = {
    "current": "green",
    "by hand": "green",
    "outdated": "yellow",
    "not built": "dim",
}
_HEADINGS = ("PROFILE", "IMAGE", "SIZE", "NETWORK", "WHAT IS IN IT")


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    building = commands.add_parser(
        "build",
        help="build the images of profiles",
        description="Builds the images of profiles that are missing or outdated, so that no first sandbox "
        "has to wait. Without a name: of all profiles.",
    )
    building.add_argument("profiles", nargs="*", metavar="PROFILE", help="see pocket-dock profiles")
    building.add_argument("--all", action="store_true", help="of all profiles")
    building.add_argument(
        "--no-cache",
        "--rebuild",
        dest="anew",
        action="store_true",
        help="build from the newest packages, although there is a current image; the old one is removed",
    )
    building.add_argument(
        "--base",
        metavar="IMAGE",
        help="build on this image of a Debian or Ubuntu, and on no other; default: debian:12-slim, or one "
        "that is made on this machine",
    )
    building.set_defaults(run=build)
    listing = commands.add_parser(
        "profiles",
        help="list the profiles, and which are built",
        description="Lists the profiles of sandboxes, and what the engine has of each.",
    )
    listing.set_defaults(run=profiles)


async def build(arguments: argparse.Namespace, console: Console) -> int:
    """Build each, whatever becomes of the others."""
    from pocket_dock_mcp.images import ImageStore, list_profiles, resolve_profile
    from pocket_dock_mcp.images.base import DEFAULT_BASE

    names = dict.fromkeys(resolve_profile(name).name for name in arguments.profiles)
    if arguments.all or not names:
        names = dict.fromkeys(profile.name for profile in list_profiles())
    async with engine() as connected:
        insists = arguments.base is not None
        store = ImageStore(connected, base_image=arguments.base or DEFAULT_BASE, insists=insists)
        anew = arguments.anew or insists
        results = [await _build(store, name, console, anew=anew) for name in names]
    if console.as_json:
        console.give(results)
    return exits.FAILED if any("error" in result for result in results) else exits.OK


async def _build(store: ImageStore, name: str, console: Console, *, anew: bool) -> dict[str, object]:
    steps = Steps(console, name)
    began = time.monotonic()
    try:
        before = None if anew else await store.look(name)
        image = await (store.rebuild if anew else store.ensure)(name, steps.tell)
        built = await store.look(name)
    except PocketDockError as error:
        if isinstance(error, (EngineUnavailableError, InvalidArgumentError)):
            raise
        console.clear()
        steps.show_last()
        console.note(f"pocket-dock: {name}: {told(error)}")
        return {"profile": name, "error": {"code": error.code, "message": told(error)}}
    seconds = time.monotonic() - began
    is_new = before is None or before.image.id != image.id
    if not console.as_json:
        how = "was built by hand" if built is not None and built.state == "by hand" else "is current"
        done = f"built in {seconds:.0f} s" if is_new else f"{how}, nothing to do"
        console.say(f"{name}: {done}, {size(image.size_bytes)}, {_tag(built)}")
    return {
        "profile": name,
        "image": _tag(built),
        "id": image.id,
        "size_bytes": image.size_bytes,
        "built": is_new,
        "seconds": round(seconds, 1),
    }


async def profiles(_arguments: argparse.Namespace, console: Console) -> int:
    """List what there is. Without an engine the profiles are told all the same."""
    from pocket_dock_mcp.images import ImageStore, list_profiles

    found: list[tuple[ProfileInfo, Built | None]] = []
    where = None
    try:
        async with engine() as connected:
            store = ImageStore(connected)
            found = [(profile, await store.look(profile.name)) for profile in list_profiles()]
            where = connected.info
    except EngineUnavailableError as error:
        found = [(profile, None) for profile in list_profiles()]
        console.note(f"pocket-dock: what is built is not known. {told(error)}")
    if console.as_json:
        console.give([_document(*one, is_known=where is not None) for one in found])
        return exits.OK
    rows = [_HEADINGS, *(_row(*one, is_known=where is not None) for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[1] = console.paint(cells[1], _COLOURS[row[1]]) if row[1] in _COLOURS else cells[1]
        console.say("  ".join(cells).rstrip())
    if where is not None:
        console.note(f"on {where.kind} {where.version} at {where.url}")
    return exits.OK


@asynccontextmanager
async def engine() -> AsyncIterator[Engine]:
    """Connect to the engine that the environment means."""
    from pocket_dock_mcp.engine.connect import connect

    connected = await connect(environ(), engine_named_by())
    try:
        yield connected
    finally:
        await connected.aclose()


def _row(profile: ProfileInfo, built: Built | None, *, is_known: bool) -> tuple[str, ...]:
    return (
        profile.name,
        _state(built, is_known=is_known),
        f"about {profile.size_estimate}" if built is None else size(built.image.size_bytes),
        "open" if profile.network_default else "none",
        profile.description,
    )


def _state(built: Built | None, *, is_known: bool) -> str:
    if built is None:
        return "not built" if is_known else "?"
    return built.state


def _document(profile: ProfileInfo, built: Built | None, *, is_known: bool) -> dict[str, object]:
    return {
        "name": profile.name,
        "image": profile.image_tag if built is None else built.tag,
        "built": built is not None if is_known else None,
        "state": _state(built, is_known=is_known) if is_known else None,
        "id": None if built is None else built.image.id,
        "size_bytes": None if built is None else built.image.size_bytes,
        "size_estimate": profile.size_estimate,
        "network_default": profile.network_default,
        "description": profile.description,
        "folder": str(profile.dockerfile_dir),
    }


def _tag(built: Built | None) -> str:
    return "" if built is None else plain(built.tag)
