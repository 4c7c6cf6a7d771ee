"""`pocket-dock logs`: what was run in a sandbox, and what it printed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Colour, Console, plain
from pocket_dock_mcp.cli.reaching import not_found
from pocket_dock_mcp.errors import InvalidArgumentError, RunNotFoundError

if TYPE_CHECKING:
    from pocket_dock_mcp.projects.runlog import RunLog

_KINDS = ("run", "stream", "detach", "session")
_HEADINGS = ("TIME", "RUN", "TYPE", "STATUS", "EXIT", "DURATION", "COMMAND")
_COLOURS: dict[str, Colour] = {"ok": "green", "running": "yellow", "unknown": "dim"}
_MAX_SHOWN = 60
"""Characters of a command in a table."""
_ID_SHOWN = 16
"""Digits of a run's id that tell it from all others; `logs NAME ID` takes how it begins."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A run on the log of a sandbox."""

    sandbox: str
    entry: dict[str, Any]
    log: RunLog


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "logs",
        help="show what was run in a sandbox, and what it printed",
        description="Shows what was run: in one sandbox, or without a name in all of this project (outside "
        "of projects, of all others). With the id of a run it prints that run's output.",
    )
    parser.add_argument("sandbox", nargs="?", metavar="SANDBOX", help="its name or id")
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="the id of a run, or how it begins")
    parser.add_argument(
        "--last", type=_count, default=10, metavar="N", help="how many runs are listed (default: 10; 0: all)"
    )
    parser.add_argument("--type", choices=_KINDS, help="only runs that were started so")
    parser.add_argument(
        "-f", "--follow", action="store_true",
        help="print the output of a run that goes on (the newest, if none is named) until it ends; Ctrl-C "
        "ends this, and not the run",
    )  # fmt: skip
    parser.add_argument("--stdout", action="store_true", help="only the output on stdout")
    parser.add_argument("--stderr", action="store_true", help="only the output on stderr")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        message = f"{text!r} is no number of runs"
        raise argparse.ArgumentTypeError(message)
    return int(text)


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """Show the history, or one run's output."""
    found = list(_logged(arguments.sandbox, arguments.type))
    if arguments.run_id is None and not arguments.follow:
        return _listed(found[-arguments.last :], console, is_one=arguments.sandbox is not None)
    if arguments.follow and arguments.sandbox is None:
        raise InvalidArgumentError("--follow needs the name of a sandbox.")
    from pocket_dock_mcp.cli.outputs import print_output

    chosen = _chosen(found, arguments.run_id)
    # None of both options is both.
    streams = [1] * arguments.stdout + [2] * arguments.stderr or [1, 2]
    return await print_output(chosen, console, streams, is_followed=arguments.follow)


def _logged(wanted: str | None, kind: str | None) -> Iterator[Logged]:
    """Return the runs on the logs of a sandbox, or of all of this project, oldest first.

    Raises:
        SandboxNotFoundError: nothing is known of a sandbox of this name.
        ConfigError: the configuration makes no sense.
    """
    from pocket_dock_mcp.manager.recording import histories_path
    from pocket_dock_mcp.projects import project_defaults
    from pocket_dock_mcp.projects.instances import instances_path, read_instance_metadata
    from pocket_dock_mcp.projects.runlog import RunLog, policy_of
    from pocket_dock_mcp.settings import Settings

    said, state_dir = project_defaults(), Settings.from_environ(os.environ).state_dir
    homes = [histories_path(state_dir)] if said.root is None else [instances_path(said.root)]
    if wanted is None:
        directories = sorted(path for home in homes for path in home.glob("*") if path.is_dir())
    else:
        directories = [_directory_of(wanted, [*homes, histories_path(state_dir)], state_dir)]
    found = []
    for directory in directories:
        log = RunLog(directory, policy_of(said.config))
        entries = [entry for entry in log.entries() if kind in (None, entry["type"])]
        metadata = read_instance_metadata(directory)
        may_go_on = metadata is None or metadata.persist
        found += [Logged(directory.name, _judged(entry, may_go_on=may_go_on), log) for entry in entries]
    yield from sorted(found, key=lambda logged: float(logged.entry["time"]))


