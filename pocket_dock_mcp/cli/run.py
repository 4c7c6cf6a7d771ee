"""`pocket-dock run`: a program in a sandbox, as if it ran here: arguments, streams, signals, exit status."""

from __future__ import annotations

import argparse
import math
import shlex
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits, options
from pocket_dock_mcp.cli.console import Console
from pocket_dock_mcp.cli.reaching import Reached, reaching
from pocket_dock_mcp.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pocket_dock_mcp.async_.descriptors import Reader
    from pocket_dock_mcp.container.options import RunOptions

_MAX_SOURCE = 1024 * 1024


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        usage="pocket-dock run [options] SANDBOX [options] [--] COMMAND [ARGUMENT ...]",
        help="run a program in a sandbox; its exit status is ours",
        description="Runs a program in a sandbox. Several words are a program and its arguments, each passed "
        'exactly as it is; one word alone, such as "make | tail", is a shell command. Its output comes as it '
        "is written, byte by byte. It gets what is piped in, and signals: Ctrl-C once interrupts it, twice "
        "kills it. Options end at COMMAND: what follows belongs to the program.",
        epilog=exits.PROGRAM_TABLE,
    )
    parser.passes_on, parser.usage_status = 1, exits.NOT_RUN
    options.add_sandbox(parser)
    _add_options(parser)
    parser.set_defaults(run=run, command=[], status_of_errors=exits.NOT_RUN)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", type=options.seconds, metavar="S", help="kill it after so many seconds (none: no limit)"
    )
    parser.add_argument(
        "--max-output", type=options.size, metavar="SIZE", help="end it when it has written more, such as 10m"
    )
    parser.add_argument(
        "--lang",
        metavar="LANGUAGE",
        help="COMMAND is source in this language: python, javascript, bash or shell (/bin/sh); without "
        "COMMAND, it is read from standard input",
    )
    parser.add_argument(
        "--stream", action="store_true", help="pass output on as it comes; it always is, unless with --json"
    )
    parser.add_argument(
        "-d", "--detach", action="store_true", help="print the run's id and leave it running; see ps and kill"
    )
    parser.add_argument("--cwd", metavar="DIR", help="begin in this directory instead of the home directory")
    options.add_environment(parser)
    parser.add_argument(
        "--session", metavar="NAME", help="run it in a shell or interpreter that stays, made if there is none"
    )
    parser.add_argument(
        "-i", "--interactive", action="store_true", help="pass standard input on though it is a terminal"
    )
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal, as large as this one")


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run it, and end as it ended."""
    from pocket_dock_mcp.cli import running

    _check(arguments)
    reader = running.open_input(arguments)
    async with reaching(arguments.sandbox) as reached:
        code, reader = await _code(arguments, reader)
        wanted = _options(arguments, reached)
        job = running.Job(reached, console, arguments.max_output)
        if arguments.detach:
            return await job.left_running(code, wanted)
        if arguments.tty:
            return await job.on_terminal(code, wanted)
        if console.as_json:
            return await job.as_document(code, wanted, reader)
        return await job.passed_through(code, wanted, reader)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.lang is None and not arguments.command:
        message = "There is nothing to run."
        raise InvalidArgumentError(message, hint="Say what: pocket-dock run SANDBOX COMMAND")
    if arguments.lang is None:
        options.require_name(arguments.command)
    if arguments.lang is not None and len(arguments.command) > 1:
        message = "With --lang, the source is one argument."
        raise InvalidArgumentError(message, hint="Put quotes around it, or pipe it in.")
    for one, other in (("detach", "tty"), ("detach", "interactive"), ("json", "tty"), ("json", "stream")):
        if getattr(arguments, one) and getattr(arguments, other):
            message = f"--{one} and --{other} cannot both be."
            raise InvalidArgumentError(message)


async def _code(arguments: argparse.Namespace, reader: Reader | None) -> tuple[str, Reader | None]:
    """Return what is to be run, and what is left to be read by it."""
    words: list[str] = arguments.command
    if len(words) == 1:
        return words[0], reader
    if words:
        # In place of the shell: signals and the ending are the program's own.
        return ("" if arguments.session else "exec ") + shlex.join(words), reader
    source = b""
    while reader is not None and (piece := await reader.read()):
        source += piece
        if len(source) > _MAX_SOURCE:
            message = f"The source is longer than {_MAX_SOURCE} bytes."
            raise InvalidArgumentError(message, hint="Write it to a file in the sandbox, and run that.")
    if not source.strip():
        message = "There is no source: no COMMAND, and nothing is piped in."
        raise InvalidArgumentError(message, hint="Say what: pocket-dock run SANDBOX --lang python CODE")
    return source.decode("utf-8", "surrogateescape"), None


def _options(arguments: argparse.Namespace, reached: Reached) -> RunOptions:
    from pocket_dock_mcp.async_.commands import directory

    request = reached.sandbox.request
    limit = request.run_timeout_s if arguments.timeout is None else arguments.timeout
    return {
        "language": arguments.lang or "shell",
        "timeout_s": None if limit == math.inf else limit,
        "cwd": directory(request.workdir, arguments.cwd),
        "env": dict(arguments.env),
        "session": arguments.session,
    }
