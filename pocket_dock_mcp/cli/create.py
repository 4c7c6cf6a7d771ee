"""`pocket-dock create`: a new sandbox, which stays until it is shut down or pruned."""

from __future__ import annotations

import argparse
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits, options
from pocket_dock_mcp.cli.console import Console, plain
from pocket_dock_mcp.cli.reaching import Reached, needing_snapshot
from pocket_dock_mcp.cli.steps import Steps

if TYPE_CHECKING:
    from pocket_dock_mcp.async_.host import Host


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "create",
        help="make a sandbox and print its name",
        description="Makes a sandbox and prints its name. It runs until it is shut down, whatever becomes of "
        "this command. The image is built first if that has not been done yet.",
    )
    parser.add_argument("--name", help="what it is called; pd- and eight digits if left out")
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said of a new sandbox, but for its name."""
    base = parser.add_argument_group("what it begins with").add_mutually_exclusive_group()
    base.add_argument("--profile", help="the name of a profile: minimal if left out; see profiles")
    base.add_argument("--image", metavar="REFERENCE", help="an image that the engine has or can pull")
    base.add_argument("--snapshot", metavar="ID", help="a snapshot (snap-...); see pocket-dock snapshots")
    _add_limits(parser.add_argument_group("what it may use"))
    _add_outside(parser.add_argument_group("what it has of this machine"))
    _add_inside(parser.add_argument_group("what its programs have"))
    life = parser.add_argument_group("how long it lives")
    life.add_argument(
        "--persist", action="store_true", help="a shutdown only stops it, and prune leaves it, stopped or not"
    )
    life.add_argument(
        "--timeout", type=options.seconds, metavar="S", help="seconds that a run may take, unless it says so"
    )
    life.add_argument(
        "--idle-timeout", type=options.seconds, metavar="S", help="stop it when unused for so many seconds"
    )
    life.add_argument("--project", help="a name to list it by")
    life.add_argument(
        "--label", action="append", default=[], type=options.label, metavar="KEY=VALUE",
        help="on its container, for other tools; may be repeated",
    )  # fmt: skip


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--mem-limit", type=options.size, metavar="SIZE", help="memory, such as 256m or 2g")
    cpu = group.add_mutually_exclusive_group()
    cpu.add_argument("--cpu-percent", type=options.number, metavar="N", help="CPU time; 100 is one core")
    cpu.add_argument("--cpus", type=options.number, metavar="N", help="the same in cores: 0.5 is half of one")
    group.add_argument("--pids-limit", type=options.count, metavar="N", help="processes and threads at once")
    group.add_argument(
        "--disk-limit", type=options.size, metavar="SIZE", help="what it may write, such as 2g"
    )
    group.add_argument("--shm-size", type=options.size, metavar="SIZE", help="of /dev/shm, such as 64m")


def _add_outside(group: argparse._ArgumentGroup) -> None:
    options.add_network(group, "what it reaches; as the profile has it if left out")
    group.add_argument(
        "-p", "--port", action="append", default=[], type=options.port, metavar="[HOST:]CONTAINER",
        help="a port of this machine that leads to one in the sandbox, while pocket-dock forward runs; "
        "without HOST or with 0, a free one",
    )  # fmt: skip
    group.add_argument(
        "-v", "--volume", action="append", default=[], type=options.volume, metavar="HOST:CONTAINER[:ro]",
        help="a directory of this machine, below the project, this directory or POCKET_DOCK_HOST_ROOTS",
    )  # fmt: skip
    group.add_argument(
        "-d", "--device", action="append", default=[], type=options.device, metavar="DEVICE",
        help="a device of this machine, such as /dev/ttyUSB0",
    )  # fmt: skip


def _add_inside(group: argparse._ArgumentGroup) -> None:
    options.add_environment(group)
    group.add_argument(
        "--workdir",
        metavar="DIR",
        help="where its runs begin instead of the home directory, made if it is not there; relative to the "
        "home directory, unless it begins with /",
    )
    group.add_argument(
        "--user", type=options.uid, metavar="UID", help="whom all runs as; a random uid if left out"
    )


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Make it, and say what it is called."""
    async with made(arguments, console, name=arguments.name) as reached:
        name, sandbox_id = reached.live.name, reached.sandbox.id
    if console.as_json:
        console.give({"name": name, "sandbox_id": sandbox_id})
    else:
        console.say(name)
        console.note(f"To use it: pocket-dock run {name} COMMAND, or pocket-dock shell {name}")
        if arguments.port:
            console.note(f"Its ports are open while this runs: pocket-dock forward {name}")
    return exits.OK


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """Return options of a new sandbox, for a command that has few of them itself."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


@asynccontextmanager
async def made(
    arguments: argparse.Namespace, console: Console, *, name: str | None, stays: bool = True
) -> AsyncIterator[Reached]:
    """Make a sandbox as it was asked for. It is left running when the context ends, if it `stays`.

    Raises: what `create_new_container` raises.
    """
    from pocket_dock_mcp.async_ import create_new_container
    from pocket_dock_mcp.async_.host import host_for
    from pocket_dock_mcp.container.asked import ports_of
    from pocket_dock_mcp.outside import PortMapping
    from pocket_dock_mcp.projects import project_defaults

    host = host_for()
    async with _ending(host), host.working() as manager:
        wanted = _wanted(arguments)
        # Refused before there is anything that would have to be undone.
        ports = ports_of([PortMapping(inside, host) for host, inside in arguments.port])
        steps = Steps(console, plain(wanted["profile"] or wanted["image"] or host.settings.profile))
        async with AsyncExitStack() as stack:
            stack.enter_context(steps.shown_if_it_fails())
            await stack.enter_async_context(needing_snapshot(manager, host.owner, wanted["snapshot"]))
            container = await create_new_container(name=name, persist=stays, on_progress=steps.tell, **wanted)
        sandbox = manager.get(host.owner, container.sandbox_id)
        if sandbox.claim is not None:
            limit = None if arguments.timeout in (None, math.inf) else arguments.timeout
            is_meant_to_stay = arguments.persist or project_defaults().persist
            sandbox.request = replace(
                sandbox.request,
                disposable=not is_meant_to_stay,
                run_timeout_s=limit,
                ports=ports,
            )
            sandbox.claim.update(request=sandbox.request)
        console.clear()
        with sandbox.use() as live:
            yield Reached(manager, host.owner, sandbox, live)


def _distinct(ports: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    free = [pair for pair in ports if pair[0] == 0][:1]
    return [*(pair for pair in ports if pair[0]), *free]


@asynccontextmanager
async def _ending(host: Host) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await host.aclose()


def _wanted(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `create_new_container`.

    Raises:
        InvalidArgumentError: something is given twice, or a profile is none.
    """
    return {
        "profile": options.checked_profile(arguments.profile),
        "image": arguments.image,
        "snapshot": arguments.snapshot,
        "mem_limit": arguments.mem_limit,
        "cpu_percent": arguments.cpu_percent if arguments.cpus is None else arguments.cpus * 100,
        "pids_limit": arguments.pids_limit,
        "disk_limit": arguments.disk_limit,
        "shm_size": arguments.shm_size,
        "network": arguments.network,
        # A mapping has place for one free port; `made` puts all of them on record.
        "ports": options.once("port of this machine", _distinct(arguments.port)),
        "volumes": options.once("directory", arguments.volume),
        "devices": arguments.device,
        "env": options.once("variable", arguments.env),
        "workdir": arguments.workdir,
        "user": arguments.user,
        "idle_timeout": arguments.idle_timeout,
        "project": arguments.project,
        "labels": options.once("label", arguments.label),
    }