def _directory_of(wanted: str, homes: Sequence[Path], state_dir: Path) -> Path:
    from pocket_dock_mcp.manager.records import KeptStore
    from pocket_dock_mcp.projects.instances import instance_path
    from pocket_dock_mcp.projects.roots import NAME

    names = [wanted] if NAME.fullmatch(wanted) else []
    for kept in KeptStore(state_dir / "sandboxes", is_quiet=True).records():
        request = kept.request
        if wanted in (kept.id, kept.container, request.name):
            names.append(kept.container)
            if request.project_root:
                homes = [instance_path(Path(request.project_root), kept.container).parent, *homes]
    for home in homes:
        for name in names:
            if (home / name).is_dir():
                return home / name
    hint = "Nothing is on the log of one of this name. To see what there is: pocket-dock logs"
    raise not_found(wanted, hint)


def _judged(entry: dict[str, Any], *, may_go_on: bool) -> dict[str, Any]:
    """Return an entry, of which nobody knows any more whether it goes on if that is so.

    A detached run does without who has begun it, in a container that does so, too (`may_go_on`).
    """
    from pocket_dock_mcp.projects.runlog import is_alive

    is_nobodys = not (may_go_on and entry["type"] == "detach") and not is_alive(entry.get("pid"))
    if entry.get("status") == "running" and is_nobodys:
        return {**entry, "status": "unknown"}
    return entry


def _chosen(found: Sequence[Logged], wanted: str | None) -> Logged:
    """Return the run that is meant: by its id or how that begins; without one, the newest that goes on.

    Raises:
        RunNotFoundError: there is none.
        InvalidArgumentError: it could be several.
    """
    if wanted is None:
        running = [one for one in found if one.entry.get("status") == "running"]
        if not running:
            raise _no_run("No run of this sandbox goes on.")
        return running[-1]
    begin = wanted.removeprefix("run-")
    matching = [one for one in found if begin and one.entry["id"].removeprefix("run-").startswith(begin)]
    exact = [one for one in matching if one.entry["id"] == wanted]
    if len(matching) > 1 and not exact:
        message = f"{len(matching)} runs begin with {wanted!r}."
        raise InvalidArgumentError(message, hint="Give more of its id.")
    if not matching:
        raise _no_run("There is no such run on the log.")
    return (exact or matching)[0]


def _no_run(message: str) -> RunNotFoundError:
    error = RunNotFoundError()
    error.message, error.hint = message, "To see what there is: pocket-dock logs SANDBOX"
    return error


def _listed(found: Sequence[Logged], console: Console, *, is_one: bool) -> int:
    if console.as_json:
        console.give([{"sandbox": one.sandbox, **one.entry} for one in found])
        return exits.OK
    if not found:
        console.note("pocket-dock: nothing is on the log")
        return exits.OK
    rows = [_HEADINGS, *(_row(one.entry) for one in found)]
    if not is_one:
        names = ["SANDBOX", *(plain(one.sandbox) for one in found)]
        rows = [(name, *row) for name, row in zip(names, rows, strict=True)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    status = _HEADINGS.index("STATUS") + (not is_one)
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        colour = _COLOURS.get(row[status], "red" if row is not rows[0] else None)
        cells[status] = console.paint(cells[status], colour) if colour else cells[status]
        console.say("  ".join(cells).rstrip())
    return exits.OK


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    import datetime

    moment = datetime.datetime.fromtimestamp(float(entry["time"])).astimezone()
    code, duration = entry.get("exit_code"), entry.get("duration_ms")
    command = plain(str(entry.get("command", "")))
    return (
        moment.strftime("%Y-%m-%d %H:%M:%S"),
        plain(entry["id"]).removeprefix("run-")[:_ID_SHOWN],
        entry["type"],
        plain(str(entry.get("status", "unknown"))),
        str(code) if isinstance(code, int) else "-",
        _duration(duration) if isinstance(duration, (int, float)) else "-",
        command if len(command) <= _MAX_SHOWN else f"{command[: _MAX_SHOWN - 3]}...",
    )


def _duration(milliseconds: float) -> str:
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
