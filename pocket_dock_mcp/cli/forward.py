"""`pocket-dock forward`: ports of this machine lead into a sandbox, for as long as the command runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Console, plain
from pocket_dock_mcp.errors import InvalidArgumentError, SandboxLostError

if TYPE_CHECKING:
    from pocket_dock_mcp.container.core import LiveContainer
    from pocket_dock_mcp.outside import PortMapping

_HIGHEST = 65_535


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "forward",
        help="have ports of this machine lead into a sandbox",
        description="Has ports of this machine lead to servers in a sandbox, which needs no network for it, "
        "until Ctrl-C. Prints where each is reached.",
    )
    parser.add_argument("sandbox", metavar="SANDBOX", help="its name or id")
    parser.add_argument(
        "ports",
        nargs="*",
        metavar="[HOST:]PORT",
        type=_pair,
        help="the sandbox's port, and which of this machine leads to it (a free one unless it is said); "
        "without any, those that the sandbox was created with",
    )
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="an address of this machine to be reached at (%(default)s); 0.0.0.0 lets other machines in, too",
    )
    parser.set_defaults(run=run)


def _pair(text: str) -> tuple[int, int]:
    """Return the host's port and the sandbox's."""
    host, _, inside = text.rpartition(":")
    numbers = [
        int(number) if number.isascii() and number.isdigit() else -1 for number in (host or "0", inside)
    ]
    if not 0 <= numbers[0] <= _HIGHEST or not 1 <= numbers[1] <= _HIGHEST:
        message = f"{text!r} is no port: say PORT or HOST:PORT, with numbers up to {_HIGHEST}"
        raise argparse.ArgumentTypeError(message)
    return numbers[0], numbers[1]


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Open them, say where, and wait."""
    from pocket_dock_mcp.cli.reaching import reaching
    from pocket_dock_mcp.outside import PortMapping

    wanted = [PortMapping(inside, host, arguments.address) for host, inside in arguments.ports]
    async with reaching(arguments.sandbox) as reached:
        opened = [await _opened(reached.live, mapping) for mapping in wanted] or reached.live.ports()
        if not opened:
            message = f"{reached.name} was created without ports, and none is named."
            raise InvalidArgumentError(message, hint="Say which: pocket-dock forward SANDBOX PORT")
        _tell(opened, console)
        # Whoever reads them from a pipe is waiting for them.
        if not console.finish():
            return exits.FAILED
        await reached.live.wait_lost()
    message = f"{plain(arguments.sandbox)} has ended or was stopped."
    raise SandboxLostError(message, hint="To see what there is: pocket-dock list")


async def _opened(live: LiveContainer, wanted: PortMapping) -> PortMapping:
    """Open a port, unless it is one that is opened for the sandbox anyway."""
    for mapping in live.ports():
        if (mapping.port, mapping.address) == (wanted.port, wanted.address) and wanted.host_port in (
            0,
            mapping.host_port,
        ):
            return mapping
    return await live.open_port(wanted.port, host_port=wanted.host_port, address=wanted.address)


def _tell(opened: list[PortMapping], console: Console) -> None:
    if console.as_json:
        console.give(
            [
                {"port": mapping.port, "address": mapping.address, "host_port": mapping.host_port}
                for mapping in opened
            ]
        )
        return
    for mapping in opened:
        console.say(f"{mapping.where} -> {mapping.port}")
    console.note("pocket-dock: open until Ctrl-C")
