"""`pocket-dock list`, `stop`, `resume`, `destroy` and `prune`: sandboxes that persist."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Colour, Console, plain, told
from pocket_dock_mcp.cli.reaching import id_of, managing
from pocket_dock_mcp.errors import PocketDockError

if TYPE_CHECKING:
    from pocket_dock_mcp.manager.core import Manager
    from pocket_dock_mcp.manager.persistence import KeptSandbox
    from pocket_dock_mcp.manager.sandbox import Owner

_COLOURS: dict[str, Colour] = {"running": "green", "stopped": "dim", "busy": "yellow", "gone": "red"}
_HEADINGS = ("SANDBOX", "NAME", "STATUS", "IMAGE", "MEMORY", "CREATED")

Act = Callable[["Manager", "Owner", str], Awaitable[object]]


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    listing = commands.add_parser(
        "list", help="list the sandboxes that persist", description="Lists the sandboxes that persist."
    )
    listing.set_defaults(run=show)
    for name, act, done, what in _VERBS:
        parser = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        parser.add_argument(
            "sandboxes", nargs="+", metavar="SANDBOX", help="its id, or its name if that is one's only"
        )
        parser.set_defaults(run=_each(act, done))
    pruning = commands.add_parser(
        "prune",
        help="destroy all persistent sandboxes that are stopped",
        description="Destroys all persistent sandboxes that are stopped, with their files, and forgets those "
        "whose containers are gone.",
    )
    pruning.add_argument("-y", "--yes", action="store_true", help="do not ask")
    pruning.set_defaults(run=prune)


async def show(_arguments: argparse.Namespace, console: Console) -> int:
    """List what there is."""
    async with managing() as (manager, owner):
        found = await manager.list_kept(owner)
    if not found:
        console.note(f"pocket-dock: {_nothing()}")
    if console.as_json:
        console.give([_document(one) for one in found])
        return exits.OK
    rows = [_HEADINGS, *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[2] = console.paint(cells[2], _COLOURS[row[2]]) if row[2] in _COLOURS else cells[2]
        console.say("  ".join(cells).rstrip())
    return exits.OK


def _each(act: Act, done: str) -> Callable[[argparse.Namespace, Console], Awaitable[int]]:
    async def run(arguments: argparse.Namespace, console: Console) -> int:
        """Do it to each, whatever becomes of the others."""
        results: list[dict[str, object]] = []
        async with managing() as (manager, owner):
            found = await manager.list_kept(owner)
            for wanted in arguments.sandboxes:
                try:
                    sandbox_id = id_of(wanted, found)
                    await act(manager, owner, sandbox_id)
                except PocketDockError as error:
                    results.append({"sandbox": wanted, "error": {"code": error.code, "message": told(error)}})
                    console.note(f"pocket-dock: {plain(wanted) or repr(wanted)}: {told(error)}")
                else:
                    results.append({"sandbox": sandbox_id, "done": done})
                    if not console.as_json:
                        console.say(f"{done} {sandbox_id}")
        if console.as_json:
            console.give(results)
        return exits.FAILED if any("error" in result for result in results) else exits.OK

    return run


async def prune(arguments: argparse.Namespace, console: Console) -> int:
    """Destroy what is stopped, if it is meant."""
    async with managing() as (manager, owner):
        found = [one for one in await manager.list_kept(owner) if one.status != "running" and not one.busy]
        if found and not arguments.yes and not _is_meant(found, console):
            if console.as_json:
                console.give([{**_document(one), "destroyed": False} for one in found])
            return exits.FAILED
        for one in found:
            await manager.kill(owner, one.kept.id)
            if not console.as_json:
                console.say(f"destroyed {one.kept.id}")
    if console.as_json:
        console.give([{**_document(one), "destroyed": True} for one in found])
    elif not found:
        console.say("No persistent sandbox is stopped.")
    return exits.OK


def _is_meant(found: list[KeptSandbox], console: Console) -> bool:
    for one in found:
        console.note("  ".join(_row(one)))
    if sys.stdin is None or not sys.stdin.isatty():
        console.note("pocket-dock: nothing was destroyed; say --yes if these are to go, with their files.")
        return False
    console.note(f"Destroy {len(found)}, with their files? [y/N]")
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    console.note("pocket-dock: nothing was destroyed")
    return False


def _nothing() -> str:
    """Say why nothing is listed: an engine is not even asked where nothing is on record."""
    from pocket_dock_mcp.manager.records import KeptStore
    from pocket_dock_mcp.settings import Settings

    directory = Settings.from_environ(os.environ).state_dir / "sandboxes"
    place, store = plain(str(directory)), KeptStore(directory, is_quiet=True)
    if store.empty():
        return f"no sandbox is on record in {place}; no engine was asked"
    if next(store.records(), None) is None:
        return f"no record in {place} can be read; see pocket-dock doctor"
    return f"none of the sandboxes on record in {place} is on this engine"


async def _stop(manager: Manager, owner: Owner, sandbox_id: str) -> None:
    await manager.stop(owner, sandbox_id)


async def _resume(manager: Manager, owner: Owner, sandbox_id: str) -> None:
    # It is left running when we end.
    await manager.open(owner, sandbox_id)


async def _destroy(manager: Manager, owner: Owner, sandbox_id: str) -> None:
    await manager.kill(owner, sandbox_id)


_VERBS: tuple[tuple[str, Act, str, str], ...] = (
    ("stop", _stop, "stopped", "stop a persistent sandbox: its processes end, its files stay"),
    ("resume", _resume, "resumed", "start a stopped sandbox again, with its files"),
    ("destroy", _destroy, "destroyed", "end a persistent sandbox for good, with its files"),
)


def _row(one: KeptSandbox) -> tuple[str, ...]:
    request = one.kept.request
    return (
        one.kept.id,
        plain(request.name) or "-",
        "busy" if one.busy else one.status,
        plain(request.snapshot or request.image),
        f"{request.limits.memory_bytes // 1024 // 1024} MiB",
        _moment(one.kept.created),
    )


def _document(one: KeptSandbox) -> dict[str, object]:
    request = one.kept.request
    return {
        "sandbox_id": one.kept.id,
        "name": request.name,
        "status": one.status,
        "busy": one.busy,
        "image": request.snapshot or request.image,
        "container": one.kept.container,
        "limits": asdict(request.limits),
        "network": request.network,
        "created": _moment(one.kept.created),
    }


def _moment(seconds: float) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")
