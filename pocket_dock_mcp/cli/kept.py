"""`pocket-dock list`, `stop`, `resume`, `reboot`, `shutdown`, `destroy`, `prune`: the lives of sandboxes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Colour, Console, plain, told
from pocket_dock_mcp.cli.reaching import id_of, managing
from pocket_dock_mcp.cli.tables import age, moment, show_table
from pocket_dock_mcp.errors import PocketDockError

if TYPE_CHECKING:
    from pocket_dock_mcp.manager.core import Manager
    from pocket_dock_mcp.manager.persistence import KeptSandbox
    from pocket_dock_mcp.manager.sandbox import Owner

_COLOURS: dict[str, Colour] = {"running": "green", "stopped": "dim", "busy": "yellow", "gone": "red"}
_HEADINGS = ("NAME", "STATUS", "AGE", "IMAGE", "MEMORY", "PORTS", "SANDBOX")

Act = Callable[["Manager", "Owner", str, argparse.Namespace], Awaitable[str]]
"""Does something to a sandbox and returns what was done, in one word."""


@dataclass(frozen=True, slots=True)
class _Verb:
    """A command that does the same to each sandbox that is named."""

    name: str
    act: Act
    what: str
    asks: bool = False
    """Whether it asks before files go, if it can."""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    listing = commands.add_parser(
        "list",
        help="list the sandboxes",
        description="Lists the sandboxes that stay when their maker is gone: those of this command line, and "
        "those of SDK and MCP clients that persist.",
    )
    listing.add_argument("--project", help="only those of this project")
    listing.set_defaults(run=show)
    for verb in _VERBS:
        parser = commands.add_parser(verb.name, help=verb.what, description=f"{verb.what.capitalize()}.")
        parser.add_argument("sandboxes", nargs="+", metavar="SANDBOX", help="its name or id")
        parser.set_defaults(run=_each(verb))
    for verb, parser in ((verb, commands.choices[verb.name]) for verb in _VERBS):
        if verb.name == "reboot":
            parser.add_argument(
                "--fresh", action="store_true", help="with the files of its image instead of its own"
            )
        elif verb.asks:
            parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    pruning = commands.add_parser(
        "prune",
        help="destroy the sandboxes that are stopped",
        description="Destroys the sandboxes that are stopped, with their files, and forgets those whose "
        "containers are gone. Those made with --persist, or by an SDK or MCP client, stay unless --all is "
        "said; prune() of the SDK removes those, too.",
    )
    pruning.add_argument("-a", "--all", action="store_true", help="also those that persist")
    pruning.add_argument("--project", help="only those of this project")
    pruning.add_argument("-y", "--yes", action="store_true", help="do not ask")
    pruning.set_defaults(run=prune)


async def show(arguments: argparse.Namespace, console: Console) -> int:
    """List what there is."""
    async with managing() as (manager, owner):
        found = [one for one in await manager.list_kept(owner) if _is_of(one, arguments.project)]
    if not found:
        console.note(f"pocket-dock: {_nothing()}")
    if console.as_json:
        console.give([_document(one) for one in found])
        return exits.OK
    show_table(console, _HEADINGS, [_row(one) for one in found], _COLOURS)
    return exits.OK


def _is_of(one: KeptSandbox, project: str | None) -> bool:
    return project is None or one.kept.request.project == project


def _each(verb: _Verb) -> Callable[[argparse.Namespace, Console], Awaitable[int]]:
    async def run(arguments: argparse.Namespace, console: Console) -> int:
        """Do it to each, whatever becomes of the others."""
        results: list[dict[str, object]] = []
        async with managing() as (manager, owner):
            found = await manager.list_kept(owner)
            for wanted in arguments.sandboxes:
                try:
                    sandbox_id = id_of(wanted, found)
                    if verb.asks and not _is_sure(wanted, sandbox_id, found, arguments, console):
                        results.append({"sandbox": sandbox_id, "done": "nothing"})
                        continue
                    done = await verb.act(manager, owner, sandbox_id, arguments)
                except PocketDockError as error:
                    results.append({"sandbox": wanted, "error": {"code": error.code, "message": told(error)}})
                    console.note(f"pocket-dock: {plain(wanted) or repr(wanted)}: {told(error)}")
                else:
                    results.append({"sandbox": sandbox_id, "done": done})
                    if not console.as_json:
                        console.say(f"{done} {plain(wanted)}")
        if console.as_json:
            console.give(results)
        return (
            exits.OK
            if all(result.get("done", "nothing") != "nothing" for result in results)
            else exits.FAILED
        )

    return run


def _is_sure(
    wanted: str,
    sandbox_id: str,
    found: list[KeptSandbox],
    arguments: argparse.Namespace,
    console: Console,
) -> bool:
    """Ask whether files are to go, if there is somebody to ask."""
    goes = any(one.kept.id == sandbox_id and one.kept.request.disposable for one in found)
    if not goes or arguments.yes or sys.stdin is None or not sys.stdin.isatty():
        return True
    console.note(f"Remove {plain(wanted)}, with its files? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def prune(arguments: argparse.Namespace, console: Console) -> int:
    """Destroy what is stopped, if it is meant."""
    async with managing() as (manager, owner):
        found = [one for one in await manager.list_kept(owner) if _is_prunable(one, arguments)]
        if found and not arguments.yes and not _is_meant(found, console):
            if console.as_json:
                console.give([{**_document(one), "destroyed": False} for one in found])
            return exits.FAILED
        for one in found:
            await manager.kill(owner, one.kept.id)
            if not console.as_json:
                console.say(f"destroyed {_name(one)}")
    if console.as_json:
        console.give([{**_document(one), "destroyed": True} for one in found])
    elif not found:
        console.say("No sandbox is stopped that may go.")
    return exits.OK


def _is_prunable(one: KeptSandbox, arguments: argparse.Namespace) -> bool:
    if one.status == "running" or one.busy or not _is_of(one, arguments.project):
        return False
    return arguments.all or one.status == "gone" or one.kept.request.disposable


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


async def _stop(manager: Manager, owner: Owner, sandbox_id: str, _arguments: argparse.Namespace) -> str:
    await manager.stop(owner, sandbox_id)
    return "stopped"


async def _resume(manager: Manager, owner: Owner, sandbox_id: str, _arguments: argparse.Namespace) -> str:
    # It is left running when we end.
    await manager.open(owner, sandbox_id)
    return "resumed"


async def _reboot(manager: Manager, owner: Owner, sandbox_id: str, arguments: argparse.Namespace) -> str:
    sandbox = await manager.open(owner, sandbox_id)
    with sandbox.use() as live:
        await live.reboot(fresh=arguments.fresh)
    return "rebooted"


async def _destroy(manager: Manager, owner: Owner, sandbox_id: str, _arguments: argparse.Namespace) -> str:
    await manager.kill(owner, sandbox_id)
    return "destroyed"


async def _shut_down(manager: Manager, owner: Owner, sandbox_id: str, _arguments: argparse.Namespace) -> str:
    found = [one for one in await manager.list_kept(owner) if one.kept.id == sandbox_id]
    if found and not found[0].kept.request.disposable and found[0].status != "gone":
        await manager.stop(owner, sandbox_id)
        return "stopped"
    await manager.kill(owner, sandbox_id)
    return "removed"


_VERBS: tuple[_Verb, ...] = (
    _Verb("stop", _stop, "stop a sandbox: its processes end, its files stay"),
    _Verb("resume", _resume, "start a stopped sandbox again, with its files"),
    _Verb("reboot", _reboot, "end all processes of a sandbox and begin again, with its files"),
    _Verb(
        "shutdown",
        _shut_down,
        "end a sandbox: with its files, unless it was made with --persist, which is only stopped",
        asks=True,
    ),
    _Verb("destroy", _destroy, "end a sandbox for good, with its files, whatever it was made with"),
)


def _name(one: KeptSandbox) -> str:
    return plain(one.kept.request.name or one.kept.container)


def _row(one: KeptSandbox) -> tuple[str, ...]:
    request = one.kept.request
    return (
        _name(one),
        "busy" if one.busy else one.status,
        age(time.time() - one.kept.created),
        plain(request.snapshot or request.image),
        f"{request.limits.memory_bytes // 1024 // 1024} MiB",
        ",".join(_ports(one)) or "-",
        one.kept.id,
    )


def _ports(one: KeptSandbox) -> list[str]:
    """Return which ports of this machine lead into it, while a command or a client holds them open."""
    return [f"{mapping.host_port or '*'}->{mapping.port}" for mapping in one.kept.request.ports]


def _document(one: KeptSandbox) -> dict[str, object]:
    request = one.kept.request
    return {
        "sandbox_id": one.kept.id,
        "name": request.name or one.kept.container,
        "status": one.status,
        "busy": one.busy,
        "image": request.snapshot or request.image,
        "container": one.kept.container,
        "limits": asdict(request.limits),
        "network": request.network,
        "persist": not request.disposable,
        "project": request.project,
        "ports": _ports(one),
        "created": moment(one.kept.created),
    }
