"""`pocket-dock snapshot`, `fork` and `diff`: the files of a sandbox, kept, multiplied and compared."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits, options
from pocket_dock_mcp.cli.console import Colour, Console, plain
from pocket_dock_mcp.cli.reaching import Reached, needing_snapshot, reaching
from pocket_dock_mcp.cli.tables import size_text
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.output import escaped

if TYPE_CHECKING:
    from pocket_dock_mcp.container.diffing import ChangeKind, FileChange, TreeDiff

_MARKS: dict[ChangeKind, tuple[str, Colour]] = {
    "modified": ("M", "yellow"),
    "created": ("A", "green"),
    "deleted": ("D", "red"),
}


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    keeping = commands.add_parser(
        "snapshot",
        help="keep the files of a sandbox as an image",
        description="Makes an image of the files of a sandbox; processes are not part of it. New sandboxes "
        "begin with them: pocket-dock create --image IMAGE.",
    )
    options.add_sandbox(keeping)
    keeping.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        help="its name, such as my-tools or my-tools:v2; without one, a snapshot (snap-...) that MCP clients "
        "see too, for create --snapshot; see pocket-dock snapshots",
    )
    keeping.set_defaults(run=snapshot)
    forking = commands.add_parser(
        "fork",
        help="make sandboxes with the files of another one",
        description="Makes sandboxes with the files and options of another one, each for itself from then "
        "on, and prints their names. Processes are not part of it.",
    )
    options.add_sandbox(forking)
    forking.add_argument(
        "--count", type=options.count, default=1, metavar="N", help="how many, at most 8; 1 if left out"
    )
    forking.set_defaults(run=fork)
    comparing = commands.add_parser(
        "diff",
        help="show which files of a sandbox have changed",
        description="Shows which files of a sandbox are not as they were when it began: A added, M modified, "
        "D deleted; and what has changed in text files. Exits with 0, changes or not.",
    )
    options.add_sandbox(comparing)
    comparing.add_argument("path", metavar="PATH", nargs="?", help="only this file or directory")
    comparing.add_argument("--since", metavar="SNAPSHOT", help="compare with a snapshot (snap-...) instead")
    comparing.add_argument("--names", action="store_true", help="only names, no changed lines")
    comparing.set_defaults(run=diff)


async def snapshot(arguments: argparse.Namespace, console: Console) -> int:
    """Keep it, and say as what."""
    from pocket_dock_mcp.async_.names import checked_image_name
    from pocket_dock_mcp.images.references import kept_as

    name = None if arguments.image is None else checked_image_name(arguments.image)
    async with reaching(arguments.sandbox) as reached:
        if name is None:
            _, made = await reached.manager.snapshot(reached.owner, reached.sandbox.id, "")
            name, image = made.id, made.image_id
        else:
            name = kept_as(name, reached.live.engine_info.kind)
            image = await reached.manager.save_as(reached.sandbox, name)
    if console.as_json:
        console.give({"name": name, "image_id": image})
    else:
        console.say(name)
    return exits.OK


async def fork(arguments: argparse.Namespace, console: Console) -> int:
    """Make them, and say how they are called."""
    async with reaching(arguments.sandbox) as reached:
        names = await _free_names(reached, arguments.count)
        _, made = await reached.manager.fork(reached.owner, reached.sandbox.id, arguments.count, names=names)
        found = [{"name": one.request.name, "sandbox_id": one.id} for one in made]
    if console.as_json:
        console.give(found)
    for one in () if console.as_json else found:
        console.say(one["name"])
    return exits.OK


async def _free_names(reached: Reached, count: int) -> list[str]:
    """Return names like that of the sandbox that no other has."""
    kept = await reached.manager.list_kept(reached.owner)
    taken = {name for one in kept for name in (one.kept.request.name, one.kept.container)}
    names: list[str] = []
    base, number = reached.name[:80], 1
    while len(names) < count:
        name = f"{base}-{number}"
        number += 1
        if name not in taken:
            names.append(name)
    return names


async def diff(arguments: argparse.Namespace, console: Console) -> int:
    """Show what has changed."""
    if arguments.since is not None and not arguments.since.startswith("snap-"):
        message = f"{plain(arguments.since)!r} is no snapshot."
        raise InvalidArgumentError(message, hint="Those of pocket-dock snapshot without IMAGE are: snap-...")
    async with (
        reaching(arguments.sandbox) as reached,
        needing_snapshot(reached.manager, reached.owner, arguments.since),
    ):
        _, found = await reached.manager.diff(
            reached.owner, reached.sandbox.id, since=arguments.since or "start", path=arguments.path
        )
    if console.as_json:
        console.give(_document(found))
        return exits.OK
    for change in found.changes:
        mark, colour = _MARKS[change.change]
        console.say(f"{console.paint(mark, colour)} {_line(change, console)}")
    if not arguments.names:
        _show_lines(found.diff, console)
    for remark in _remarks(found):
        console.note(f"pocket-dock: {remark}")
    return exits.OK


def _line(change: FileChange, console: Console) -> str:
    from pocket_dock_mcp.container.diffing import BINARY, TOO_LARGE

    notes = [*map(plain, change.notes)]
    if not {BINARY, TOO_LARGE}.isdisjoint(notes):
        notes.append(size_text(change.size))
    return console.shown(change.path) + (f"  ({', '.join(notes)})" if notes else "")


def _show_lines(text: str, console: Console) -> None:
    if text:
        console.say()
    for line in text.splitlines():
        colour: Colour | None = {"+": "green", "-": "red", "@": "dim"}.get(line[:1])  # type: ignore[assignment]
        line_ = plain(line)
        console.say(line_ if colour is None else console.paint(line_, colour))


def _remarks(found: TreeDiff) -> list[str]:
    paths = ", ".join(escaped(path)[0] for path in found.unreadable_paths)
    counted = (
        (sum(found.counts) - len(found.changes), "changed paths are not shown; name one to see less at once"),
        (found.too_large, "changed files are too large to show their lines"),
        (found.unchecked, "files told as modified could not be compared in time"),
        (found.unreadable, f"paths may have changed, and the sandbox's user cannot read them: {paths}"),
        (found.too_deep, "directories are too deep to be compared"),
    )
    remarks = [f"{what} ({count})." for count, what in counted if count]
    return [*remarks, *(["Not all changed lines are shown: name a path."] if found.diff_truncated else [])]


def _document(found: TreeDiff) -> dict[str, object]:
    modified, created, deleted = found.counts
    return {
        "changes": [
            {
                "path": one.path,
                "change": one.change,
                "type": one.type,
                "size": one.size,
                "notes": list(one.notes),
            }
            for one in found.changes
        ],
        "counts": {"modified": modified, "created": created, "deleted": deleted},
        "diff": found.diff,
        "diff_truncated": found.diff_truncated,
        "too_large": found.too_large,
        "unchecked": found.unchecked,
        "unreadable": found.unreadable,
        "unreadable_paths": list(found.unreadable_paths),
        "too_deep": found.too_deep,
    }
