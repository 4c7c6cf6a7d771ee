"""`pocket-dock snapshots`: those that there are, listed and deleted."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Console, plain, told
from pocket_dock_mcp.cli.reaching import managing, no_such_snapshot
from pocket_dock_mcp.cli.tables import age, moment, show_table, size_text
from pocket_dock_mcp.errors import PocketDockError, SnapshotNotFoundError

if TYPE_CHECKING:
    from pocket_dock_mcp.manager.core import Manager
    from pocket_dock_mcp.manager.sandbox import Owner
    from pocket_dock_mcp.manager.snapshots import Snapshot

_HEADINGS = ("SNAPSHOT", "AGE", "SIZE", "NAME")


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "snapshots",
        help="list the snapshots, or delete some",
        description="Lists your snapshots on this engine, those of stdio clients among them. To "
        "make one: pocket-dock snapshot SANDBOX. To begin with one: pocket-dock create --snapshot SNAPSHOT.",
    )
    parser.add_argument(
        "--delete",
        nargs="+",
        metavar="SNAPSHOT",
        help="delete these (snap-...) instead; sandboxes that are made of them live on",
    )
    parser.set_defaults(run=run)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """List them, or delete those that are named."""
    async with managing() as (manager, owner):
        if arguments.delete is not None:
            return await _delete(manager, owner, arguments.delete, console)
        found = await manager.list_snapshots(owner)
    if console.as_json:
        console.give([_document(one) for one in found])
        return exits.OK
    if not found:
        console.note(
            "pocket-dock: there is no snapshot on this engine; to make one: pocket-dock snapshot SANDBOX"
        )
    show_table(console, _HEADINGS, [_row(one) for one in found])
    return exits.OK


async def _delete(manager: Manager, owner: Owner, wanted: Sequence[str], console: Console) -> int:
    """Delete each, whatever becomes of the others."""
    results: list[dict[str, object]] = []
    for snapshot_id in wanted:
        try:
            try:
                await manager.delete_snapshot(owner, snapshot_id)
            except SnapshotNotFoundError as error:
                raise no_such_snapshot(snapshot_id, "To see what there is: pocket-dock snapshots") from error
        except PocketDockError as error:
            results.append({"snapshot": snapshot_id, "error": {"code": error.code, "message": told(error)}})
            console.note(f"pocket-dock: {told(error)}")
        else:
            results.append({"snapshot": snapshot_id, "done": "deleted"})
            if not console.as_json:
                console.say(f"deleted {snapshot_id}")
    if console.as_json:
        console.give(results)
    return exits.OK if all("done" in result for result in results) else exits.FAILED


def _row(one: Snapshot) -> tuple[str, ...]:
    return one.id, age(time.time() - one.created), size_text(one.size_bytes), plain(one.name) or "-"


def _document(one: Snapshot) -> dict[str, object]:
    return {
        "snapshot_id": one.id,
        "name": one.name,
        "size_bytes": one.size_bytes,
        "created": moment(one.created),
        "workspace": one.workspace,
        "image": one.tag,
        "image_id": one.image_id,
    }
